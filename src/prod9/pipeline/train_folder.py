"""``prod9 train FOLDER``: look, plan, train both stages, measure, and save a model folder."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from prod9 import __version__
from prod9 import model as core
from prod9.config.data import FolderSourceConfig
from prod9.config.dataset import DATASET_YAML, DatasetDescription, write_description
from prod9.config.load import dump
from prod9.data.folder.covariates import volume_labels
from prod9.data.folder.dataset import described, outline_folder
from prod9.errors import Prod9Error
from prod9.evaluation.evaluator import METRICS, REPORT, ROWS
from prod9.evaluation.test_metrics import (
    UNFINISHED,
    evaluator_of,
    measure_generated,
    measure_reconstruction,
)
from prod9.evaluation.work_cache import WorkCache
from prod9.files import require_writable, write_text
from prod9.inference.load import load
from prod9.inference.model import Model
from prod9.inference.model_folder import is_model_folder
from prod9.inference.recorded import Recorded
from prod9.inference.volumes import PathLike
from prod9.model import save_transformer
from prod9.own_files import matching, read_record, refuse_foreign, remove_own
from prod9.pipeline.plan import FILES, TEST_SHARE, Initial, Plan, make_plan
from prod9.runtime.clock import Clock
from prod9.runtime.console import say
from prod9.training import stage1, stage2
from prod9.training.run_folder import RunFolder
from prod9.training.tokens import open_data

WORK = "training"
"""Folder, inside the model's, of everything that training writes."""
SPLIT = "split.json"
"""File, inside that one, of who is in train, val and test."""
_MARK = "prod9-training.json"
INITIAL = ("initial_autoencoder.pt", "initial_transformer.pt")
_FILES = (DATASET_YAML, *FILES, *INITIAL, SPLIT, "autoencoder.pt", METRICS, REPORT, ROWS)
"""What ``--overwrite`` removes of it; a run's folder knows by itself what is its own."""


def train_folder(
    data: PathLike,
    output: PathLike,
    *,
    hours: float = 0.5,
    plan_only: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    init_from: PathLike | None = None,
    tokenizer: Literal["train", "decoder", "keep"] = "decoder",
    fold: int | None = None,
    accelerator: str = "auto",
    seed: int = 0,
    with_labels: bool = False,
    covariates: Sequence[str] = (),
) -> Model | None:
    """Turn a folder of scans into a model.

    Args:
        data: a folder, a ``dataset.yaml``, a table (CSV) or a data list (JSON).
        output: folder of the model; everything that training writes is in ``output/training``.
        hours: the time there is on this machine, for everything.
        plan_only: write ``dataset.yaml`` and the plan, and stop.
        resume: continue with the plan that is there, which may have been edited.
        overwrite: replace an earlier model and its training.
        init_from: a trained model to start from; whatever :func:`prod9.load` takes.
        tokenizer: what of that model's tokenizer is trained: all of it, the decoder alone (tokens
            keep their meaning, which the transformer has learned), or nothing.
        fold: for cross-validation: which of five parts of the subjects (0 to 4) is for testing.
        accelerator: ``auto``, ``cpu`` or ``gpu``.
        seed: of everything random.
        with_labels: learn the channels of labels too (``learn_labels`` of ``dataset.yaml``).
        covariates: such as ``volume:1``: the volume of label 1, ml, that can be asked for
            (``label_volumes`` of ``dataset.yaml``).

    Returns:
        The model; None with ``plan_only``.

    Raises:
        Prod9Error: a mistake in the data, the plan or the folders.
    """
    if resume and overwrite:
        raise Prod9Error("--resume goes on and --overwrite begins anew; give one of them.")
    data, output = Path(data), Path(output)
    clock, work = Clock(), output / WORK
    _require_room(output, resume=resume, overwrite=overwrite)
    description_path = work / DATASET_YAML
    if resume and description_path.is_file():
        data = description_path
    description = described(data)
    if with_labels:
        description = _with_labels(description)
    if covariates:
        description = _with_volumes(description, volume_labels(covariates))
    _claim(work, overwrite=overwrite)
    write_description(description_path, description)
    clock.lap("looking at the data")
    if resume and all((work / name).is_file() for name in FILES):
        plan = Plan.read(work)
    else:
        initial = None if init_from is None else _initial(init_from, tokenizer, work)
        plan = _planned(description, description_path, hours, accelerator, seed, initial, fold)
        clock.lap("planning")
    if plan_only:
        say(f"the plan is in {work}: edit its files, and go on with --resume")
        return None
    one, two = plan.stage1, plan.stage2
    going_on = [resume and RunFolder(each.output_dir).can_resume() for each in (one, two)]
    # A tokenizer that is kept has no checkpoint to resume from: its export is all there is.
    kept = resume and one.training.parts == "none" and one.autoencoder_export_path.is_file()
    if not kept:
        stage1.train(one, resume=going_on[0], overwrite=overwrite)
    clock.lap("Stage 1")
    network = stage2.train(two, resume=going_on[1], overwrite=overwrite)
    clock.lap("Stage 2")
    page = _measure(plan, network, description.name, work, clock)
    model = Model.of(network, Recorded.model_validate(plan.stage2.model_dump()))
    model.save(output, overwrite=True, dataset=description, metrics=work / METRICS, report=page)
    say(f"model {network.digest[:12]} written to {output}; look at {output / REPORT}")
    return model


