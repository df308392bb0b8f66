from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from prod9.config import SamplerConfig, SlidingWindowConfig
from prod9.errors import Prod9Error
from prod9.model import (
    Model,
    TransformerSpec,
    load_generator,
    save_transformer,
)
from prod9.networks.condition import Condition
from prod9.networks.transformer import MaskedTransformer
from prod9.sample_request import SampleRequest
from prod9.sliding_window import decode
from prod9.tokenizer import Tokenizer

SAMPLER = SamplerConfig(steps=3)


@pytest.fixture
def generator(make_generator: Callable[..., Model]) -> Model:
    return make_generator((7, 8, 6))


@pytest.fixture
def tokenizer(generator: Model) -> Tokenizer:
    return generator.tokenizer


@pytest.fixture
def transformer(generator: Model) -> MaskedTransformer:
    return generator.transformer


@pytest.fixture
def spec(generator: Model) -> TransformerSpec:
    return generator.spec


@pytest.fixture
def saved(spec: TransformerSpec, transformer: MaskedTransformer, tmp_path: Path) -> Path:
    path = tmp_path / "transformer.pt"
    save_transformer(path, spec, transformer)
    return path


def request(*labels: int, seed: int = 0, **rest: Any) -> SampleRequest:
    return SampleRequest(labels, **({"sampler": SAMPLER, "seed": seed} | rest))


def tokens_of(generator: Model, wanted: SampleRequest) -> torch.Tensor:
    """Return the tokens of all batches, joined."""
    return torch.cat([generator.sample(wanted, n) for n in range(wanted.num_batches)])


def problem(path: Path, tokenizer: Tokenizer) -> str:
    with pytest.raises(Prod9Error) as caught:
        load_generator(path, tokenizer)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_what_is_loaded_draws_what_was_saved(
    generator: Model, saved: Path, tokenizer: Tokenizer
) -> None:
    loaded = load_generator(saved, tokenizer)
    assert loaded.spec == generator.spec
    assert loaded.class_names == ("ball", "box")
    wanted = request(0, 1, 1, seed=5, batch_size=2)
    assert torch.equal(tokens_of(generator, wanted), tokens_of(loaded, wanted))
    ours, theirs = generator.sample_volumes(wanted, 1), loaded.sample_volumes(wanted, 1)
    assert torch.equal(ours, theirs)
    assert not any(p.requires_grad for p in loaded.transformer.parameters())
    assert not loaded.transformer.training


def test_seeds_and_batches(generator: Model) -> None:
    wanted = request(0, 0, 1, 1, 1, seed=7, batch_size=2)
    done: list[tuple[int, int]] = []
    parts = [
        generator.sample(wanted, number, lambda n, total: done.append((n, total)))
        for number in range(wanted.num_batches)
    ]
    assert [len(part) for part in parts] == [2, 2, 1]
    assert done == [(1, 1)] * 3  # one window a batch
    tokens = torch.cat(parts)
    assert tokens.shape == (5, 4, 4, 3)
    assert generator.sample_volumes(wanted, 2).shape == (1, 1, 7, 8, 6)
    assert bool((tokens >= 0).all() & (tokens < 60).all())
    assert torch.equal(tokens_of(generator, wanted), tokens)
    other = tokens_of(generator, replace(wanted, seed=8))
    assert not any(torch.equal(a, b) for a in tokens for b in other)
    assert not any(torch.equal(tokens[i], tokens[j]) for i in range(5) for j in range(i))


def test_batches_of_different_seeds_share_no_stream(generator: Model) -> None:
    # Batch k of seed s must not be batch 0 of another seed.
    first = tokens_of(generator, request(0, 0, 0, 0, batch_size=1))
    assert len(torch.unique(first, dim=0)) == 4
    for seed in (1, 2, 3):
        other = tokens_of(generator, request(0, 0, 0, 0, seed=seed, batch_size=1))
        assert not any(torch.equal(a, b) for a in first for b in other)


def test_volumes_are_the_decoded_tokens(generator: Model, tokenizer: Tokenizer) -> None:
    wanted = request(1, 0)
    volumes = generator.sample_volumes(wanted)
    assert torch.equal(volumes, tokenizer.decode(generator.sample(wanted), (7, 8, 6)))


