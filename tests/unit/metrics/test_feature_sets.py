import math

import pytest
import torch

from prod9.metrics.feature_sets import (
    density_coverage,
    frechet_distance,
    kernel_distance,
    precision_recall,
)


@pytest.mark.parametrize(
    "measure", [frechet_distance, kernel_distance, precision_recall, density_coverage]
)
def test_bad_sets_are_refused(measure):
    x = torch.rand(9, 3)
    with pytest.raises((ValueError, TypeError)):  # TypeError where jaxtyping checks first
        measure(x, torch.rand(9, 2))
    with pytest.raises(ValueError, match="do not compare"):
        measure(x[:, :0], x[:, :0])
    for bad in (math.nan, math.inf):
        y = x.clone()
        y[2, 1] = bad
        with pytest.raises(ValueError, match="NaN or infinite"):
            measure(x, y)
