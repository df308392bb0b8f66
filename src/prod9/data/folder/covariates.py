"""What is known of each scan of a description, such as age or sex, as numbers."""

from collections.abc import Sequence

import numpy as np

from prod9.config.dataset import DatasetDescription, ScanEntry
from prod9.data.dataset import Covariate
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
