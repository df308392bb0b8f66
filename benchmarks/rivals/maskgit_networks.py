"""Transformers over tokens as users of PyTorch, diffusers and MONAI build and train them."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_UNMASKED = -100
"""``F.cross_entropy`` leaves such targets out."""


@dataclass(frozen=True)
class Size:
    """What every network of a comparison shares."""

    tokens: int
    codes: int
    classes: int
    width: int
    blocks: int
    heads: int
    mlp_ratio: float
    token_dim: int

    @property
    def mask_id(self) -> int:
        """The id after the last code: the mask, or what an autoregressive sequence begins with."""
        return self.codes


class EncoderNetwork(nn.Module):
    """``nn.TransformerEncoder`` between an embedding and a linear head.

    Pre-norm and GELU as masked transformers have them; learned positions; the class is added to
    every position. Parameters start as PyTorch starts them.
    """

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.tokens = nn.Embedding(size.codes + 1, size.width)
        self.positions = nn.Parameter(0.02 * torch.randn(1, size.tokens, size.width))
        self.classes = nn.Embedding(size.classes + 1, size.width)
        layer = nn.TransformerEncoderLayer(
            size.width,
            size.heads,
            int(size.width * size.mlp_ratio),
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.encoder = nn.TransformerEncoder(
            layer, size.blocks, norm=nn.LayerNorm(size.width), enable_nested_tensor=False
        )
        self.head = nn.Linear(size.width, size.codes)

    def forward(self, tokens: Tensor, labels: Tensor) -> Tensor:
        """Tokens (B, N) and labels (B,) -> logits (B, N, V)."""
        x = self.tokens(tokens) + self.positions + self.classes(labels)[:, None]
        return self.head(self.encoder(x))


def rectangle(cells: int) -> tuple[int, int]:
    """Return the factors (height, width) of ``cells`` that are nearest to a square."""
    height = next(h for h in range(math.isqrt(cells), 0, -1) if cells % h == 0)
    return height, cells // height


class UVitNetwork(nn.Module):
    """aMUSEd's ``UVit2DModel`` over as many positions, laid out as a 2D grid.

    Nearest equal size: same width, layers and heads; the MLP keeps the model's own ratio (2.75 of
    the width, gated: three products where a plain MLP of ratio 4 has two, as many weights). Its
    convolutional ends are as wide as prod9's tokens, with one block each instead of aMUSEd's three.
    The class is its text: one vector to attend to, and pooled; one micro-condition is its least.
    """

    def __init__(self, size: Size) -> None:
        super().__init__()
        from diffusers import UVit2DModel

        self.grid = rectangle(size.tokens)
        self.classes = nn.Embedding(size.classes + 1, size.width)
        micro = 256
        self.network = UVit2DModel(
            hidden_size=size.width,
            num_hidden_layers=size.blocks,
            num_attention_heads=size.heads,
            intermediate_size=size.width * 2816 // 1024,
            encoder_hidden_size=size.width,
            cond_embed_dim=size.width,
            micro_cond_encode_dim=micro,
            micro_cond_embed_dim=micro,
            vocab_size=size.codes + 1,
            codebook_size=size.codes,
            in_channels=size.token_dim,
            block_out_channels=size.token_dim,
            num_res_blocks=1,
            block_num_heads=1,
            sample_size=max(self.grid),
        )

    def forward(self, tokens: Tensor, labels: Tensor) -> Tensor:
        """Tokens (B, N) and labels (B,) -> logits (B, N, V)."""
        told = self.classes(labels)
        logits = self.network(
            tokens.view(-1, *self.grid),
            encoder_hidden_states=told[:, None],
            pooled_text_emb=told,
            micro_conds=torch.zeros(len(tokens), 1, device=tokens.device),
        )  # (B, V, H, W)
        return logits.flatten(2).transpose(1, 2)


def decoder_only(size: Size) -> nn.Module:
    """MONAI's ``DecoderOnlyTransformer``, with PyTorch's fused attention (not its default).

    A causal network (B, N) -> (B, N, V + 1), whose extra token begins every sequence. Not told the
    class, as in MONAI's tutorials: its way of telling is a cross-attention in every block.
    """
    from monai.networks.nets import DecoderOnlyTransformer

    return DecoderOnlyTransformer(
        num_tokens=size.codes + 1,
        max_seq_len=size.tokens,
        attn_layers_dim=size.width,
        attn_layers_depth=size.blocks,
        attn_layers_heads=size.heads,
        use_flash_attention=True,
    )


def mask_some(tokens: Tensor, mask_id: int) -> tuple[Tensor, Tensor]:
    """Mask cos(pi r / 2) of each sample's tokens, r ~ U(0, 1); return input and targets, (B, N)."""
    share = torch.cos(math.pi / 2 * torch.rand(len(tokens), 1))
    count = (share * tokens.shape[1]).round().clamp_min(1)
    mask = torch.rand(tokens.shape).argsort(1) < count
    return tokens.masked_fill(mask, mask_id), tokens.masked_fill(~mask, _UNMASKED)


def masked_loss(network: nn.Module, tokens: Tensor, labels: Tensor, mask_id: int) -> Tensor:
    """Cross-entropy over the masked tokens, of logits over all, as aMUSEd's training script."""
    given, targets = mask_some(tokens, mask_id)
    logits = network(given, labels)
    return F.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), targets.view(-1), ignore_index=_UNMASKED
    )


def next_token_loss(network: nn.Module, tokens: Tensor, begin: int) -> Tensor:
    """Cross-entropy of every token given those before it, as MONAI's tutorial has it."""
    given = F.pad(tokens, (1, 0), value=begin)[:, :-1]
    return F.cross_entropy(network(given).transpose(1, 2), tokens)


def training_step(
    network: nn.Module, loss: Callable[[], Tensor], learning_rate: float = 1e-4
) -> Callable[[], Tensor]:
    """Return a function that takes one step of the usual loop."""
    network.train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate)

    def step() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        return value.detach()

    return step
