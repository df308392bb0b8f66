"""Figures on trained models."""
