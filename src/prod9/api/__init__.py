"""The Python API: trained models applied to paths, arrays and images; see ``docs/api.md``."""
