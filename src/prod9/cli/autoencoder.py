"""``prod9-train-autoencoder``: Stage 1."""

from pathlib import Path
from typing import Annotated

import typer

from prod9.cli.options import ConfigOption, Output, OverridesArgument, OverwriteOption, command
from prod9.cli.run import guarded, new_app
from prod9.cli.use import decode_files, reconstruct_files
from prod9.cli.verbs import add_shared_verbs
from prod9.runtime.processes import require_alone

app = new_app(
    "Stage 1: learn a tokenizer (autoencoder with Finite Scalar Quantization).", script=True
)
add_shared_verbs(app, 1)


@command(app)
def infer(
    config: ConfigOption,
    output: Output,
    overrides: OverridesArgument = None,
    inputs: Annotated[list[Path] | None, typer.Option("--input", "-i")] = None,
    from_tokens: list[Path] | None = None,
    save_tokens: bool = False,
    overwrite: OverwriteOption = False,
) -> None:
    """Reconstruct volumes of any size; original affine, intensities and shape come back.

    Args:
        output: Folder for the results.
        inputs: Volume of any size: NIfTI, npy, npz, NRRD or MetaImage, or the folder of a DICOM
            series; repeatable.
        from_tokens: Decode a token file (.npz) of --save-tokens.
        save_tokens: Write the tokens beside each result.
    """
    if not inputs and not from_tokens:
        raise typer.BadParameter("give --input FILE or --from-tokens FILE")
    require_alone("infer")
    from prod9.config.load import load_stage1
    from prod9.inference.tokenizer import Tokenizer
    from prod9.training.stage1 import load_tokenizer

    resolved = load_stage1(config, overrides or ())
    tokenizer = Tokenizer(load_tokenizer(resolved), resolved.sliding_window)
    reconstruct_files(tokenizer, inputs or [], output, save_tokens=save_tokens, overwrite=overwrite)
    decode_files(tokenizer, from_tokens or [], output, overwrite=overwrite)


run = guarded(app)
