"""What a configuration can name: losses, sampling orders, mask schedules, heads, data sets.

A registry maps names to entries. An entry may be given as ``"module:attribute"``, which is imported
when the entry is first asked for, so that reading a configuration imports no torch.

Code outside prod9 adds its own with :meth:`Registry.register`. An installed package does so for the
console commands too, by naming a module that registers in its entry points::

    [project.entry-points."prod9.extensions"]
    mine = "my_package.my_losses"
"""

import difflib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from prod9.errors import Prod9Error

Entry = TypeVar("Entry")


class Registry(Generic[Entry]):
    """Names and their entries, in the order of registration.

    As an annotation it limits a key of the configuration to the registered names:
    ``order: Annotated[str, ORDERS]``.

    Args:
        what: what an entry is, for error messages: ``sampling order``.
        entries: the entries of prod9.
    """

    def __init__(self, what: str, entries: Mapping[str, Entry | str] | None = None) -> None:
        self.what = what
        self._entries: dict[str, Entry | str] = dict(entries or {})
        self._listeners: list[Callable[[], None]] = []

    @property
    def names(self) -> tuple[str, ...]:
        """The registered names."""
        return tuple(self._entries)

    def register(self, name: str, entry: Entry | str) -> None:
        """Add ``entry``, or its ``"module:attribute"``.

        Raises:
            Prod9Error: the name is taken or is no identifier.
        """
        if name in self._entries:
            raise Prod9Error(
                f"the {self.what} {name!r} is registered already; use another name, or take it "
                "back first with remove()."
            )
        if not name.isidentifier():
            raise Prod9Error(f"{name!r} cannot name a {self.what}; use letters, digits and _.")
        self._entries[name] = entry
        self._changed()

    def remove(self, name: str) -> None:
        """Take back a registration, as before a notebook registers a changed entry again."""
        del self._entries[name]
        self._changed()

    def get(self, name: str) -> Entry:
        """Return the entry of ``name``.

        Raises:
            Prod9Error: an unknown name; the message lists the known ones.
        """
        try:
            self._known(name)
        except ValueError as error:
            raise Prod9Error(f"the {self.what} {error}") from None
        entry = self._entries[name] = imported(self._entries[name])
        return entry

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` now and after each later change."""
        self._listeners.append(listener)
        listener()

    def _changed(self) -> None:
        for listener in self._listeners:
            listener()

    def _known(self, name: str) -> str:
        if name in self._entries:
            return name
        near = difflib.get_close_matches(name, self.names, n=1)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise ValueError(f"must be one of {', '.join(self.names)}, not {name!r}{hint}")

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._known, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), "enum": list(self._entries)}


def imported(entry: Any) -> Any:
    """Return ``entry``, or what it names if it is a ``"module:attribute"``."""
    if not isinstance(entry, str):
        return entry
    module, _, attribute = entry.partition(":")
    return getattr(import_module(module), attribute)


def load_extensions() -> None:
    """Import the modules that installed packages name in the group ``prod9.extensions``.

    One that cannot be imported is left out with a warning: it must not stop runs without it.
    """
    for point in entry_points(group="prod9.extensions"):
        try:
            point.load()
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            warnings.warn(f"prod9 extension {point.value} is left out: {what}", stacklevel=2)


@dataclass(frozen=True)
class Loss:
    """A term of Stage 1 that compares a reconstruction with its target.

    Args:
        section: its keys and their defaults, with a ``weight`` (:class:`prod9.config.LossSection`).
        build: section -> callable of (prediction, target, generator) that returns a scalar, or its
            ``"module:attribute"``. Both volumes are (B, C, D, H, W) in fp32; the generator, on the
            CPU, is the source of all randomness.
        key: name of the section and of the logged term; the registered name when left out.
        untrained: like ``build``, but reads no weights from disk; ``plan`` uses it.
    """

    section: type[BaseModel]
    build: Callable[[Any], Callable[..., Any]] | str
    key: str = ""
    untrained: Callable[[Any], Callable[..., Any]] | str | None = None


@dataclass(frozen=True)
class DatasetKind:
    """A kind of data set, see :func:`prod9.data.dataset.register_dataset`.

    Args:
        stage1: the section ``data`` of Stage 1 (:class:`prod9.config.data.SourceConfig`).
        stage2: the section ``data`` of Stage 2.
        open: (section, preprocessing) -> data set of each split, or its ``"module:attribute"``.
        outline: (section, number of subjects) -> what ``plan`` must know, or its
            ``"module:attribute"``; the data set is opened when left out.
    """

    stage1: type[BaseModel]
    stage2: type[BaseModel]
    open: Callable[..., Any] | str
    outline: Callable[..., Any] | str | None = None


LOSSES: Registry[Loss] = Registry("loss")
"""``loss.loss_type`` -> :class:`Loss`; filled in :mod:`prod9.config.loss`."""

ORDERS: Registry[Any] = Registry(
    "sampling order",
    {
        "confidence": "prod9.orders.confidence:CONFIDENCE",
        "halton": "prod9.orders.halton:HALTON",
    },
)
"""``sampler.order`` -> :class:`prod9.sampling.Order`."""

SCHEDULES: Registry[Any] = Registry(
    "mask schedule",
    {
        "cosine": "prod9.masking:cosine",
        "arccos": "prod9.masking:arccos",
        "linear": "prod9.masking:linear",
        "log": "prod9.masking:log",
    },
)
"""``loss.mask_schedule``, ``sampler.scheduler_type`` -> function (r, count) -> share masked, see
:func:`prod9.masking.gamma`."""

HEADS: Registry[Any] = Registry(
    "head",
    {
        "full": "prod9.networks.heads:FullHead",
        "lattice": "prod9.networks.heads:LatticeHead",
        "factorized": "prod9.networks.heads:FactorizedHead",
    },
)
"""``model.transformer.head`` -> module of (features per token, levels), see
:class:`prod9.networks.heads.Head`."""

DATASETS: Registry[DatasetKind] = Registry("data set")
"""``data.dataset_name`` -> :class:`DatasetKind`; filled in :mod:`prod9.config.data`."""
