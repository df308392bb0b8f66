"""What PSNR and SSIM need beside the two volumes does not grow with the number of planes."""

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from prod9.metrics import psnr as psnr_module
from prod9.metrics import ssim as ssim_module


class PeakBytes(TorchDispatchMode):
    """The most bytes alive at once, of the tensors made under it."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self._known = set()

    def _meet(self, tree, count):
        for leaf in tree_leaves(tree):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                if storage._cdata not in self._known:
                    size = storage.nbytes() if count else 0
                    self._known.add(storage._cdata)
                    self.now += size
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self._forget, storage._cdata, size)

    def _forget(self, key, size):
        self._known.discard(key)
        self.now -= size

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self._meet((args, kwargs), count=False)
        out = func(*args, **(kwargs or {}))
        self._meet(out, count=True)
        return out


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", ["psnr", "ssim"])
def test_memory_is_that_of_a_slab(name, masked, monkeypatch):
    metric = {"psnr": psnr_module.psnr, "ssim": ssim_module.ssim}[name]
    for module in (psnr_module, ssim_module):
        monkeypatch.setattr(module, "SLAB_VOXELS", 4 * 32 * 32)
    peaks = []
    for batch, planes in ((1, 18), (1, 98), (3 if name == "ssim" else 1, 34)):
        a, b = torch.rand(2, batch, 1, planes, 32, 32)
        mask = torch.rand(batch, 1, planes, 32, 32) < 0.5 if masked else None
        with PeakBytes() as bytes_alive:
            metric(a, b, mask=mask)
        peaks.append(bytes_alive.peak)
    # A few bytes for the sums; a float32 copy of the larger volume would be 400,000.
    assert max(peaks) - min(peaks) < 1000
    planes_alive = {"psnr": 4 * 5, "ssim": 14 * 10}[name]  # 14 = 4 + the window's other 10
    assert 0 < max(peaks) < planes_alive * 32 * 32 * 8
