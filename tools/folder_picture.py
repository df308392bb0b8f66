"""Real, reconstructed and generated volumes of a model of ``prod9 train``, as one picture.

``python tools/folder_picture.py MODEL PICTURE.png``, in the folder where ``prod9 train`` ran.
"""

import sys
from pathlib import Path

import torch

import prod9
from prod9.config.load import load_stage1
from prod9.data.dataset import open_splits
from prod9.inference.model import Model
from prod9.montage import montage, save_figure

SHOWN = 5


def main(folder: Path, picture: Path) -> None:
    """Draw the first scans of the test split, what the tokens keep of them, and new volumes."""
    model = prod9.load(folder)
    assert isinstance(model, Model)
    test = open_splits(load_stage1(folder / "training" / "stage1.yaml").data)["test"]
    real = torch.stack([torch.from_numpy(test.whole(item, 0)) for item in range(SHOWN)])[:, None]
    tokenizer = model.network.tokenizer
    again = tokenizer.decode(tokenizer.encode(real.to(tokenizer.device)), test.shape).cpu()
    made = [torch.from_numpy(image.get_fdata()).float() for image in model.generate(n=SHOWN)]
    rows = [("real", real), ("reconstructed", again), ("generated", torch.stack(made)[:, None])]
    save_figure(picture, montage(rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
