"""The demonstration: everything, once, on a laptop."""