def _with_labels(description: DatasetDescription) -> DatasetDescription:
    description = description.model_copy(update={"learn_labels": True})
    if not description.learned_labels:
        raise Prod9Error(
            f"{description.root} has no channel of labels to learn; its channels are "
            f"{', '.join(description.channels)}. Set kind: labels in dataset.yaml, or leave out "
            "--with-labels."
        )
    return description


def _with_volumes(description: DatasetDescription, volumes: tuple[int, ...]) -> DatasetDescription:
    known = next(iter(description.learned_labels.values()), ())
    if unknown := [label for label in volumes if label not in known]:
        raise Prod9Error(
            f"--covariate volume:{unknown[0]}: there is no label {unknown[0]} that is learned; "
            f"{'known are ' + ', '.join(map(str, known[1:])) if known else 'add --with-labels'}."
        )
    return description.model_copy(update={"label_volumes": volumes})


def _require_room(output: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that cannot take a training, before data are looked at.

    Raises:
        Prod9Error: there is one already (without ``resume`` and ``overwrite``), there is none
            (with ``resume``), or files that prod9 did not write are in the way.
    """
    work = output / WORK
    ours = _is_claimed(work)
    if resume and not ours:
        raise Prod9Error(f"there is no training in {work} to go on with; start without --resume.")
    if not ours:
        refuse_foreign([work])
    # A start that came to no plan left nothing to lose.
    begun = ours and any((work / name).exists() for name in FILES)
    if (begun or is_model_folder(output)) and not (resume or overwrite):
        raise Prod9Error(
            f"{output} already holds a training or a model; go on with --resume, replace it with "
            "--overwrite, or choose another --output."
        )
    require_writable(work)


def _is_claimed(work: Path) -> bool:
    return read_record(work / _MARK, {"prod9", "folder"}) is not None


def _claim(work: Path, *, overwrite: bool) -> None:
    """Mark ``work`` as the folder of a training, and empty it of an earlier one."""
    if not _is_claimed(work):
        mark = {"prod9": __version__, "folder": "everything that `prod9 train` writes"}
        write_text(work / _MARK, json.dumps(mark, indent=2) + "\n")
    if overwrite:
        remove_own(work, matching(work, _FILES))


def _initial(path: PathLike, tokenizer: Literal["train", "decoder", "keep"], work: Path) -> Initial:
    """Read the model that training starts from, and write its exports into ``work``."""
    model = load(path)
    if not isinstance(model, Model):
        raise Prod9Error(f"{path} holds a tokenizer alone; give a model to --init-from.")
    network, one, two = model.network, work / INITIAL[0], work / INITIAL[1]
    network.tokenizer.save(one)
    save_transformer(two, network.spec, network.transformer)
    parts: Literal["all", "decoder", "none"] = "decoder" if tokenizer == "decoder" else "all"
    return Initial(network, one, two, "none" if tokenizer == "keep" else parts)


def _planned(
    description: DatasetDescription,
    path: Path,
    hours: float,
    accelerator: str,
    seed: int,
    initial: Initial | None,
    fold: int | None,
) -> Plan:
    """Choose what to train, write it beside ``dataset.yaml`` (``path``), and say why."""
    work = path.parent
    section = FolderSourceConfig(
        dataset_name="folder",
        path=path,
        split_file=work / SPLIT,
        test_share=TEST_SHARE,
        fold=fold,
    )
    plan = make_plan(
        path,
        outline_folder(section),
        work,
        hours=hours,
        cut_out=bool(description.cut_out),
        mirror=description.mirror,
        accelerator=accelerator,
        seed=seed,
        initial=initial,
        fold=fold,
    )
    for reason in plan.reasons:
        say(reason)
    plan.write(work)
    return plan


def _measure(plan: Plan, network: core.Model, name: str, work: Path, clock: Clock) -> Path:
    """Measure both stages on the test split; write figures and page; return the page."""
    one, two = plan.stage1, plan.stage2
    splits = open_data(two, network.tokenizer)
    evaluator = evaluator_of(two)
    evaluator.kept = WorkCache(work / UNFINISHED)
    # As Stage 2 encodes: with its windows.
    windowed = one.model_copy(update={"sliding_window": two.sliding_window})
    measure_reconstruction(evaluator, windowed, network.tokenizer, "test")
    translation = measure_generated(evaluator, two, network, splits)
    clock.lap("figures")
    evaluator.seconds |= clock.seconds
    texts = {"Stage 1": dump(one), "Stage 2": dump(two)}
    source = {"tokenizer": network.tokenizer.digest, "transformer": network.digest, **texts}
    return evaluator.write(
        work,
        evaluator.evaluation(source, translation=translation and asdict(translation)),
        title=f"A generator of {name}",  # no path: the page is shared with the model
        lead="Volumes drawn by the model beside real ones of the test split, which it never saw.",
        histories={
            "Stage 1": RunFolder(one.output_dir).history,
            "Stage 2": RunFolder(two.output_dir).history,
        },
        configs=texts,
    )
