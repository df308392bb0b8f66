"""Pages to look at: the report, and the viewer of volumes."""
