"""Sets of volumes for evaluation."""
