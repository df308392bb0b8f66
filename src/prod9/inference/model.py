"""``prod9.Model``: new volumes, missing channels, masked parts."""

import io
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext, redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict, Unpack

import numpy as np
from nibabel.nifti1 import Nifti1Image
from torch import Tensor

from prod9 import model as core
from prod9.config import CompletionConfig
from prod9.config.load import validated
from prod9.data.volume_files.stored_volume import StoredVolume
from prod9.errors import Prod9Error
from prod9.inference.extras import Extras
from prod9.inference.generate import generation_affine
from prod9.inference.hub import push
from prod9.inference.inpaint import Edit
from prod9.inference.inpaint import inpaint as sample_masked
from prod9.inference.labelled import (
    by_subject,
    decoded_maps,
    encode_mask,
    images_on_mask,
    label_codes,
    sample_subjects,
)
from prod9.inference.model_folder import save_folder
from prod9.inference.recorded import Recorded
from prod9.inference.subjects import OnSubject, TranslatedSubject, translate_folder
from prod9.inference.tokenizer import Tokenizer
from prod9.inference.translate import translate as sample_channel
from prod9.inference.volumes import (
    PathLike,
    Result,
    VolumeLike,
    image_of,
    like,
    stored_volume,
)
from prod9.sample_request import SampleRequest


class Settings(TypedDict, total=False):
    """How tokens are sampled; :class:`Model` describes each."""

    seed: int
    steps: int
    revisions: int
    temperature: float
    guidance_scale: float
    guidance_class: float
    guidance_labels: float
    guidance_covariates: float


@dataclass(frozen=True)
class Pair:
    """A generated subject."""

    labels: Nifti1Image
    """int32."""
    images: list[Nifti1Image]
    """float32 in [0, 1], of the same grid: one for each channel."""


