"""Readers and spoilt files: an everyday taste, and more of it among the slow tests."""

import random
import sys

import pytest
from fuzz_mutations import spoil
from fuzz_promise import broken_promise
from fuzz_targets import TARGETS, Target
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded as on Linux")
everyone = pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)


def keeps_its_promise(target: Target, seed: int) -> None:
    rng = random.Random(seed)
    data = spoil(rng.choice(target.seeds()), rng, target.fields)
    assert broken_promise(target, data) is None, data


@everyone
def test_whole_files_are_read(target: Target) -> None:
    for data in target.seeds():
        assert broken_promise(target, data) is None


@everyone
@settings(max_examples=12)
@given(seed=st.integers(0, 2**32))
def test_spoilt_files_are_refused_or_read(target: Target, seed: int) -> None:
    keeps_its_promise(target, seed)


@pytest.mark.slow
@everyone
@settings(max_examples=600, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**64))
def test_many_spoilt_files_are_refused_or_read(target: Target, seed: int) -> None:
    keeps_its_promise(target, seed)


@pytest.mark.slow
@everyone
@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(data=st.binary(max_size=400))
def test_any_bytes_are_refused_or_read(target: Target, data: bytes) -> None:
    assert broken_promise(target, data) is None
