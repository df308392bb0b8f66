"""Mistakes that a user can mend."""


class Prod9Error(Exception):
    """One clear sentence: what is wrong, where (file, key, line, case), and what to do.

    The console scripts print the message alone, without a traceback, and leave with exit code 2.
    """
