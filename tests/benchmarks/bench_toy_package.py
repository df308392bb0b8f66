"""Stands for a rival's package that takes much memory just to be imported."""

WEIGHT = bytearray(b"x") * (80 * 2**20)
