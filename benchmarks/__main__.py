"""Run benchmarks: ours and the rival interleaved, same threads, same work; medians and ratio."""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from focal_frequency_loss import FocalFrequencyLoss as RivalFFL
from vector_quantize_pytorch import FSQ as RivalFSQ

from prod9.evaluate.provenance import provenance
from prod9.fsq import FSQ
from prod9.losses.focal_frequency import FocalFrequencyLoss

REPEATS = 15
RESULTS = Path(__file__).parent / "results"
Work = Callable[[], object]


def fsq() -> tuple[Work, Work, dict[str, object]]:
    """Quantise a 64^3 latent and take the indices."""
    levels = [8, 8, 8]
    z = torch.randn(1, 3, 64, 64, 64, generator=torch.Generator().manual_seed(0))
    ours, rival = FSQ(levels), RivalFSQ(levels, preserve_symmetry=False, channel_first=True)

    def run() -> object:
        return ours.codes_to_indices(ours.quantize(z))

    def run_rival() -> object:
        return rival(z)

    assert torch.equal(run(), rival(z)[1].long())  # the same work
    return run, run_rival, {"rival": "vector-quantize-pytorch", "levels": levels, "side": 64}


def focal_frequency() -> tuple[Work, Work, dict[str, object]]:
    """All axial slices of a 64^3 volume, forward and backward; the rival slice by slice."""
    stream = torch.Generator().manual_seed(0)
    x = torch.rand(2, 1, 64, 64, 64, generator=stream).requires_grad_()
    y = torch.rand(2, 1, 64, 64, 64, generator=stream)
    ours = FocalFrequencyLoss(
        alpha=1.0,
        patch_factor=1,
        axes=(2,),
        ratio=1.0,
        ave_spectrum=False,
        log_matrix=False,
        batch_matrix=False,
    )
    rival = RivalFFL()

    def run() -> torch.Tensor:
        loss = ours(x, y)
        loss.backward()
        return loss

    def run_rival() -> torch.Tensor:
        loss = torch.stack([rival(x[:, :, i], y[:, :, i]) for i in range(64)]).mean()
        loss.backward()
        return loss

    assert torch.isclose(run(), run_rival(), rtol=1e-4)
    return run, run_rival, {"rival": "focal-frequency-loss", "side": 64, "axes": [2]}


BENCHMARKS = {"fsq": fsq, "focal_frequency": focal_frequency}


def main(names: list[str]) -> None:
    """Run the named benchmarks, or all."""
    if os.getloadavg()[0] > 0.75 * (os.cpu_count() or 1):
        sys.exit("this machine is too busy to measure anything; try again when it is idle")
    for name in names or list(BENCHMARKS):
        run, run_rival, what = BENCHMARKS[name]()
        seconds: dict[str, list[float]] = {"ours": [], "rival": []}
        for repeat in range(REPEATS + 3):
            for who, work in (("ours", run), ("rival", run_rival)):
                start = time.perf_counter()
                work()
                if repeat >= 3:  # warm-up
                    seconds[who].append(time.perf_counter() - start)
        ours, rival = (statistics.median(seconds[who]) for who in ("ours", "rival"))
        result = {
            "name": name,
            "ours": ours,
            "rivals": {str(what["rival"]): rival},
            "ratio": {str(what["rival"]): rival / ours},
            "unit": "s",
            "repeats": REPEATS,
            "what": what,
            "provenance": provenance(seed=0),
        }
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
        print(
            f"{name}: {ours * 1e3:.2f} ms, {what['rival']} {rival * 1e3:.2f} ms, "
            f"ratio {rival / ours:.2f}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
