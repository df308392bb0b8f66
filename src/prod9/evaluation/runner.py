"""An evaluation: sets of volumes in, ``metrics.json`` and ``report.html`` out."""

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress

from prod9.config.evaluation import FeatureSpaceKey
from prod9.data.volume_sets.open import observed_range
from prod9.data.volume_sets.volume_set import VolumeSet, comparable
from prod9.errors import Prod9Error
from prod9.evaluation.features.cache import cached_features
from prod9.evaluation.features.networks import NO_MEDICALNET, feature_spaces, lpips_of
from prod9.evaluation.features.spaces import CPU, FeatureSpace
from prod9.evaluation.generation import evaluate_generation
from prod9.evaluation.privacy import held_out
from prod9.evaluation.reconstruction import (
    FeatureDistance,
    Measured,
    evaluate_reconstruction,
    packed,
    table,
    unpacked,
)
from prod9.evaluation.work_cache import WorkCache
from prod9.files import hexdigest, write_text
from prod9.losses.weights import cache_dir, find_medicalnet
from prod9.metrics.codebook import CodebookStats
from prod9.report.document import Section
from prod9.report.report import ReportContent, write_report
from prod9.results.csv_text import csv_text
from prod9.results.provenance import provenance
from prod9.results.schema import Evaluation, Generation, Reconstruction, SetRecord
from prod9.runtime.distributed import is_main, world_size

REPORT, METRICS, ROWS = "report.html", "metrics.json", "reconstruction.csv"


@dataclass(frozen=True)
class Settings:
    """What is measured, and how."""

    seed: int = 0
    feature_spaces: Sequence[FeatureSpaceKey] = ("efficientnet", "medicalnet", "classifier")
    usefulness: bool = True
    medicalnet: Path | None = None
    """Its weights; the cached ones when left out."""
    device: torch.device = CPU
    """Of the networks behind LPIPS and the feature spaces; classifiers are trained on the CPU."""


