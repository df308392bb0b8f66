"""Data sets, volumes on disk and batches; imports no network."""
