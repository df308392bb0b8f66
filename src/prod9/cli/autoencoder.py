"""``prod9-train-autoencoder``: Stage 1."""

from pathlib import Path
from typing import Annotated

import typer

from prod9.cli.run import guarded, new_app
from prod9.cli.verbs import (
    ConfigOption,
    OverridesArgument,
    OverwriteOption,
    Stage,
    add_shared_verbs,
)
from prod9.config import Stage1Config
from prod9.evaluation.test_metrics import measure_stage1
from prod9.inference.reconstruct import decode_tokens, reconstruct_file
from prod9.runtime.processes import require_alone
from prod9.training import stage1

app = new_app("Stage 1: learn a tokenizer (autoencoder with Finite Scalar Quantization).")


_STAGE = Stage(Stage1Config, stage1.train, measure_stage1)
add_shared_verbs(app, _STAGE)


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
    require_alone("infer")
    if not inputs and not from_tokens:
        raise typer.BadParameter("give --input FILE or --from-tokens FILE")
    resolved = _STAGE.load(config, overrides)
    tokenizer = stage1.load_tokenizer(resolved)
    for path in inputs or []:
        result = reconstruct_file(
            tokenizer,
            path,
            output,
            resolved.sliding_window,
            save_tokens=save_tokens,
            overwrite=overwrite,
        )
        typer.echo(f"{path} -> {result.path}: PSNR {result.psnr:.2f} dB, SSIM {result.ssim_text}")
    for path in from_tokens or []:
        written = decode_tokens(
            tokenizer, path, output, resolved.sliding_window, overwrite=overwrite
        )
        typer.echo(f"{path} -> {written}")


run = guarded(app)
