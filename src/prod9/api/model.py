"""``prod9.Model``: new volumes, missing channels, masked parts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypedDict, Unpack

from nibabel.nifti1 import Nifti1Image

from prod9 import model as core
from prod9.api.recorded import section_of
from prod9.api.tokenizer import Tokenizer
from prod9.api.volumes import Result, VolumeLike, image_of, like, stored_volume
from prod9.config import CompletionConfig, SamplerConfig, SlidingWindowConfig
from prod9.config.load import validated
from prod9.errors import Prod9Error
from prod9.inference.generate import generation_affine
from prod9.inference.inpaint import inpaint as sample_masked
from prod9.inference.translate import translate as sample_channel
from prod9.sample_request import SampleRequest


class Settings(TypedDict, total=False):
    """How tokens are sampled: keyword arguments, each of which may be left out."""

    seed: int
    """Of everything random."""
    steps: int
    """Passes of the transformer."""
    temperature: float
    """Of the softmax that tokens are sampled from."""
    guidance_scale: float
    """Of classifier-free guidance; 1 is none."""


@dataclass(frozen=True)
class Model:
    """A generator of volumes: a trained Stage 2 with its tokenizer.

    Volumes are given, and results returned, as :class:`Tokenizer` says. ``generate``,
    ``translate`` and ``inpaint`` return a list with one entry a sample. The same arguments give the
    same samples on the same machine, and the same as the commands. Settings are ``seed``, ``steps``
    (passes of the transformer), ``temperature`` (of the softmax that tokens are sampled from) and
    ``guidance_scale`` (1 is no guidance); what is left out is as in the training's configuration.
    """

    network: core.Model
    tokenizer: Tokenizer
    generation: SampleRequest
    """Settings of ``generate``."""
    completion: SampleRequest
    """Settings of ``translate`` and ``inpaint``."""

    @classmethod
    def of(cls, network: core.Model, recorded: Mapping[str, Any]) -> "Model":
        """Join a network with the settings of a configuration, which is plain data.

        Raises:
            Prod9Error: the configuration is of another version.
        """
        windows = section_of(SlidingWindowConfig, recorded.get("sliding_window"))
        seed, data = int(recorded.get("seed", 0)), recorded.get("data") or {}
        sampler = section_of(SamplerConfig, recorded.get("sampler"))
        generation = SampleRequest((), sampler, windows, seed, data.get("batch_size"))
        sampler = section_of(CompletionConfig, recorded.get("completion"))
        completion = SampleRequest((), sampler, windows, seed)
        return cls(network, Tokenizer(network.tokenizer, windows), generation, completion)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; of a model of scans, of the channels."""
        return self.network.class_names

    def generate(
        self,
        label: str | Iterable[str] = "all",
        n: int = 1,
        *,
        shape: tuple[int, int, int] | None = None,
        **settings: Unpack[Settings],
    ) -> list[Nifti1Image]:
        """Generate new volumes.

        Args:
            label: name of a class (of scans: of a channel), several, or ``all``.
            n: volumes of each.
            shape: voxels per side; the training volumes' when left out.
            settings: ``seed``, ``steps``, ``temperature``, ``guidance_scale``.

        Returns:
            Images in [0, 1], float32, axes RAS+, of the training data's spacing.

        Raises:
            Prod9Error: an unknown label, or a setting out of range.
        """
        names = [label] if isinstance(label, str) else [*label]
        labels = self.network.labels_of(names, n)
        request = _request(self.generation, labels, settings)
        request = replace(request, shape=shape)
        spec = self.network.tokenizer.spec
        affine = generation_affine(shape or spec.volume_shape, spec.spacing_mm)
        return [
            image_of(volume[0].numpy(), affine)
            for number in range(request.num_batches)
            for volume in self.network.sample_volumes(request, number)
        ]

    def translate(
        self,
        sources: Mapping[str, VolumeLike],
        target: str,
        n: int = 1,
        **settings: Unpack[Settings],
    ) -> list[Result]:
        """Sample a missing channel of a subject from those that are there.

        Args:
            sources: volume of each channel that is there, by its name, all on one grid.
            target: name of the missing channel.
            n: samples.
            settings: ``seed``, ``steps``, ``temperature``, ``guidance_scale``.

        Returns:
            Volumes on the grid of the first source, in the mean range of the sources' intensities.

        Raises:
            Prod9Error: an unknown channel; volumes that cannot be read, or on two grids.
        """
        labels = self.network.labels_of([target], n)
        request = _request(self.completion, labels, settings)
        stored = {self.network.label_of(k): stored_volume(v, k) for k, v in sources.items()}
        if not stored:
            raise Prod9Error("give at least one source to translate from.")
        found = sample_channel(self.network, stored, request)
        first, affine = next(iter(sources.values())), next(iter(stored.values())).affine
        return [like(first, sample, affine) for sample in found.samples]

    def inpaint(
        self,
        volume: VolumeLike,
        mask: VolumeLike,
        channel: str,
        n: int = 1,
        **settings: Unpack[Settings],
    ) -> list[Result]:
        """Sample anew what lies under a mask.

        Args:
            volume: the volume.
            mask: on the same grid; every voxel that is not 0 is sampled.
            channel: name of the volume's channel.
            n: samples.
            settings: ``seed``, ``steps``, ``temperature``, ``guidance_scale``.

        Returns:
            The volume; its values are the same wherever the mask is 0.

        Raises:
            Prod9Error: an unknown channel; volumes that cannot be read, or on two grids; a mask of
                nothing, or of everything.
        """
        labels = self.network.labels_of([channel], n)
        request = _request(self.completion, labels, settings)
        stored = stored_volume(volume, "the volume")
        samples = sample_masked(self.network, stored, stored_volume(mask, "the mask"), request)
        return [like(volume, sample, stored.affine) for sample in samples]


def _request(base: SampleRequest, labels: tuple[int, ...], settings: Settings) -> SampleRequest:
    changes = {name: value for name, value in settings.items() if name != "seed"}
    sampler = validated(type(base.sampler), base.sampler.model_dump() | changes, "the sampler")
    if not labels:
        raise Prod9Error("give at least one label, and n of at least 1.")
    return replace(base, labels=labels, sampler=sampler, seed=settings.get("seed", base.seed))
