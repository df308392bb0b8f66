"""Sampling orders: which unknown cells are revealed first."""
