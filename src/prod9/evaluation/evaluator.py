"""Measures sets of volumes and writes ``metrics.json`` and ``report.html``."""

import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prod9.config.evaluation import FeatureSpaceKey, SegmentationConfig
from prod9.data.dataset import Splits
from prod9.data.volume_sets.volume_set import VolumeSet, comparable
from prod9.errors import Prod9Error
from prod9.evaluation.feature_spaces import CPU
from prod9.evaluation.generation import evaluate_generation
from prod9.evaluation.pretrained import NO_MEDICALNET, feature_spaces, lpips_of
from prod9.evaluation.privacy import held_out
from prod9.evaluation.reconstruction import RoundTrip, measure_pair, summarize, table
from prod9.evaluation.segmentation import measure_segmentation
from prod9.evaluation.work_cache import WorkCache
from prod9.files import hexdigest, write_text
from prod9.losses.weights import find_medicalnet
from prod9.model import Model
from prod9.report.report import Extra, write_report
from prod9.results.csv_text import csv_text
from prod9.results.provenance import provenance
from prod9.results.schema import (
    Evaluation,
    Generation,
    Reconstruction,
    Segmentation,
    SetRecord,
)
from prod9.runtime.cache import cache_dir
from prod9.runtime.clock import Clock
from prod9.runtime.distributed import is_main
from prod9.sample_request import SampleRequest

REPORT, METRICS, ROWS = "report.html", "metrics.json", "reconstruction.csv"
FEW_SUBJECTS, WEAK_DICE = 10, 0.7
"""Below these, there is a warning beside what segmenters found."""
SPACES: tuple[FeatureSpaceKey, ...] = ("efficientnet", "medicalnet", "classifier")


