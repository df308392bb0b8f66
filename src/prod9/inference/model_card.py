"""``README.md`` of a model folder: what the model is, on which data, how good, and its limits."""

import json
import math
from collections.abc import Iterator

import jinja2

from prod9 import __version__
from prod9.config.dataset import DatasetDescription
from prod9.data.medmnist_table import licence_of
from prod9.model import Model
from prod9.results.schema import Evaluation, Interval
from prod9.tokenizer import Tokenizer

_UNITS = {"psnr": " dB"}
_NAMES = {
    "psnr": "PSNR",
    "ssim": "SSIM",
    "ms_ssim": "MS-SSIM",
    "mae": "MAE",
    "lpips": "LPIPS",
    "dice": "Dice",
}


def model_card(
    network: Model | Tokenizer,
    dataset: DatasetDescription | None,
    metrics: Evaluation | None,
    *,
    licence: str,
    intended_use: str,
    report: bool,
) -> str:
    """Return the card as Markdown; what is not known is said to be so."""
    tokenizer = network.tokenizer if isinstance(network, Model) else network
    spec, generation = tokenizer.spec, metrics.generation if metrics else None
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("prod9.inference"),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # Markdown, not HTML
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["json"] = json.dumps
    return environment.get_template("model_card.md").render(
        name=dataset.name if dataset else spec.dataset_name,
        version=__version__,
        model=isinstance(network, Model),
        labels=network.class_names if isinstance(network, Model) else (),
        channels=tuple(dataset.channels) if dataset else spec.class_names,
        spec=spec,
        subjects=len(spec.train_subjects),
        data_licence=dataset.licence if dataset else licence_of(spec.dataset_name),
        licence=licence,
        intended_use=intended_use,
        rows=list(_rows(metrics)) if metrics else [],
        warnings=metrics.warnings if metrics else [],
        privacy=generation.privacy if generation else None,
        report=report,
    )


def _rows(metrics: Evaluation) -> Iterator[tuple[str, str]]:
    """Yield name and value of the figures that were measured."""
    if (found := metrics.reconstruction) is not None:
        for key, name in _NAMES.items():
            value, interval = getattr(found, key), found.intervals.get(key)
            if value is not None:
                text = _number(value, interval, _UNITS.get(key, ""))
                yield f"reconstruction, {name}, {found.volumes} volumes", text
    if (made := metrics.generation) is None:
        return
    for space in made.spaces:
        ours, floor = space.generated, space.floor
        beside = f"; other real volumes: {_number(floor.frechet)}" if floor else ""
        where = f"{space.space}, {ours.volumes} volumes"
        yield f"Fréchet distance, {where}", _number(ours.frechet, ours.frechet_interval) + beside
        beside = f"; other real volumes: {_number(floor.kernel)}" if floor else ""
        yield f"kernel distance, {where}", _number(ours.kernel, ours.kernel_interval) + beside
        for key in ("precision", "recall"):
            if (value := getattr(ours, key)) is not None:
                yield f"{key}, {where}", _number(value)
    if made.class_accuracy is not None:
        yield "share recognised as their class", _number(made.class_accuracy)
    if made.msssim is not None:
        real = f"; real volumes: {_number(made.msssim_real)}" if made.msssim_real else ""
        yield "MS-SSIM within a class", _number(made.msssim, made.msssim_interval) + real


def _number(value: float, interval: Interval | None = None, unit: str = "") -> str:
    """Write a figure with three digits, its unit and its interval."""
    ends = interval if interval and all(map(math.isfinite, interval)) else None
    return f"{value:.3g}{unit}" + (f" [{ends[0]:.3g}, {ends[1]:.3g}]" if ends else "")
