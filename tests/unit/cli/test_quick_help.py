"""``--help`` of every command imports none of the libraries that take seconds."""

import os
import subprocess
import sys

import pytest

SCRIPTS = {
    "main": [
        [],
        *(
            ["train"],
            ["demo"],
            ["evaluate"],
            ["plan"],
            ["export"],
            ["view"],
            ["doctor"],
            ["weights", "fetch"],
            ["data"],
        ),
        *(["generate"], ["translate"], ["inpaint"], ["reconstruct"], ["encode"], ["decode"]),
        *(["data", verb] for verb in ("list", "fetch", "inspect", "make-phantom-brats")),
    ],
    "autoencoder": [[], ["train"], ["validate"], ["test"], ["infer"]],
    "transformer": [
        [],
        *(["train"], ["validate"], ["test"], ["generate"]),
        *(["translate"], ["inpaint"], ["sweep"]),
    ],
}
SLOW = {
    "torch",
    "jinja2",
    "pytorch_lightning",
    "lightning_fabric",
    "matplotlib",
    "scipy",
    "nibabel",
    "nilearn",
    "monai",
    "pandas",
    "sklearn",
    "numpy",
    "safetensors",
    "huggingface_hub",
}
CODE = """
import importlib, sys
app = importlib.import_module("prod9.cli." + sys.argv[1])
for words in {commands}:
    sys.argv[1:] = [*words, "--help"]
    try:
        app.run()
    except SystemExit as end:
        assert not end.code, words
    print("MODULES", *sys.modules)
"""


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_starts_nothing_slow(script: str) -> None:
    code = CODE.format(commands=SCRIPTS[script])
    done = subprocess.run(
        [sys.executable, "-c", code, script], capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    pages = done.stdout.split("MODULES ")
    assert len(pages) == len(SCRIPTS[script]) + 1
    for words, page, modules in zip(SCRIPTS[script], pages, pages[1:], strict=False):
        assert "Usage:" in page, words
        assert not SLOW & {*modules.split("\n")[0].split()}, words
