"""``prod9.train``: a stage, from its configuration."""

import io
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stderr
from pathlib import Path

from prod9.config import Stage1Config, Stage2Config
from prod9.config.load import load_either
from prod9.errors import Prod9Error
from prod9.inference.model import Model
from prod9.inference.recorded import Recorded
from prod9.inference.tokenizer import PathLike, Tokenizer
from prod9.training import stage1, stage2


def train(
    config: PathLike | Stage1Config | Stage2Config,
    overrides: Sequence[str] = (),
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> Model | Tokenizer:
    """Train a stage, in this process, and return what was learned.

    Args:
        config: a YAML file (or the name of a shipped one) or a configuration object; it says which
            stage is trained.
        overrides: of the file, such as ``data.batch_size=2``.
        resume: continue from the last checkpoint of the run folder.
        overwrite: replace an earlier run.
        progress: write what happens to stderr.

    Returns:
        A :class:`Tokenizer` for Stage 1, a :class:`Model` for Stage 2.

    Raises:
        Prod9Error: any mistake in configuration, data or folders.
    """
    if not isinstance(config, Stage1Config | Stage2Config):
        config = load_either(Path(config), overrides)
    elif overrides:
        raise Prod9Error("overrides are of a file; change the configuration object itself.")
    with nullcontext() if progress else redirect_stderr(io.StringIO()):
        if isinstance(config, Stage1Config):
            network = stage1.train(config, resume=resume, overwrite=overwrite)
            return Tokenizer(network, config.sliding_window)
        generator = stage2.train(config, resume=resume, overwrite=overwrite)
    return Model.of(generator, Recorded.model_validate(config.model_dump()))
