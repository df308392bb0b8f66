"""The cases of the kill suite: single writers, and whole commands as a user gives them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from kill_targets import token_store, volume
from kill_trials import Case
from nursery import Nursery, Work

TARGETS, PHANTOMS = "kill_targets", "kill_phantoms"
_CONFIGS = "maskgit/medmnist3d"
_COMMON = [
    "data.root=data",
    "data.dataset_name=organmnist3d",
    "data.size=28",
    "data.download=false",
    "data.num_workers=0",
    "data.batch_size=2",
    "trainer.max_epochs=3",
    "trainer.limit_val_batches=1",
    "trainer.accelerator=cpu",
    "callbacks.preview.every_n_steps=0",
    "callbacks.checkpoint.every_n_steps=2",  # an epoch has three: also in the middle of one
    "training.scheduler.warmup_steps=1",
]
_STAGE1 = [
    *_COMMON,
    "output_dir=stage1",
    "autoencoder_export_path=tokenizer.pt",
    "model.autoencoder.num_channels=[8,8]",
    "model.autoencoder.stem_stride=2",
    "model.autoencoder.norm_num_groups=4",
    "model.discriminator.channels=4",
    "model.discriminator.num_layers_d=1",
    "loss.discriminator_iter_start=2",
]
_STAGE2 = [
    *_COMMON,
    "output_dir=stage2",
    "autoencoder_path=tokenizer.pt",
    "model.transformer.hidden_dim=32",
    "model.transformer.num_blocks=1",
    "model.transformer.num_heads=2",
    "model.transformer.token_dim=8",
    "sampler.steps=3",
]
_LOGS = ("*/history/*", "*/tensorboard/*", "*/tensorboard/*/*")


def _same(work: Work) -> Callable[[Path], Work]:
    return lambda folder: work


def _target(name: str, *arguments: str) -> Work:
    return Work(f"{TARGETS}:{name}", arguments)


def _of_scans(name: str, *arguments: str) -> Work:
    return Work(f"{PHANTOMS}:{name}", arguments)


def _nothing(folder: Path) -> None:
    pass


def _old_text(folder: Path) -> None:
    (folder / "metrics.txt").write_text("what was there before\n" * 50)


def _old_export(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "tokenizer.pt").write_bytes(b"what was there before" * 50)


def _torn_store(folder: Path) -> None:
    """A store that a disk has torn, under the name of the one that is wanted."""
    token_store(folder)
    (store,) = folder.iterdir()
    tokens = next(path for path in sorted(store.rglob("*.npy")) if path.stat().st_size > 1000)
    tokens.write_bytes(tokens.read_bytes()[:-100])


def writers(url: str, digest: str) -> list[Case]:
    """Return the single writers; ``url`` and ``digest`` of a file to download."""
    rows: list[tuple[str, Work, Work | Callable[[Path], None], dict[str, Any]]] = [
        ("text file", _target("text"), _old_text, {}),
        ("export", _target("export"), _old_export, {}),
        ("split file", _target("split"), _nothing, {}),
        ("token store", _target("token_store"), _nothing, {}),
        (
            "token store, torn before",
            _target("token_store"),
            _torn_store,
            {"may_vanish": True},
        ),
        (
            "run folder, replaced",
            Work("kill_runs:claim"),
            Work("kill_runs:older_run"),
            {"may_vanish": True},
        ),
        ("phantom BraTS", _of_scans("phantom", "2021"), _nothing, {}),
        (
            "phantom BraTS, replaced",
            _of_scans("phantom", "2021"),
            _of_scans("phantom", "2021"),
            {"may_vanish": True},  # a folder cannot take another's place in one step
        ),
        ("phantom Decathlon", _of_scans("phantom", "msd"), _nothing, {}),
        ("BraTS preprocessing", _of_scans("scan_cache"), _of_scans("cohort"), {"threads": True}),
        ("embedded data set", _target("brain"), _nothing, {}),
        ("download", _target("download", url, digest), _nothing, {"partial": ("*.part",)}),
    ]
    return [
        Case(name, work, _same(work), prepare, **options) for name, work, prepare, options in rows
    ]


def _data(folder: Path) -> None:
    random = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for split, count in (("train", 6), ("val", 4), ("test", 4)):
        arrays[f"{split}_images"] = random.integers(0, 256, (count, 28, 28, 28), np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 11).astype(np.uint8)[:, None]
    (folder / "data").mkdir(exist_ok=True)
    np.savez(folder / "data" / "organmnist3d.npz", allow_pickle=False, **arrays)


def train(stage: int, *more: str, environment: dict[str, str] | None = None) -> Work:
    """Return the training of a stage."""
    script = "prod9-train-autoencoder" if stage == 1 else "prod9-train-transformer"
    config = f"{_CONFIGS}/stage{stage}/ffl.yaml"
    settings = _STAGE1 if stage == 1 else _STAGE2
    return Work(script, ["train", "--config", config, *settings, *more], environment or {})


def _resumed(stage: int, export: str) -> Callable[[Path], Work]:
    """What a user does whose training was killed: go on if there is a checkpoint."""

    def again(folder: Path) -> Work:
        checkpoints = folder / f"stage{stage}" / "checkpoints"
        if any((checkpoints / name).exists() for name in ("last.ckpt", "previous.ckpt")):
            return train(stage, "--resume")
        return train(stage, "--overwrite")

    return again


class Trained:
    """A folder in which both stages are trained, made once and copied."""

    def __init__(self, nursery: Nursery, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        _data(folder)
        for stage in (1, 2):
            done = nursery.run(train(stage), folder)
            assert done.code == 0, done.output
        volume(folder / "scan.nii.gz", 5, (20, 24, 22))
        for number in range(4):
            volume(folder / "real" / f"{number}.nii.gz", number)
            volume(folder / "drawn" / f"{number}.nii.gz", 10 + number)

    def give(self, *names: str) -> Callable[[Path], None]:
        """Return what copies some of it into a folder."""

        def prepare(folder: Path) -> None:
            for name in names:
                source, target = self.folder / name, folder / name
                if source.is_dir():
                    shutil.copytree(source, target)
                else:
                    shutil.copy2(source, target)

        return prepare


def commands(trained: Trained) -> list[Case]:
    """Return whole commands, in a folder that has what each needs."""
    generate = Work(
        "prod9-train-transformer",
        [
            "generate",
            *("--config", f"{_CONFIGS}/stage2/ffl.yaml", "--num-samples", "2"),
            *("--class", "liver", "--class", "spleen", "--output", "generated", "--seed", "7"),
            *_STAGE2,
        ],
    )
    test = Work(
        "prod9-train-autoencoder",
        ["test", "--config", f"{_CONFIGS}/stage1/ffl.yaml", *_STAGE1],
        {"PROD9_CACHE": "cache"},
    )
    infer = Work(
        "prod9-train-autoencoder",
        [
            *("infer", "--config", f"{_CONFIGS}/stage1/ffl.yaml", "--input", "scan.nii.gz"),
            *("--output", "inferred", "--save-tokens", "--overwrite", *_STAGE1),
            "sliding_window.roi_size=[16,16,16]",
        ],
    )
    evaluate = Work(
        "prod9",
        [
            *("evaluate", "--real", "real", "--generated", "drawn", "--output", "evaluated"),
            *("--features", "efficientnet", "--no-usefulness", "--overwrite"),
        ],
        {"PROD9_CACHE": "cache"},
    )
    both = ("data", "tokenizer.pt")
    return [
        Case("Stage 1 training", train(1), _resumed(1, "tokenizer.pt"), _data, _LOGS),
        Case(
            "Stage 2 training",
            train(2),
            _resumed(2, "stage2/transformer.pt"),
            trained.give(*both),
            _LOGS,
        ),
        Case(
            "Stage 1 training, replaced",
            train(1, "--overwrite"),
            lambda folder: train(1, "--overwrite"),
            trained.give(*both, "stage1"),
            _LOGS,
            may_vanish=True,
        ),
        Case(
            "Stage 2 training, replaced",
            train(2, "--overwrite"),
            lambda folder: train(2, "--overwrite"),
            trained.give(*both, "stage2"),
            _LOGS,
            may_vanish=True,
        ),
        Case(
            "generate",
            generate,
            lambda folder: Work(generate.script, [*generate.arguments, "--resume"]),
            trained.give(*both, "stage2"),
            _LOGS,
        ),
        Case("infer", infer, _same(infer), trained.give(*both, "scan.nii.gz")),
        Case("test, Stage 1", test, _same(test), trained.give(*both, "stage1"), _LOGS),
        Case("evaluate", evaluate, _same(evaluate), trained.give("real", "drawn")),
    ]
