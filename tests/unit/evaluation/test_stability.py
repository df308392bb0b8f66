"""Page and warnings say the same of a Frechet distance of too few volumes."""

from prod9.results.schema import FeatureSpaceFigures, SetDistance, too_few


def figures(
    limit: float | None, stable_from: int | None, volumes: int = 44, dimensions: int = 1280
) -> FeatureSpaceFigures:
    generated = SetDistance(
        volumes=volumes,
        reference_volumes=610,
        frechet=1.0,
        frechet_interval=None,
        kernel=0.0,
        kernel_interval=None,
        precision=None,
        recall=None,
        density=None,
        coverage=None,
    )
    return FeatureSpaceFigures(
        space="toy",
        key="efficientnet",
        dimensions=dimensions,
        weights_sha256="0" * 64,
        generated=generated,
        floor=None,
        floor_of=None,
        curve=[],
        frechet_limit=limit,
        stable_from=stable_from,
        stable=stable_from is not None and volumes >= stable_from,
        per_class={},
    )


def test_each_reason_is_said() -> None:
    assert (too_few(figures(None, None)) or "").startswith("too few even for a curve")
    assert "its limit may be 0" in (too_few(figures(0.5, None)) or "")
    falling = too_few(figures(26.0, 2300)) or ""
    assert "from about 2,300 volumes on, and 44 is less than the 1,280 dimensions" in falling
    assert "dimensions" not in (too_few(figures(26.0, 2300, dimensions=44)) or "dimensions")
    assert too_few(figures(26.0, 40)) is None