@dataclass(frozen=True)
class Model:
    """A generator of volumes: a trained Stage 2 with its tokenizer.

    Volumes are given, and results returned, as :class:`Tokenizer` says. ``generate``,
    ``translate`` and ``inpaint`` return a list with one entry a sample. The same arguments give the
    same samples on the same machine, and the same as the commands. Settings are ``seed``, ``steps``
    (passes of the transformer), ``revisions`` (further passes, each of which draws some tokens
    again), ``temperature`` (of the softmax that tokens are sampled from), ``guidance_scale`` (1 is
    no guidance), and ``guidance_class``, ``guidance_labels`` and ``guidance_covariates``, which
    else are as that scale; what is left out is as in the training's configuration.
    All errors are :class:`Prod9Error`: unknown names, settings out of range, volumes that cannot be
    read or do not fit together.
    """

    network: core.Model
    tokenizer: Tokenizer
    generation: SampleRequest
    """Settings of ``generate``."""
    completion: SampleRequest
    """Settings of ``translate`` and ``inpaint``."""

    @classmethod
    def of(cls, network: core.Model, recorded: Recorded) -> "Model":
        """Join a network with the settings of its training."""
        windows, seed = recorded.sliding_window, recorded.seed
        batch_size = recorded.data.get("batch_size")
        generation = SampleRequest((), recorded.sampler, windows, seed, batch_size)
        completion = SampleRequest((), recorded.completion, windows, seed)
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
        mask: VolumeLike | None = None,
        mask_channel: str | None = None,
        covariates: Mapping[str, str | int | float] | None = None,
        **settings: Unpack[Settings],
    ) -> list[Nifti1Image]:
        """Generate new volumes.

        Args:
            label: name of a class (of scans: of a channel), several, or ``all``.
            n: volumes of each.
            shape: voxels per side; the training volumes' when left out.
            mask: a label map that the volumes show, of a model that has learned labels.
            mask_channel: which channel of labels the mask is; may be left out where its labels, or
                the name of its file, say so.
            covariates: such as ``{"age": 70, "sex": "F"}``; those left out are not given.
            settings: see :class:`Model`.

        Returns:
            Images in [0, 1], float32, axes RAS+, of the training data's spacing; with a ``mask`` on
            its grid, all channels of the first sample first.
        """
        names = [label] if isinstance(label, str) else [*label]
        request = request_of(self.network, self.generation, names, n, settings)
        request = replace(request, covariates=self.network.covariates_of(covariates or {}))
        if mask is not None:
            return self._of_mask(stored_volume(mask, "the mask"), request, n, mask_channel)
        request = replace(request, shape=shape)
        spec = self.network.tokenizer.spec
        affine = generation_affine(shape or spec.volume_shape, spec.spacing_mm)
        return [
            image_of(volume[0].numpy(), affine)
            for number in range(request.num_batches)
            for volume in self.network.sample_volumes(request, number)
        ]

    def _of_mask(
        self, mask: StoredVolume, request: SampleRequest, n: int, channel: str | None
    ) -> list[Nifti1Image]:
        network, encoded = self.network, encode_mask(self.network, mask, channel)
        labels = by_subject(network, request.labels, n)
        request = replace(request, labels=labels, batch_size=None)
        tokens, _ = sample_subjects(network, request, mask=encoded)
        volumes = images_on_mask(network, tokens, encoded, request)
        return [image_of(volume[0].numpy(), mask.affine) for volume in volumes]

    def generate_pairs(
        self, label: str | Iterable[str] = "all", n: int = 1, **settings: Unpack[Settings]
    ) -> list[Pair]:
        """Generate label maps, and images of them; of a model that has learned labels.

        Args:
            label: name of a channel or of a class, several, or ``all``.
            n: subjects of each class.
            settings: see :class:`Model`.

        Returns:
            Of each subject ``labels``, int32, and ``images``, one for each channel, in [0, 1].
        """
        names = [label] if isinstance(label, str) else [*label]
        network, codes = self.network, label_codes(self.network)
        request = request_of(network, self.generation, names, n, settings)
        labels = by_subject(network, request.labels, n)
        request = replace(request, labels=labels, batch_size=None)
        tokens, maps = sample_subjects(network, request)
        assert maps is not None
        spec = network.tokenizer.spec
        sides, affine = spec.volume_shape, generation_affine(spec.volume_shape, spec.spacing_mm)
        volumes = network.decode(tokens.to(network.device), sides, request.windows)
        each = len(volumes) // len(maps)
        return [
            Pair(
                Nifti1Image(own, affine),
                [image_of(volume[0].numpy(), affine) for volume in volumes[k * each :][:each]],
            )
            for k, own in enumerate(decoded_maps(codes, maps, sides))
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
            settings: see :class:`Model`.

        Returns:
            Volumes on the grid of the first source, in the mean range of the sources' intensities;
            int32 where the target is a channel of labels.
        """
        request = request_of(self.network, self.completion, [target], n, settings)
        stored = {name: stored_volume(volume, name) for name, volume in sources.items()}
        found = sample_channel(self.network, stored, request)
        first, affine = next(iter(sources.values())), next(iter(stored.values())).affine
        if found.samples.dtype == np.int32 and not isinstance(first, np.ndarray | Tensor):
            return [Nifti1Image(sample, affine) for sample in found.samples]
        return [like(first, sample, affine) for sample in found.samples]

    def inpaint(
        self,
        volume: VolumeLike,
        mask: VolumeLike | None = None,
        channel: str | None = None,
        n: int = 1,
        *,
        labels: VolumeLike | None = None,
        edited: VolumeLike | None = None,
        **settings: Unpack[Settings],
    ) -> list[Result]:
        """Sample anew what lies under a mask, or where labels were edited; the rest stays the same.

        Args:
            volume: the volume.
            mask: on the same grid; every voxel that is not 0 is sampled.
            channel: name of the volume's channel; may be left out where the model has one.
            n: samples.
            labels: in place of a mask, the label map of the volume; of a model that has learned
                labels.
            edited: the same after a change: the cells of tokens that it touches are sampled.
            settings: see :class:`Model`.
        """
        request = request_of(
            self.network, self.completion, [channel_or_only(self.network, channel)], n, settings
        )
        stored, encoded = stored_volume(volume, "the volume"), None
        if mask is not None and labels is None and edited is None:
            hidden = stored_volume(mask, "the mask")
        elif mask is None and labels is not None and edited is not None:
            maps = stored_volume(labels, "the labels"), stored_volume(edited, "the edited labels")
            hidden, encoded = Edit(*maps).place(self.network, stored)
        else:
            raise Prod9Error("give a mask; or labels and edited, both, in its place.")
        samples = sample_masked(self.network, stored, hidden, request, labels=encoded)
        return [like(volume, sample, stored.affine) for sample in samples]

    def save(self, folder: PathLike, *, overwrite: bool = False, **extras: Unpack[Extras]) -> None:
        """Write the model, and the settings of its use, as a folder that :func:`load` reads.

        Args:
            folder: made where it is not there; its other files stay.
            overwrite: replace a model that is there.
            extras: ``dataset`` (its description, or the path of a ``dataset.yaml``), ``metrics``
                and ``report`` (paths of what an evaluation wrote; a report shows volumes and their
                names), ``licence`` and ``intended_use`` (texts of the model card), ``subjects``
                (True keeps names of subjects and paths of this machine, left out otherwise),
                ``half`` (True rounds weights to fp16: half the size, nearly the same volumes).
        """
        save_folder(self.network, self._recorded(), Path(folder), extras, overwrite=overwrite)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = True,
        message: str = "Upload a prod9 model",
        **extras: Unpack[Extras],
    ) -> str:
        """Upload the model's folder to the Hugging Face Hub; needs ``prod9[hub]`` and a login.

        Args:
            repo_id: ``user/name``; made where it is not there.
            private: whether only its owner can see it, if it is made.
            message: of the commit.
            extras: as of :meth:`save`.

        Returns:
            The commit, which :func:`load` takes as ``revision``.
        """
        return push(
            lambda folder: self.save(folder, **extras), repo_id, private=private, message=message
        )

    def _recorded(self) -> Recorded:
        return Recorded(
            seed=self.generation.seed,
            sampler=self.generation.sampler,
            completion=CompletionConfig.model_validate(self.completion.sampler.model_dump()),
            sliding_window=self.generation.windows,
            data={"batch_size": self.generation.batch_size},
        )

    def translate_folder(
        self,
        folder: PathLike,
        output: PathLike,
        target: str | None = None,
        n: int = 1,
        *,
        resume: bool = False,
        overwrite: bool = False,
        on_subject: OnSubject | None = None,
        **settings: Unpack[Settings],
    ) -> list[TranslatedSubject]:
        """Sample the channels that the subjects of a folder lack; write them to ``output``.

        Args:
            folder: holds a folder for each subject, with volumes that are named after channels.
            output: folder for ``SUBJECT/CHANNEL.nii.gz``.
            target: the only channel to sample; all that are missing when left out.
            n: samples of each channel.
            resume: skip what is complete.
            overwrite: replace what is there.
            on_subject: called with each subject that is done, its number from 1 and their count;
                progress is written to stderr where it is given.
            settings: see :class:`Model`.

        Returns:
            Of each subject ``name``, ``made`` (the results' paths by channel) and ``problem``: a
            sentence on why there is not every result, else empty. A problem stops no other subject.
        """
        request = request_of(self.network, self.completion, self.network.channels, n, settings)
        with redirect_stderr(io.StringIO()) if on_subject is None else nullcontext():
            return translate_folder(
                self.network,
                Path(folder),
                Path(output),
                request,
                target=target,
                samples=n,
                resume=resume,
                overwrite=overwrite,
                on_subject=on_subject or (lambda done, number, total: None),
            )


def channel_or_only(network: core.Model, name: str | None) -> str:
    """Return ``name``; where it is None, the name of the only channel.

    Raises:
        Prod9Error: None, and the model has several.
    """
    only, *others = network.images
    if name is None and others:
        raise Prod9Error(
            f"the model has the channels {', '.join(network.channels)}; name one of them "
            "(--channel)."
        )
    return name or only


def request_of(
    network: core.Model, base: SampleRequest, names: Sequence[str], n: int, settings: Settings
) -> SampleRequest:
    """Return ``base`` with ``n`` labels for each name, and with other settings."""
    changes = {name: value for name, value in settings.items() if name != "seed"}
    if "temperature" in changes:  # of all steps
        changes["final_temperature"] = None
    sampler = validated(type(base.sampler), base.sampler.model_dump() | changes, "the sampler")
    labels, seed = network.labels_of(names, n), settings.get("seed", base.seed)
    if not labels:
        raise Prod9Error("give at least one label, and n of at least 1.")
    return replace(base, labels=labels, sampler=sampler, seed=seed)
