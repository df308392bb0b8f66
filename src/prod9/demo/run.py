"""``prod9 demo``: data, Stage 1, Stage 2, generation, figures, page."""

from collections.abc import Sequence
from pathlib import Path

import torch

from prod9.build import stage1, stage2
from prod9.build.announce import say
from prod9.build.generate import generate_files
from prod9.config import (
    MedMNISTDataConfig,
    Stage1Config,
)
from prod9.config.load import dump
from prod9.data import medmnist
from prod9.data.volumes import VolumeSet, loader
from prod9.demo.page import write_page
from prod9.demo.workspace import Clock, claim, configs
from prod9.errors import UserError
from prod9.evaluate.classifier import as_tensor, train_classifier
from prod9.evaluate.generation import evaluate_generation
from prod9.evaluate.provenance import provenance, write_json
from prod9.evaluate.reconstruction import evaluate_reconstruction
from prod9.generator import Generator
from prod9.montage import by_class, montage, save_figure

PER_CLASS = 4


def _regions(config: Stage1Config) -> MedMNISTDataConfig:
    """Return the data of the demo; an override may have put in something else."""
    if isinstance(config.data, MedMNISTDataConfig):
        return config.data
    raise UserError("this demo learns MedMNIST-like cubes; for scans, run: prod9 demo brats")


@torch.no_grad()
def _pictures(
    output: Path,
    generator: Generator,
    generated: torch.Tensor,
    labels: torch.Tensor,
    test: VolumeSet,
) -> None:
    real, real_labels = as_tensor(test), torch.from_numpy(test.labels)
    rows = by_class(real, real_labels, test.class_names, PER_CLASS)
    save_figure(output / "real.png", montage(rows, title="real (test split)"))
    device = next(generator.tokenizer.parameters()).device
    again = [
        (
            name,
            generator.tokenizer.decode(generator.tokenizer.encode(row.to(device)), row.shape[2:]),
        )
        for name, row in rows
    ]
    save_figure(output / "reconstructed.png", montage(again, title="the same, reconstructed"))
    drawn = by_class(generated, labels, generator.class_names, PER_CLASS)
    save_figure(output / "generated.png", montage(drawn, title="generated: nobody's brain"))


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
        UserError: ``output`` holds a demo already, or cannot be written.

    """
    one, two = configs(output, "stage1", "stage2", stage1_overrides, stage2_overrides)
    claim(output, overwrite)
    clock = Clock()
    say("Teaching this machine to draw brain regions (MNI152 template, 11 classes).")
    data = _regions(one)
    train, test = medmnist.load(data, "train"), medmnist.load(data, "test")
    clock.lap("data")
    tokenizer = stage1.train(one, overwrite=overwrite)
    clock.lap("stage1")
    generator = stage2.train(two, overwrite=overwrite)
    clock.lap("stage2")
    labels = stage2.labels_of(generator, ["all"], PER_CLASS)
    drawn: list[torch.Tensor] = []
    generate_files(
        generator,
        labels,
        two.sampler,
        output / "generated",
        seed=two.seed,
        batch_size=len(labels),
        overwrite=overwrite,
        on_volume=drawn.append,
    )
    generated = torch.stack(drawn)
    clock.lap("generation")
    batches = loader(test, data, train=False, seed=one.seed)
    reconstruction = evaluate_reconstruction(tokenizer, batches, test.class_names)
    classifier = train_classifier(train, test, seed=one.seed)
    generation = evaluate_generation(generated, labels, train, test, classifier)
    _pictures(output, generator, generated, labels, test)
    clock.lap("figures")
    write_json(
        output / "metrics.json",
        reconstruction=reconstruction,
        generation=generation,
        seconds=clock.seconds,
        provenance=provenance(
            seed=one.seed, tokenizer=tokenizer.digest, stage1=dump(one), stage2=dump(two)
        ),
    )
    return write_page(output, reconstruction, generation, clock.seconds)
