"""Names that a configuration can use, and how code outside prod9 adds its own."""

import sys
import types
import warnings
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from prod9 import registry
from prod9.config import LossSection, Stage1Config
from prod9.config.load import dump, load_stage1, load_stage2
from prod9.errors import Prod9Error
from prod9.inference.recorded import Recorded
from prod9.losses.feature_loss import FeatureLoss, build_feature_loss
from prod9.registry import HEADS, LOSSES, ORDERS, SCHEDULES, Loss, Registry
from prod9.sampling import Order, Score, sample

STAGE1 = Path("maskgit/medmnist3d/stage1/ffl.yaml")
STAGE2 = Path("maskgit/medmnist3d/stage2/base.yaml")


def test_entries_are_imported_when_asked_for() -> None:
    own: Registry[Any] = Registry("thing", {"sum": "math:fsum", "here": 3})
    assert own.names == ("sum", "here")
    assert own.get("sum")([1.0, 2.0]) == 3.0
    assert own.get("here") == 3


def test_unknown_name_lists_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(Prod9Error, match=r"confidence, halton.*mean halton\?"):
        ORDERS.get("haltn")


def test_a_name_is_registered_once() -> None:
    own: Registry[int] = Registry("thing", {"a": 1})
    own.register("b", 2)
    with pytest.raises(Prod9Error, match="registered already"):
        own.register("b", 3)
    with pytest.raises(Prod9Error, match="letters, digits"):
        own.register("loss.x", 3)
    assert (own.names, own.get("b")) == (("a", "b"), 2)


@pytest.mark.parametrize("name", ["mask schedule", "head"])
def test_every_entry_can_be_imported(name: str) -> None:
    own: Registry[Any] = {"mask schedule": SCHEDULES, "head": HEADS}[name]
    assert all(callable(own.get(entry)) for entry in own.names)


class Charbonnier(LossSection):
    epsilon: float = 1e-3


def build_charbonnier(section: Charbonnier) -> Any:
    def loss(prediction: Tensor, target: Tensor, generator: torch.Generator) -> Tensor:
        return ((prediction - target).square() + section.epsilon**2).sqrt().mean()

    return loss


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    def last_cells_first(unknown: Tensor, grid: tuple[int, ...], generator: Any) -> Score:
        return lambda log_p, noise: torch.arange(log_p.shape[1]).expand_as(log_p).float()

    LOSSES.register("charbonnier", Loss(Charbonnier, build_charbonnier))
    ORDERS.register("backwards", Order(last_cells_first))
    SCHEDULES.register("square", lambda r, count: (1 - r) ** 2)
    yield
    LOSSES.remove("charbonnier")
    ORDERS.remove("backwards")
    SCHEDULES.remove("square")
    assert "charbonnier" not in Stage1Config.model_fields["loss"].annotation.model_fields


def test_registered_loss_has_a_section_with_defaults() -> None:
    config = load_stage1(STAGE1, ["loss.loss_type=charbonnier", "loss.charbonnier.weight=2"])
    section = config.loss.feature_section()
    assert isinstance(section, Charbonnier)
    assert (section.weight, section.epsilon) == (2.0, 1e-3)
    loss = build_feature_loss(config.loss)
    assert (loss.name, loss.weight) == ("charbonnier", 2.0)
    a, b = torch.zeros(1, 1, 2, 2, 2), torch.ones(1, 1, 2, 2, 2)
    torch.testing.assert_close(loss(a, b), torch.tensor((1 + 1e-6) ** 0.5))


def test_its_keys_are_as_strict_as_any() -> None:
    for override, words in {
        "loss.charbonnier.epsilo=1": r"not a known key; did you mean epsilon\?",
        "loss.charbonnier.epsilon=x": "should be a valid number",
        "loss.charbonier.epsilon=1": r"did you mean charbonnier\?",
        "loss.loss_type=charbonier": r"did you mean charbonnier\?",
    }.items():
        with pytest.raises(Prod9Error, match=words):
            load_stage1(STAGE1, [override])


def test_its_configuration_survives_print_config(tmp_path: Path) -> None:
    config = load_stage1(STAGE1, ["loss.loss_type=charbonnier", "loss.charbonnier.epsilon=0.5"])
    (tmp_path / "run.yaml").write_text(dump(config))
    assert load_stage1(tmp_path / "run.yaml") == config
    assert Stage1Config.model_validate(config.model_dump()) == config


def test_registered_order_and_schedule() -> None:
    config = load_stage2(STAGE2, ["sampler.order=backwards", "sampler.scheduler_type=square"])
    seen: list[Tensor] = []

    def logits_fn(tokens: Tensor, progress: float) -> Tensor:
        seen.append(tokens[0] == 5)
        return torch.zeros(*tokens.shape, 5)

    settings = {"order": config.sampler.order, "schedule": config.sampler.scheduler_type}
    sample(logits_fn, torch.full((1, 16), 5), mask_id=5, steps=4, **settings)
    # floor(16 (1 - t/4)^2) cells stay unknown, the first ones.
    assert [int(unknown.sum()) for unknown in seen] == [16, 9, 4, 1]
    assert all(bool(unknown[: int(unknown.sum())].all()) for unknown in seen)


def test_installed_packages_are_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("prod9_test_extension")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    points = [
        EntryPoint("good", module.__name__, "prod9.extensions"),
        EntryPoint("broken", "prod9_no_such_module", "prod9.extensions"),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        registry.load_extensions()
    assert len(caught) == 1
    assert "prod9_no_such_module" in str(caught[0].message)


@pytest.mark.parametrize(
    ("term", "words"),
    [
        (lambda x, y, g: (x - y) ** 2, r"charbonnier must return a scalar tensor, not .*1, 1, 2"),
        (lambda x, y, g: (x - y).detach().mean(), "charbonnier has no gradient"),
    ],
)
def test_a_loss_that_returns_something_else_is_named(term: Any, words: str) -> None:
    prediction, target = torch.zeros(1, 1, 2, 2, 2, requires_grad=True), torch.ones(1, 1, 2, 2, 2)
    with pytest.raises(Prod9Error, match=words):
        FeatureLoss("charbonnier", 1.0, term)(prediction, target)


@pytest.mark.parametrize(
    "scores",
    [
        lambda log_p: torch.zeros(len(log_p), log_p.shape[1] + 1),
        lambda log_p: torch.zeros(log_p.shape, dtype=torch.int64),
        lambda log_p: torch.full(log_p.shape, torch.nan),
    ],
    ids=["another shape", "whole numbers", "NaN"],
)
def test_an_order_with_wrong_scores_is_named(scores: Any) -> None:
    ORDERS.register(
        "crooked", Order(lambda unknown, grid, generator: lambda log_p, noise: scores(log_p))
    )
    try:
        with pytest.raises(Prod9Error, match=r"crooked must return floats of shape \[1, 16\]"):
            sample(
                lambda tokens, progress: torch.zeros(*tokens.shape, 5),
                torch.full((1, 16), 5),
                mask_id=5,
                steps=2,
                order="crooked",
                schedule="cosine",
            )
    finally:
        ORDERS.remove("crooked")


def test_an_export_of_an_extension_that_is_not_imported_says_what_to_do() -> None:
    with pytest.raises(Prod9Error, match=r"sampler\.order: 'mine'.*import the module"):
        Recorded.of("sampler: {order: mine}")
    assert Recorded.of("sampler: {order: backwards}").sampler.order == "backwards"
