"""A piece of work done with tensors that have shapes and no numbers: what it holds, what it does.

PyTorch's fake tensors go through every operation that the real ones would, and take no memory.
What is held at any moment is the sum of the storages that are alive; what a kernel takes for
itself while it runs is not seen.
"""

import weakref
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from prod9.planning.flops import operation_flops

_IN_PLACE = {
    torch.ops.aten._fused_adamw_,
    torch.ops.aten._foreach_lerp_,
    torch.ops.aten._foreach_mul_,
    torch.ops.aten._foreach_add_,
}
_NO_WORK = {"aten::empty", "aten::empty_like", "aten::empty_strided", "aten::detach"}


@dataclass(frozen=True)
class Shape:
    """What is left of a tensor when its numbers are forgotten."""

    sides: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        """Of its elements, each counted once however often it is seen."""
        count = 1
        for side, stride in zip(self.sides, self.strides, strict=True):
            count *= side if stride else 1
        return count * self.dtype.itemsize


@dataclass
class Operation:
    """Calls of one operation with equal shapes."""

    function: Any
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    flops: float
    network: str
    """Whose weights it multiplies with."""
    backward: bool
    per_sample: bool
    """False for what is done once a step, whatever the batch: optimizer, moving average."""
    calls: int = 0

    @property
    def name(self) -> str:
        """Such as ``aten::convolution``."""
        return str(self.function._schema.name)


class Rehearsal(TorchDispatchMode):
    """Follows fake tensors through a ``with`` block.

    Args:
        kept: share of the rows that a selection by a mask keeps: the mask's values are not known.
    """

    def __init__(self, kept: float = 1.0) -> None:
        super().__init__()
        self.kept = kept
        self.held = 0
        """Bytes of all storages that are alive now."""
        self.peak = 0
        self.operations: dict[str, Operation] = {}
        self.per_sample = True
        self._networks: dict[int, str] = {}
        self._sizes: dict[int, int] = {}
        self._main = ""
        self._noting = False

    def name_networks(self, networks: Mapping[str, nn.Module]) -> None:
        """Tell whose weights are whose; products without weights are the first network's."""
        self._main = next(iter(networks))
        for name, network in networks.items():
            for parameter in network.parameters():
                self._networks[_key(parameter)] = name

    def hold(self, networks: Sequence[nn.Module]) -> None:
        """Count what networks consist of; they were there before the block."""
        for network in networks:
            for tensor in (*network.parameters(), *network.buffers()):
                self._hold(tensor)

    def begin(self) -> None:
        """Begin to note what is done; forget how much was held at most."""
        self.operations.clear()
        self.peak = self.held
        self._noting = True

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        out = self._called(func, args, kwargs)
        if not func.is_view:  # else it shares a storage that is counted
            for tensor in _tensors(out):
                self._hold(tensor)
        if not self._noting:
            return out
        if func.overloadpacket is torch.ops.aten._to_copy and _key(args[0]) in self._networks:
            self._networks[_key(out)] = self._networks[_key(args[0])]  # a weight, in bf16
        self._note(func, args, kwargs, out)
        return out

    def _called(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        packet = func.overloadpacket
        if packet is torch.ops.aten._local_scalar_dense:
            # "Is it finite?": yes. Any other number is one.
            return True if args[0].dtype == torch.bool else 1
        if packet is torch.ops.aten.index and (rows := self._rows(args)) is not None:
            return rows
        if func.overloadpacket in _IN_PLACE and isinstance(args[0][0], FakeTensor):
            return None  # makes nothing; and asking hundreds of fake tensors takes its time
        return func(*args, **kwargs)

    def _rows(self, args: tuple[Any, ...]) -> Tensor | None:
        """``x[mask]``, whose number of rows depends on the mask's values."""
        x, indices = args
        (mask,) = [i for i in indices if i is not None][:1] or [None]
        if len(indices) != 1 or mask is None or mask.dtype != torch.bool:
            return None
        count = max(1, round(self.kept * mask.numel()))
        return cast(Tensor, x.new_empty(count, *x.shape[mask.ndim :]))

    def _hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = _key(tensor)
        if key in self._sizes:
            return
        size = storage.nbytes()
        self._sizes[key] = size
        self.held += size
        self.peak = max(self.peak, self.held)
        weakref.finalize(storage, self._let_go, key).atexit = False

    def _let_go(self, key: int) -> None:
        self.held -= self._sizes.pop(key)
        self._networks.pop(key, None)

    def _note(self, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        name = func._schema.name
        if func.is_view or name in _NO_WORK:
            return
        shapes, keywords = tree_map_only(Tensor, _shape, (args, kwargs))
        backward = _in_backward()
        network = next(
            (n for t in _tensors(args) if (n := self._networks.get(_key(t)))), self._main
        )
        key = f"{func} {shapes} {keywords} {backward} {network} {self.per_sample}"
        if key not in self.operations:
            flops = operation_flops(func, args, kwargs, out)
            self.operations[key] = Operation(
                func, shapes, keywords, flops, network, backward, self.per_sample
            )
        self.operations[key].calls += 1

    def flops(self) -> dict[str, tuple[float, float]]:
        """Return network -> (forward, backward) in floating point operations of a step."""
        found: defaultdict[tuple[str, bool], float] = defaultdict(float)
        for operation in self.operations.values():
            found[operation.network, operation.backward] += operation.flops * operation.calls
        names = dict.fromkeys(name for name, _ in found)
        return {name: (found[name, False], found[name, True]) for name in names}


def _in_backward() -> bool:
    node: Any = torch._C._current_autograd_node()  # pyright: ignore[reportPrivateUsage]
    return node is not None


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]


def _shape(tensor: Tensor) -> Shape:
    return Shape(tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype)


def _tensors(tree: Any) -> Iterator[Tensor]:
    if isinstance(tree, Tensor):  # as nearly always
        return iter((tree,))
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))
