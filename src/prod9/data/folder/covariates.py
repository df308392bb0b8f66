"""What is known of each scan of a description, such as age, sex or the volume of a label."""

from collections.abc import Mapping, Sequence

import numpy as np

from prod9.config.dataset import DatasetDescription, ScanEntry
from prod9.data.dataset import Covariate, LabelVolume
from prod9.data.scan_dataset import ScanDataset
from prod9.data.splits import Split
from prod9.errors import Prod9Error


def covariates_of(
    description: DatasetDescription, train: Sequence[ScanEntry]
) -> tuple[Covariate, ...]:
    """Return the covariates of a description: numbers, or categories by name.

    Mean and standard deviation are over the scans of the training split that have a value.
    """
    entries = description.scans.values()
    names = dict.fromkeys(name for entry in entries for name in entry.covariates)
    found: list[Covariate] = []
    for name in names:
        values = [entry.covariates.get(name) for entry in entries]
        texts = sorted({value for value in values if isinstance(value, str)})
        numbers = [value for value in values if isinstance(value, int | float)]
        if texts and numbers:
            raise Prod9Error(
                f"the covariate {name} is a number for some scans and {texts[0]!r} for others; "
                "make it one or the other in dataset.yaml (null where it is not known)."
            )
        if texts:
            found.append(Covariate(name, tuple(texts)))
        elif numbers:
            known = [entry.covariates.get(name) for entry in train]
            own = [value for value in known if isinstance(value, int | float)] or numbers
            found.append(Covariate(name, (), float(np.mean(own)), float(np.std(own)) or 1.0))
    return tuple(found)


def values_of(entry: ScanEntry, covariates: Sequence[Covariate]) -> tuple[float | None, ...]:
    """Return the value of each covariate: a number, the index of a category, or None."""
    found: list[float | None] = []
    for each in covariates:
        value = entry.covariates.get(each.name)
        if isinstance(value, str):
            value = each.categories.index(value)
        found.append(None if value is None else float(value))
    return tuple(found)


def add_volumes(splits: Mapping[Split, ScanDataset], labels: Sequence[int]) -> None:
    """Give all splits the volumes of labels, of their first channel of labels, as covariates.

    Every label map is read.
    """
    train = splits["train"]
    channel = next(c for c, each in enumerate(train.channels) if each.kind == "labels")
    first = len(train.covariates)
    volumes = [LabelVolume(first + n, channel, label) for n, label in enumerate(labels)]
    tables = {
        split: np.array([[data.volume_of(item, v) for v in volumes] for item in range(len(data))])
        for split, data in splits.items()
    }
    means, spreads = tables["train"].mean(0), tables["train"].std(0)
    found = [
        Covariate(f"volume:{label}", (), float(mean), float(spread) or 1.0)
        for label, mean, spread in zip(labels, means, spreads, strict=True)
    ]
    for split, data in splits.items():
        known = data.values or [()] * len(data)
        data.values = tuple(
            (*own, *row) for own, row in zip(known, tables[split].tolist(), strict=True)
        )
        data.covariates, data.label_volumes = (*data.covariates, *found), tuple(volumes)


def volume_labels(names: Sequence[str]) -> tuple[int, ...]:
    """Return the labels of names such as ``volume:1``.

    Raises:
        Prod9Error: a name that is written differently.
    """
    found: list[int] = []
    for name in names:
        kind, _, label = name.partition(":")
        if kind != "volume" or not label.isdecimal() or int(label) < 1:
            raise Prod9Error(
                f"--covariate {name} is not understood; write volume:LABEL, such as volume:1. What "
                "tables say of subjects is learned without being asked for."
            )
        found.append(int(label))
    return tuple(dict.fromkeys(found))
