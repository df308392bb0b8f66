"""Masked transformer over a 3D token grid (MaskGIT, Chang et al. 2022).

Bidirectional, with adaLN-zero conditioning (Peebles & Xie 2023), QK-norm, rotary positions in
three axes, and p x p x p tokens packed into one position (``patch_size``). Masking stays per token:
every token is embedded, masked and predicted on its own, packing only shortens the sequence.
"""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from prod9.networks.activation_checkpointing import Checkpointed
from prod9.networks.condition import Condition
from prod9.networks.cpu_kernels.linear import Linear
from prod9.networks.cpu_kernels.norm_rotate import NormRotate
from prod9.networks.embedding import SourceEmbedding, TokenEmbedding
from prod9.networks.heads import Head
from prod9.networks.local import LocalBlock
from prod9.networks.rotary import fourier_features, relative_place, rotary_angles
from prod9.registry import HEADS
from prod9.shapes import Logits, Tokens

_FOURIER_BANDS = 6


class Attention(nn.Module):
    """Multi-head self-attention with normalised queries and keys, turned by their positions."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.dropout = num_heads, dim // num_heads, dropout
        self.qkv = Linear(dim, 3 * dim)
        self.q_norm = NormRotate(self.head_dim)
        self.k_norm = NormRotate(self.head_dim)
        self.out = Linear(dim, dim)

    def forward(self, x: Float[Tensor, "b n c"], cos: Tensor, sin: Tensor) -> Tensor:
        b, n, c = x.shape
        qkv = self.qkv(x).view(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)  # each (B, heads, N, head_dim)
        q, k = self.q_norm(q, cos, sin), self.k_norm(k, cos, sin)
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        return self.out(attended.transpose(1, 2).reshape(b, n, c))


class Block(Checkpointed):
    """Attention and MLP, each shifted, scaled and gated by the condition; starts as identity."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, elementwise_affine=False)
        self.attention = Attention(dim, num_heads, dropout)
        self.norm2 = nn.LayerNorm(dim, elementwise_affine=False)
        hidden = int(dim * mlp_ratio)
        self.mlp = nn.Sequential(
            Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout), Linear(hidden, dim)
        )
        self.modulation = Linear(dim, 6 * dim)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(
        self, x: Float[Tensor, "b n c"], condition: Float[Tensor, "b c"], cos: Tensor, sin: Tensor
    ) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(condition)[:, None].chunk(
            6, -1
        )  # each (B, 1, C)
        x = x + gate1 * self.attention(self.norm1(x) * (1 + scale1) + shift1, cos, sin)
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)


