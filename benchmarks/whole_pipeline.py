"""Both stages of prod9 and of rivals: as many seconds, threads, volumes and bits for everybody.

    python -m benchmarks.whole_pipeline --seconds 600 --output outputs/whole_pipeline
    python -m benchmarks.whole_pipeline --seconds 600 --tune --output outputs/tuned

Everybody learns from the same volumes of 28^3 voxels. Whoever has tokens has 7^3 of 512 codes;
``prod9-equal-bits`` too, while ``prod9`` is the demo as shipped, with more and smaller ones. A
third of the seconds goes to Stage 1, the rest to Stage 2; encoding the training volumes in between,
and validation, are not counted. Schedules have prod9's shape and end with the seconds. Rivals have
their last or their averaged weights, whichever are better on the validation split.

Each contender writes ``NAME.json`` and ``NAME.png`` as soon as it is measured.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prod9.errors import Prod9Error

if TYPE_CHECKING:
    from benchmarks.pipeline_prod9 import Prod9
    from benchmarks.pipeline_training import Data, Pipeline, Rates, Rival

CONTENDERS = (
    "prod9",
    "prod9-equal-bits",
    "medlatents",
    "medlatents-mended",
    "monai-autoregressive",
    "monai-latent-diffusion",
)
FACTORS = (1 / 3, 1.0, 3.0)
"""Of the rate that a contender starts from: what ``--tune`` tries."""
TUNING_SHARE = 0.2
"""Of the budget, for each try of each stage."""
SHOWN = 6
_DRAWN_TOGETHER = 16


def parser() -> argparse.ArgumentParser:
    """Return the options."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--seconds", type=float, default=600.0, help="of both stages together")
    options.add_argument("--stage1-share", type=float, default=1 / 3)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--contenders", nargs="+", default=[*CONTENDERS], metavar="NAME")
    options.add_argument("--threads", type=int, help="the machine's when left out")
    options.add_argument("--output", type=Path, default=Path("outputs/whole_pipeline"))
    options.add_argument("--data", choices=("regions", "hippocampus"), default="regions")
    options.add_argument("--root", type=Path, help="data/medmnist3d, or Task04_Hippocampus")
    options.add_argument("--volumes", type=int, default=176, help="to be drawn")
    options.add_argument("--tune", action="store_true", help="choose learning rates, and stop")
    options.add_argument("--rates", type=Path, help="rates.json that --tune has written")
    return options


def open_data(name: str, prod9: "Prod9", root: Path | None) -> "Data":
    """Return the three splits."""
    from benchmarks.pipeline_training import hippocampus
    from prod9.data.dataset import open_splits

    if name == "regions":
        splits = open_splits(prod9.one.data)
        return {"train": splits["train"], "val": splits["val"], "test": splits["test"]}
    if root is None:
        raise Prod9Error("--data hippocampus needs --root, the folder of Task04_Hippocampus.")
    return hippocampus(root)


def rival_of(name: str, classes: int, prod9: "Prod9") -> "Rival":
    """Return a rival.

    Raises:
        Prod9Error: a name that nobody has, or a package that is missing.
    """
    try:
        if name in ("medlatents", "medlatents-mended"):
            from benchmarks.rivals.medlatents_pipeline import Mended, Shipped

            return Shipped(classes) if name == "medlatents" else Mended(classes, prod9.two.sampler)
        from benchmarks.rivals.monai_pipelines import Autoregressive, LatentDiffusion
    except ModuleNotFoundError as error:
        raise Prod9Error(f"{name} needs the package {error.name}: pip install it.") from error
    for kind in (Autoregressive, LatentDiffusion):
        if kind.name == name:
            return kind(classes)
    raise Prod9Error(f"there is no contender {name}; there are {', '.join(CONTENDERS)}.")


def train(
    name: str,
    prod9: "Prod9",
    budgets: tuple[float, float],
    rates: "Rates | None",
    seed: int,
    seconds_a_volume: float | None,
) -> tuple["Pipeline", "Rates"]:
    """Train a contender; return it, and the rates it had."""
    from benchmarks.pipeline_training import train_rival

    data = prod9.data
    if name.startswith("prod9"):
        rates = rates or prod9.rates
        return prod9.at(rates).train(budgets), rates
    rival = rival_of(name, len(data["train"].class_names), prod9)
    rates = rates or rival.rates
    schedules = prod9.schedules
    return train_rival(rival, data, budgets, schedules, rates, seed, seconds_a_volume), rates


