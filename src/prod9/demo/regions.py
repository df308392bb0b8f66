"""``prod9 demo``: brain regions, both stages, generation, and the report on all of it."""

from collections.abc import Sequence
from pathlib import Path

import torch

from prod9.config.data import CroppedSourceConfig
from prod9.data.dataset import open_splits
from prod9.data.volume_sets.volume_set import VolumeSet, of_dataset, of_tensor
from prod9.demo.demonstration import Demonstration, claim, load_configs
from prod9.errors import Prod9Error
from prod9.evaluation.test_metrics import evaluator_of, measure_reconstruction
from prod9.montage import montage, save_figure
from prod9.runtime.clock import Clock
from prod9.runtime.console import say

SHOWN = 4
"""Volumes of each class in the pictures."""
_LEAD = (
    "A tokenizer and a masked transformer, both trained on this machine a moment ago. The data is "
    "one average anatomy (MNI152), bent and shaded at random: these figures show that learning "
    "works, and nothing about patients."
)


def run_demo(
    output: Path,
    *,
    overwrite: bool,
    stage1_overrides: Sequence[str] = (),
    stage2_overrides: Sequence[str] = (),
) -> Path:
    """Run the demonstration in the folder ``output`` and return its page, ``output/index.html``.

    The overrides are of ``maskgit/demo/stage1.yaml`` and ``stage2.yaml``.

    Raises:
        Prod9Error: ``output`` holds a demo already (``overwrite`` replaces it), or cannot be
            written.
    """
    files, overrides = ("stage1", "stage2"), (stage1_overrides, stage2_overrides)
    one, two = load_configs(output, files, overrides)
    if isinstance(one.data, CroppedSourceConfig):
        raise Prod9Error("this demo learns MedMNIST-like cubes; for scans, run: prod9 demo brats")
    claim(output, one, two, overwrite=overwrite)
    clock = Clock()
    say("Teaching this machine to draw brain regions (MNI152 template, 11 classes).")
    splits = open_splits(one.data)
    splits["train"]  # built or downloaded here
    clock.lap("data")
    demo = Demonstration.train(output, one, two, clock, overwrite=overwrite)
    names, test = demo.model.class_names, splits["test"]
    drawn: list[torch.Tensor] = []
    each = max(1, two.evaluation.samples_per_class)
    labels = torch.tensor(demo.generate(each, len(names) * SHOWN, drawn.append))
    clock.lap("generation")
    evaluator = evaluator_of(two)
    measure_reconstruction(evaluator, one, demo.tokenizer, "test")
    generated = of_tensor(torch.stack(drawn), labels, names, "generated", test.spacing_mm)
    evaluator.measure_generation(of_dataset(test), generated, of_dataset(splits["train"]))
    sets = evaluator.sets
    _picture(output / "real.png", sets["originals"], "real (test split)")
    _picture(output / "reconstructed.png", sets["reconstructed"], "the same, reconstructed")
    _picture(output / "generated.png", sets["generated"], "generated: nobody's brain")
    clock.lap("figures")
    title = "prod9: brain regions, learned and drawn"
    return demo.write_page(evaluator, title=title, lead=_LEAD)


def _picture(path: Path, volumes: VolumeSet, title: str) -> None:
    rows = [
        (name, volumes.tensor(volumes.of_class(label)[:SHOWN]))
        for label, name in enumerate(volumes.class_names)
        if name in volumes.counts
    ]
    save_figure(path, montage(rows, title=title))