@dataclass
class Evaluator:
    """Measures sets of volumes (``measure_...``), collects the results and writes them."""

    seed: int = 0
    feature_spaces: Sequence[FeatureSpaceKey] = SPACES
    usefulness: bool = True
    two_sample_test: bool = True
    medicalnet: Path | None = None
    """Its weights; the cached ones when left out."""
    device: torch.device = CPU
    """Of the networks behind LPIPS and the feature spaces; classifiers are trained on the CPU."""
    kept: WorkCache = field(default_factory=WorkCache)
    """Parts of the work that an interrupted run continues from, until :meth:`write`."""
    sets: dict[str, VolumeSet] = field(default_factory=dict[str, VolumeSet])
    reconstruction: Reconstruction | None = None
    generation: Generation | None = None
    segmentation: Segmentation | None = None
    warnings: list[str] = field(default_factory=list[str])
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    rows: list[dict[str, object]] = field(default_factory=list[dict[str, object]])
    """Figures of each reconstructed volume, for a CSV file."""

    @contextmanager
    def _timed(self, part: str) -> Generator[None]:
        start = time.monotonic()
        yield
        self.seconds[part] = round(time.monotonic() - start, 1)

    def _medicalnet(self) -> Path | None:
        path = find_medicalnet(self.medicalnet, cache_dir())
        if path is None and NO_MEDICALNET not in self.warnings:
            self.warnings.append(NO_MEDICALNET)
        return path

    def measure_reconstruction(
        self, originals: VolumeSet, made: VolumeSet | RoundTrip
    ) -> Reconstruction:
        """Compare volumes with their reconstructions, paired by their order.

        The figures of a :class:`RoundTrip` are kept in ``kept``.
        """
        path, trip = self._medicalnet(), made if isinstance(made, RoundTrip) else None
        reconstructed = made.reconstructed if isinstance(made, RoundTrip) else made
        lpips = None if path is None else lpips_of(path, self.device)
        kept, names = WorkCache(), [""] * len(originals)
        if trip is not None and self.kept.folder is not None:
            weights = "" if path is None else hexdigest(path, "sha256")
            made_by = f"{originals.sha256} {trip.made_by} {weights} {self.device.type}"
            kept, names = self.kept, [f"metrics of {n} of {made_by}" for n in range(len(originals))]

        def measure(index: int) -> np.ndarray:
            return measure_pair(originals[index], reconstructed[index], lpips)

        with self._timed("reconstruction"):
            found = np.stack(kept.all_of(names, measure, "reconstruction"))
            self.reconstruction = summarize(
                originals,
                found,
                seed=self.seed,
                lpips_network=None if path is None else f"MedicalNet ResNet-10 ({path.name})",
                codebook=None if trip is None else trip.codebook(),
                bits_per_voxel=None if trip is None else trip.bits_per_voxel(),
            )
        self.rows = table(originals, found)
        self.sets |= {"originals": originals, "reconstructed": reconstructed}
        return self.reconstruction

    def measure_generation(
        self, real: VolumeSet, generated: VolumeSet, train: VolumeSet | None
    ) -> Generation:
        """Compare generated volumes with real held-out ones, and with training volumes.

        After :meth:`measure_reconstruction`, the figures of the reconstructions are beside them.
        """
        for volumes in (real, generated, train):
            if volumes is not None and len(volumes) < 2:
                raise Prod9Error(
                    f"{volumes.name} has {len(volumes)} volume; a comparison of sets needs at "
                    "least two."
                )
        real, generated, *known = comparable(real, generated, *([] if train is None else [train]))
        train = known[0] if known else None
        if train is not None:
            real, left_out = held_out(real, train)
            self.warnings += left_out
        wanted = self.feature_spaces
        path = self._medicalnet() if "medicalnet" in wanted else None
        keys: list[FeatureSpaceKey] = [
            key for key in wanted if key != "medicalnet" or path is not None
        ]
        clock = Clock(quiet=True)
        with self._timed("generation"):
            self.generation, warnings = evaluate_generation(
                real,
                generated,
                train,
                feature_spaces(keys, path, self.device),
                reconstructed=self.sets.get("reconstructed"),
                seed=self.seed,
                with_classifier="classifier" in wanted,
                with_usefulness=self.usefulness,
                with_two_sample_test=self.two_sample_test,
                cache=features_cache(),
                clock=clock,
            )
        del clock.seconds["total"]
        self.seconds |= {f"figures: {name}": value for name, value in clock.seconds.items()}
        self.warnings = [*warnings, *self.warnings]
        self.sets |= {"real": real, "generated": generated}
        self.sets |= {} if train is None else {"train": train}
        return self.generation

    def measure_segmentation(
        self, model: Model, splits: Splits, request: SampleRequest, config: SegmentationConfig
    ) -> Segmentation:
        """Judge a model that has learned labels; :func:`measure_segmentation`."""
        with self._timed("segmentation"):
            self.segmentation = measure_segmentation(
                model, splits, request, config, seed=self.seed, kept=self.kept
            )
        fewest = self.segmentation.test_subjects
        if fewest < FEW_SUBJECTS:
            self.warnings.append(
                f"Segmenters are tested on {fewest} subjects; below {FEW_SUBJECTS}, intervals over "
                "subjects are too narrow."
            )
        real = next(each for each in self.segmentation.segmenters if each.trained_on == "real")
        for score in real.labels:
            if score.dice < WEAK_DICE:
                self.warnings.append(
                    f"Segmenters of real pairs reach a Dice of {score.dice:.2f} for label "
                    f"{score.label}: what such weak judges find in drawn images says little; give "
                    "them more steps or pairs (evaluation.segmentation)."
                )
        return self.segmentation

    def evaluation(self, source: Mapping[str, Any], **parts: Any) -> Evaluation:
        """Return everything that was measured.

        ``source`` is what else decides the figures (digests, configurations), ``parts`` are further
        fields of :class:`Evaluation`.
        """
        records = {
            role: SetRecord(
                name=volumes.name,
                volumes=len(volumes),
                classes=volumes.counts,
                shape=volumes.shape,
                spacing_mm=volumes.spacing_mm,
                intensity=volumes.intensity,
                lowest=volumes.intensity_range[0],
                highest=volumes.intensity_range[1],
                sha256=None if role == "reconstructed" else volumes.sha256,
            )
            for role, volumes in self.sets.items()
            if role != "originals" or "real" not in self.sets  # else the same volumes again
        }
        return Evaluation(
            sets=records,
            reconstruction=self.reconstruction,
            generation=self.generation,
            segmentation=self.segmentation,
            warnings=self.warnings,
            seconds=self.seconds,
            provenance=provenance(seed=self.seed, **source),
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
        extra: Sequence[Extra] = (),
    ) -> Path:
        """Write ``metrics.json``, the page and the figures of each volume; return the page.

        In a distributed run all processes have measured the same; the main one writes.
        """
        if is_main():
            # The figures first: the page can be made again from them.
            for stale in (ROWS, page):
                (folder / stale).unlink(missing_ok=True)
            write_text(folder / METRICS, evaluation.model_dump_json(indent=2) + "\n")
            if self.rows:
                write_text(folder / ROWS, csv_text(self.rows))
            write_report(
                folder / page,
                evaluation,
                self.sets,
                title=title,
                lead=lead,
                histories=histories,
                configs=configs,
                extra=extra,
            )
        self.kept.clear()
        return folder / page


def features_cache() -> WorkCache:
    """Return the cache of features of real volumes: one reference set serves many generators."""
    return WorkCache(cache_dir() / "features")
