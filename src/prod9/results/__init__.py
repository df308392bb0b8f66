"""The layout of what is measured: metrics.json and sweep.json."""
