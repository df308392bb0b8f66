"""BraTS folders of any year."""
