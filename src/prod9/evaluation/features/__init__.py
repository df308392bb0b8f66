"""Feature spaces in which sets of volumes are compared."""