def test_the_class_decides(generator: Model) -> None:
    def drawn(label: int, **change: Any) -> torch.Tensor:
        config = SAMPLER.model_copy(update=change)
        return generator.sample(request(label, sampler=config))

    assert not torch.equal(drawn(0), drawn(1))
    assert not torch.equal(drawn(0), drawn(0, guidance_scale=4.0, guidance_schedule="constant"))


def test_tokens_are_drawn_from_the_stream_alone(generator: Model) -> None:
    def drawn(outside: int) -> torch.Tensor:
        torch.manual_seed(outside)
        return generator.sample(request(0, 1, seed=3, initial=torch.full((1, 3, 2, 2), 60)))

    assert torch.equal(drawn(0), drawn(1))


def test_grids_lie_in_the_middle_of_the_training_grid(
    generator: Model,
) -> None:
    seen: list[Condition] = []
    generator.transformer.register_forward_pre_hook(lambda module, args: seen.append(args[1]))
    sources = torch.full((1, 2, 2, 4, 5), 60)
    known = torch.full((1, 2, 4, 5), 60)
    known[:, 0] = 9
    config = SamplerConfig(steps=1, guidance_scale=1.0)
    drawn = generator.sample(request(0, 1, sampler=config, initial=known, sources=sources))
    assert bool((drawn[:, 0] == 9).all())
    assert bool((drawn[:, 1] < 60).all())
    # Training: (4, 4, 3). This one begins a cell later, in line, and a cell earlier; it is cut
    # into windows of 3 along the last axis.
    origins = [given.origin.tolist() for given in seen if given.origin is not None]
    assert sorted(origins) == [[[1, 0, last]] * 2 for last in (-1, 0, 1)]
    assert [c.sources.shape for c in seen if c.sources is not None] == [(2, 2, 2, 4, 3)] * 3


def test_larger_volumes_are_drawn_and_decoded_in_windows(
    generator: Model, tokenizer: Tokenizer
) -> None:
    windows = SlidingWindowConfig(roi_size=(8, 8, 8), overlap=0.25)
    done: list[tuple[int, int]] = []
    wanted = request(1, 0, windows=windows, shape=(13, 8, 6))
    tokens = generator.sample(wanted, on_window=lambda n, total: done.append((n, total)))
    volumes = generator.sample_volumes(wanted)
    assert tokens.shape == (2, 7, 4, 3)
    assert bool((tokens < 60).all())
    assert done == [(1, 2), (2, 2)]  # 7 cells, from 0 and from 3
    assert volumes.shape == (2, 1, 13, 8, 6)
    for one, volume in zip(tokens, volumes, strict=True):
        assert torch.equal(volume[None], decode(tokenizer, one[None], (13, 8, 6), windows))
    # No seam to blend where the volume is no larger than a window.
    large = SlidingWindowConfig(roi_size=(13, 8, 8))
    whole = generator.decode(tokens, (13, 8, 6), large)
    assert torch.equal(whole, tokenizer.decode(tokens, (13, 8, 6)))


