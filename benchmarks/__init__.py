"""Speed beside rivals, in the same run. ``python -m benchmarks [NAME]``."""