def tune(name: str, prod9: "Prod9", budgets: tuple[float, float], seed: int) -> dict[str, Any]:
    """Try three rates for each stage on the validation split; return the best and all figures."""
    from benchmarks.pipeline_training import Rates, encode_all, train_first, train_second
    from benchmarks.results import now

    one, two = (TUNING_SHARE * seconds for seconds in budgets)
    tries: dict[str, dict[str, float]] = {"stage1_psnr": {}, "stage2_loss": {}}

    def best_of(
        key: str, start: float, attempt: Callable[[float], tuple[Any, float, int]], sign: int
    ) -> tuple[float, Any]:
        found: list[tuple[float, float, Any]] = []
        for factor in FACTORS:
            rate = float(f"{start * factor:.2g}")
            made, figure, steps = attempt(rate)
            tries[key][f"{rate:g}"] = figure
            print(f"{name}  {key}  rate {rate:g}: {figure:.4f}  ({steps} steps)", flush=True)
            # Not a number: it diverged, and every other rate is better.
            found.append((sign * figure if figure == figure else float("inf"), rate, made))
        _, rate, made = min(found, key=lambda each: each[0])
        return rate, made

    if name.startswith("prod9"):
        start = prod9.rates
        first_rate, tokenizer = best_of(
            "stage1_psnr",
            start.stage1,
            lambda rate: prod9.at(replace(start, stage1=rate)).train_first(one),
            -1,
        )
        tokens = prod9.tokens(tokenizer)
        second_rate, _ = best_of(
            "stage2_loss",
            start.stage2,
            lambda rate: prod9.at(replace(start, stage2=rate)).train_second(tokenizer, tokens, two),
            1,
        )
    else:
        rival = rival_of(name, len(prod9.data["train"].class_names), prod9)
        schedules = prod9.schedules
        first_rate, first = best_of(
            "stage1_psnr",
            rival.rates.stage1,
            lambda rate: train_first(rival, prod9.data, one, schedules[0], rate, seed),
            -1,
        )
        encoded = encode_all(rival, first, prod9.data)
        second_rate, _ = best_of(
            "stage2_loss",
            rival.rates.stage2,
            lambda rate: train_second(rival, encoded, two, schedules[1], rate, seed),
            1,
        )
    chosen = f"{now()}: three rates a stage, {one:g} and {two:g} s each"
    return asdict(Rates(first_rate, second_rate, chosen)) | {"tried": tries}


def draw_all(pipeline: "Pipeline", labels: Sequence[int]) -> tuple[Any, float]:
    """Draw a volume for each label; return them (N, 1, D, H, W), and the seconds each took."""
    import torch

    began, parts = time.perf_counter(), []
    with torch.no_grad():
        for first in range(0, len(labels), _DRAWN_TOGETHER):
            parts.append(pipeline.draw(labels[first : first + _DRAWN_TOGETHER]))
    seconds = (time.perf_counter() - began) / len(labels)
    return torch.cat(parts).float().nan_to_num().clamp(0, 1), seconds


def evaluate(
    pipeline: "Pipeline", data: "Data", volumes: int, seed: int
) -> tuple[dict[str, Any], Any, Any]:
    """Measure a contender with prod9's evaluation; return figures, generated, reconstructed."""
    from benchmarks.pipeline_training import in_blocks, tensors
    from prod9.data.volume_sets.volume_set import of_dataset, of_tensor
    from prod9.evaluation.evaluator import Evaluator

    test, names = data["test"], data["test"].class_names
    import torch

    labels = [index % len(names) for index in range(volumes)]
    torch.manual_seed(seed)
    drawn, seconds = draw_all(pipeline, labels)
    real, real_labels = tensors(test)
    again = in_blocks(pipeline.reconstruct, real).float().clamp(0, 1)
    evaluator = Evaluator(seed, ("efficientnet", "classifier"), usefulness=False)
    made = of_tensor(again, real_labels, names, "reconstructed", test.spacing_mm)
    reconstruction = evaluator.measure_reconstruction(of_dataset(test), made)
    generated = of_tensor(drawn, torch.tensor(labels), names, "generated", test.spacing_mm)
    generation = evaluator.measure_generation(
        of_dataset(test), generated, of_dataset(data["train"])
    )
    return (
        summary(reconstruction.model_dump(), generation.model_dump())
        | {"seconds_a_volume": seconds, "warnings": evaluator.warnings},
        drawn,
        again,
    )


def summary(reconstruction: dict[str, Any], generation: dict[str, Any]) -> dict[str, Any]:
    """Return the figures that are compared, each beside that of real volumes where there is one."""
    keys = ("volumes", "frechet", "frechet_interval", "kernel", "kernel_interval", "precision")
    keys = (*keys, "recall", "density", "coverage")
    spaces = {
        space["key"]: {
            role: {key: space[role][key] for key in keys}
            for role in ("generated", "reconstructed", "floor")
            if space[role] is not None
        }
        for space in generation["spaces"]
    }
    tests = {
        test["volumes_of"]: {"auc": test["auc"], "interval": test["auc_interval"]}
        for test in generation["two_sample_tests"]
    }
    privacy = generation["privacy"]
    return {
        "psnr": reconstruction["psnr"],
        "psnr_interval": reconstruction["intervals"]["psnr"],
        "spaces": spaces,
        "two_sample_auc": tests,
        "recognised": generation["class_accuracy"],
        "recognised_real": generation["classifier_real_accuracy"],
        "msssim": generation["msssim"],
        "msssim_real": generation["msssim_real"],
        "privacy": privacy and privacy["verdict"],
    }


