"""The user's volumes as files."""
