"""``prod9 demo brats``: a semi-synthetic cohort, both stages, any modality from any other."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress

from prod9.data.brats.layouts import find_cases
from prod9.data.dataset import Dataset, open_splits
from prod9.data.native_space import NativeVolume
from prod9.data.phantom.cohort import make_phantom
from prod9.data.volume_files.read import read_volume
from prod9.demo.both_stages import train_both, write_page
from prod9.demo.workspace import Clock, claim, configs, override
from prod9.errors import Prod9Error
from prod9.evaluation.evaluator import Evaluator
from prod9.evaluation.reconstruction import window_agreement
from prod9.evaluation.test_metrics import measure_reconstruction
from prod9.evaluation.translation import (
    Score,
    TranslationMetrics,
    measure_translation,
    source_sets,
)
from prod9.inference.generate import generate_files
from prod9.inference.translate import TranslatedFiles, translate_files
from prod9.model import Model
from prod9.report.document import Section, escape
from prod9.report.pictures import image
from prod9.report.tables import table
from prod9.runtime.console import say
from prod9.sample_request import SampleRequest
from prod9.training.trainer import resolve_device

CASES = 40
SAMPLES = 4
"""Draws behind the uncertainty map."""
_LEAD = (
    "A tokenizer of four MRI contrasts and a transformer that draws any of them from any others, "
    "trained on this machine a moment ago. The scans are semi-synthetic: one template brain "
    "(MNI152), bent at random, with drawn tumours. These figures show that learning works, and "
    "nothing about patients."
)


def run_brats_demo(
    output: Path,
    *,
    overwrite: bool,
    stage1_overrides: Sequence[str] = (),
    stage2_overrides: Sequence[str] = (),
    cases: int = CASES,
    voxel_mm: float = 1.0,
) -> Path:
    """Run the demonstration and return its page, ``output/index.html``.

    Args:
        output: folder for everything.
        overwrite: replace an earlier demo.
        stage1_overrides: of ``maskgit/demo/brats_stage1.yaml``.
        stage2_overrides: of ``maskgit/demo/brats_stage2.yaml``.
        cases: of the cohort.
        voxel_mm: of the cohort.

    Raises:
        Prod9Error: ``output`` holds a demo already, or cannot be written.
    """
    own = [
        override("data.data_dir", output / "cohort"),
        override("data.split_file", output / "split.json"),
        override("data.cache_dir", output / "cache"),
    ]
    one, two = configs(
        output,
        "brats_stage1",
        "brats_stage2",
        [*own, *stage1_overrides],
        [*own, *stage2_overrides],
    )
    if {one.data.dataset_name, two.data.dataset_name} != {"brats"}:
        raise Prod9Error("this demo learns scans; for cubes of brain regions: prod9 demo regions")
    claim(output, one, two, overwrite=overwrite)
    clock = Clock()
    say("Teaching this machine four MRI contrasts (semi-synthetic cohort, one template anatomy).")
    with Progress(transient=True) as bar:
        task = bar.add_task("drawing the cohort", total=cases)
        make_phantom(
            output / "cohort",
            cases=cases,
            release="2021",
            seed=one.seed,
            overwrite=overwrite,
            voxel_mm=voxel_mm,
            on_case=lambda index: bar.advance(task),
        )
    clock.lap("cohort")
    trained = train_both(one, two, clock, overwrite=overwrite)
    tokenizer, generator = trained.tokenizer, trained.generator
    splits = open_splits(two.data, tokenizer.spec.preprocessing)
    test, how = splits["test"], SampleRequest.completion_of(two)
    translation = measure_translation(generator, splits["train"], test, how)
    clock.lap("translation")
    example = _example(output, generator, test, how)
    request = SampleRequest.generation_of(two, generator.labels_of(["all"], 1))
    request = replace(request, batch_size=None)  # all channels together
    generate_files(generator, request, output / "generated", overwrite=overwrite)
    clock.lap("pictures")
    evaluator = Evaluator(one.seed, device=resolve_device(one.trainer.accelerator))
    measure_reconstruction(evaluator, one, tokenizer, "test")
    first = torch.from_numpy(test.whole(0, source_sets(test)[0]))[None, None]
    agreement = window_agreement(tokenizer, first, one.sliding_window)
    clock.lap("reconstruction")
    return write_page(
        output,
        trained,
        evaluator,
        clock,
        title="prod9: any modality from any other",
        lead=_LEAD,
        before=_sections(output, translation, example, clock.seconds["total"]),
        translation=asdict(translation),
        window_agreement=agreement,
    )


def _example(output: Path, generator: Model, test: Dataset, how: SampleRequest) -> TranslatedFiles:
    """Translate the first test scan from its files, as a user would."""
    name, (target, sets) = test.names[0], source_sets(test)
    cases = find_cases(output / "cohort").cases
    case = next(case for case in cases if case.name == name)
    assert case.segmentation is not None
    tumour = NativeVolume.of(read_volume(case.segmentation), test.preprocessing)
    at = np.argwhere(tumour.on_grid(tumour.foreground) > 0).mean(0).round().astype(int)
    channels = generator.channels
    return translate_files(
        generator,
        {channels[m]: case.files[channels[m]] for m in sets[-1]},
        output / "example" / f"{name}_{channels[target]}.nii.gz",
        replace(how, labels=generator.labels_of([channels[target]], SAMPLES)),
        truth=case.files[channels[target]],
        at=at.tolist(),
        overwrite=True,
    )


def _row(name: str, score: Score) -> tuple[str, str, str]:
    return escape(name), f"{score.psnr:.2f} dB", f"{score.ssim:.3f}"


def _sections(
    output: Path, translation: TranslationMetrics, example: TranslatedFiles, seconds: float
) -> list[Section]:
    t = translation
    rows = [
        *(_row(f"{t.target} drawn from {name}", score) for name, score in t.drawn.items()),
        *(
            _row(f"{name}, histogram matched to the truth", score)
            for name, score in t.matched.items()
        ),
        _row(f"mean {t.target} of the training scans", t.mean),
        _row(f"true {t.target}, encoded and decoded", t.ceiling),
    ]
    montage = (output / "generated" / "montage.png").read_bytes()
    return [
        Section(
            "translation",
            f"{t.target} of {t.scans} held-out scans",
            f"{table(('', 'PSNR', 'SSIM'), rows)}<p>Over the foreground, one draw a scan. All of "
            f"the demonstration took {seconds / 60:.1f} minutes on this machine.</p>",
        ),
        Section(
            "example",
            "One of them: sources, truth, drawn, uncertainty",
            image(example.picture.read_bytes(), "Sources, truth, drawn, uncertainty"),
        ),
        Section(
            "nothing",
            "Drawn from nothing but the modality's name",
            "<p>Whole brains take more training than a demonstration has: heads in the right "
            f"place, no anatomy inside.</p>{image(montage, 'Drawn from the name of a modality')}",
        ),
    ]
