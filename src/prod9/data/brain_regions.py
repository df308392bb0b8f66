"""brainregionmnist3d: the embedded data set, made from the MNI152 template inside nilearn's wheel.

Each sample is a cube of the ICBM152 2009a T1 template (skull-stripped, 1 mm) around one of eleven
named regions, moved, scaled, bent, shaded, gamma-corrected and made noisy at random. It has
MedMNIST's layout: uint8, ``{train,val,test}_{images,labels}``, 971/161/610 volumes, 28^3 voxels of
2 mm or 64^3 voxels of 1 mm. It shows *one average anatomy*: its figures tell whether learning
works, and nothing about patients.
"""

import importlib.util
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from nibabel import nifti1
from torch import Tensor

from prod9.data.brain_region_table import REGIONS, SPACING_MM, SPLIT_SIZES
from prod9.errors import Prod9Error
from prod9.files import atomic_write
from prod9.runtime.one_thread import one_thread

SEED = 20090


@dataclass(frozen=True)
class Variation:
    """How much the samples differ: standard deviations, in the units named.

    Another default makes other data: raise :data:`prod9.data.brain_region_table.VERSION` with it.
    """

    rotation_degrees: float = 6.0
    scale: float = 0.06
    jitter_mm: float = 2.0
    displacement_mm: float = 2.0
    displacement_knots: int = 5
    bias: float = 0.05
    bias_knots: int = 3
    gamma: float = 0.12
    noise: float = 0.01


def template_path(name: str = "t1") -> Path:
    """Return the path of the MNI152 2009a map ``name`` (``t1``, ``gm``, ``wm``) inside nilearn."""
    spec = importlib.util.find_spec("nilearn")
    if spec is None:
        raise Prod9Error(
            "the brain regions and the phantoms are made from a template inside the package "
            "nilearn, which is not installed: pip install 'prod9[demo]'."
        )
    file = f"datasets/data/mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
    path = Path(str(spec.origin)).parent / file
    if not path.exists():
        raise Prod9Error(
            "the MNI152 template was not found inside the nilearn package; "
            "reinstall it with: pip install --force-reinstall nilearn"
        )
    return path


def _load_template(smoothing_mm: float) -> tuple[Tensor, Tensor]:
    """Return the T1 template in [0, 1], shape (D, H, W), and its 4 x 4 voxel-to-mm affine."""
    image = nifti1.load(template_path())
    volume = torch.from_numpy(np.asarray(image.dataobj, dtype=np.float32)) / 255.0
    affine = torch.from_numpy(np.asarray(image.affine, dtype=np.float32))
    # Sampling every 2 mm from 1 mm voxels would alias: blur to the sampling's bandwidth first.
    if smoothing_mm > 0:
        reach = math.ceil(3 * smoothing_mm)
        kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / smoothing_mm) ** 2)
        kernel = kernel / kernel.sum()
        for axis, side in enumerate(volume.shape):
            padding = [0, 0] * 3
            padding[4 - 2 * axis : 6 - 2 * axis] = [reach, reach]
            padded = F.pad(volume, padding)
            volume = torch.zeros_like(volume)
            for start, weight in enumerate(kernel.tolist()):
                volume.add_(padded.narrow(axis, start, side), alpha=weight)
    return volume, affine


def _rotations(degrees: Tensor) -> Tensor:
    """Return rotation matrices (B, 3, 3) from angles about x, y and z, shape (B, 3)."""
    sin, cos = torch.sin(torch.deg2rad(degrees)), torch.cos(torch.deg2rad(degrees))
    matrix = torch.eye(3).expand(len(degrees), 3, 3)
    for axis in range(3):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn = torch.eye(3).repeat(len(degrees), 1, 1)
        turn[:, i, i] = turn[:, j, j] = cos[:, axis]
        turn[:, i, j], turn[:, j, i] = -sin[:, axis], sin[:, axis]
        matrix = turn @ matrix
    return matrix


def _smooth_knots(knots: Tensor) -> Tensor:
    """Refine random knots (B, C, k, k, k) to (B, C, 2k+1, 2k+1, 2k+1) that bend smoothly."""
    # Cubic interpolation would overshoot; two passes of linear keep the field smooth enough.
    finer = F.interpolate(knots, size=2 * knots.shape[-1] + 1, mode="trilinear", align_corners=True)
    return F.avg_pool3d(finer, 3, stride=1, padding=1, count_include_pad=False)


def _spread(knots: Tensor, size: int) -> Tensor:
    """Interpolate linearly from knots (B, C, n, n, n) to (B, C, size, size, size).

    One matrix per axis: several times faster than :func:`torch.nn.functional.interpolate`.
    """
    batch, channels, n = knots.shape[:3]
    corners = torch.eye(n)[None]  # what each knot gives to each voxel: (size, n)
    weights = F.interpolate(corners, size=size, mode="linear", align_corners=True)[0].T
    field = (knots @ weights.T).view(-1, n, size)
    field = torch.bmm(weights.expand(len(field), size, n), field).view(-1, n, size * size)
    field = torch.bmm(weights.expand(len(field), size, n), field)
    return field.view(batch, channels, size, size, size)


