from pathlib import Path
from typing import Any

import pytest
import torch

from prod9.build.stage2 import labels_of
from prod9.config import SamplerConfig, TransformerConfig
from prod9.errors import UserError
from prod9.generator import (
    Generator,
    TransformerSpec,
    draw_tokens,
    load_generator,
    save_transformer,
)
from prod9.models.transformer import MaskedTransformer
from prod9.tokenizer import Tokenizer

SAMPLER = SamplerConfig(steps=3)


@pytest.fixture
def tokenizer(make_tokenizer: Any) -> Tokenizer:
    return make_tokenizer(volume_shape=(7, 8, 6))


@pytest.fixture
def transformer(make_transformer: Any) -> MaskedTransformer:
    return make_transformer()


@pytest.fixture
def spec(tokenizer: Tokenizer, transformer_config: TransformerConfig) -> TransformerSpec:
    return TransformerSpec(
        transformer=transformer_config,
        levels=tokenizer.fsq.levels,
        class_names=("ball", "box"),
        tokenizer_digest=tokenizer.digest,
        config_yaml="seed: 0\n",
    )


@pytest.fixture
def saved(spec: TransformerSpec, transformer: MaskedTransformer, tmp_path: Path) -> Path:
    path = tmp_path / "transformer.pt"
    save_transformer(path, spec, transformer)
    return path


@pytest.fixture
def generator(
    tokenizer: Tokenizer, transformer: MaskedTransformer, spec: TransformerSpec
) -> Generator:
    return Generator(tokenizer, transformer, spec)


def problem(path: Path, tokenizer: Tokenizer) -> str:
    with pytest.raises(UserError) as caught:
        load_generator(path, tokenizer)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_what_is_loaded_draws_what_was_saved(
    generator: Generator, saved: Path, tokenizer: Tokenizer
) -> None:
    loaded = load_generator(saved, tokenizer)
    assert loaded.spec == generator.spec
    assert loaded.class_names == ("ball", "box")
    labels = torch.tensor([0, 1, 1])
    ours = generator.generate(labels, SAMPLER, 5, batch_size=2)
    theirs = loaded.generate(labels, SAMPLER, 5, batch_size=2)
    assert torch.equal(ours[0], theirs[0])
    assert torch.equal(ours[1], theirs[1])
    assert not any(p.requires_grad for p in loaded.transformer.parameters())
    assert not loaded.transformer.training


def test_seeds_and_batches(generator: Generator) -> None:
    labels = torch.tensor([0, 0, 1, 1, 1])
    done: list[int] = []
    tokens, volumes = generator.generate(labels, SAMPLER, 7, batch_size=2, on_batch=done.append)
    assert done == [2, 2, 1]
    assert tokens.shape == (5, 4, 4, 3)
    assert volumes.shape == (5, 1, 7, 8, 6)
    assert bool((tokens >= 0).all() & (tokens < 60).all())
    again = generator.generate(labels, SAMPLER, 7, batch_size=2)
    assert torch.equal(again[0], tokens)
    assert torch.equal(again[1], volumes)
    other = generator.generate(labels, SAMPLER, 8, batch_size=2)[0]
    assert not any(torch.equal(a, b) for a in tokens for b in other)
    assert not any(torch.equal(tokens[i], tokens[j]) for i in range(5) for j in range(i))


def test_batches_of_different_seeds_share_no_stream(generator: Generator) -> None:
    # Batch k of seed s must not be batch 0 of another seed.
    labels = torch.zeros(4, dtype=torch.int64)
    first = generator.generate(labels, SAMPLER, 0, batch_size=1)[0]
    for seed in (1, 2, 3):
        other = generator.generate(labels, SAMPLER, seed, batch_size=1)[0]
        assert not any(torch.equal(a, b) for a in first for b in other)


def test_volumes_are_the_decoded_tokens(generator: Generator, tokenizer: Tokenizer) -> None:
    tokens, volumes = generator.generate(torch.tensor([1, 0]), SAMPLER, 0, batch_size=4)
    assert torch.equal(volumes, tokenizer.decode(tokens, (7, 8, 6)))


def test_the_class_decides(generator: Generator) -> None:
    def drawn(label: int, **change: Any) -> torch.Tensor:
        config = SAMPLER.model_copy(update=change)
        return generator.generate(torch.tensor([label]), config, 0, batch_size=1)[0]

    assert not torch.equal(drawn(0), drawn(1))
    assert not torch.equal(drawn(0), drawn(0, guidance_scale=4.0, guidance_schedule="constant"))


def test_tokens_are_drawn_from_the_stream_alone(transformer: MaskedTransformer) -> None:
    def drawn(outside: int) -> torch.Tensor:
        torch.manual_seed(outside)
        stream = torch.Generator().manual_seed(3)
        return draw_tokens(transformer, torch.tensor([0, 1]), (3, 2, 2), SAMPLER, stream)

    assert torch.equal(drawn(0), drawn(1))


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
    assert "train it again with this version" in problem(saved, tokenizer)


def test_a_torn_a_foreign_and_no_file(saved: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "tokenizer.pt")
    assert "is not a file of kind prod9-transformer" in problem(
        tmp_path / "tokenizer.pt", tokenizer
    )
    saved.write_bytes(saved.read_bytes()[:-100])
    assert "torn" in problem(saved, tokenizer)
    saved.unlink()
    assert "make it with `prod9-train-transformer train`" in problem(saved, tokenizer)


def test_labels(generator: Generator) -> None:
    assert labels_of(generator, ["box"], 3).tolist() == [1, 1, 1]
    assert labels_of(generator, ["all"], 2).tolist() == [0, 0, 1, 1]
    assert labels_of(generator, ["box", "ball"], 1).tolist() == [1, 0]
    with pytest.raises(UserError, match=r"--class bal: .* did you mean ball\?"):
        labels_of(generator, ["bal"], 1)
    with pytest.raises(UserError, match=r"choose from: ball, box, all\."):
        labels_of(generator, ["pancreas"], 1)