@dataclass
class Evaluator:
    """Measures sets of volumes, collects the results and writes them.

    Each ``measure_`` method adds a part; :meth:`write` ends the work.
    """

    settings: Settings
    sets: dict[str, VolumeSet] = field(default_factory=dict[str, VolumeSet])
    reconstruction: Reconstruction | None = None
    generation: Generation | None = None
    warnings: list[str] = field(default_factory=list[str])
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    kept: WorkCache = field(default_factory=WorkCache)
    """Where parts of the work outlive a process that dies, until :meth:`write`."""
    _rows: str | None = None

    @contextmanager
    def _timed(self, part: str) -> Generator[Callable[[str, int, int], None]]:
        """Give a progress bar: told (what, done, of how many)."""
        start = time.monotonic()
        with Progress(transient=True, disable=not is_main()) as bar:
            task = bar.add_task(part, total=None)

            def tell(what: str, done: int, total: int) -> None:
                if not total:  # nobody knows how far it is
                    bar.tasks[0].total = None
                bar.update(task, description=what, completed=done, total=total or None)

            yield tell
        self.seconds[part] = round(time.monotonic() - start, 1)

    def _weights(self) -> Path | None:
        path = find_medicalnet(self.settings.medicalnet, cache_dir())
        if path is None and NO_MEDICALNET not in self.warnings:
            self.warnings.append(NO_MEDICALNET)
        return path

    def measure_reconstruction(
        self,
        originals: VolumeSet,
        reconstructed: VolumeSet,
        codebook: Callable[[], CodebookStats] | None = None,
        made_by: str = "",
    ) -> Reconstruction:
        """Compare volumes with their reconstructions, paired by their order.

        ``made_by`` says what decides the reconstructions, where their figures are to be kept.
        """
        path = self._weights()
        lpips: FeatureDistance | None = None
        if path is not None:
            lpips = lpips_of(path, self.settings.device)

        def through(measure: Callable[[int], Measured]) -> Iterator[Measured]:
            weights = "" if path is None else hexdigest(path, "sha256")
            device = self.settings.device.type
            decided_by = f"{originals.sha256} {made_by} {weights} {device}"
            names = [f"figures of {index} of {decided_by}" for index in range(len(originals))]
            parts = self.kept.all_of(
                names,
                lambda index: packed(measure(index)),
                lambda done: tell("reconstruction", done, -(-len(originals) // world_size())),
            )
            return map(unpacked, parts)

        with self._timed("reconstruction") as tell:
            self.reconstruction, rows = evaluate_reconstruction(
                originals,
                reconstructed,
                seed=self.settings.seed,
                lpips=lpips,
                lpips_network=None if path is None else f"MedicalNet ResNet-10 ({path.name})",
                codebook=codebook,
                on_volume=lambda done: tell("reconstruction", done, len(originals)),
                through=through if made_by else None,
            )
        self._rows = csv_text(table(rows, originals.class_names))
        self.sets |= {"originals": originals, "reconstructed": reconstructed}
        return self.reconstruction

    def measure_generation(
        self, real: VolumeSet, generated: VolumeSet, train: VolumeSet | None
    ) -> Generation:
        """Compare generated volumes with real held-out ones, and with training volumes.

        After :meth:`measure_reconstruction`, the reconstructions stand beside them.
        """
        for collection in (real, generated, *([] if train is None else [train])):
            if len(collection) < 2:
                raise Prod9Error(
                    f"{collection.name} has {len(collection)} volume; a comparison of sets needs "
                    "at least two."
                )
        named = {"real": real, "generated": generated} | ({} if train is None else {"train": train})
        named = dict(zip(named, comparable(*named.values()), strict=True))
        if train is not None:
            named["real"], left_out = held_out(named["real"], named["train"])
            self.warnings += left_out
        with self._timed("generation") as tell:
            self.generation, warnings = evaluate_generation(
                named["real"],
                named["generated"],
                named.get("train"),
                self._spaces(),
                reconstructed=self.sets.get("reconstructed"),
                seed=self.settings.seed,
                with_classifier="classifier" in self.settings.feature_spaces,
                with_usefulness=self.settings.usefulness,
                tell=tell,
                real_features=cached_features,
            )
        self.warnings = [*warnings, *self.warnings]
        self.sets |= named
        return self.generation

    def _spaces(self) -> list[FeatureSpace]:
        wanted = self.settings.feature_spaces
        path = self._weights() if "medicalnet" in wanted else None
        return feature_spaces(
            [k for k in wanted if k != "medicalnet" or path is not None],
            path,
            self.settings.device,
        )

    def evaluation(self, source: Mapping[str, Any], **parts: Any) -> Evaluation:
        """Return everything that was measured.

        Args:
            source: what else decides the figures (digests, configurations).
            parts: further fields of :class:`Evaluation`.
        """
        records: dict[str, SetRecord] = {}
        for role, collection in self.sets.items():
            if role == "originals" and "real" in self.sets:
                continue  # the same volumes again
            records[role] = _record(collection, with_digest=role != "reconstructed")
        return Evaluation(
            sets=records,
            reconstruction=self.reconstruction,
            generation=self.generation,
            warnings=self.warnings,
            seconds=self.seconds,
            provenance=provenance(seed=self.settings.seed, **source),
            **parts,
        )

    def write(
        self,
        folder: Path,
        evaluation: Evaluation,
        *,
        title: str,
        lead: str,
        page: str = REPORT,
        histories: Mapping[str, Path] | None = None,
        configs: Mapping[str, str] | None = None,
        before: Sequence[Section] = (),
    ) -> Path:
        """Write ``metrics.json``, the page and the figures of each volume; return the page.

        In a distributed run all processes have measured the same; the main one writes.
        """
        if not is_main():
            self.kept.clear()
            return folder / page
        # The figures first: they took longest, and a page can be made again.
        for stale in (ROWS, page):
            (folder / stale).unlink(missing_ok=True)
        write_text(folder / METRICS, evaluation.model_dump_json(indent=2) + "\n")
        if self._rows is not None:
            write_text(folder / ROWS, self._rows)
        content = ReportContent(
            title=title,
            lead=lead,
            evaluation=evaluation,
            sets=self.sets,
            histories=histories or {},
            configs=configs or {},
            before=before,
        )
        write_report(folder / page, content)
        self.kept.clear()
        return folder / page


def _record(collection: VolumeSet, *, with_digest: bool) -> SetRecord:
    low, high = observed_range(collection)
    return SetRecord(
        name=collection.name,
        volumes=len(collection),
        classes=collection.counts,
        shape=collection.shape,
        spacing_mm=collection.spacing_mm,
        intensity=collection.intensity,
        lowest=low,
        highest=high,
        sha256=collection.sha256 if with_digest else None,
    )
