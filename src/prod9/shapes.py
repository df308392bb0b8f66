"""Shapes of the tensors that travel between modules, as jaxtyping aliases.

Axes: ``b`` batch, ``c`` channels, ``d h w`` voxels, ``gd gh gw`` cells of the token grid,
``l`` latent channels (one per FSQ level), ``v`` codebook size. Volumes hold intensities in [0, 1].
"""

from typing import TypeAlias

from jaxtyping import Float, Int64
from torch import Tensor

MAX_VOXELS = 1 << 31
"""Of one volume; what claims more is refused unread."""

Volume: TypeAlias = Float[Tensor, "b c d h w"]
Latent: TypeAlias = Float[Tensor, "b l *grid"]
Codes: TypeAlias = Float[Tensor, "b l *grid"]
Tokens: TypeAlias = Int64[Tensor, "b *grid"]
Logits: TypeAlias = Float[Tensor, "b *grid v"]
Labels: TypeAlias = Int64[Tensor, " b"]
