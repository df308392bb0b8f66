"""Label maps as tokens, without a network: each cell is one of the patterns that the data has.

A label map decodes to whole numbers that occur in the data, and nothing is blended. A cell of
stride^3 voxels has too many patterns for one codebook, so it is cut into :data:`PARTS` blocks, and
each becomes a token of its own: a channel of labels is :data:`PARTS` channels of tokens on the grid
of an image's tokens, from the same codebook. Patterns come from k-means (Lloyd 1982) over the
blocks of the training maps; they are ordered by their principal components, so that neighbours on
the lattice of FSQ, which share parts of their embeddings, look alike.
"""

import base64
import binascii
import math
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Self, TypeAlias

import numpy as np
from pydantic import Field, model_validator

from prod9.config.base import Section
from prod9.config.model import MOST_CODES

PARTS = 4
"""Blocks of a cell: halves along the second and the third axis."""
_MOST_MAPS = 200
_MOST_BLOCKS = 20000
_ROUNDS = 8
_CHUNK = 4096

Indices: TypeAlias = np.ndarray
"""uint16: indices into the values of a channel."""


def part_names(channel: str) -> tuple[str, ...]:
    """Return the names of the channels of tokens of a channel of labels; the first is its own."""
    return (channel, *(f"{channel}[{part}]" for part in range(2, PARTS + 1)))


