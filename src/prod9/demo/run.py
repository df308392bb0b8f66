"""``prod9 demo``: data, Stage 1, Stage 2, generation, figures, page."""

import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from prod9.build import stage1, stage2
from prod9.build.announce import say
from prod9.build.generate import generate_files
from prod9.config import (
    MedMNISTDataConfig,
    MedMNISTSourceConfig,
    Stage1Config,
    Stage2Config,
)
from prod9.config.load import dump, load_stage1, load_stage2
from prod9.data import medmnist
from prod9.data.volumes import loader
from prod9.demo.page import write_page
from prod9.errors import UserError
from prod9.evaluate.classifier import as_tensor, train_classifier
from prod9.evaluate.generation import evaluate_generation
from prod9.evaluate.provenance import provenance, write_json
from prod9.evaluate.reconstruction import evaluate_reconstruction
from prod9.generator import Generator
from prod9.montage import by_class, montage, save_figure

PER_CLASS = 4


class _Clock:
    """Seconds of each part of the demo."""

    def __init__(self) -> None:
        self.start = self.last = time.monotonic()
        self.seconds: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.seconds[name] = round(now - self.last, 1)
        self.seconds["total"] = round(now - self.start, 1)
        self.last = now
        say(f"[{self.seconds['total'] / 60:.1f} min] {name}: {self.seconds[name]:.0f} s")


def _override(key: str, path: Path) -> str:
    """Return an override that holds whatever characters the path has."""
    return f"{key}={json.dumps(str(path)).replace('${', '$${')}"


def _configs(
    output: Path, first: Sequence[str], second: Sequence[str]
) -> tuple[Stage1Config, Stage2Config]:
    export = output / "autoencoder.pt"
    one = load_stage1(
        Path("maskgit/demo/stage1.yaml"),
        [
            _override("output_dir", output / "stage1"),
            _override("autoencoder_export_path", export),
            *first,
        ],
    )
    two = load_stage2(
        Path("maskgit/demo/stage2.yaml"),
        [
            _override("output_dir", output / "stage2"),
            _override("autoencoder_path", export),
            *second,
        ],
    )
    return one, two


def _claim(output: Path, overwrite: bool) -> None:
    if (output / "metrics.json").exists() or (output / "stage1").exists():
        if not overwrite:
            raise UserError(
                f"{output} already holds a demo; replace it with --overwrite or choose another "
                "--output."
            )
        for part in ("stage1", "stage2", "generated"):
            shutil.rmtree(output / part, ignore_errors=True)
        for file in ("autoencoder.pt", "metrics.json", "index.html"):
            (output / file).unlink(missing_ok=True)


@torch.no_grad()
def _pictures(
    output: Path,
    generator: Generator,
    config: Stage2Config,
    generated: torch.Tensor,
    labels: torch.Tensor,
) -> None:
    test = medmnist.load(stage1.require_medmnist(config.data, MedMNISTSourceConfig), "test")
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
    one, two = _configs(output, stage1_overrides, stage2_overrides)
    _claim(output, overwrite)
    clock = _Clock()
    say("Teaching this machine to draw brain regions (MNI152 template, 11 classes).")
    data = stage1.require_medmnist(one.data, MedMNISTDataConfig)
    train, test = medmnist.load(data, "train"), medmnist.load(data, "test")
    clock.lap("data")
    tokenizer = stage1.train(one, overwrite=overwrite)
    clock.lap("stage1")
    generator = stage2.train(two, overwrite=overwrite)
    clock.lap("stage2")
    labels = stage2.labels_of(generator, ["all"], PER_CLASS)
    generated = generate_files(
        generator,
        labels,
        two.sampler,
        output / "generated",
        seed=two.seed,
        batch_size=len(labels),
        overwrite=overwrite,
    )
    clock.lap("generation")
    batches = loader(test, data, train=False, seed=one.seed)
    reconstruction = evaluate_reconstruction(tokenizer, batches, test.class_names)
    classifier = train_classifier(train, test, seed=one.seed)
    generation = evaluate_generation(generated, labels, train, test, classifier)
    _pictures(output, generator, two, generated, labels)
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
