"""Tokenizer + transformer + sampler settings = a generator of volumes; and its file."""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from prod9 import __version__
from prod9.coarse import coarse_sides, empty_cells, shown_by, source_of
from prod9.config.base import Section
from prod9.config.channels import meaning_of
from prod9.config.model import TransformerConfig
from prod9.config.sampler import SlidingWindowConfig
from prod9.errors import Prod9Error
from prod9.label_codes import part_names
from prod9.networks.condition import Condition
from prod9.networks.transformer import MaskedTransformer
from prod9.outpainting import OnWindow, centred, draw_tokens
from prod9.sample_request import SampleRequest
from prod9.shapes import Tokens
from prod9.sliding_window import decode
from prod9.tokenizer import ClassName, Sides, Tokenizer
from prod9.torch_files import digest_of, fitted, read_export, write_export


class CovariateSpec(Section):
    """A covariate, see :class:`prod9.data.dataset.Covariate`."""

    name: ClassName
    categories: tuple[ClassName, ...] = ()
    mean: float = 0.0
    std: float = 1.0


class TransformerSpec(Section):
    """What a transformer's weights are for, as plain data."""

    format_version: Literal[2] = 2
    prod9_version: str = __version__
    transformer: TransformerConfig
    levels: tuple[int, ...]
    class_names: tuple[ClassName, ...]
    channels: tuple[ClassName, ...] = Field(default=(), exclude_if=lambda names: not names)
    """What can be generated; of several, each can be a source of the others. Older files have
    none: their ``class_names`` are the channels if they have sources."""
    covariates: tuple[CovariateSpec, ...] = Field(default=(), exclude_if=lambda specs: not specs)
    coarse_factor: int = Field(default=0, ge=0, le=64, exclude_if=lambda factor: not factor)
    """Coarse voxels are so many times larger (:mod:`prod9.coarse`); 0: there is no coarse grid."""
    num_sources: int = 0
    """Channels that can be given as sources: all of several, none of one."""
    grid: Sides
    """Token grid of the training volumes."""
    window: Sides
    """Cells per training crop; the whole grid where volumes are not cropped."""
    train_subjects: tuple[str, ...] = ()
    """As the tokenizer's."""
    tokenizer_digest: str
    config_yaml: str
    """The resolved Stage 2 configuration."""


def build_transformer(
    config: TransformerConfig,
    *,
    levels: Sequence[int],
    num_classes: int,
    num_channels: int = 1,
    covariates: Sequence[CovariateSpec] = (),
    coarse: bool = False,
    grid: Sequence[int],
) -> MaskedTransformer:
    """Make the untrained network of a configuration."""
    return MaskedTransformer(
        levels=levels,
        num_classes=num_classes,
        num_channels=num_channels,
        covariates=[(len(each.categories), each.mean, each.std) for each in covariates],
        coarse=coarse,
        grid=grid,
        **config.model_dump(),
    )


