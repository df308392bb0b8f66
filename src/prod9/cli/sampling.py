"""Generate, translate and in-paint: verbs that ``prod9`` and ``prod9-train-transformer`` share.

A verb is a class: its fields are the options, its docstring is the help. A second class,
:class:`Source`, has the options that say which model it is.
"""

import inspect
import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, cast

import typer

from prod9.cli.options import NumSamples, OptionalOutput, Output, OverwriteOption, command
from prod9.errors import Prod9Error
from prod9.runtime.processes import require_alone

if TYPE_CHECKING:
    from prod9.inference.labelled import EncodedMask
    from prod9.inference.model import Model, Settings
    from prod9.inference.subjects import TranslatedSubject


class Source(Protocol):
    """Options that say which model is used."""

    def load(self, *, scans: bool, shared: bool) -> "tuple[Model, Path | None]":
        """Return the model, and its folder where it has one.

        Args:
            scans: the other options are about channels of scans.
            shared: the processes of a distributed run share the work.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Verb:
    """The options that all have."""

    steps: Annotated[int | None, typer.Option(min=1, help="Passes of the transformer.")] = None
    revisions: Annotated[
        int | None,
        typer.Option(min=0, help="Further passes, each of which draws some tokens again."),
    ] = None
    guidance: Annotated[
        float | None, typer.Option(min=1.0, help="Guidance scale; 1 is no guidance.")
    ] = None
    guidance_class: Annotated[
        float | None, typer.Option(min=0.0, help="Of the class alone; as --guidance if left out.")
    ] = None
    guidance_labels: Annotated[
        float | None, typer.Option(min=0.0, help="Of the label map alone, likewise.")
    ] = None
    guidance_covariates: Annotated[
        float | None, typer.Option(min=0.0, help="Of the covariates alone, likewise.")
    ] = None
    temperature: Annotated[
        float | None, typer.Option(help="Of the softmax that tokens are sampled from.")
    ] = None
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=2**32 - 1,
            help="Seed. What is left out of seed, steps, revisions, guidance and temperature is as "
            "in the model's configuration.",
        ),
    ] = None
    overwrite: OverwriteOption = False

    def run(self, source: Source) -> None:
        """Do the work."""
        raise NotImplementedError

    @property
    def settings(self) -> "Settings":
        """What was given of the settings."""
        given = {"seed": self.seed, "steps": self.steps, "temperature": self.temperature}
        given |= {"revisions": self.revisions, "guidance_scale": self.guidance}
        for part in ("guidance_class", "guidance_labels", "guidance_covariates"):
            given[part] = getattr(self, part)
        return cast("Settings", {name: each for name, each in given.items() if each is not None})

    def require_one_way(self, resume: bool) -> None:
        """Refuse ``--resume`` together with ``--overwrite``."""
        if resume and self.overwrite:
            raise Prod9Error("--resume goes on and --overwrite begins anew; give one of them.")


@dataclass(frozen=True, kw_only=True)
class Generate(Verb):
    """Generate new volumes: NIfTI files, a montage and a manifest.

    The processes of a distributed run share the work.

    Args:
        output: Folder for the volumes; the model's folder/generated when left out.
        num_samples: Volumes per class.
        classes: Class name, or `all`; repeatable, all when left out.
        channels: The same for channels of scans, such as T1; repeatable.
        shape: Voxels per side, around the middle of the training volumes; the training volumes'
            when left out.
        resume: Go on with an interrupted set; generate what is missing.
        mask: A label map: generate images of it, on its grid (models trained with labels);
            CHANNEL=FILE where the model has several channels of labels.
        with_labels: Generate a label map for each subject too, in OUTPUT/labels.
        covariate: NAME=VALUE of every volume, such as age=70; repeatable.
    """

    output: OptionalOutput = None
    num_samples: NumSamples = 4
    classes: Annotated[list[str] | None, typer.Option("--class")] = None
    channels: Annotated[list[str] | None, typer.Option("--channel", "--modality")] = None
    shape: tuple[int, int, int] | None = None
    resume: bool = False
    mask: Annotated[str | None, typer.Option("--mask", "-m")] = None
    with_labels: bool = False
    covariate: list[str] | None = None

    def run(self, source: Source) -> None:
        """Write the set."""
        from prod9.inference.generate import generate_files
        from prod9.inference.labelled import by_subject
        from prod9.inference.model import request_of
        from prod9.runtime.distributed import is_main
        from prod9.shapes import MAX_VOXELS

        self.require_one_way(self.resume)
        shape = self.shape
        if shape is not None and not (min(shape) >= 1 and math.prod(shape) <= MAX_VOXELS):
            raise Prod9Error(
                f"--shape takes three sides of at least 1 with {MAX_VOXELS} voxels in all, not "
                f"{' '.join(map(str, shape))}."
            )
        model, home = source.load(scans=bool(self.channels), shared=True)
        if self.output is None and home is None:
            raise Prod9Error("the model is no folder that could hold the volumes; give --output.")
        folder = self.output or (home or Path()) / "generated"
        names = model.network.names_of(self.classes or (), self.channels or ())
        request = request_of(
            model.network, model.generation, names, self.num_samples, self.settings
        )
        covariates = model.network.covariates_of(self._covariates())
        request, mask = replace(request, shape=shape, covariates=covariates), None
        if self.mask is not None or self.with_labels:
            mask = self._mask(model)
            labels = by_subject(model.network, request.labels, self.num_samples)
            request = replace(request, labels=labels)
        generate_files(
            model.network,
            request,
            folder,
            overwrite=self.overwrite,
            resume=self.resume,
            mask=mask,
            with_labels=self.with_labels,
        )
        if is_main():
            count = len(request.labels)
            typer.echo(f"{count} volumes, montage.png and manifest.json written to {folder}")

    def _covariates(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for text in self.covariate or ():
            name, equals, value = text.partition("=")
            if not (name and equals and value) or name in found:
                raise Prod9Error(f"--covariate {text}: write each once, as NAME=VALUE.")
            found[name] = value
        return found

    def _mask(self, model: "Model") -> "EncodedMask | None":
        from prod9.data.volume_files.read import read_volume
        from prod9.inference.labelled import encode_mask, label_codes

        if self.mask is not None and (self.with_labels or self.shape is not None):
            raise Prod9Error(
                "--mask gives the label map and its grid; leave out --with-labels and --shape."
            )
        label_codes(model.network)  # refuses a model without labels before a file is read
        if self.mask is None:
            return None
        path, channel = _named(model, self.mask)
        return encode_mask(model.network, read_volume(path), channel)


def _named(model: "Model", text: str) -> tuple[Path, str | None]:
    """Read ``[CHANNEL=]FILE``, of a label map."""
    name, equals, file = text.partition("=")
    if equals and name in model.network.label_channels:
        return Path(file), name
    return Path(text), None


@dataclass(frozen=True, kw_only=True)
class _Completion(Verb):
    output: Output
    samples: Annotated[
        int, typer.Option("--samples", "-k", min=1, help="Samples, from different random numbers.")
    ] = 1


@dataclass(frozen=True, kw_only=True)
class Translate(_Completion):
    """Make missing channels of a subject, or of a folder of subjects, from those that are there.

    One subject: --source T1=t1.nii.gz --target FLAIR --output flair.nii.gz. Many: --input FOLDER
    --output FOLDER, where every sub-folder holds files that are named after channels.

    With several --samples the result is their mean; each sample and a voxel-wise standard deviation
    (uncertainty) are written beside it.

    Args:
        source: CHANNEL=FILE, such as T1=a.nii.gz; repeatable.
        folder: Folder of subjects.
        target: The channel to make; with --input all that are missing when left out.
        output: NIfTI file for the result; with --input the folder for SUBJECT/CHANNEL.nii.gz.
        resume: Skip what is complete.
    """

    source: list[str] | None = None
    folder: Annotated[Path | None, typer.Option("--input", "-i")] = None
    target: str | None = None
    resume: bool = False

    def run(self, source: Source) -> None:
        """Write the results."""
        require_alone("translate")
        self.require_one_way(self.resume)
        if bool(self.source) == (self.folder is not None):
            raise Prod9Error(
                "give --source CHANNEL=FILE for one subject, or --input FOLDER for many."
            )
        if self.folder is not None:
            self._many(self.folder, source)
            return
        if self.target is None:
            raise Prod9Error("give --target CHANNEL, the channel to make from the sources.")
        from prod9.inference.model import request_of
        from prod9.inference.translate import translate_files

        files = self._files()
        model, _ = source.load(scans=True, shared=False)
        request = request_of(
            model.network, model.completion, [self.target], self.samples, self.settings
        )
        written = translate_files(
            model.network,
            files,
            self.output,
            request,
            overwrite=self.overwrite,
            resume=self.resume,
        )
        for path in written.all:
            typer.echo(str(path))

    def _files(self) -> dict[str, Path]:
        files: dict[str, Path] = {}
        for item in self.source or ():
            name, _, file = item.partition("=")
            if not (name and file):
                raise Prod9Error(f"--source {item}: write MODALITY=FILE, such as T1=a.nii.gz.")
            if name in files:
                raise Prod9Error(f"--source {name} is given twice; give each modality once.")
            files[name] = Path(file)
        return files

    def _many(self, folder: Path, source: Source) -> None:
        model, _ = source.load(scans=True, shared=False)
        found = model.translate_folder(
            folder,
            self.output,
            self.target,
            self.samples,
            resume=self.resume,
            overwrite=self.overwrite,
            on_subject=_tell,
            **self.settings,
        )
        bad = [subject.name for subject in found if subject.problem]
        if bad:
            names = ", ".join(bad[:5]) + (", ..." if len(bad) > 5 else "")
            raise Prod9Error(
                f"{len(bad)} of {len(found)} subjects are not complete ({names}); the others are: "
                "mend what is said of these, and go on with --resume."
            )


def _tell(subject: "TranslatedSubject", number: int, count: int) -> None:
    where = f"{number} of {count}: {subject.name}"
    if subject.problem:
        typer.echo(f"{where}: {subject.problem}", err=True)
    else:
        typer.echo(f"{where}: {', '.join(map(str, subject.made.values())) or 'nothing is missing'}")


@dataclass(frozen=True, kw_only=True)
class Inpaint(_Completion):
    """Sample anew what lies under a mask; every other voxel comes back untouched, bit for bit.

    Or where a label map was edited: --labels OLD --edited NEW in place of --mask.

    Args:
        scan: The scan, of any format.
        mask: Same grid; not 0: sample anew.
        labels: The scan's label map (models trained with labels).
        edited: The same after prod9 edit: the cells of tokens that the change touches are sampled;
            CHANNEL=FILE where the model has several channels of labels.
        channel: What the scan is; may be left out where the model has one channel.
        output: Folder for the results.
    """

    scan: Annotated[Path, typer.Option("--input", "-i")]
    mask: Annotated[Path | None, typer.Option("--mask", "-m")] = None
    labels: Path | None = None
    edited: str | None = None
    channel: Annotated[str | None, typer.Option("--channel", "--modality")] = None

    def run(self, source: Source) -> None:
        """Write the results."""
        require_alone("inpaint")
        from prod9.inference.inpaint import inpaint_files
        from prod9.inference.labelled import label_codes
        from prod9.inference.model import channel_or_only, request_of

        both = self.labels is not None and self.edited is not None
        if both == (self.mask is not None) or (self.labels is None) != (self.edited is None):
            raise Prod9Error("give --mask; or --labels and --edited, both, in its place.")
        model, _ = source.load(scans=True, shared=False)
        maps = None
        if self.labels is not None and self.edited is not None:
            label_codes(model.network)  # refuses a model without labels before a file is read
            maps = self.labels, *_named(model, self.edited)
        names = [channel_or_only(model.network, self.channel)]
        request = request_of(model.network, model.completion, names, self.samples, self.settings)
        files = inpaint_files(
            model.network,
            self.scan,
            self.mask,
            self.output,
            request,
            overwrite=self.overwrite,
            labels=maps,
        )
        for path in files.all:
            typer.echo(str(path))


def add_sampling_verbs(app: typer.Typer, source: type[Any], panel: str | None = None) -> None:
    """Give ``app`` the verbs generate, translate and inpaint, for a model of ``source``."""
    for verb in (Generate, Translate, Inpaint):
        _add(app, verb, source, panel)


def _add(app: typer.Typer, verb: type[Verb], source: type[Any], panel: str | None) -> None:
    own = {field.name for field in fields(verb)}

    def call(**given: Any) -> None:
        rest = {name: given.pop(name) for name in [*given] if name not in own}
        verb(**given).run(source(**rest))

    parameters = [
        each.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for options in (source, verb)
        for each in inspect.signature(options).parameters.values()
    ]
    common = {field.name for field in fields(Verb)}
    parameters.sort(key=lambda each: each.name in common)  # the verb's own options first
    call.__name__, call.__doc__ = verb.__name__.lower(), verb.__doc__
    call.__dict__["__signature__"] = inspect.Signature(parameters)
    command(app, panel=panel)(call)