class RegionSampler:
    """Draws cubes of named brain regions with random anatomy and contrast."""

    def __init__(self, size: int, variation: Variation | None = None) -> None:
        self.size = size
        self.variation = variation or Variation()
        spacing = SPACING_MM[size]
        with one_thread():
            smoothing = 0.4 * spacing if size == 28 else 0.0
            self.template, self.affine = _load_template(smoothing)
        self.half_mm = (size - 1) / 2 * spacing

    def __call__(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Draw one cube for each class index in ``labels`` (B,): uint8, shape (B, S, S, S).

        Axes run right, front, up (RAS+), as in the template.
        """
        v, batch, size = self.variation, len(labels), self.size

        def normal(*shape: int) -> Tensor:
            return torch.randn(batch, *shape, generator=generator)

        result = torch.empty(batch, size, size, size, dtype=torch.uint8)
        with one_thread() as threads, ThreadPoolExecutor(threads) as pool:
            # The order of these draws is part of the data set.
            rotation = _rotations(v.rotation_degrees * normal(3))
            scale = 1.0 + v.scale * normal(1, 1)
            k = v.displacement_knots
            bend = _smooth_knots(v.displacement_mm * normal(3, k, k, k))
            centres = torch.tensor(list(REGIONS.values()))[labels] + v.jitter_mm * normal(3)
            k = v.bias_knots
            bias = _smooth_knots(v.bias * normal(1, k, k, k))
            gamma = torch.exp(v.gamma * normal(1, 1, 1))
            noise = normal(size, size, size)
            voxels = self._voxels_at_knots(rotation * scale, bend, centres)

            def draw(own: Tensor) -> None:
                cubes = self._read(voxels[own]).mul_(_spread(bias[own], size)[:, 0].exp_())
                cubes = cubes.clamp_(0, 1).pow_(gamma[own]).add_(noise[own], alpha=v.noise)
                result[own] = cubes.clamp_(0, 1).mul_(255).round_().to(torch.uint8)

            # A region's cubes read one small box of the template, which stays in the cache.
            regions = [(labels == region).nonzero()[:, 0] for region in labels.unique()]
            list(pool.map(draw, regions))
        return result

    def _voxels_at_knots(self, linear: Tensor, bend: Tensor, centres: Tensor) -> Tensor:
        """Return where in the template the knots of ``bend`` lie: (B, 3, n, n, n), in voxels.

        Between knots everything is linear, the affine part too: to spread the sum is enough.
        """
        axis = torch.linspace(-self.half_mm, self.half_mm, bend.shape[-1])
        offsets = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))  # x, y, z in mm
        inverse = torch.linalg.inv(self.affine)
        # mm = R (scale * offset) + bend(offset) + centre
        mm = (linear @ offsets.flatten(1)).view_as(bend) + bend + centres[:, :, None, None, None]
        return torch.einsum("ij,bj...->bi...", inverse[:3, :3], mm) + inverse[:3, 3].view(
            3, 1, 1, 1
        )

    def _read(self, voxels: Tensor) -> Tensor:
        """Interpolate the template at knots (B, 3, n, n, n), spread: (B, S, S, S); 0 outside."""
        sides = torch.tensor(self.template.shape)
        knots = voxels.transpose(0, 1).flatten(1)  # all that lies between them is convex
        low = knots.amin(1).floor().long().clamp(min=0).minimum(sides - 2)
        high = knots.amax(1).ceil().long().add(1).minimum(sides).maximum(low + 2)
        (i, j, k), (ii, jj, kk) = low.tolist(), high.tolist()
        box = self.template[i:ii, j:jj, k:kk]
        first, last = low.view(3, 1, 1, 1), high.view(3, 1, 1, 1) - 1
        # grid_sample wants (W, H, D) order and [-1, 1].
        grid = _spread((2 * (voxels - first) / (last - first) - 1).flip(1), self.size)
        source = box[None, None].expand(len(voxels), 1, *box.shape)
        grid = grid.permute(0, 2, 3, 4, 1)
        return F.grid_sample(source, grid, padding_mode="zeros", align_corners=True)[:, 0]


def build(path: Path, size: int, seed: int = SEED, batch: int = 61) -> None:
    """Write the data set as a MedMNIST ``npz`` of ``size`` 28 or 64; byte-identical each time."""
    sampler = RegionSampler(size)
    arrays: dict[str, np.ndarray] = {}
    for index, (split, count) in enumerate(SPLIT_SIZES.items()):
        generator = torch.Generator().manual_seed(seed + index)
        labels = torch.arange(count) % len(REGIONS)
        labels = labels[torch.randperm(count, generator=generator)]
        images = torch.empty(count, size, size, size, dtype=torch.uint8)
        for part, numbers in zip(images.split(batch), labels.split(batch), strict=True):
            part.copy_(sampler(numbers, generator))
        arrays[f"{split}_images"] = images.numpy()
        arrays[f"{split}_labels"] = labels.to(torch.uint8).numpy()[:, None]
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