@dataclass(frozen=True)
class Model:
    """Everything that it takes to sample volumes."""

    tokenizer: Tokenizer
    transformer: MaskedTransformer
    spec: TransformerSpec

    @property
    def digest(self) -> str:
        """SHA-256 over the transformer's spec and weights."""
        return digest_of(self.spec, self.transformer.state_dict())

    @property
    def class_names(self) -> tuple[str, ...]:
        """Name of each label: the class, the channel, or both (``class/channel``)."""
        names, channels = self.spec.class_names, self.channels
        if len(channels) == 1 or len(names) == 1:
            return names if len(channels) == 1 else channels
        return tuple(f"{name}/{channel}" for name in names for channel in channels)

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of what can be generated from one another."""
        return self.spec.channels or ("volume",)

    @property
    def label_channels(self) -> dict[str, tuple[int, ...]]:
        """Channels of labels: name -> those of ``channels`` that are its parts."""
        names = {codes.channel: part_names(codes.channel) for codes in self.tokenizer.spec.labels}
        return {name: tuple(map(self.channels.index, parts)) for name, parts in names.items()}

    @property
    def images(self) -> tuple[str, ...]:
        """Names of the channels that are volumes of grey values."""
        parts = {part for each in self.label_channels.values() for part in each}
        return tuple(name for c, name in enumerate(self.channels) if c not in parts)

    def label_of_channel(self, channel: int) -> int:
        """Return the label of a target channel whose class is not given."""
        return channel if len(self.spec.class_names) == 1 else channel - len(self.channels)

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.transformer.parameters()).device

    def record_of(self, request: SampleRequest) -> dict[str, Any]:
        """Return what it takes to make the same volumes again, as plain data."""
        return {
            "prod9": __version__,
            "seed": request.seed,
            "sampler": request.sampler.model_dump(mode="json"),
            "sliding_window": request.windows.model_dump(mode="json"),
            "tokenizer": self.tokenizer.digest,
            "transformer": self.digest,
        }

    def label_of(self, name: str) -> int:
        """Return the label of a name of ``class_names`` or ``channels``.

        In any case of letters; a synonym (``t2f`` is ``FLAIR``) where only one name means that.
        """
        lower = [known.lower() for known in self.class_names]
        for same in (str, str.lower, _meaning):
            labels, channels = ([*map(same, names)] for names in (self.class_names, self.channels))
            if labels.count(same(name)) == 1:
                return labels.index(same(name))
            if channels.count(same(name)) == 1:
                return self.label_of_channel(channels.index(same(name)))
        near = difflib.get_close_matches(name.lower(), lower, n=1)
        hint = f"did you mean {self.class_names[lower.index(near[0])]}? " if near else ""
        raise Prod9Error(
            f"this model knows no class or channel {name}; {hint}"
            f"It knows {', '.join(self.class_names)}."
        )

    def channel_of(self, name: str) -> int:
        """Return the index in ``channels`` of a name that :meth:`label_of` knows."""
        return self.label_of(name) % len(self.channels)

    def labels_of(self, names: Sequence[str], count: int) -> tuple[int, ...]:
        """Return ``count`` labels for each name; "all" stands for every class."""
        channels, images = len(self.channels), {*map(self.channels.index, self.images)}
        everything = [i for i in range(len(self.class_names)) if i % channels in images]
        chosen = [i for n in names for i in (everything if n == "all" else [self.label_of(n)])]
        return tuple(label for label in chosen for _ in range(count))

    def covariates_of(self, given: Mapping[str, str | int | float]) -> tuple[float | None, ...]:
        """Return covariates as the network takes them, from values by name; () if none is given.

        Raises:
            Prod9Error: a covariate or a category that was not learned, or no number.
        """
        found: list[float | None] = [None] * len(self.spec.covariates)
        names = [each.name for each in self.spec.covariates]
        for name, value in given.items():
            if name not in names:
                raise Prod9Error(
                    f"this model knows no covariate {name}; it knows {', '.join(names) or 'none'}."
                )
            index = names.index(name)
            categories = self.spec.covariates[index].categories
            if categories and str(value) not in categories:
                raise Prod9Error(f"{name} is one of {', '.join(categories)}, not {value}.")
            try:
                number = float(categories.index(str(value)) if categories else value)
            except ValueError:
                number = math.nan
            if not math.isfinite(number):
                raise Prod9Error(f"{name} is a number, not {value}.")
            found[index] = number
        return tuple(found) if given else ()

    def names_of(self, classes: Sequence[str], channels: Sequence[str]) -> list[str]:
        """Return the names of what is to be generated, as :meth:`labels_of` takes them.

        Of several classes and several channels, each class is joined with each channel; all
        channels where none is given. Nothing given stands for everything.
        """
        every, known = self.spec.class_names, {name.lower() for name in self.spec.class_names}
        both = len(every) > 1 and len(self.channels) > 1
        if both and classes and all(each == "all" or each.lower() in known for each in classes):
            chosen = every if "all" in classes else classes
            targets = self.images if not channels or "all" in channels else channels
            return [f"{each}/{channel}" for each in chosen for channel in targets]
        return [*classes, *channels] or ["all"]

    def sample(
        self,
        request: SampleRequest,
        number: int = 0,
        on_window: OnWindow = lambda done, total: None,
    ) -> Tokens:
        """Sample the tokens (B, *grid) of batch ``number`` of a request.

        The middle of the grid is taken for the middle of the training volumes. Where the model has
        a coarse grid and there are no sources, the coarse volume is sampled first and becomes one.
        """
        labels = torch.tensor(request.batch(number))
        initial, sources = request.initial, request.sources
        stream = request.stream(number, self.device)
        if initial is None:
            grid = self.tokenizer.grid(request.shape)
            initial = torch.full((1, *grid), self.transformer.mask_id)
        grid = tuple(initial.shape[1:])
        origin = None  # on the training grid itself
        if grid != self.spec.grid:
            origin = centred(grid, self.spec.grid, len(labels)).to(self.device)
        if sources is not None:
            sources = sources.expand(len(labels), -1, *grid).to(self.device)
        if self.spec.coarse_factor:
            others = self.transformer.num_sources - (0 if sources is None else sources.shape[1])
            unknown = torch.full((len(labels), others, *grid), self.transformer.mask_id)
            if sources is None and (request.initial is None or request.coarse is not None):
                shown = self._coarse_volumes(request, labels, stream)
                unknown[:, -1] = source_of(self.tokenizer, shown, request.windows)
                if request.initial is None:  # where the head is not, there is nothing to sample
                    empty = empty_cells(self.tokenizer, shown)
                    initial = torch.where(empty, unknown[:, -1], initial)
            unknown = unknown.to(self.device)
            sources = unknown if sources is None else torch.cat([sources, unknown], 1)
        channels, covariates = self.transformer.num_channels, self._covariates(request, labels)
        return draw_tokens(
            self.transformer,
            Condition.of(labels.to(self.device), channels, sources, origin, covariates),
            initial.expand(len(labels), *grid).to(self.device),
            request.sampler,
            stream,
            window=self.spec.window,
            overlap=request.windows.overlap,
            labels=[part for parts in self.label_channels.values() for part in parts],
            on_window=on_window,
        )

    def _covariates(self, request: SampleRequest, labels: Tensor) -> Tensor | None:
        """Return the covariates of each volume, (B, V), if any are asked for."""
        if not request.covariates:
            return None
        row = [torch.nan if value is None else value for value in request.covariates]
        return torch.tensor([row], device=self.device).expand(len(labels), -1)

    def _coarse_volumes(
        self, request: SampleRequest, labels: Tensor, stream: torch.Generator
    ) -> Tensor:
        """Sample whole coarse volumes; return them on the fine grid (B, 1, D, H, W), on the CPU."""
        factor, sides = self.spec.coarse_factor, request.shape or self.tokenizer.spec.volume_shape
        grid, initial = self.tokenizer.grid(coarse_sides(sides, factor)), request.coarse
        if initial is None:
            initial = torch.full((1, *grid), self.transformer.mask_id)
        channels, steps = self.transformer.num_channels, request.sampler.steps
        covariates = self._covariates(request, labels)
        # As many cells in a pass as in a window.
        more = max(1.0, math.prod(grid) / math.prod(self.spec.window))
        tokens = draw_tokens(
            self.transformer,
            Condition.of(labels.to(self.device), channels, None, None, covariates, coarse=True),
            initial.expand(len(labels), *grid).to(self.device),
            request.sampler.model_copy(update={"steps": math.ceil(steps * more)}),
            stream,
            window=grid,
        )
        return shown_by(self.tokenizer, tokens, factor, sides, request.windows)

    def sample_volumes(
        self,
        request: SampleRequest,
        number: int = 0,
        on_window: OnWindow = lambda done, total: None,
    ) -> Tensor:
        """Sample a batch as volumes (B, 1, D, H, W) in [0, 1], on the CPU."""
        sides = request.shape or self.tokenizer.spec.volume_shape
        return self.decode(self.sample(request, number, on_window), sides, request.windows)

    def decode(
        self, tokens: Tokens, sides: tuple[int, int, int], windows: SlidingWindowConfig
    ) -> Tensor:
        """Tokens (B, *grid) -> volumes (B, 1, *sides) in [0, 1] on the CPU, windowed if large."""
        if all(side <= roi for side, roi in zip(sides, windows.roi_size, strict=True)):
            return self.tokenizer.decode(tokens, sides).cpu()
        return torch.cat([decode(self.tokenizer, one[None], sides, windows) for one in tokens])


def _meaning(name: str) -> str:
    """Return a name of a channel, or ``class/channel``, with what the channel means."""
    head, slash, channel = name.rpartition("/")
    return f"{head}{slash}{meaning_of(channel)}".lower()


def save_transformer(path: Path, spec: TransformerSpec, transformer: MaskedTransformer) -> None:
    """Write the transformer as one file of plain data, whole or not at all."""
    write_export(path, "transformer", spec, transformer.state_dict())


def untrained(spec: TransformerSpec) -> MaskedTransformer:
    """Make the network that an export's weights are for."""
    return build_transformer(
        spec.transformer,
        levels=spec.levels,
        num_classes=len(spec.class_names),
        num_channels=max(1, len(spec.channels)),
        covariates=spec.covariates,
        coarse=spec.coarse_factor > 0,
        grid=spec.grid,
    )


