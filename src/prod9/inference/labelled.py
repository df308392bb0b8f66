"""Images from label maps, label maps from images, and both together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from prod9.data.geometry import Placement
from prod9.data.label_maps import label_indices
from prod9.data.volume_files.stored_volume import StoredVolume, volume_stem
from prod9.errors import Prod9Error
from prod9.label_codes import LabelCodes
from prod9.model import Model
from prod9.outpainting import OnWindow
from prod9.sample_request import SampleRequest
from prod9.shapes import Tokens


@dataclass(frozen=True)
class EncodedMask:
    """A user's label map as tokens of a model."""

    stored: StoredVolume
    placement: Placement
    codes: LabelCodes
    tokens: Tensor
    """int64 (parts, *grid)."""


def label_codes(model: Model, channel: str | None = None) -> LabelCodes:
    """Return the codes of a channel of labels; of the first where none is named.

    Raises:
        Prod9Error: the model has learned no labels, or none of this name.
    """
    found = {codes.channel: codes for codes in model.tokenizer.spec.labels}
    if not found:
        raise Prod9Error(
            "this model has learned no label maps; train one with `prod9 train --with-labels`."
        )
    if channel is not None and channel not in found:
        raise Prod9Error(f"{channel} is no channel of labels; this model has {', '.join(found)}.")
    return found[channel or next(iter(found))]


def encode_mask(
    model: Model, stored: StoredVolume, channel: str | None = None, *, may_be_empty: bool = False
) -> EncodedMask:
    """Bring a label map to the model's spacing, by nearest neighbours, and encode it.

    Args:
        model: has learned labels.
        stored: the label map.
        channel: which it is; when left out, the only one, that of the file's name, or the only one
            that knows all its labels.
        may_be_empty: whether a map of nothing but 0 is one.

    Raises:
        Prod9Error: the model has no labels; the map is empty, has fractions or unknown labels.
    """
    codes = label_codes(model, channel or _channel_of(model, stored))
    indices = label_indices(stored, sorted(codes.values))
    if not (may_be_empty or stored.array.any()):
        raise Prod9Error(f"{stored.path} is empty: all its voxels are 0; mark what is to be there.")
    spacing = model.tokenizer.spec.spacing_mm
    placement = Placement.of(stored.array.shape, stored.affine, spacing, str(stored.path))
    labels = np.array(sorted(codes.values), np.int32)[placement.nearest(indices)]
    return EncodedMask(stored, placement, codes, torch.from_numpy(codes.encode(labels)))


def _channel_of(model: Model, stored: StoredVolume) -> str:
    known = {codes.channel: {*codes.values} for codes in model.tokenizer.spec.labels}
    if len(known) < 2:
        return label_codes(model).channel
    if named := [name for name in known if name.lower() == volume_stem(stored.path).lower()]:
        return named[0]
    there = {*np.unique(stored.array).tolist()}
    fits = [name for name, values in known.items() if there <= values]
    if len(fits) == 1:
        return fits[0]
    raise Prod9Error(
        f"{stored.path} fits {'several' if fits else 'none'} of the channels of labels "
        f"({', '.join(known)}); say which it is: --mask CHANNEL=FILE."
    )


def by_subject(model: Model, labels: Sequence[int], count: int) -> tuple[int, ...]:
    """Return labels, ``count`` of each name, in another order: all channels of one subject first.

    Raises:
        Prod9Error: a channel of labels is among them.
    """
    channels = len(model.channels)
    images = {model.channels.index(name) for name in model.images}
    if bad := [label for label in labels if label % channels not in images]:
        raise Prod9Error(
            f"{model.channels[bad[0] % channels]} is a channel of labels, which is no image; pairs "
            "of both come from --with-labels."
        )
    order = sorted(
        range(len(labels)),
        key=lambda i: (labels[i] // channels, i % count, labels[i] % channels),
    )
    return tuple(labels[i] for i in order)


def sample_subjects(
    model: Model,
    request: SampleRequest,
    number: int = 0,
    mask: EncodedMask | None = None,
    on_window: OnWindow = lambda done, total: None,
    channel: str | None = None,
) -> tuple[Tokens, Tensor | None]:
    """Sample a batch of subjects: a label map first, then each channel from all before it.

    Args:
        model: has learned labels.
        request: its labels are as :func:`by_subject` returns them; a batch holds whole subjects.
        number: of the batch.
        mask: the label map of all subjects, in place of a sampled one.
        on_window: told of the progress of each channel.
        channel: of the sampled label map; the first when left out.

    Returns:
        Tokens (B, *grid) of the labels of the batch, and those of the sampled label maps, one for
        each subject, (S, parts, *grid).
    """
    labels, channels = request.batch(number), len(model.channels)
    wanted = sorted({label % channels for label in labels})
    classes = [label - label % channels for label in labels[:: len(wanted)]]
    name = label_codes(model, channel).channel if mask is None else mask.codes.channel
    parts = [*model.label_channels[name]]
    shape = request.shape if mask is None else mask.placement.shape
    grid = model.tokenizer.grid(shape)
    known = torch.full((len(classes), channels, *grid), model.transformer.mask_id)
    if mask is not None:
        known[:, parts] = mask.tokens
    for target in [*([] if mask is not None else parts), *wanted]:
        one = replace(
            request,
            labels=tuple(each + target for each in classes),
            batch_size=None,
            shape=shape,
            sources=known.clone(),
            seed=seed_of(request.seed, number, target),
        )
        known[:, target] = model.sample(one, on_window=on_window).cpu()
    maps = None if mask is not None else known[:, parts]
    return known[:, wanted].flatten(0, 1), maps


def seed_of(seed: int, *numbers: int) -> int:
    """Return a seed for one of several things that are sampled one after another."""
    return int(np.random.SeedSequence([seed, *numbers]).generate_state(1)[0])


def decoded_maps(codes: LabelCodes, tokens: Tensor, sides: Sequence[int]) -> np.ndarray:
    """Tokens (N, parts, *grid) -> labels (N, D, H, W), int32."""
    return np.stack([codes.decode(each, sides) for each in tokens.cpu().numpy()])


def images_on_mask(
    model: Model, tokens: Tokens, mask: EncodedMask, request: SampleRequest
) -> Tensor:
    """Tokens (B, *grid) -> volumes (B, 1, D, H, W) in [0, 1] on the grid of a label map."""
    volumes = model.decode(tokens.to(model.device), mask.placement.shape, request.windows)[:, 0]
    restored = [mask.placement.invert(volume.numpy()) for volume in volumes]
    return torch.from_numpy(np.stack(restored))[:, None]


def vote(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels (K, D, H, W) -> the most frequent of each voxel, and the share that is another."""
    best, votes = samples[0], np.zeros(samples.shape[1:], np.int64)
    for value in np.unique(samples):
        count = (samples == value).sum(0)
        best, votes = np.where(count > votes, value, best), np.maximum(count, votes)
    return best, (1 - votes / len(samples)).astype(np.float32)


def stored_type(values: Sequence[int]) -> np.dtype:
    """Return the smallest type of voxels that holds these labels."""
    return np.result_type(np.min_scalar_type(min(values)), np.min_scalar_type(max(values)))
