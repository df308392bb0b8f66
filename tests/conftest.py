"""Shapes and types are checked at run time, in tests only."""

from hypothesis import settings
from jaxtyping import install_import_hook

# Two busy cores make any deadline a coin toss; a slow test is pytest's business, not hypothesis'.
settings.register_profile("prod9", deadline=None)
settings.load_profile("prod9")

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
