"""Training data as tokens."""
