import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scan_files import write_scan

from prod9.coarse import coarse_sides, coarsened, refined, shown_by, source_of
from prod9.config import SamplerConfig, SlidingWindowConfig
from prod9.config.data import CoarseConfig
from prod9.data.volume_files.read import read_volume
from prod9.inference.inpaint import inpaint
from prod9.inference.translate import translated_tokens
from prod9.model import Model, load_generator, save_transformer
from prod9.networks.condition import Condition
from prod9.networks.transformer import MaskedTransformer
from prod9.sample_request import SampleRequest
from prod9.tokenizer import Tokenizer


def test_blocks_become_their_means() -> None:
    volume = torch.arange(5.0).view(1, 1, 5, 1, 1).expand(1, 1, 5, 2, 2)
    small = coarsened(volume, 2)
    assert small.shape[2:] == coarse_sides(volume.shape[2:], 2) == (3, 1, 1)
    # The last block has one voxel: nothing is taken from beyond the border.
    assert small.flatten().tolist() == [0.5, 2.5, 4.0]


def test_a_ramp_stays_where_it_is() -> None:
    ramp = torch.linspace(0, 1, 12).view(1, 1, 12, 1, 1).expand(1, 1, 12, 4, 4)
    back = refined(coarsened(ramp, 4), 4, ramp.shape[2:])
    assert back.shape == ramp.shape
    # Linear within the centres of the first and the last block, constant outside.
    assert torch.allclose(back[:, :, 2:10], ramp[:, :, 2:10], atol=1e-6)
    assert torch.allclose(back[:, :, :1], ramp[:, :, :4].mean(2, keepdim=True), atol=1e-6)


@pytest.mark.parametrize("sides", [(8, 8, 8), (9, 7, 11)])
def test_what_coarse_tokens_show_lies_on_the_fine_grid(
    make_tokenizer: Callable[..., Tokenizer], sides: tuple[int, int, int]
) -> None:
    tokenizer: Any = make_tokenizer(volume_shape=sides)
    windows = SlidingWindowConfig(roi_size=(4, 4, 4))
    small = coarse_sides(sides, 2)
    tokens = torch.randint(tokenizer.codebook_size, (2, *tokenizer.grid(small)))
    shown = shown_by(tokenizer, tokens, 2, sides, windows)
    assert shown.shape == (2, 1, *sides)
    fine = source_of(tokenizer, shown, windows)
    assert fine.shape == (2, *tokenizer.grid(sides))
    assert 0 <= int(fine.min()) <= int(fine.max()) < tokenizer.codebook_size
    # Each volume by itself, whatever is in the batch with it.
    assert torch.equal(shown[1:], shown_by(tokenizer, tokens[1:], 2, sides, windows))
    assert torch.equal(fine[1:], source_of(tokenizer, shown[1:], windows))
    assert math.prod(small) < math.prod(sides)


# --- models with a coarse grid ------------------------------------------------------------------

WINDOWS = SlidingWindowConfig(roi_size=(8, 8, 8))
SAMPLER = SamplerConfig(steps=2, guidance_scale=1.0)


@pytest.fixture
def model(make_scan_generator: Callable[..., Model]) -> Model:
    """Volumes of 12 voxels a side, 6 cells fine and 3 coarse, windows of 4 cells."""
    return make_scan_generator(coarse_factor=2)


@pytest.fixture
def asked(model: Model, monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.Tensor, Condition]]:
    """Record what the transformer is asked."""
    calls: list[tuple[torch.Tensor, Condition]] = []
    real = model.transformer.forward

    def forward(tokens: torch.Tensor, condition: Condition) -> torch.Tensor:
        calls.append((tokens, condition))
        return real(tokens, condition)

    monkeypatch.setattr(model.transformer, "forward", forward)
    return calls


def known(condition: Condition, mask_id: int) -> list[bool]:
    """Return which sources hold anything."""
    assert condition.sources is not None
    return (condition.sources != mask_id).flatten(2).any(2).any(0).tolist()


def test_the_coarse_volume_is_sampled_first_and_is_the_windows_source(
    model: Model, asked: list[tuple[torch.Tensor, Condition]]
) -> None:
    request = SampleRequest((1, 2), SAMPLER, WINDOWS)
    tokens = model.sample(request)
    assert tokens.shape == (2, 6, 6, 6)
    first = [condition for _, condition in asked if condition.coarse]
    assert asked[0][0].shape == (2, 3, 3, 3)
    assert [condition for _, condition in asked[: len(first)]] == first
    mask_id = model.transformer.mask_id
    for _, condition in asked[len(first) :]:
        assert known(condition, mask_id) == [False] * 4 + [True]
        assert condition.sources is not None
        assert bool((condition.sources[:, -1] != mask_id).all())
        assert condition.channels.tolist() == [1, 2]
    assert torch.equal(tokens, model.sample(request))
    assert model.sample_volumes(request).shape == (2, 1, 12, 12, 12)
    other = replace(request, shape=(9, 14, 12))
    assert model.sample_volumes(other).shape == (2, 1, 9, 14, 12)


