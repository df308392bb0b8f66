"""``prod9 demo``: data, Stage 1, Stage 2, generation, and the report on all of it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from prod9.config.data import CroppedSourceConfig
from prod9.data.dataset import open_splits
from prod9.data.volume_sets.volume_set import VolumeSet, of_dataset, of_tensor
from prod9.demo.both_stages import train_both, write_page
from prod9.demo.workspace import Clock, claim, configs
from prod9.errors import Prod9Error
from prod9.evaluation.test_metrics import evaluator_of, measure_reconstruction
from prod9.inference.generate import generate_files
from prod9.montage import montage, save_figure
from prod9.runtime.console import say
from prod9.sample_request import SampleRequest

SHOWN = 4
"""Volumes of each class in the pictures."""
_LEAD = (
    "A tokenizer and a masked transformer, both trained on this machine a moment ago. The data is "
    "one average anatomy (MNI152), bent and shaded at random: these figures show that learning "
    "works, and nothing about patients."
)


def _picture(path: Path, collection: VolumeSet, title: str) -> None:
    rows = [
        (name, collection.tensor(collection.of_class(label)[:SHOWN]))
        for label, name in enumerate(collection.class_names)
        if name in collection.counts
    ]
    save_figure(path, montage(rows, title=title))


def run_demo(
    output: Path,
    *,
    overwrite: bool,
    stage1_overrides: Sequence[str] = (),
    stage2_overrides: Sequence[str] = (),
) -> Path:
    """Run the demonstration and return its page, ``output/index.html``.

    Args:
        output: folder for everything.
        overwrite: replace an earlier demo.
        stage1_overrides: of ``maskgit/demo/stage1.yaml``.
        stage2_overrides: of ``maskgit/demo/stage2.yaml``.

    Raises:
        Prod9Error: ``output`` holds a demo already, or cannot be written.
    """
    one, two = configs(output, "stage1", "stage2", stage1_overrides, stage2_overrides)
    if isinstance(one.data, CroppedSourceConfig):
        raise Prod9Error("this demo learns MedMNIST-like cubes; for scans, run: prod9 demo brats")
    claim(output, one, two, overwrite=overwrite)
    clock = Clock()
    say("Teaching this machine to draw brain regions (MNI152 template, 11 classes).")
    splits = open_splits(one.data)
    splits["train"]  # built or downloaded here
    clock.lap("data")
    trained = train_both(one, two, clock, overwrite=overwrite)
    tokenizer, generator = trained.tokenizer, trained.generator
    labels = generator.labels_of(["all"], max(1, two.evaluation.samples_per_class))
    request = SampleRequest.generation_of(two, labels)
    request = replace(request, batch_size=len(generator.class_names) * SHOWN)
    drawn: list[torch.Tensor] = []
    folder = output / "generated"
    generate_files(generator, request, folder, overwrite=overwrite, on_volume=drawn.append)
    clock.lap("generation")
    evaluator = evaluator_of(two)
    measure_reconstruction(evaluator, one, tokenizer, "test")
    names, test = generator.class_names, splits["test"]
    generated = of_tensor(
        torch.stack(drawn), torch.tensor(labels), names, "generated", test.spacing_mm
    )
    evaluator.measure_generation(of_dataset(test), generated, of_dataset(splits["train"]))
    sets = evaluator.sets
    _picture(output / "real.png", sets["originals"], "real (test split)")
    _picture(output / "reconstructed.png", sets["reconstructed"], "the same, reconstructed")
    _picture(output / "generated.png", sets["generated"], "generated: nobody's brain")
    clock.lap("figures")
    return write_page(
        output,
        trained,
        evaluator,
        clock,
        title="prod9: brain regions, learned and drawn",
        lead=_LEAD,
    )
