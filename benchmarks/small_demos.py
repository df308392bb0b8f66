"""Both demos at a small size, by the console commands: what ``same_numbers`` runs.

Every command is a process of its own with one thread, on the CPU. prod9 is not imported.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

ROOT = Path(__file__).parents[1]
SEED = 0
TOKENIZER, TRANSFORMER = "prod9-train-autoencoder", "prod9-train-transformer"
CASE = "cohort/BraTS2021_00001/BraTS2021_00001"
MASK = "inputs/mask.nii.gz"
CUBES = tuple(f"inputs/cube{index}.npy" for index in range(3))
SCANS = tuple(f"{CASE}_{name}.nii.gz" for name in ("t1", "t2", "flair"))
INPUTS = {"regions": CUBES, "brats": SCANS}
"""The three volumes of each demo that are encoded."""
SHARED = (
    f"seed={SEED}",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=2",
    "trainer.limit_train_batches=10",
    "trainer.limit_val_batches=2",
    "trainer.check_val_every_n_epoch=1",
    "trainer.log_every_n_steps=1",
    "trainer.logger=csv",
    "callbacks.preview.every_n_steps=0",
    "training.scheduler.warmup_steps=5",
)
"""Overrides of every configuration: 20 steps, each of them logged."""
DATA = {
    "regions": ("data.root=data",),
    "brats": (
        "data.data_dir=cohort",
        "data.split_file=split.json",
        "data.cache_dir=cache",
        "data.crops_per_volume=5",  # 4 training scans * 4 modalities * 5 crops: 10 batches of 8
    ),
}
VARIANTS = {
    1: (
        "loss.adversarial.weight=0.1",
        "loss.discriminator_iter_start=5",
        "data.augmentation.flip=true",
        "data.augmentation.intensity_scale=0.1",
        "data.augmentation.intensity_shift=0.1",
    ),
    2: ("model.transformer.head=factorized", "model.transformer.dropout=0.1"),
}
"""What neither demo uses; trained on the regions besides."""
MAKE_DATA = (
    ("prod9", "data", "fetch", "brainregionmnist3d", "--root", "data"),
    ("prod9", "data", "make-phantom-brats", "cohort", "--cases", "6", "--seed", str(SEED)),
)


def configured(demo: str, stage: int, run: str = "") -> tuple[str, ...]:
    """Return the options and overrides that name a model; all paths are relative."""
    name = f"stage{stage}" if demo == "regions" else f"brats_stage{stage}"
    folder = f"{demo}/stage{stage}{run}"
    key = "autoencoder_export_path" if stage == 1 else "autoencoder_path"
    tokenizer = f"{folder}/tokenizer.pt" if run and stage == 1 else f"{demo}/tokenizer.pt"
    paths = (f"output_dir={folder}", f"{key}={tokenizer}")
    return ("--config", f"maskgit/demo/{name}.yaml", *SHARED, *DATA[demo], *paths)


def model_commands() -> Iterator[tuple[str, ...]]:
    """Yield the commands that train and use the models, in order."""
    for demo, inputs in INPUTS.items():
        one, two = configured(demo, 1), configured(demo, 2)
        yield TOKENIZER, "train", *one
        yield TRANSFORMER, "train", *two
        files = [word for path in inputs for word in ("--input", path)]
        yield TOKENIZER, "infer", "--save-tokens", "--output", f"{demo}/inferred", *files, *one
        # The regions with guidance and in confidence order, the scans without and in Halton order.
        how = ("--guidance", "2") if demo == "regions" else ("--steps", "8")
        where = ("--num-samples", "1", "--output", f"{demo}/generated")
        yield TRANSFORMER, "generate", *how, *where, *two
    for stage, program in ((1, TOKENIZER), (2, TRANSFORMER)):
        yield program, "train", *configured("regions", stage, "-variant"), *VARIANTS[stage]
    two = configured("brats", 2)
    sources = ("--source", f"T1={SCANS[0]}", "--source", f"FLAIR={SCANS[2]}")
    where = ("--target", "T2", "--output", "brats/translated/t2.nii.gz")
    yield TRANSFORMER, "translate", *sources, *where, *two
    masked = ("--input", SCANS[0], "--mask", MASK, "--modality", "T1")
    yield TRANSFORMER, "inpaint", *masked, "--output", "brats/inpainted", *two


def make_inputs(work: Path) -> None:
    """Write what the commands read: three cubes of the test split, and a mask inside a brain."""
    (work / "inputs").mkdir()
    images = np.load(next((work / "data").glob("*.npz")))["test_images"]
    for path, index in zip(CUBES, (0, len(images) // 2, len(images) - 1), strict=True):
        np.save(work / path, images[index])
    scan = nib.load(work / SCANS[0])
    mask = np.zeros(scan.shape, np.uint8)
    mask[tuple(slice(side // 2 - 12, side // 2 + 12) for side in scan.shape)] = 1
    nib.save(nib.Nifti1Image(mask, scan.affine), work / MASK)


def run(command: Sequence[str], work: Path) -> None:
    """Run a console script of this environment in ``work``, with this working tree's prod9."""
    print(" ".join(command[:4]), file=sys.stderr, flush=True)
    own = {
        "PYTHONPATH": str(ROOT / "src"),
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    script = Path(sys.executable).parent / command[0]
    done = subprocess.run(
        [script, *command[1:]], cwd=work, env=os.environ | own, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}\nexit code {done.returncode}")


def run_all(work: Path) -> None:
    """Run everything in ``work``, an empty folder."""
    for command in MAKE_DATA:
        run(command, work)
    make_inputs(work)
    for command in model_commands():
        run(command, work)