def network_of(
    spec: TransformerSpec, weights: dict[str, Tensor]
) -> tuple[TransformerSpec, MaskedTransformer]:
    """Make the network of a spec, with these weights; both are those of today's format.

    Raises:
        ValueError, AttributeError, KeyError: the weights are those of another network.
    """
    sizes = spec.transformer
    if sizes.num_blocks + sizes.local_blocks > len(weights):  # before all are made
        raise ValueError("it has more layers than weights")
    if spec.num_sources and not spec.channels:  # an older file, whose classes were the channels
        channels = {"class_names": ("all",), "channels": spec.class_names}
        spec = spec.model_copy(update=channels)
        weights = {**weights, "channel_embedding.weight": weights["class_embedding.weight"]}
        del weights["class_embedding.weight"]
    return spec, fitted(lambda: untrained(spec), weights)


def load_generator(
    transformer_path: Path, tokenizer: Tokenizer, device: torch.device | str = "cpu"
) -> Model:
    """Read a transformer and join it with the tokenizer that it was trained on.

    Raises:
        Prod9Error: missing, torn or foreign file; trained on another tokenizer.
    """
    made_by = "prod9-train-transformer train"
    spec, transformer = read_export(
        transformer_path, "transformer", TransformerSpec, network_of, made_by
    )
    if spec.tokenizer_digest != tokenizer.digest:
        raise Prod9Error(
            f"{transformer_path} was trained on the tokenizer {spec.tokenizer_digest[:12]}, but "
            f"autoencoder_path holds {tokenizer.digest[:12]}; point autoencoder_path at the "
            f"tokenizer that it was trained on, or run `{made_by}` again."
        )
    return Model(tokenizer, transformer.eval().requires_grad_(False).to(device), spec)
