from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prod9.errors import Prod9Error
from prod9.fsq import FSQ
from prod9.tokenizer import Tokenizer


@pytest.fixture
def tokenizer(make_tokenizer: Any) -> Tokenizer:
    return make_tokenizer()


@pytest.fixture
def saved(tokenizer: Tokenizer, tmp_path: Path) -> Path:
    path = tmp_path / "new" / "tokenizer.pt"
    tokenizer.save(path)
    return path


def volumes(*sides: int, batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 1, *sides, generator=torch.Generator().manual_seed(1))


def problem(path: Path) -> str:
    with pytest.raises(Prod9Error) as caught:
        Tokenizer.load(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_what_is_loaded_is_what_was_saved(tokenizer: Tokenizer, saved: Path) -> None:
    loaded = Tokenizer.load(saved)
    assert loaded.spec == tokenizer.spec
    assert loaded.digest == tokenizer.digest
    x = volumes(8, 8, 8)
    tokens = tokenizer.encode(x)
    assert torch.equal(loaded.encode(x), tokens)
    assert torch.equal(loaded.decode(tokens), tokenizer.decode(tokens))
    assert len(tokens.unique()) > 10
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_it_is_plain_data_and_frozen(tokenizer: Tokenizer, saved: Path) -> None:
    content = torch.load(saved, weights_only=True)
    assert content["spec"]["autoencoder"]["levels"] == [5, 4, 3]
    assert set(content) == {"kind", "spec", "weights", "digest"}
    loaded = Tokenizer.load(saved)
    loaded.train()
    assert not any(module.training for module in loaded.modules())
    assert not any(p.requires_grad for p in loaded.parameters())


def test_the_digest_names_spec_and_weights(make_tokenizer: Any) -> None:
    digests = {
        make_tokenizer().digest,
        make_tokenizer(seed=1).digest,
        make_tokenizer(volume_shape=(8, 8, 9)).digest,
        make_tokenizer(class_names=("box", "ball")).digest,
    }
    assert len(digests) == 4
    assert make_tokenizer().digest in digests  # the same twice


def test_encode_and_decode_are_those_of_the_autoencoder(tokenizer: Tokenizer) -> None:
    x = volumes(8, 8, 8)
    output = tokenizer.autoencoder(x)
    tokens = tokenizer.encode(x)
    assert torch.equal(tokens, tokenizer.fsq.codes_to_indices(output.codes))
    assert torch.equal(tokenizer.decode(tokens), output.volume.clamp(0, 1))
    assert bool((output.volume < 0).any() | (output.volume > 1).any())  # the clamp had work
    assert (tokenizer.codebook_size, tokenizer.grid()) == (60, (4, 4, 4))


@given(sides=st.tuples(*[st.integers(1, 9)] * 3))
def test_any_size_goes_in_and_comes_back(make_tokenizer: Any, sides: tuple[int, ...]) -> None:
    tokenizer = make_tokenizer()
    x = volumes(*sides)
    tokens = tokenizer.encode(x)
    assert tokens.shape[1:] == tokenizer.grid(sides) == tuple(-(-side // 2) for side in sides)
    assert tokens.dtype == torch.int64
    assert torch.equal(tokenizer.decode(tokens, sides), tokenizer.autoencoder(x).volume.clamp(0, 1))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_torn_file(saved: Path, share: float) -> None:
    content = saved.read_bytes()
    saved.write_bytes(content[: int(share * len(content))])
    assert "torn" in problem(saved)


def test_no_file(tmp_path: Path) -> None:
    assert "make it with `prod9-train-autoencoder train`" in problem(tmp_path / "none.pt")
    assert "there is no file" in problem(tmp_path)  # a folder


@pytest.mark.parametrize(
    "content", [{"kind": "prod9-transformer"}, {"weights": {}}, [1, 2], torch.zeros(3), "text"]
)
def test_a_file_of_another_kind(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "other.pt"
    torch.save(content, path)
    assert "is not a file of kind prod9-tokenizer" in problem(path)


def rewrite(path: Path, **change: Any) -> None:
    torch.save(torch.load(path, weights_only=True) | change, path)


@pytest.mark.parametrize(
    "spec",
    [
        {},
        None,
        [],
        {"format_version": 1},
        {"autoencoder": {"levels": [2, 2]}},
        {"autoencoder": {"num_channels": [8, 16], "norm_num_groups": 4, "levels": [5, 4, 3]}},
        {"unknown": 1},
        {"volume_shape": [8, 8]},
    ],
)
def test_a_spec_that_cannot_be_read(saved: Path, spec: Any) -> None:
    whole = torch.load(saved, weights_only=True)["spec"]
    rewrite(saved, spec={**whole, **spec} if spec else spec)
    assert "is not a tokenizer that prod9" in problem(saved)


@pytest.mark.parametrize("weights", [{}, None, [], {"encoder.0.weight": 1.0}])
def test_weights_of_another_network(saved: Path, weights: Any) -> None:
    rewrite(saved, weights=weights)
    assert "is not a tokenizer that prod9" in problem(saved)


def test_changed_weights_do_not_match_the_digest(saved: Path) -> None:
    weights = torch.load(saved, weights_only=True)["weights"]
    name = next(iter(weights))
    weights[name][0, 0, 0, 0, 0] += 1e-6
    rewrite(saved, weights=weights)
    assert "is damaged: its weights do not match its digest" in problem(saved)


def test_a_changed_spec_does_not_match_the_digest(saved: Path) -> None:
    spec = torch.load(saved, weights_only=True)["spec"]
    rewrite(saved, spec=spec | {"spacing_mm": [1.0, 1.0, 1.0]})
    assert "is damaged" in problem(saved)


def test_a_missing_digest_is_damage(saved: Path) -> None:
    rewrite(saved, digest=None)
    assert "is damaged" in problem(saved)


def test_a_flipped_byte_in_the_weights(saved: Path, tokenizer: Tokenizer) -> None:
    weight = tokenizer.autoencoder.decoder[0].weight.detach().numpy()
    content = bytearray(saved.read_bytes())
    # Stored in the memory format of the tensor: find any of its values.
    place = content.find(weight.flat[0].tobytes())
    assert place > 0
    content[place] ^= 1
    saved.write_bytes(content)
    message = problem(saved)
    assert "is damaged" in message or "torn" in message


def test_every_token_is_checked_on_loading(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = FSQ.indices_to_codes

    def wrong_for_one(self: FSQ, tokens: torch.Tensor) -> torch.Tensor:
        return real(self, tokens.where(tokens != 59, 0))

    monkeypatch.setattr(FSQ, "indices_to_codes", wrong_for_one)
    with pytest.raises(ValueError, match=r"\(5, 4, 3\) do not survive the round trip"):
        Tokenizer.load(saved)


def test_an_unwritable_place(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Prod9Error, match="cannot write"):
        tokenizer.save(tmp_path / "file" / "tokenizer.pt")
