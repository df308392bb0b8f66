"""Use a model: generate, translate, inpaint, reconstruct, encode, decode."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prod9.cli.options import Output, OverwriteOption, command
from prod9.cli.sampling import add_sampling_verbs
from prod9.errors import Prod9Error
from prod9.runtime.processes import placed, require_alone

if TYPE_CHECKING:
    from prod9.inference.model import Model
    from prod9.inference.tokenizer import Tokenizer

ModelOption = Annotated[
    Path | None, typer.Option("--model", help="The model, in place of the first argument.")
]
DeviceOption = Annotated[
    str | None,
    typer.Option(help="Such as cpu or cuda:1; a GPU, where there is one, when left out."),
]
Words = Annotated[
    list[Path],
    typer.Argument(
        metavar="MODEL FILE...",
        help="A tokenizer (autoencoder.pt) or any model that generates; then the files.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class ModelAt:
    """The model at a path."""

    path: Annotated[
        Path | None,
        typer.Argument(
            metavar="MODEL",
            help="What was trained: the run folder of Stage 2, its transformer.pt, its "
            "configuration (YAML), or a model folder; or a model inside prod9, such as "
            "brain-regions.",
        ),
    ] = None
    model: ModelOption = None
    device: DeviceOption = None

    def load(self, *, scans: bool, shared: bool) -> "tuple[Model, Path | None]":
        """Read the model, and the folder for what it makes.

        That is the path itself, if it is a folder, and ``outputs/NAME`` for a model inside prod9.
        """
        if (self.path is None) == (self.model is None):
            raise Prod9Error("give the model once: its path as MODEL, or --model PATH.")
        path = self.path or self.model
        assert path is not None
        if shared and placed() is not None:
            from prod9.config import TrainerConfig
            from prod9.training.processes import join

            kind = "cpu" if self.device == "cpu" else "auto"
            join(TrainerConfig(devices="auto", accelerator=kind))
        from prod9.inference.load import load
        from prod9.inference.model import Model
        from prod9.inference.shipped import shipped_folder

        found = load(path, device=self.device)
        if not isinstance(found, Model):
            raise Prod9Error(
                f"{path} is a tokenizer, which generates nothing; give the run folder of Stage 2, "
                "or its transformer.pt."
            )
        if shipped_folder(path):
            return found, Path("outputs") / path
        return found, path if path.is_dir() else None


def add_verbs(app: typer.Typer, panel: str) -> None:
    """Give ``app`` the verbs that use a model."""
    add_sampling_verbs(app, ModelAt, panel)
    for verb in (reconstruct, encode, decode):
        command(app, panel=panel)(verb)


def reconstruct(
    words: Words,
    output: Output,
    model: ModelOption = None,
    save_tokens: bool = False,
    channel: str | None = None,
    device: DeviceOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Encode and decode volumes of any size; original affine, intensities and shape come back.

    Args:
        output: Folder for the results.
        save_tokens: Write the tokens beside each result.
        channel: What the files are, for a model whose channels are scaled differently.
    """
    tokenizer, files = _opened("reconstruct", words, model, device)
    reconstruct_files(
        tokenizer, files, output, channel=channel, save_tokens=save_tokens, overwrite=overwrite
    )


def encode(
    words: Words,
    output: Output,
    model: ModelOption = None,
    channel: str | None = None,
    device: DeviceOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Turn volumes into tokens, a NAME.tokens.npz each.

    Args:
        output: Folder for the token files.
        channel: What the files are, for a model whose channels are scaled differently.
    """
    from prod9.inference.tokenizer import encode_file

    tokenizer, files = _opened("encode", words, model, device)
    refuse_equal_names(files)
    for path in files:
        written, encoded = encode_file(
            tokenizer, path, output, channel=channel, overwrite=overwrite
        )
        shape = " x ".join(map(str, encoded.tokens.shape))
        typer.echo(f"{path} -> {written}: {shape} tokens of {tokenizer.codebook_size} codes")


def decode(
    words: Words,
    output: Output,
    model: ModelOption = None,
    device: DeviceOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Turn token files (.tokens.npz) into volumes: NIfTI on the network's grid.

    Args:
        output: Folder for the volumes.
    """
    tokenizer, files = _opened("decode", words, model, device)
    decode_files(tokenizer, files, output, overwrite=overwrite)


def _opened(
    verb: str, words: list[Path], model: Path | None, device: str | None
) -> "tuple[Tokenizer, list[Path]]":
    """Return the tokenizer, and the files; of ``words`` the first is the model if none is given."""
    require_alone(verb)
    path, *files = words if model is None else [model, *words]
    if not files:
        raise Prod9Error(f"give the files after the model: prod9 {verb} MODEL FILE...")
    from prod9.inference.load import load
    from prod9.inference.tokenizer import Tokenizer

    found = load(path, device=device)
    return found if isinstance(found, Tokenizer) else found.tokenizer, files


def reconstruct_files(
    tokenizer: "Tokenizer",
    files: list[Path],
    output: Path,
    *,
    channel: str | None = None,
    save_tokens: bool,
    overwrite: bool,
) -> None:
    """Reconstruct files, and print how well."""
    from prod9.inference.tokenizer import reconstruct_file

    refuse_equal_names(files)
    for path in files:
        written, found = reconstruct_file(
            tokenizer,
            path,
            output,
            channel=channel,
            save_tokens=save_tokens,
            overwrite=overwrite,
        )
        small = "not defined (a side is below 11 voxels)"
        ssim = small if found.ssim is None else f"{found.ssim:.4f}"
        typer.echo(f"{path} -> {written}: PSNR {found.psnr:.2f} dB, SSIM {ssim}")


def decode_files(
    tokenizer: "Tokenizer", files: list[Path], output: Path, *, overwrite: bool
) -> None:
    """Decode token files."""
    from prod9.inference.tokenizer import decode_file

    refuse_equal_names(files)
    for path in files:
        written = decode_file(tokenizer, path, output, overwrite=overwrite)
        typer.echo(f"{path} -> {written}")


def refuse_equal_names(files: list[Path]) -> None:
    """Refuse files of one name, whose results would replace each other."""
    places: dict[str, Path] = {}
    for path in files:
        other = places.setdefault(path.name.removesuffix(".gz").rpartition(".")[0], path)
        if other is not path:
            raise Prod9Error(
                f"{other} and {path} have the same name, and so would their results; give each a "
                "run with its own --output."
            )
