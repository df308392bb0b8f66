"""``prod9-train-autoencoder``: Stage 1."""

from pathlib import Path
from typing import Annotated

import typer

from prod9.cli.options import ConfigOption, OverridesArgument, OverwriteOption
from prod9.cli.run import guarded, new_app
from prod9.cli.verbs import add_shared_verbs

app = new_app("Stage 1: learn a tokenizer (autoencoder with Finite Scalar Quantization).")
add_shared_verbs(app, 1)


@app.command()
def infer(
    config: ConfigOption,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")],
    overrides: OverridesArgument = None,
    inputs: Annotated[
        list[Path] | None,
        typer.Option("--input", "-i", help="NIfTI or npy volume, of any size; repeatable."),
    ] = None,
    from_tokens: Annotated[
        list[Path] | None,
        typer.Option("--from-tokens", help="Decode a token file (.npz) of --save-tokens."),
    ] = None,
    save_tokens: Annotated[
        bool, typer.Option("--save-tokens", help="Write the tokens beside each result.")
    ] = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Reconstruct volumes of any size; original affine, intensities and shape come back."""
    if not inputs and not from_tokens:
        raise typer.BadParameter("give --input FILE or --from-tokens FILE")
    from prod9.config.load import load_stage1
    from prod9.inference.tokenizer import Tokenizer, decode_file, reconstruct_file
    from prod9.runtime.processes import require_alone
    from prod9.training.stage1 import load_tokenizer

    require_alone("infer")
    resolved = load_stage1(config, overrides or ())
    tokenizer = Tokenizer(load_tokenizer(resolved), resolved.sliding_window)
    for path in inputs or []:
        written, found = reconstruct_file(
            tokenizer, path, output, save_tokens=save_tokens, overwrite=overwrite
        )
        small = "not defined (a side is below 11 voxels)"
        ssim = small if found.ssim is None else f"{found.ssim:.4f}"
        typer.echo(f"{path} -> {written}: PSNR {found.psnr:.2f} dB, SSIM {ssim}")
    for path in from_tokens or []:
        written = decode_file(tokenizer, path, output, overwrite=overwrite)
        typer.echo(f"{path} -> {written}")


run = guarded(app)
