"""Configuration -> objects: the only factory."""
