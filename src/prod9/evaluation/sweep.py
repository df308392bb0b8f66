"""``sweep``: one checkpoint, many sampler settings, the same seed; a table, a plot, a preset."""

import itertools
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import yaml
from pydantic import ValidationError

from prod9.config import SamplerConfig, Stage2Config
from prod9.config.evaluation import FeatureSpaceKey
from prod9.config.load import validated
from prod9.data.volume_sets.volume_set import of_dataset
from prod9.errors import Prod9Error
from prod9.evaluation.distances import set_distance
from prod9.evaluation.diversity import within_class_msssim
from prod9.evaluation.domain_classifier import classifier_space, train_classifier
from prod9.evaluation.evaluator import features_cache
from prod9.evaluation.feature_spaces import NO_CACHE, features_of
from prod9.evaluation.pretrained import feature_spaces
from prod9.evaluation.test_metrics import generated
from prod9.files import require_writable, write_text
from prod9.montage import save_figure
from prod9.own_files import matching, read_record, refuse_foreign
from prod9.registry import ORDERS
from prod9.report.sweep import draw_sweep
from prod9.results.csv_text import csv_text
from prod9.results.provenance import provenance
from prod9.results.sweep import Sweep, SweepRow, winner
from prod9.runtime.console import say
from prod9.runtime.device import resolve_device
from prod9.sample_request import SampleRequest
from prod9.training import stage2
from prod9.training.tokens import open_data

TABLE, PLOT, PRESET, RECORD = "sweep.csv", "sweep.png", "preset.yaml", "sweep.json"


def grid_of(base: SamplerConfig, values: Mapping[str, Sequence[object]]) -> list[SamplerConfig]:
    """Return every combination of values of the keys of ``base``; an empty list keeps its value.

    ``choice_temperature`` is varied only in orders that use it.

    Raises:
        Prod9Error: a value that a ``sampler`` section does not accept.
    """
    found: dict[str, SamplerConfig] = {}
    given = {key: list(several) for key, several in values.items() if several}
    for combination in itertools.product(*given.values()):
        chosen = dict(zip(given, combination, strict=True))
        setting = validated(SamplerConfig, base.model_dump() | chosen, "sampler")
        if not ORDERS.get(setting.order).uses_choice_temperature:
            same = {"choice_temperature": base.choice_temperature}
            setting = setting.model_copy(update=same)
        found.setdefault(setting.model_dump_json(), setting)
    return list(found.values())