class MaskedTransformer(nn.Module):
    """Predict every token of a partly masked grid.

    Args:
        levels: FSQ levels of the tokenizer; the codebook size V is their product and the mask id
            is V, in training as in sampling.
        num_classes: classes; label ``num_classes`` is the null class.
        num_sources: modalities that may be given as sources; 0 for none.
        grid: cells of the training volumes. Places are told relative to it, so that a window of a
            volume knows where in the volume it lies.
        hidden_dim, num_blocks, num_heads, mlp_ratio, dropout: the usual sizes.
        patch_size: p^3 tokens per position. Grids need not divide by p: they are padded with
            cells that carry no token and are cut off again.
        token_dim: width per token before packing and after unpacking.
        local_blocks: convolutional blocks at full token resolution, before packing and again
            after unpacking.
        head: a name of :data:`prod9.registry.HEADS`.
    """

    def __init__(
        self,
        *,
        levels: Sequence[int],
        num_classes: int,
        num_sources: int,
        grid: Sequence[int],
        hidden_dim: int,
        num_blocks: int,
        num_heads: int,
        patch_size: int,
        mlp_ratio: float,
        dropout: float,
        token_dim: int,
        local_blocks: int,
        head: str,
    ) -> None:
        super().__init__()
        self.head: Head = HEADS.get(head)(token_dim, levels)
        self.codebook_size = self.mask_id = math.prod(levels)
        self.num_classes = self.null_label = num_classes
        self.patch_size, self.head_dim = patch_size, hidden_dim // num_heads
        self.grid = tuple(grid)
        packed = token_dim * patch_size**3

        self.token_embedding = TokenEmbedding(token_dim, levels)
        self.pack = Linear(packed, hidden_dim)
        self.place = Linear(6 * _FOURIER_BANDS, hidden_dim)
        self.class_embedding = nn.Embedding(num_classes + 1, hidden_dim)
        self.blocks = nn.ModuleList(
            Block(hidden_dim, num_heads, mlp_ratio, dropout) for _ in range(num_blocks)
        )
        self.norm = nn.LayerNorm(hidden_dim, elementwise_affine=False)
        self.modulation = Linear(hidden_dim, 2 * hidden_dim)
        self.unpack = Linear(hidden_dim, packed)
        self.local_in = nn.Sequential(*[LocalBlock(token_dim) for _ in range(local_blocks)])
        self.local_out = nn.Sequential(*[LocalBlock(token_dim) for _ in range(local_blocks)])
        # The residual stream is unbounded; without this, single steps had losses of 90 nats.
        self.out_norm = nn.LayerNorm(token_dim)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        # Last, so that weights drawn before do not depend on it.
        self.source_embedding = SourceEmbedding(token_dim, num_sources) if num_sources else None
        # A window must be told its place, and tokens as they come from the local blocks are a
        # hundred times louder. (A whole grid hears its own borders.)
        self.pack_norm = nn.LayerNorm(hidden_dim) if num_sources else nn.Identity()

    def features(self, tokens: Tokens, condition: Condition) -> Float[Tensor, "b gd gh gw f"]:
        """Return a feature per token, which :attr:`head` turns into logits.

        Args:
            tokens: ids in [0, V], V being the mask id, shape (B, gd, gh, gw), any grid.
            condition: one class per sample; sources over the same grid, if the network has them.
        """
        b, *grid = tokens.shape
        p = self.patch_size
        table = self.token_embedding.table()
        embedded = F.embedding(tokens, table)  # (B, gd, gh, gw, F)
        if self.source_embedding is not None and condition.sources is not None:
            embedded = embedded + self.source_embedding(condition.sources, table)
        embedded = self.local_in(embedded)
        local = embedded
        padding = [(-side) % p for side in grid]
        if any(padding):
            embedded = F.pad(embedded, (0, 0, 0, padding[2], 0, padding[1], 0, padding[0]))
        cells = [(side + pad) // p for side, pad in zip(grid, padding, strict=True)]
        coarse = (cells[0], cells[1], cells[2])
        d, h, w = coarse
        # (B, d p, h p, w p, F) -> (B, d h w, p p p F)
        x = embedded.view(b, d, p, h, p, w, p, -1).permute(0, 1, 3, 5, 2, 4, 6, 7)
        x = self.pack_norm(self.pack(x.reshape(b, d * h * w, -1)))
        place = relative_place(coarse, p, self.grid, condition.origin, x.device)
        x = x + self.place(fourier_features(place, _FOURIER_BANDS))
        angles = rotary_angles(coarse, self.head_dim, x.device)
        cos, sin = angles.cos(), angles.sin()
        c = F.silu(self.class_embedding(condition.labels))
        for block in self.blocks:
            x = block(x, c, cos, sin)
        shift, scale = self.modulation(c)[:, None].chunk(2, -1)
        x = self.unpack(self.norm(x) * (1 + scale) + shift)
        # (B, d h w, p p p F) -> (B, d p, h p, w p, F), cut to the grid
        x = x.view(b, d, h, w, p, p, p, -1).permute(0, 1, 4, 2, 5, 3, 6, 7)
        x = x.reshape(b, d * p, h * p, w * p, -1)
        x = x[:, : grid[0], : grid[1], : grid[2]]
        return self.out_norm(self.local_out(x + local))

    def forward(self, tokens: Tokens, condition: Condition) -> Logits:
        """Return logits over the V codes for every cell, shape (B, gd, gh, gw, V)."""
        return self.head(self.features(tokens, condition))

    def loss(
        self,
        masked: Tokens,
        mask: Bool[Tensor, "b gd gh gw"],
        targets: Tokens,
        condition: Condition,
        label_smoothing: float,
    ) -> tuple[Float[Tensor, ""], Bool[Tensor, " m"]]:
        """Cross-entropy over the M masked cells only, and which of them are predicted right.

        The head runs on masked cells alone, which is all that the loss needs.
        """
        features = self.features(masked, condition)[mask]
        return self.head.loss(features, targets[mask], label_smoothing)
