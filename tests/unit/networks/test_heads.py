import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from prod9.fsq import FSQ
from prod9.networks.heads import FactorizedHead, FullHead, LatticeHead

LEVELS = (5, 4, 3)


def test_a_codes_logit_is_the_sum_over_its_levels() -> None:
    torch.manual_seed(0)
    head = FactorizedHead(7, LEVELS).double()
    features = torch.randn(2, 3, 7).double()
    parts = head.linear(features)
    logits = head(features)
    assert logits.shape == (2, 3, 60)
    for token in range(60):
        digits = FSQ(LEVELS).indices_to_digits(torch.tensor([[token]]))[0, :, 0].tolist()
        starts = (0, 5, 9)
        expected = sum(
            parts[..., start + digit] for start, digit in zip(starts, digits, strict=True)
        )
        torch.testing.assert_close(logits[..., token], expected)


@given(
    smoothing=st.sampled_from([0.0, 0.1, 0.5]),
    levels=st.lists(st.integers(3, 6), min_size=1, max_size=4),
    seed=st.integers(0, 999),
)
def test_the_factorised_loss_is_the_full_cross_entropy(smoothing, levels, seed):
    torch.manual_seed(seed)
    head = FactorizedHead(7, levels)
    torch.nn.init.normal_(head.linear.weight)
    features = torch.randn(9, 7)
    targets = torch.randint(FSQ(levels).codebook_size, (9,))
    loss, hits = head.loss(features, targets, smoothing)
    logits = head.double()(features.double())
    expected = F.cross_entropy(logits, targets, label_smoothing=smoothing)
    torch.testing.assert_close(loss.double(), expected, rtol=2e-6, atol=2e-6)
    assert torch.equal(hits, logits.argmax(-1) == targets)


def test_its_gradient_is_that_of_the_full_cross_entropy() -> None:
    torch.manual_seed(0)
    head = FactorizedHead(7, LEVELS)
    features, targets = torch.randn(9, 7), torch.randint(60, (9,))
    (ours,) = torch.autograd.grad(head.loss(features, targets, 0.1)[0], head.linear.weight)
    full = F.cross_entropy(head(features), targets, label_smoothing=0.1)
    (theirs,) = torch.autograd.grad(full, head.linear.weight)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_lattice_heads_logit_is_the_sum_over_levels_and_the_codes_own() -> None:
    torch.manual_seed(0)
    head, sums = LatticeHead(7, LEVELS), FactorizedHead(7, LEVELS)
    features = torch.randn(2, 3, 7)
    sums.linear.weight.data, sums.linear.bias.data = head.levels.weight.data, torch.zeros(12)
    torch.testing.assert_close(head(features), sums(features))  # at the start: the levels alone
    own = torch.randn(60, 7)
    head.codes.weight.data += own
    head.codes.bias.data += 0.5
    torch.testing.assert_close(head(features), sums(features) + features @ own.T + 0.5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_lattice_heads_loss_is_the_cross_entropy_of_its_logits(smoothing: float) -> None:
    torch.manual_seed(0)
    head = LatticeHead(7, LEVELS)
    features, targets = torch.randn(9, 7), torch.randint(60, (9,))
    expected = F.cross_entropy(head(features), targets, label_smoothing=smoothing)
    torch.testing.assert_close(head.loss(features, targets, smoothing)[0], expected)


def test_what_a_lattice_head_learns_of_a_code_counts_for_codes_that_share_a_level() -> None:
    torch.manual_seed(0)
    head = LatticeHead(7, LEVELS)
    features, code = torch.randn(1, 7), torch.tensor([0])
    before = head(features)[0].detach()
    head.loss(features, code, 0.0)[0].backward()
    for parameter in head.parameters():
        parameter.data -= 0.1 * parameter.grad
    gained = head(features)[0].detach() - before
    digits = FSQ(LEVELS).indices_to_digits(torch.arange(60)[None])[0]
    shared = (digits == digits[:, :1]).sum(0)
    means = [float(gained[shared == n].mean()) for n in range(4)]
    assert means == sorted(means)
    assert means[3] > means[2] > means[1] > means[0]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_full_head(smoothing: float) -> None:
    torch.manual_seed(0)
    head = FullHead(7, LEVELS)
    features, targets = torch.randn(9, 7), torch.randint(60, (9,))
    logits = features @ head.linear.weight.T + head.linear.bias
    torch.testing.assert_close(head(features), logits)
    loss, hits = head.loss(features, targets, smoothing)
    log_p = logits.double() - logits.double().exp().sum(-1, keepdim=True).log()
    right = log_p[torch.arange(9), targets]
    expected = -((1 - smoothing) * right + smoothing * log_p.mean(-1)).mean()
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(hits, logits.argmax(-1) == targets)


def test_hits_are_true_where_the_best_code_is_right() -> None:
    for head in (FactorizedHead(7, LEVELS), FullHead(7, LEVELS), LatticeHead(7, LEVELS)):
        features = torch.randn(9, 7, generator=torch.Generator().manual_seed(0))
        best = head(features).argmax(-1)
        assert bool(head.loss(features, best, 0.1)[1].all())
        assert not head.loss(features, (best + 1) % 60, 0.1)[1].any()


def test_losses_are_fp32_under_autocast() -> None:
    for head in (FactorizedHead(7, LEVELS), FullHead(7, LEVELS), LatticeHead(7, LEVELS)):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss, _ = head.loss(torch.randn(9, 7), torch.randint(60, (9,)), 0.1)
        assert loss.dtype == torch.float32
