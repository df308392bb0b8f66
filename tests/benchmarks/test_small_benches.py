"""FSQ and the focal frequency loss: the contenders do the same work."""

import torch

from benchmarks import focal_frequency, fsq


def test_fsq_contenders_agree() -> None:
    arguments = {"side": 6, "batch": 2, "calls": 2, "seed": 0}
    codes, tokens = fsq.prod9_setup(**arguments).run()
    expected, indices = fsq.rival_setup(**arguments).run()
    torch.testing.assert_close(codes, expected, rtol=0, atol=1e-6)
    assert torch.equal(tokens, indices.long())
    assert tokens.shape == (2, 6, 6, 6)
    assert len(tokens.unique()) > 150  # of 512


def test_focal_frequency_contenders_agree() -> None:
    arguments = {"side": 8, "batch": 2, "calls": 2, "seed": 0}
    loss, gradient = focal_frequency.prod9_setup(**arguments).run()
    assert loss > 0
    for one_batch in (False, True):
        theirs = focal_frequency.rival_setup(**arguments, one_batch=one_batch).run()
        torch.testing.assert_close(loss, theirs[0], rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(gradient, theirs[1], rtol=1e-4, atol=1e-9)


def test_cases_hand_equal_arguments_to_all() -> None:
    for case in fsq.cases() + focal_frequency.cases():
        for contender in case.contenders:
            shared = {key: contender.arguments[key] for key in ("side", "batch", "calls", "seed")}
            assert shared == case.contenders[0].arguments
            assert all(case.sizes[key] == value for key, value in shared.items())
