"""Any folder of scans as a data set."""
