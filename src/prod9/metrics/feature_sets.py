"""Sets of feature vectors, as the distances of sets take them."""

from jaxtyping import Float, Float64
from torch import Tensor

Vectors = Float[Tensor, "_n d"]
Vectors64 = Float64[Tensor, "_n d"]


def checked(x: Vectors, y: Vectors, least: int) -> tuple[Vectors64, Vectors64]:
    """Return both sets in fp64.

    Raises:
        ValueError: fewer than ``least`` vectors, vectors of different lengths, NaN or infinity.
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or x.shape[1] == 0:
        raise ValueError(f"features of {[*x.shape]} and {[*y.shape]} do not compare")
    if min(len(x), len(y)) < least:
        raise ValueError(f"at least {least} vectors a set are needed, not {len(x)} and {len(y)}")
    if not (x.isfinite().all() and y.isfinite().all()):
        raise ValueError("features have NaN or infinite values")
    return x.double(), y.double()
