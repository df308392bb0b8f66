"""``prod9 demo brats``: a semi-synthetic cohort, both stages, any modality from any other."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from rich.progress import Progress

from prod9.data.brats.layouts import find_cases
from prod9.data.brats.phantom.cohort import make_phantom
from prod9.data.dataset import Dataset, open_splits
from prod9.data.native_space import NativeVolume
from prod9.data.volume_files.read import read_volume
from prod9.demo.demonstration import Demonstration, claim, load_configs
from prod9.errors import Prod9Error
from prod9.evaluation.evaluator import Evaluator
from prod9.evaluation.reconstruction import window_agreement
from prod9.evaluation.test_metrics import measure_reconstruction
from prod9.evaluation.translation import TranslationMetrics, measure_translation, source_sets
from prod9.inference.translate import translate_files
from prod9.report.pictures import picture
from prod9.report.report import Extra
from prod9.runtime.clock import Clock
from prod9.runtime.console import say
from prod9.runtime.device import resolve_device
from prod9.sample_request import SampleRequest

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
    cases: int = 40,
    voxel_mm: float = 1.0,
) -> Path:
    """Run the demonstration in the folder ``output`` and return its page, ``output/index.html``.

    The overrides are of ``maskgit/demo/brats_stage1.yaml`` and ``brats_stage2.yaml``; the cohort
    has so many ``cases`` of so large voxels.

    Raises:
        Prod9Error: ``output`` holds a demo already (``overwrite`` replaces it), or cannot be
            written.
    """
    paths = {"data_dir": "cohort", "split_file": "split.json", "cache_dir": "cache"}
    one, two = load_configs(
        output,
        ("brats_stage1", "brats_stage2"),
        (stage1_overrides, stage2_overrides),
        {f"data.{key}": name for key, name in paths.items()},
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
    demo = Demonstration.train(output, one, two, clock, overwrite=overwrite)
    splits = open_splits(two.data, demo.tokenizer.spec.preprocessing)
    test, request = splits["test"], SampleRequest.completion_of(two)
    translation = measure_translation(demo.model, splits["train"], test, request)
    clock.lap("translation")
    example = _translated_example(demo, test, request)
    demo.generate(1, None)  # all channels together
    clock.lap("pictures")
    evaluator = Evaluator(one.seed, device=resolve_device(one.trainer.accelerator))
    measure_reconstruction(evaluator, one, demo.tokenizer, "test")
    first = torch.from_numpy(test.whole(0, source_sets(test)[0]))[None, None]
    agreement = window_agreement(demo.tokenizer, first, one.sliding_window)
    clock.lap("reconstruction")
    return demo.write_page(
        evaluator,
        title="prod9: any modality from any other",
        lead=_LEAD,
        extra=_sections(output, translation, example, clock.seconds["total"]),
        translation=asdict(translation),
        window_agreement=agreement,
    )


def _translated_example(demo: Demonstration, test: Dataset, request: SampleRequest) -> Path:
    """Translate the first test scan from its files, as a user would; return the picture."""
    name, (target, sets) = test.names[0], source_sets(test)
    cases = find_cases(demo.output / "cohort").cases
    case = next(case for case in cases if case.name == name)
    assert case.segmentation is not None
    tumour = NativeVolume.of(read_volume(case.segmentation), test.preprocessing)
    at = np.argwhere(tumour.on_grid(tumour.foreground) > 0).mean(0).round().astype(int)
    channels = demo.model.channels
    return translate_files(
        demo.model,
        {channels[m]: case.files[channels[m]] for m in sets[-1]},
        demo.output / "example" / f"{name}_{channels[target]}.nii.gz",
        replace(request, labels=demo.model.labels_of([channels[target]], SAMPLES)),
        truth=case.files[channels[target]],
        at=at.tolist(),
        overwrite=True,
    ).picture


def _sections(
    output: Path, translation: TranslationMetrics, example: Path, seconds: float
) -> list[Extra]:
    t = translation
    scores = {
        **{f"{t.target} drawn from {name}": score for name, score in t.drawn.items()},
        **{f"{name}, histogram matched to the truth": score for name, score in t.matched.items()},
        f"mean {t.target} of the training scans": t.mean,
        f"true {t.target}, encoded and decoded": t.ceiling,
    }
    montage = (output / "generated" / "montage.png").read_bytes()
    return [
        Extra(
            "translation",
            f"{t.target} of {t.scans} held-out scans",
            "Over the foreground, one draw a scan. All of the demonstration took "
            f"{seconds / 60:.1f} minutes on this machine.",
            header=("", "PSNR", "SSIM"),
            rows=[(name, f"{s.psnr:.2f} dB", f"{s.ssim:.3f}") for name, s in scores.items()],
        ),
        Extra(
            "example",
            "One of them: sources, truth, drawn, uncertainty",
            picture=picture(example.read_bytes(), "Sources, truth, drawn, uncertainty"),
        ),
        Extra(
            "nothing",
            "Drawn from nothing but the modality's name",
            "Whole brains take more training than a demonstration has: heads in the right place, "
            "no anatomy inside.",
            picture=picture(montage, "Drawn from the name of a modality"),
        ),
    ]
