"""The template that phantoms are drawn from: its tissue maps, and where a tumour may begin."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from nibabel import nifti1
from torch import Tensor

from prod9.data.brain_regions import template_path


@dataclass(frozen=True)
class Atlas:
    """The template's brain."""

    maps: Tensor
    """(5, X, Y, Z), the brain's box, RAS, 1 mm: brain (0 or 1), T1, white, grey, white blurred."""
    origin_mm: Tensor
    """MNI coordinates of the box's first voxel."""
    sites_mm: np.ndarray
    """(N, 3): where a tumour may begin, deep in white matter."""
    depths_mm: np.ndarray
    """(N,): how far each site lies below the brain's surface."""


@lru_cache(maxsize=1)
def read_atlas() -> Atlas:
    """Read the ICBM152 2009a template inside nilearn's wheel; once in a process.

    Raises:
        Prod9Error: it is missing.
    """
    images = [nifti1.load(template_path(name)) for name in ("t1", "wm", "gm")]
    t1, white, grey = (
        torch.from_numpy(np.asarray(image.dataobj, dtype=np.float32)) / 255 for image in images
    )
    # The template's outline has crumbs one voxel thick: what lies in its majority's reach remains.
    full = (t1 > 0).float()
    brain = (F.avg_pool3d(full[None, None], 5, stride=1, padding=2)[0, 0] > 0.5) & (t1 > 0)
    low, high = brain.nonzero().amin(0), brain.nonzero().amax(0) + 1
    box = tuple(slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
    t1, white, grey, brain = (volume[box] for volume in (t1, white, grey, brain.float()))
    blurred = white[None, None]
    for _ in range(2):  # two boxes of 5 mm: nearly a Gaussian, 2 mm wide
        blurred = F.avg_pool3d(blurred, 5, stride=1, padding=2)
    maps = torch.stack([brain, t1, white * brain, grey * brain, blurred[0, 0] * brain])
    affine = torch.from_numpy(np.asarray(images[0].affine, dtype=np.float32))
    origin = affine[:3, 3] + low

    # Layer by layer, 3 mm each, the brain is peeled: the number of layers left is the depth.
    coarse, wide = maps[0, ::3, ::3, ::3], maps[4, ::3, ::3, ::3]
    depth, rest = torch.zeros_like(coarse), coarse[None, None]
    while rest.any():
        depth += 3 * rest[0, 0]
        rest = -F.max_pool3d(F.pad(-rest, [1] * 6), 3, stride=1)
    sites = ((wide > 0.6) & (depth >= 12)).nonzero()
    places = origin + 3 * sites
    # Of the cerebrum, and beside the midline: there most gliomas are.
    kept = (places[:, 0].abs() > 14) & (places[:, 2] > -12)
    depths = depth[tuple(sites[kept].T)]
    return Atlas(maps, origin, places[kept].numpy(), depths.numpy())