def sweep(
    config: Stage2Config,
    settings: Sequence[SamplerConfig],
    folder: Path,
    *,
    samples_per_class: int,
    space: FeatureSpaceKey,
    overwrite: bool,
) -> Sweep:
    """Generate with every setting and compare with the *validation* split.

    Writes ``sweep.json`` after each setting; an interrupted sweep, or one with more settings,
    continues. At the end it writes ``sweep.csv``, ``sweep.png`` and ``preset.yaml`` (the best
    setting, as a ``sampler`` section).

    Raises:
        Prod9Error: not trained yet; the folder holds another sweep, or foreign files under
            the names of a sweep's.
    """
    if read_record(folder / RECORD, {"schema_version", "rows"}) is None:
        refuse_foreign(matching(folder, (RECORD, TABLE, PLOT, PRESET)))
    require_writable(folder)
    model, seed = stage2.load(config), config.seed
    splits = open_data(config, model.tokenizer)
    real, train = of_dataset(splits["val"]), of_dataset(splits["train"])
    labels = model.labels_of(["all"], samples_per_class)
    classifier = train_classifier(train, seed=seed) if len(train.counts) > 1 else None
    floor, cache = None, features_cache()
    if space != "classifier":
        device = resolve_device(config.trainer.accelerator)
        chosen = feature_spaces((space,), device=device)[0]
    elif classifier is None:
        raise Prod9Error("--space classifier needs classes; choose efficientnet.")
    else:
        chosen, cache = classifier_space(classifier, train, real), NO_CACHE
    theirs = features_of(chosen, real, cache)
    # A classifier has memorised its training volumes: their features are no floor.
    if space != "classifier":
        count = min(len(train), len(labels))
        spread = train.select([index * len(train) // count for index in range(count)])
        floor = set_distance(features_of(chosen, spread), theirs, seed)
    alike = within_class_msssim(real, seed)
    state = Sweep(
        real=real.name,
        space=chosen.name,
        floor=floor,
        msssim_real=alike and alike.mean,
        samples_per_class=samples_per_class,
        seed=seed,
        tokenizer=model.tokenizer.digest,
        transformer=model.digest,
        rows=[],
        provenance=provenance(),
    )

    def measure(setting: SamplerConfig) -> SweepRow:
        start = time.monotonic()
        request = replace(SampleRequest.generation_of(config, labels), sampler=setting)
        volumes = generated(model, request)
        seconds = (time.monotonic() - start) / len(volumes)
        alike = within_class_msssim(volumes, seed)
        return SweepRow(
            sampler=setting,
            distance=set_distance(features_of(chosen, volumes), theirs, seed),
            class_accuracy=classifier and classifier.right(volumes),
            msssim=alike and alike.mean,
            seconds_per_volume=round(seconds, 4),
        )

    known = {} if overwrite else _known(folder / RECORD, state)
    for number, setting in enumerate(settings, 1):
        key = setting.model_dump_json()
        if key not in known:
            known[key] = measure(setting)
        state = state.model_copy(update={"rows": list(known.values())})
        write_text(folder / RECORD, state.model_dump_json(indent=2) + "\n")
        say(f"[{number}/{len(settings)}] {_line(known[key])}")
    _write(folder, state)
    return state


def _known(path: Path, state: Sweep) -> dict[str, SweepRow]:
    """Return the rows of an earlier sweep of the same checkpoint, by setting."""
    if not path.exists():
        return {}
    try:
        earlier = Sweep.model_validate_json(path.read_bytes())
    except ValidationError:
        earlier = None
    if earlier is None or not earlier.answers_as(state):
        raise Prod9Error(
            f"{path} holds a sweep of another version, checkpoint, seed, space or number of "
            "volumes; pass --overwrite, or another --output."
        )
    say(f"{path}: {len(earlier.rows)} settings are there already")
    return {row.sampler.model_dump_json(): row for row in earlier.rows}


def _line(row: SweepRow) -> str:
    s = row.sampler
    setting = f"{s.order}, {s.steps} steps, temperature {s.temperature:g}"
    if ORDERS.get(s.order).uses_choice_temperature:
        setting += f", choice {s.choice_temperature:g}"
    right = "" if row.class_accuracy is None else f", recognised {row.class_accuracy:.1%}"
    return f"{setting}, guidance {s.guidance_scale:g}: Frechet {row.distance.frechet:.4g}{right}"


def _write(folder: Path, state: Sweep) -> None:
    best = winner(state.rows, state.msssim_real)
    columns: list[dict[str, object]] = []
    for row in sorted(state.rows, key=lambda row: row.distance.frechet):
        low, high = row.distance.frechet_interval or (None, None)
        columns.append(
            {
                **row.sampler.model_dump(),
                **row.distance.model_dump(exclude={"frechet_interval", "kernel_interval"}),
                "frechet_low": low,
                "frechet_high": high,
                **row.model_dump(include={"class_accuracy", "msssim", "seconds_per_volume"}),
                "winner": row is best,
            }
        )
    write_text(folder / TABLE, csv_text(columns))
    save_figure(folder / PLOT, draw_sweep(state, best))
    preset = json.loads(best.sampler.model_dump_json())
    write_text(
        folder / PRESET,
        f"# Smallest Frechet distance of {len(state.rows)} settings among those that draw the\n"
        f"# right classes and enough variety; {state.space},\n# against {state.real}.\n"
        + yaml.safe_dump({"sampler": preset}, sort_keys=False),
    )
    say(f"winner: {_line(best)}")
