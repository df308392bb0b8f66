"""Shapes and types are checked at run time, in tests only."""

import os

from hypothesis import settings
from jaxtyping import install_import_hook

# Tests that run side by side (pytest -n) share the cores; read by torch when it is imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Two busy cores make any deadline a coin toss; a slow test is pytest's business, not hypothesis'.
# The same examples each time: a test that fails does so for everyone. For others there are
# `make fuzz` and `pytest --hypothesis-profile=others`.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("others", deadline=None)
settings.load_profile("same")

# Not the whole of prod9: beartype 0.23 cannot read `-> Self` in pydantic's models.
_CHECKED = [
    f"prod9.{name}"
    for name in (
        "data",
        "fsq",
        "generator",
        "guidance",
        "losses",
        "masking",
        "metrics",
        "models",
        "outpainting",
        "sampling",
        "tokenizer",
        "training",
        "windows",
    )
]
install_import_hook(_CHECKED, "beartype.beartype")