def test_a_transformer_with_sources_comes_back_as_one(
    make_transformer: Any, spec: TransformerSpec, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    network = make_transformer(num_channels=2, grid=(4, 4, 3))
    sourced = spec.model_copy(
        update={"channels": ("a", "b"), "num_sources": 2, "window": (2, 2, 2)}
    )
    save_transformer(tmp_path / "sourced.pt", sourced, network)
    loaded = load_generator(tmp_path / "sourced.pt", tokenizer)
    assert loaded.spec == sourced
    assert loaded.transformer.grid == (4, 4, 3)
    tokens = torch.full((1, 4, 4, 3), 60)
    sources = torch.randint(60, (1, 2, 4, 4, 3), generator=torch.Generator().manual_seed(0))
    given = Condition.of(torch.tensor([0]), 1, sources)
    torch.testing.assert_close(loaded.transformer(tokens, given), network(tokens, given))
    # The same weights for another grid are another transformer: places mean something else.
    moved = sourced.model_copy(update={"grid": (5, 4, 3)})
    save_transformer(tmp_path / "moved.pt", moved, network)
    assert load_generator(tmp_path / "moved.pt", tokenizer).digest != loaded.digest


def test_a_wrong_tokenizer_is_named(saved: Path, make_tokenizer: Any, tokenizer: Tokenizer) -> None:
    other = make_tokenizer(seed=1)
    message = problem(saved, other)
    assert tokenizer.digest[:12] in message
    assert other.digest[:12] in message
    assert "point autoencoder_path at the tokenizer that it was trained on" in message


@pytest.mark.parametrize(
    "change",
    [
        {"spec": {}},
        {"spec": None},
        {"weights": {}},
        {"weights": None},
        {"weights": {"pack.weight": torch.zeros(3)}},
    ],
)
def test_a_foreign_content(saved: Path, tokenizer: Tokenizer, change: dict[str, Any]) -> None:
    torch.save(torch.load(saved, weights_only=True) | change, saved)
    assert "is not a transformer that prod9" in problem(saved, tokenizer)


def test_a_torn_a_foreign_and_no_file(saved: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "tokenizer.pt")
    assert "is not a file of kind prod9-transformer" in problem(
        tmp_path / "tokenizer.pt", tokenizer
    )
    saved.write_bytes(saved.read_bytes()[:-100])
    assert "torn" in problem(saved, tokenizer)
    saved.unlink()
    assert "make it with `prod9-train-transformer train`" in problem(saved, tokenizer)


def test_labels(generator: Model) -> None:
    assert generator.labels_of(["box"], 3) == (1, 1, 1)
    assert generator.labels_of(["all"], 2) == (0, 0, 1, 1)
    assert generator.labels_of(["Box", "ball"], 1) == (1, 0)
    with pytest.raises(Prod9Error, match="did you mean ball"):
        generator.labels_of(["bal"], 1)
    with pytest.raises(Prod9Error, match=r"knows no class or channel pancreas.*ball, box"):
        generator.label_of("pancreas")


def test_a_channel_by_any_of_its_names(make_scan_generator: Callable[..., Model]) -> None:
    scans = make_scan_generator()
    for names in (("t1", "t1n", "T1w"), ("T1C", "t1gd"), ("t2w", "t2"), ("t2f", "flair")):
        assert len({scans.label_of(name) for name in names}) == 1
    assert [scans.label_of(name) for name in ("t1n", "t1c", "t2w", "t2f")] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("channels", "name", "label"),
    [
        (("T1w", "T2w"), "t1n", 0),
        (("T1w", "t1"), "T1", 1),
        (("T1w", "t1n"), "t1", None),
        (("T1",), "t1n", 0),
        (("CT", "PET"), "ct", 0),
        (("CT", "PET"), "T1", None),
    ],
)
def test_synonyms_are_of_one_channel(
    make_scan_generator: Callable[..., Model],
    channels: tuple[str, ...],
    name: str,
    label: int | None,
) -> None:
    model = make_scan_generator()
    model = replace(model, spec=model.spec.model_copy(update={"channels": channels}))
    if label is None:
        with pytest.raises(Prod9Error, match=f"no class or channel {name}"):
            model.label_of(name)
    else:
        assert model.label_of(name) == label


def test_classes_and_channels_of_both(make_scan_generator: Callable[..., Model]) -> None:
    scans = make_scan_generator()
    assert scans.names_of([], []) == ["all"]
    assert scans.names_of(["T1"], ["T2"]) == ["T1", "T2"]
    both = replace(scans, spec=scans.spec.model_copy(update={"class_names": ("liver", "spleen")}))
    assert both.names_of(["liver"], ["t1n", "T2"]) == ["liver/t1n", "liver/T2"]
    assert both.labels_of(both.names_of(["liver"], ["t1n", "T2"]), 1) == (0, 2)
    assert both.labels_of(both.names_of(["Spleen"], []), 1) == (4, 5, 6, 7)
    assert both.labels_of(both.names_of(["all"], ["t2f"]), 1) == (3, 7)
    assert both.names_of([], ["T1"]) == ["T1"]
    assert both.names_of(["liver/T1"], ["T2"]) == ["liver/T1", "T2"]