class LabelCodes(Section):
    """The codebook of one channel of labels, as plain data."""

    channel: str
    """Its name."""
    values: tuple[int, ...] = Field(min_length=1, max_length=1 << 16)
    """Labels, the first of which is 0."""
    stride: int = Field(ge=2, le=64, multiple_of=2)
    """Voxels per cell and axis."""
    codes: int = Field(ge=1, le=MOST_CODES)
    """Number of patterns."""
    patterns: str = Field(repr=False)
    """uint16 (codes, voxels of a block): indices into ``values``; compressed (zlib), base64."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.table.max() >= len(self.values):
            raise ValueError("its patterns have labels that are none of its values")
        return self

    @property
    def block(self) -> tuple[int, int, int]:
        """Voxels of a block along each axis."""
        return self.stride, self.stride // 2, self.stride // 2

    @property
    def table(self) -> Indices:
        """The patterns, (codes, voxels of a block)."""
        return _read(self.patterns, self.codes, math.prod(self.block))

    @classmethod
    def fit(
        cls,
        channel: str,
        values: Sequence[int],
        maps: Sequence[int],
        read: Callable[[int], np.ndarray],
        *,
        stride: int,
        levels: Sequence[int],
        seed: int = 0,
    ) -> "LabelCodes":
        """Choose the patterns.

        Args:
            channel: name of the channel.
            values: its labels, 0 first, rising.
            maps: numbers of the training maps; of many, some evenly spread ones are read.
            read: number of a map -> labels (D, H, W).
            stride: voxels per cell and axis, even.
            levels: of the images' FSQ; as many patterns are chosen as there are codes.
            seed: of the first patterns.
        """
        codes = math.prod(levels)
        empty = cls._of(channel, values, stride, np.zeros((codes, stride**3 // PARTS), np.uint16))
        chosen = np.linspace(0, len(maps) - 1, min(len(maps), _MOST_MAPS)).round().astype(int)
        blocks, counts = _counted(empty.blocks(read(maps[i])) for i in chosen)
        random = np.random.default_rng(seed)
        uniform = np.repeat(
            np.arange(len(values), dtype=np.uint16)[:codes, None], blocks.shape[1], 1
        )
        found = uniform
        if room := codes - len(uniform):
            centres = _k_means(blocks, counts, len(values), room, random)
            found = np.unique(np.concatenate([uniform, centres]), axis=0)
        table = np.resize(found, (codes, blocks.shape[1]))  # repeats the first where there are few
        return cls._of(channel, values, stride, table[_on_lattice(table, levels)])

    @classmethod
    def _of(cls, channel: str, values: Sequence[int], stride: int, table: Indices) -> "LabelCodes":
        text = base64.b64encode(zlib.compress(table.astype("<u2").tobytes(), 9)).decode()
        return cls(
            channel=channel, values=tuple(values), stride=stride, codes=len(table), patterns=text
        )

    def _padding(self, sides: Sequence[int]) -> list[tuple[int, int]]:
        """Return the voxels that each face lacks; as an image is padded, shared by both faces."""
        missing = [-side % self.stride for side in sides]
        return [(each // 2, each - each // 2) for each in missing]

    def blocks(self, labels: np.ndarray) -> Indices:
        """Labels (D, H, W) -> blocks (parts * cells, voxels), those of the first part first."""
        indices = np.searchsorted(self.values, labels).astype(np.uint16)
        padded = np.pad(indices, self._padding(labels.shape), mode="edge")
        s, half = self.stride, self.stride // 2
        d, h, w = (side // s for side in padded.shape)
        cells = padded.reshape(d, s, h, 2, half, w, 2, half).transpose(3, 6, 0, 2, 5, 1, 4, 7)
        return cells.reshape(PARTS * d * h * w, -1)

    def encode(self, labels: np.ndarray) -> np.ndarray:
        """Labels (D, H, W), all of them among ``values`` -> tokens, int64 (parts, *grid).

        A block becomes the pattern with which it shares most voxels.
        """
        blocks, table = self.blocks(labels), self.table
        # As bytes: NumPy sorts rows of numbers many times slower.
        rows = np.ascontiguousarray(blocks).view(f"V{blocks.itemsize * blocks.shape[1]}")[:, 0]
        _, first_of, inverse = np.unique(rows, return_index=True, return_inverse=True)
        different = blocks[first_of]
        nearest = np.empty(len(different), np.int64)
        for first in range(0, len(different), _CHUNK):
            part = different[first : first + _CHUNK]
            shared = np.zeros((len(part), len(table)), np.uint16)
            for voxel in range(table.shape[1]):
                shared += part[:, voxel, None] == table[None, :, voxel]
            nearest[first : first + _CHUNK] = shared.argmax(1)
        tokens = nearest[inverse.reshape(-1)]
        return tokens.reshape(PARTS, *(-(-side // self.stride) for side in labels.shape))

    def decode(self, tokens: np.ndarray, sides: Sequence[int] | None = None) -> np.ndarray:
        """Tokens (parts, *grid) -> labels (D, H, W), int32, of ``sides`` voxels."""
        _, d, h, w = tokens.shape
        s, half = self.stride, self.stride // 2
        blocks = self.table[tokens.reshape(-1)].reshape(2, 2, d, h, w, s, half, half)
        whole = blocks.transpose(2, 5, 3, 0, 6, 4, 1, 7).reshape(d * s, h * s, w * s)
        if sides is not None:
            starts = [before for before, _ in self._padding(sides)]
            whole = whole[tuple(slice(a, a + n) for a, n in zip(starts, sides, strict=True))]
        return np.array(self.values, np.int32)[whole]


@lru_cache(maxsize=16)
def _read(text: str, codes: int, voxels: int) -> Indices:
    size = 2 * codes * voxels
    try:
        content = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), size + 1)
    except (zlib.error, binascii.Error) as error:
        raise ValueError("its patterns cannot be read") from error
    if len(content) != size:
        raise ValueError("its patterns have another size")
    return np.frombuffer(content, "<u2").reshape(codes, voxels)


def _counted(parts: Iterable[Indices]) -> tuple[Indices, np.ndarray]:
    """Return the blocks of more than one label that occur, and how often; the most frequent."""
    tally: dict[bytes, int] = {}
    voxels = 0
    for blocks in parts:
        voxels = blocks.shape[1]
        mixed = blocks[(blocks != blocks[:, :1]).any(1)]
        for block, count in zip(*np.unique(mixed, axis=0, return_counts=True), strict=True):
            key = block.tobytes()
            tally[key] = tally.get(key, 0) + int(count)
    most = sorted(tally.items(), key=lambda item: (-item[1], item[0]))[:_MOST_BLOCKS]
    content = b"".join(key for key, _ in most)
    return np.frombuffer(content, np.uint16).reshape(-1, voxels), np.array([n for _, n in most])


def _k_means(
    blocks: Indices, counts: np.ndarray, labels: int, number: int, random: np.random.Generator
) -> Indices:
    """Return at most ``number`` patterns: the most frequent label of each voxel of a cluster."""
    if len(blocks) <= number:
        return blocks
    voxels, weight = blocks.shape[1], counts.astype(np.float32)
    # Each label of each voxel is a coordinate, 1 or 0: the mean is the share of each label.
    points = np.zeros((len(blocks), voxels, labels), np.float32)
    np.put_along_axis(points, blocks[..., None].astype(np.int64), 1, axis=2)
    points = points.reshape(len(blocks), -1)
    chosen = random.choice(len(blocks), number, replace=False, p=counts / counts.sum())
    centres = points[chosen]
    for _ in range(_ROUNDS):
        nearest = (2 * points @ centres.T - (centres**2).sum(1)).argmax(1)
        order = np.argsort(nearest, kind="stable")
        used, starts = np.unique(nearest[order], return_index=True)
        sums = np.add.reduceat(points[order] * weight[order, None], starts)
        centres = centres.copy()
        centres[used] = sums / np.add.reduceat(weight[order], starts)[:, None]
    return centres.reshape(number, voxels, labels).argmax(2).astype(np.uint16)


def _on_lattice(table: Indices, levels: Sequence[int]) -> np.ndarray:
    """Return the pattern of each token: split along a principal component for each FSQ channel."""
    order = np.empty(len(table), np.int64)
    basis = [math.prod(levels[:i]) for i in range(len(levels))]
    points = table.astype(np.float64)

    def split(members: np.ndarray, axis: int, token: int) -> None:
        if axis == len(levels):
            order[token] = members[0]
            return
        centred = points[members] - points[members].mean(0)
        direction = np.linalg.svd(centred, full_matrices=False)[2][0]
        direction = direction * np.sign(direction[np.abs(direction).argmax()])
        ranked = members[np.argsort((centred @ direction).round(9), kind="stable")]
        for digit, part in enumerate(np.array_split(ranked, levels[axis])):
            split(part, axis + 1, token + digit * basis[axis])

    split(np.arange(len(table)), 0, 0)
    return order