def picture(path: Path, name: str, data: "Data", drawn: Any, again: Any) -> None:
    """Draw middle slices: real test volumes, what becomes of them, generated volumes."""
    from benchmarks.pipeline_training import tensors
    from prod9.montage import montage, save_figure

    real, _ = tensors(data["test"])
    rows = [
        ("real", real[:SHOWN]),
        ("reconstructed", again[:SHOWN]),
        ("generated", drawn[:SHOWN]),
        ("", drawn[SHOWN : 2 * SHOWN]),
    ]
    rows = [(label, volumes) for label, volumes in rows if len(volumes)]
    save_figure(path, montage(rows, title=name))


def measure(options: argparse.Namespace) -> None:
    """Run what the options ask for."""
    import torch

    from benchmarks.machine import describe
    from benchmarks.pipeline_prod9 import AT_EQUAL_BITS, Prod9, configurations
    from benchmarks.pipeline_training import Rates
    from benchmarks.results import now, versions
    from prod9.files import write_text
    from prod9.runtime.allocator import keep_freed_memory

    if unknown := set(options.contenders) - set(CONTENDERS):
        raise Prod9Error(
            f"there is no contender {min(unknown)}; there are {', '.join(CONTENDERS)}."
        )
    keep_freed_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    known: dict[str, Any] = {}
    if options.rates:
        if not options.rates.is_file():
            raise Prod9Error(f"there is no file {options.rates}: --tune writes it.")
        known = json.loads(options.rates.read_text("utf-8"))["rates"]
    budgets = (options.seconds * options.stage1_share, options.seconds * (1 - options.stage1_share))
    options.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        root = options.root if options.data == "regions" and options.root else None
        volumes, ours = root or Path("data/medmnist3d"), dict[str, Prod9]()
        for name, changes in (("prod9", ([], [])), ("prod9-equal-bits", AT_EQUAL_BITS)):
            settings = configurations(options.seed, Path(work) / name, volumes, changes)
            ours[name] = Prod9(*settings, {})
        prod9 = ours["prod9"]
        data = open_data(options.data, prod9, options.root)
        ours = {name: replace(each, data=data) for name, each in ours.items()}
        prod9 = ours["prod9"]
        for name in options.contenders:  # a package that is missing is said before the hours
            if name not in ours:
                rival_of(name, 1, prod9)
        shared: dict[str, Any] = {
            "seconds": budgets,
            "seed": options.seed,
            "data": options.data,
            "machine": describe(),
            "versions": versions(("monai", "medlatents", "medtokenizers", "pytorch-lightning")),
        }
        if options.tune:
            rates: dict[str, Any] = {}
            for name in options.contenders:
                rates[name] = tune(name, ours.get(name, prod9), budgets, options.seed)
                record = {"kind": "whole-pipeline-rates", **shared, "rates": rates}
                write_text(options.output / "rates.json", json.dumps(record, indent=2) + "\n")
            return
        for name in options.contenders:
            given = known.get(name)
            rates_given = given and Rates(given["stage1"], given["stage2"], given["chosen"])
            pace = _seconds_a_volume(options.output / "prod9.json")
            began = time.perf_counter()
            mine = ours.get(name, prod9)
            trained, used = train(name, mine, budgets, rates_given, options.seed, pace)
            spent = time.perf_counter() - began
            figures, drawn, again = evaluate(trained, prod9.data, options.volumes, options.seed)
            record = {
                "kind": "whole-pipeline",
                "name": name,
                **shared,
                "rates": asdict(used),
                "training": trained.figures | {"seconds_in_all": spent},
                "figures": figures,
                "date": now(),
            }
            picture(options.output / f"{name}.png", name, prod9.data, drawn, again)
            write_text(options.output / f"{name}.json", json.dumps(record, indent=2) + "\n")
            print(line(name, figures), flush=True)


def _seconds_a_volume(path: Path) -> float | None:
    """Return what prod9 took in the same folder, for those who choose their number of steps."""
    if not path.is_file():
        return None
    return json.loads(path.read_text("utf-8"))["figures"]["seconds_a_volume"]


def line(name: str, figures: dict[str, Any]) -> str:
    """Return the headline figures of a contender."""
    space = figures["spaces"].get("efficientnet", {})
    ours, floor = space.get("generated", {}), space.get("floor", {})
    auc = figures["two_sample_auc"].get("generated", {}).get("auc")
    return (
        f"{name}: PSNR {figures['psnr']:.2f} dB, Frechet {ours.get('frechet', 0):.0f} "
        f"(floor {floor.get('frechet', 0):.0f}), AUC {auc}, "
        f"recognised {figures['recognised']}, {figures['seconds_a_volume']:.2f} s a volume"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit code."""
    options = parser().parse_args(arguments)
    if options.threads:
        # Before PyTorch is loaded.
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(options.threads)
    try:
        measure(options)
    except Prod9Error as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
