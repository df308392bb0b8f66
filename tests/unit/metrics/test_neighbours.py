import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from prod9.metrics.feature_sets import nearest_neighbours


def _sklearn(queries: torch.Tensor, references: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    q, r = (x.flatten(1).double().numpy() for x in (queries, references))
    distance, index = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(r).kneighbors(q)
    return distance[:, 0] / np.sqrt(q.shape[1]), index[:, 0]


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 150), m=st.integers(1, 150), seed=st.integers(0, 99))
def test_as_scikit_learn(n, m, seed):
    generator = torch.Generator().manual_seed(seed)
    queries = torch.rand(n, 1, 3, 4, 5, generator=generator)
    references = torch.rand(m, 1, 3, 4, 5, generator=generator)
    found, of = nearest_neighbours(queries, references)
    distance, index = _sklearn(queries, references)
    assert of.tolist() == index.tolist()
    np.testing.assert_allclose(found.numpy(), distance, rtol=1e-6)


def test_known_distances():
    references = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    distance, index = nearest_neighbours(torch.tensor([[0.0, 0.3], [0.9, 0.8]]), references)
    assert index.tolist() == [0, 1]
    assert distance.tolist() == pytest.approx([0.3 / 2**0.5, (0.05 / 2) ** 0.5])


def test_a_copy_is_at_exactly_zero():
    references = torch.rand(100, 1, 8, 8, 8) + 100
    distance, index = nearest_neighbours(references[[7, 91]], references)
    assert index.tolist() == [7, 91]
    assert distance.tolist() == [0.0, 0.0]


def test_bad_sets_are_refused():
    x = torch.rand(3, 4)
    with pytest.raises((ValueError, TypeError)):
        nearest_neighbours(x, torch.rand(3, 5))
