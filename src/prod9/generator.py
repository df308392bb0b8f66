"""Tokenizer + transformer + sampler settings = a generator of volumes; and its file."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import ValidationError
from torch import Tensor

from prod9 import __version__
from prod9.config.base import Section
from prod9.config.model import TransformerConfig
from prod9.config.sampler import SamplerConfig
from prod9.errors import UserError
from prod9.guidance import guided
from prod9.models.condition import Condition
from prod9.models.transformer import MaskedTransformer
from prod9.plain import read_export, write_plain
from prod9.sampling import sample
from prod9.shapes import Tokens
from prod9.tokenizer import Tokenizer, digest_of

_KIND = "prod9-transformer"
_MADE_BY = "prod9-train-transformer train"


class TransformerSpec(Section):
    """What a transformer's weights are for, as plain data."""

    format_version: Literal[1] = 1
    prod9_version: str = __version__
    transformer: TransformerConfig
    levels: tuple[int, ...]
    class_names: tuple[str, ...]
    tokenizer_digest: str
    config_yaml: str
    """The resolved Stage 2 configuration."""


def build_transformer(
    config: TransformerConfig, levels: tuple[int, ...], num_classes: int
) -> MaskedTransformer:
    """Make the untrained network of a configuration."""
    return MaskedTransformer(
        levels=levels,
        num_classes=num_classes,
        hidden_dim=config.hidden_dim,
        num_blocks=config.num_blocks,
        num_heads=config.num_heads,
        patch_size=config.patch_size,
        mlp_ratio=config.mlp_ratio,
        dropout=config.dropout,
        token_dim=config.token_dim,
        local_blocks=config.local_blocks,
        head=config.head,
    )


def draw_tokens(
    transformer: MaskedTransformer,
    labels: Tensor,
    grid: tuple[int, int, int],
    config: SamplerConfig,
    generator: torch.Generator,
) -> Tokens:
    """Draw one token grid for each class index in ``labels`` (B,), from nothing but the class."""
    condition = Condition(labels, transformer.null_label)
    empty = torch.full((len(labels), *grid), transformer.mask_id, device=labels.device)
    return sample(
        guided(transformer, condition, config.guidance_scale, config.guidance_schedule),
        empty,
        mask_id=transformer.mask_id,
        order=config.order,
        steps=config.steps,
        schedule=config.scheduler_type,
        temperature=config.temperature,
        choice_temperature=config.choice_temperature,
        generator=generator,
    )


@dataclass(frozen=True)
class Generator:
    """Everything that it takes to draw volumes."""

    tokenizer: Tokenizer
    transformer: MaskedTransformer
    spec: TransformerSpec

    @property
    def digest(self) -> str:
        """SHA-256 over the transformer's spec and weights."""
        return digest_of(self.spec, self.transformer.state_dict())

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their labels."""
        return self.spec.class_names

    def generate(
        self,
        labels: Tensor,
        config: SamplerConfig,
        seed: int,
        *,
        batch_size: int,
        on_batch: Callable[[int], None] = lambda done: None,
    ) -> tuple[Tokens, Tensor]:
        """Draw one volume for each class index in ``labels`` (N,).

        The same labels, settings, seed and batch size give the same volumes on the same machine.

        Returns:
            Tokens (N, *grid) and volumes (N, 1, D, H, W) in [0, 1], on the CPU.

        """
        device = next(self.transformer.parameters()).device
        tokens: list[Tensor] = []
        volumes: list[Tensor] = []
        for start in range(0, len(labels), batch_size):
            part = labels[start : start + batch_size].to(device)
            stream = torch.Generator(device).manual_seed((seed << 24) + start)
            drawn = draw_tokens(self.transformer, part, self.tokenizer.grid(), config, stream)
            volumes.append(self.tokenizer.decode(drawn, self.tokenizer.spec.volume_shape).cpu())
            tokens.append(drawn.cpu())
            on_batch(len(part))
        return torch.cat(tokens), torch.cat(volumes)


def save_transformer(path: Path, spec: TransformerSpec, transformer: MaskedTransformer) -> None:
    """Write the transformer as one file of plain data, whole or not at all."""
    content = {
        "kind": _KIND,
        "spec": spec.model_dump(mode="json"),
        "weights": {k: v.detach().cpu() for k, v in transformer.state_dict().items()},
        "digest": digest_of(spec, transformer.state_dict()),
    }
    write_plain(path, content)


def load_generator(
    transformer_path: Path, tokenizer: Tokenizer, device: torch.device | str = "cpu"
) -> Generator:
    """Read a transformer and join it with the tokenizer that it was trained on.

    Raises:
        UserError: missing, torn or foreign file; trained on another tokenizer.

    """
    content = read_export(transformer_path, kind=_KIND, made_by=_MADE_BY)
    try:
        spec = TransformerSpec.model_validate_json(json.dumps(content["spec"]))
        transformer = build_transformer(spec.transformer, spec.levels, len(spec.class_names))
        transformer.load_state_dict(content["weights"])
    except (KeyError, TypeError, ValidationError, RuntimeError) as error:
        raise UserError(
            f"{transformer_path} is not a transformer that prod9 {__version__} can read "
            f"({type(error).__name__}); train it again with this version."
        ) from error
    if digest_of(spec, transformer.state_dict()) != content.get("digest"):
        raise UserError(
            f"{transformer_path} is damaged: its weights do not match its digest; copy it again "
            f"from where it came, or run `{_MADE_BY}` again."
        )
    if spec.tokenizer_digest != tokenizer.digest:
        raise UserError(
            f"{transformer_path} was trained on the tokenizer {spec.tokenizer_digest[:12]}, but "
            f"autoencoder_path holds {tokenizer.digest[:12]}; point autoencoder_path at the "
            f"tokenizer that it was trained on, or run `{_MADE_BY}` again."
        )
    return Generator(tokenizer, transformer.eval().requires_grad_(False).to(device), spec)
