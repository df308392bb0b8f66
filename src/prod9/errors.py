"""Mistakes that a user can mend."""


class UserError(Exception):
    """One clear sentence: what is wrong, where (file, key, line, case), and what to do.

    The console scripts print the message alone, without a traceback, and leave with exit code 2.
    """