def test_what_the_coarse_volume_shows_decides(model: Model) -> None:
    shape = (1, 4, 4, 4)
    empty = torch.full(shape, model.transformer.mask_id)
    sources = torch.full((1, 5, 4, 4, 4), model.transformer.mask_id)
    answers: list[torch.Tensor] = []
    for token in (0, 1):
        sources[:, -1] = token
        answers.append(model.transformer(empty, Condition.of(torch.tensor([0]), 4, sources)))
    assert float((answers[0] - answers[1]).detach().abs().max()) > 1e-3
    whole = Condition.of(torch.tensor([0]), 4)
    with torch.no_grad():
        assert model.transformer.coarse_embedding is not None
        model.transformer.coarse_embedding.fill_(1)
    fine, coarse = (
        model.transformer(empty, replace(whole, coarse=coarse)) for coarse in (False, True)
    )
    assert float((fine - coarse).detach().abs().max()) > 1e-3


def test_a_translation_knows_no_coarse_volume(
    model: Model, asked: list[tuple[torch.Tensor, Condition]]
) -> None:
    scan = torch.rand(1, 1, 12, 12, 12, generator=torch.Generator().manual_seed(0))
    translated_tokens(model, {0: scan}, SampleRequest((3,), SAMPLER, WINDOWS))
    for _, condition in asked:
        assert not condition.coarse
        assert known(condition, model.transformer.mask_id) == [True, False, False, False, False]


def test_in_painting_samples_what_is_hidden_of_the_coarse_volume(
    model: Model, asked: list[tuple[torch.Tensor, Condition]], tmp_path: Path
) -> None:
    random = np.random.default_rng(0)
    scan = random.uniform(100, 200, (12, 12, 12)).astype(np.float32)
    hole = np.zeros_like(scan)
    hole[:2, :2, :2] = 1
    stored = [
        read_volume(write_scan(tmp_path / f"{name}.nii.gz", volume, affine=np.eye(4)))
        for name, volume in (("scan", scan), ("hole", hole))
    ]
    request = SampleRequest((0,), SAMPLER, WINDOWS)
    results = inpaint(model, stored[0], stored[1], request)
    tokens, condition = asked[0]
    assert condition.coarse
    unknown = tokens == model.transformer.mask_id
    # The cells of the hole and their neighbours; what is far is known.
    assert bool(unknown[0, :2, :2, :2].all())
    assert not bool(unknown[0, 2].any())
    assert not asked[-1][1].coarse
    assert known(asked[-1][1], model.transformer.mask_id) == [False] * 4 + [True]
    assert (results[0][hole == 0] == stored[0].array[hole == 0]).all()


def test_a_model_with_a_coarse_grid_comes_back_as_one(model: Model, tmp_path: Path) -> None:
    save_transformer(tmp_path / "model.pt", model.spec, model.transformer)
    loaded = load_generator(tmp_path / "model.pt", model.tokenizer)
    assert loaded.spec.coarse_factor == 2
    request = SampleRequest((1,), SAMPLER, WINDOWS)
    assert torch.equal(loaded.sample(request), model.sample(request))


def test_a_volume_of_one_channel_has_a_coarse_source_too(
    make_transformer: Callable[..., MaskedTransformer],
) -> None:
    network = make_transformer(num_channels=1, coarse=True)
    tokens = torch.full((1, 4, 4, 4), network.mask_id)
    answers = [
        network(tokens, Condition.of(torch.tensor([0]), 1, torch.full((1, 1, 4, 4, 4), token)))
        for token in (0, 7)
    ]
    assert not torch.equal(*answers)


def test_the_coarse_grid_reaches_from_face_to_face(
    make_transformer: Callable[..., MaskedTransformer],
) -> None:
    """Its middle is the middle of the volume, not the corner that so many fine cells are."""
    network, small = (make_transformer(coarse=True, grid=(side,) * 3) for side in (8, 4))
    tokens = torch.full((1, 4, 4, 4), network.mask_id)
    whole, corner = (Condition.of(torch.tensor([0]), 1, coarse=coarse) for coarse in (True, False))
    assert network.coarse_embedding is not None
    with torch.no_grad():
        network.coarse_embedding.zero_()
    torch.testing.assert_close(network(tokens, whole), small(tokens, corner))
    assert not torch.allclose(network(tokens, corner), small(tokens, corner))


def test_a_factor_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        CoarseConfig(factor=1)


def test_what_the_coarse_volume_leaves_empty_is_known(
    model: Model,
    asked: list[tuple[torch.Tensor, Condition]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = torch.zeros(1, 1, 12, 12, 12)
    shown[..., :2, :2, :2] = 1.0  # the first cell
    monkeypatch.setattr("prod9.model.shown_by", lambda *_: shown)
    tokens = model.sample(SampleRequest((0,), SAMPLER, WINDOWS))
    source = source_of(model.tokenizer, shown, WINDOWS)
    empty = torch.ones(6, 6, 6, dtype=torch.bool)
    empty[:2, :2, :2] = False  # it and its neighbours
    assert torch.equal(tokens[0][empty], source[0][empty])
    unknown = [(part == model.transformer.mask_id).sum().item() for part, _ in asked]
    assert 8 in unknown
    # The coarse grid's 27 cells come first; of the windows one alone has something unknown.
    assert max(unknown[unknown.index(8) :]) == 8
