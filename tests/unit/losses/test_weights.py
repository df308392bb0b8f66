import re
from pathlib import Path

import pytest

from prod9.errors import Prod9Error
from prod9.losses import weights


def test_the_named_file_then_the_cache_then_none(tmp_path):
    assert weights.find_medicalnet(None, tmp_path) is None
    cached = weights.medicalnet_cache_path(tmp_path)
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"c")
    assert weights.find_medicalnet(None, tmp_path) == cached
    named = tmp_path / "named.pth"
    named.write_bytes(b"n")
    assert weights.find_medicalnet(named, tmp_path) == named


def test_a_named_file_that_is_missing_is_not_replaced_by_the_cache(tmp_path):
    cached = weights.medicalnet_cache_path(tmp_path)
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"c")
    with pytest.raises(Prod9Error, match=f"weights_path.*{tmp_path / 'gone.pth'}"):
        weights.find_medicalnet(tmp_path / "gone.pth", tmp_path)


def test_the_message_gives_three_ways_out_in_one_sentence():
    path = Path("/cache/medicalnet/resnet_10_23dataset.pth")
    message = weights.missing_weights_message(path, "no network")
    for part in (
        str(path),
        "(no network)",
        "`prod9 weights fetch medicalnet`",
        "loss.perceptual.weights_path=FILE",
        "loss.loss_type=ffl",
    ):
        assert part in message
    assert "\n" not in message
    assert not re.search(r"\.\s", message)  # one sentence


def test_the_keys_in_the_message_exist():
    from prod9.config.loss import Stage1LossConfig

    Stage1LossConfig.model_validate({"perceptual": {"weights_path": "FILE"}, "loss_type": "ffl"})


def test_the_constants_belong_together():
    assert weights.MEDICALNET_URL.endswith("/" + weights.MEDICALNET_FILE)
    assert re.fullmatch("[0-9a-f]{64}", weights.MEDICALNET_SHA256)
