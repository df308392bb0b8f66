"""``prod9 demo brats``: a semi-synthetic cohort, both stages, any modality from any other."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress

from prod9.config import BraTSDataConfig, BraTSSourceConfig, Stage2Config
from prod9.data.brats.cases import MODALITIES, find_cases
from prod9.data.brats.open_scans import open_scans, preprocessing_of
from prod9.data.brats.scans import ScanSet
from prod9.data.native_space import NativeVolume
from prod9.data.phantom.cohort import make_phantom
from prod9.demo.both_stages import train_both, write_page
from prod9.demo.workspace import Clock, claim, configs, override
from prod9.errors import Prod9Error
from prod9.evaluation.evaluator import Evaluator
from prod9.evaluation.reconstruction import window_agreement
from prod9.evaluation.test_metrics import measure_reconstruction
from prod9.evaluation.translation import Score, TranslationMetrics
from prod9.evaluation.translation_test import SOURCES, TARGET, measure_translation
from prod9.inference.generate import generate_files
from prod9.inference.translate import TranslatedFiles, translate_files
from prod9.model import Model
from prod9.report.document import Section, escape
from prod9.report.pictures import image
from prod9.report.tables import table
from prod9.runtime.console import say
from prod9.sample_request import SampleRequest
from prod9.training.trainer import resolve_device

_OTHER_DATA = "this demo learns scans; for cubes of brain regions, run: prod9 demo regions"
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
    data = _scans(two)
    if not isinstance(one.data, BraTSDataConfig):
        raise Prod9Error(_OTHER_DATA)
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
    scans = open_scans(data, preprocessing_of(tokenizer))
    how = SampleRequest.completion_of(two)
    translation = measure_translation(generator, scans["train"], scans["test"], how)
    clock.lap("translation")
    example = _example(output, generator, data, scans["test"], how)
    request = SampleRequest.generation_of(two, generator.labels_of(["all"], 1))
    request = replace(request, batch_size=None)  # all channels together
    generate_files(generator, request, output / "generated", overwrite=overwrite)
    clock.lap("pictures")
    evaluator = Evaluator(one.seed, device=resolve_device(one.trainer.accelerator))
    measure_reconstruction(evaluator, one, tokenizer, "test")
    first = torch.from_numpy(scans["test"].whole(0, MODALITIES.index(TARGET)))[None, None]
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


def _scans(config: Stage2Config) -> BraTSSourceConfig:
    """Return the data of the demo; an override may have put in something else."""
    if isinstance(config.data, BraTSSourceConfig):
        return config.data
    raise Prod9Error(_OTHER_DATA)


def _example(
    output: Path,
    generator: Model,
    data: BraTSSourceConfig,
    test: ScanSet,
    how: SampleRequest,
) -> TranslatedFiles:
    """Translate the first test scan from its files, as a user would."""
    name = test.scans[0].name
    case = next(case for case in find_cases(data.data_dir).cases if case.name == name)
    assert case.segmentation is not None
    tumour = NativeVolume.read(case.segmentation, preprocessing_of(generator.tokenizer))
    at = np.argwhere(tumour.on_grid(tumour.foreground) > 0).mean(0).round().astype(int)
    return translate_files(
        generator,
        {modality: case.files[modality] for modality in SOURCES[-1]},
        output / "example" / f"{name}_{TARGET}.nii.gz",
        replace(how, labels=generator.labels_of([TARGET], SAMPLES)),
        truth=case.files[TARGET],
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
