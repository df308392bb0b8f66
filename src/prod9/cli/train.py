"""``prod9 train``: from a folder of scans to a model."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from prod9.cli.options import Output, OverwriteOption, Seed
from prod9.runtime.processes import require_alone
from prod9.runtime.starting import starting


def train(
    data: Annotated[Path, typer.Argument()],
    output: Output,
    hours: Annotated[float, typer.Option(min=0.01)] = 0.5,
    plan_only: bool = False,
    resume: bool = False,
    overwrite: OverwriteOption = False,
    init_from: str | None = None,
    tokenizer: Literal["train", "decoder", "keep"] = "decoder",
    fold: Annotated[int | None, typer.Option(min=0, max=4)] = None,
    device: Literal["auto", "cpu", "gpu"] = "auto",
    seed: Seed = 0,
    with_labels: bool = False,
    covariate: list[str] | None = None,
) -> None:
    """Turn a folder of scans into a generator of new ones: look, plan, train, measure.

    Args:
        data: A folder of scans in any known layout; or its dataset.yaml (prod9 data inspect), a
            CSV table or a data list (JSON).
        output: Folder of the model; what training writes is in OUTPUT/training.
        hours: The time there is on this machine, for everything; the plan fits into it.
        plan_only: Write dataset.yaml, stage1.yaml and stage2.yaml, and stop; edit them and go on
            with --resume.
        resume: Go on with the plan and the training that are in OUTPUT/training.
        init_from: A trained model to start from: a model folder, a run, or user/name on the hub.
        tokenizer: What of that model's tokenizer is trained: all of it, the decoder alone, nothing.
        fold: For cross-validation: which of five parts of the subjects is for testing.
        device: Where to train.
        seed: Seed of everything random.
        with_labels: Learn the label maps too: images from masks, masks from images, and pairs.
        covariate: volume:LABEL: the volume of a label (ml) can be asked for; repeatable. What
            tables say of subjects is learned in any case.
    """
    require_alone("prod9 train")
    with starting("prod9 train"):
        from prod9.pipeline.train_folder import train_folder

    train_folder(
        data,
        output,
        hours=hours,
        plan_only=plan_only,
        resume=resume,
        overwrite=overwrite,
        init_from=init_from,
        tokenizer=tokenizer,
        fold=fold,
        accelerator=device,
        seed=seed,
        with_labels=with_labels,
        covariates=covariate or (),
    )
