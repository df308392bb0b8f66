"""Label maps: whole numbers in a file, and their indices among the values that a model knows."""

from collections.abc import Sequence

import numpy as np

from prod9.data.volume_files.stored_volume import StoredVolume
from prod9.errors import Prod9Error


def label_indices(stored: StoredVolume, values: Sequence[int]) -> np.ndarray:
    """Return the index in ``values``, which rise, of each voxel: uint16, of the stored shape.

    Raises:
        Prod9Error: a voxel that is no whole number, or none of the values.
    """
    array, known = stored.array, np.array(values)
    if not (array == np.rint(array)).all():
        raise Prod9Error(
            f"{stored.path} is a label map with fractions; resample labels with nearest neighbours."
        )
    found = np.searchsorted(known, array).clip(0, len(known) - 1)
    unknown = known[found] != array
    if unknown.any():
        raise Prod9Error(
            f"{stored.path} has the label {array[unknown].min():g}; known are "
            f"{', '.join(map(str, values))}."
        )
    return found.astype(np.uint16)
