"""What is to be sampled, and how."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from prod9.config import SamplerConfig, SlidingWindowConfig, Stage2Config
from prod9.shapes import Tokens


@dataclass(frozen=True)
class SampleRequest:
    """Volumes to sample. The same request gives the same volumes on the same machine.

    Without ``initial`` the volumes are generated; with it, its unknown cells are filled.
    """

    labels: tuple[int, ...]
    """Index of the class (of scans: the target channel) of each volume."""
    sampler: SamplerConfig
    windows: SlidingWindowConfig = field(default_factory=SlidingWindowConfig)
    """How volumes that are larger than a training crop are cut."""
    seed: int = 0
    batch_size: int | None = None
    """Volumes sampled together; all of them when left out. Another size, other random numbers."""
    shape: tuple[int, int, int] | None = None
    """Voxels per side; the training volumes' when left out."""
    initial: Tokens | None = None
    """Known tokens (1, *grid), the mask id where unknown."""
    sources: Tensor | None = None
    """Tokens of the source channels (1, M, *grid), the mask id where there are none."""
    coarse: Tokens | None = None
    """With ``initial``: known tokens of the coarse volume (1, *coarse grid), the mask id where
    unknown."""

    covariates: tuple[float | None, ...] = ()
    """Of every volume: numbers and indices of categories, None where not given; () for none."""

    @classmethod
    def generation_of(
        cls,
        config: Stage2Config,
        labels: tuple[int, ...],
        shape: tuple[int, int, int] | None = None,
    ) -> "SampleRequest":
        """Return how a configuration generates volumes."""
        size = config.data.batch_size
        return cls(labels, config.sampler, config.sliding_window, config.seed, size, shape)

    @classmethod
    def completion_of(cls, config: Stage2Config, labels: tuple[int, ...] = ()) -> "SampleRequest":
        """Return how a configuration fills in what is unknown of a volume."""
        return cls(labels, config.completion, config.sliding_window, config.seed)

    @property
    def step(self) -> int:
        """Volumes of each batch but the last."""
        return self.batch_size or max(1, len(self.labels))

    @property
    def num_batches(self) -> int:
        """Number of batches."""
        return len(range(0, len(self.labels), self.step))

    def batch(self, number: int) -> tuple[int, ...]:
        """Return the labels of a batch."""
        return self.labels[number * self.step : (number + 1) * self.step]

    def stream(self, number: int, device: torch.device) -> torch.Generator:
        """Return the random numbers of a batch: a function of seed and number alone."""
        start = number * self.step
        # Shifted, so that no batch of one seed is the first batch of another.
        seed = (self.seed << 24) + start if self.initial is None else self.seed + start
        return torch.Generator(device).manual_seed(seed)
