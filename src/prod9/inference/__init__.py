"""Trained models applied to files."""
