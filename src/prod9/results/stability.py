"""Whether there are enough volumes to quote a Frechet distance."""

from prod9.results.distances import FeatureSpaceFigures

MOST = 24
"""Volumes of a class that are compared with one another, evenly spread over the class."""


def too_few(space: FeatureSpaceFigures) -> str | None:
    """Say what is wrong with the Frechet distance at this number of volumes; None: nothing."""
    if space.stable:
        return None
    if space.frechet_limit is None:
        return (
            "too few even for a curve over their number. Compare it with the floor beside it only."
        )
    if space.stable_from is None:
        return (
            "it falls as 1/N, and its limit may be 0; at this number the sets cannot be told apart "
            "by it. Compare it with the floor beside it only."
        )
    n, d = space.generated.volumes, space.dimensions
    more = "" if n >= d else f", and {n:,} is less than the {d:,} dimensions of a feature"
    return (
        f"still falling; within 5 % of its limit from about {space.stable_from:,} volumes "
        f"on{more}. Compare it only with figures at the same number of volumes, and rather quote "
        "the kernel distance, which has no such bias."
    )
