"""Semi-synthetic BraTS cohorts from the MNI152 template."""
