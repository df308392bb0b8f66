"""Train the model inside the package: both stages, figures, and a folder of 10 MB.

``python -m tools.shipped_model`` in the repository takes hours on two cores. It makes a training
split of 20,000 volumes with another seed than the embedded data set's, whose validation and test
splits it keeps, and writes ``outputs/shipped_model/brain-regions``, which becomes
``src/prod9/models/brain-regions``, and a picture of generated between real volumes.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

import prod9
from prod9.config.data import MedMNISTSourceConfig
from prod9.data.brain_region_table import REGIONS
from prod9.data.brain_regions import RegionSampler, build
from prod9.data.dataset import open_splits
from prod9.data.medmnist_table import BRAIN, TABLE
from prod9.files import atomic_write
from prod9.inference.export import export
from prod9.inference.model import Model
from prod9.montage import montage, save_figure

HERE = Path(__file__).parent
OUTPUT = Path("outputs/shipped_model")
VOLUMES, SEED, BATCH = 20_000, 77, 100
LICENCE = "Apache-2.0"
USE = "A first look at prod9, tests, teaching. One average anatomy, changed at random: no patients."


def make_data(folder: Path) -> None:
    """Write the embedded data set with a larger training split."""
    config = MedMNISTSourceConfig(dataset_name=BRAIN, root=folder)
    path = TABLE[BRAIN].file(folder, config.size)
    if path.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    published = folder / "published.npz"
    build(published, config.size)
    with np.load(published, allow_pickle=False) as found:
        arrays = {name: found[name] for name in found.files if not name.startswith("train")}
    sampler, generator = RegionSampler(config.size), torch.Generator().manual_seed(SEED)
    labels = torch.arange(VOLUMES) % len(REGIONS)
    labels = labels[torch.randperm(VOLUMES, generator=generator)]
    arrays["train_images"] = np.concatenate(
        [sampler(part, generator).numpy() for part in labels.split(BATCH)]
    )
    arrays["train_labels"] = labels.to(torch.uint8).numpy()[:, None]
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    published.unlink()


def draw_puzzle(model: Model, path: Path, seed: int = 1) -> str:
    """Draw eight generated volumes between eight real ones, in random order; return the answer."""
    config = MedMNISTSourceConfig(dataset_name=BRAIN, root=OUTPUT / "data")
    test, stream = open_splits(config)["test"], torch.Generator().manual_seed(seed)
    classes = torch.randperm(len(REGIONS), generator=stream)[:8].tolist()
    of_class = [[i for i in range(len(test)) if test.class_of(i) == each] for each in classes]
    real = [torch.from_numpy(test.whole(items[0], 0)) for items in of_class]
    images = [model.generate(test.class_names[each], seed=seed)[0] for each in classes]
    made = [torch.from_numpy(image.get_fdata()).float() for image in images]
    order = torch.randperm(16, generator=stream).tolist()
    volumes = torch.stack([(real + made)[i] for i in order])[:, None]
    rows = [(f"{i + 1} to {i + 4}", volumes[i : i + 4]) for i in range(0, 16, 4)]
    save_figure(path, montage(rows, title="Eight are real, eight are generated"))
    return ", ".join(str(place) for place, i in enumerate(order, 1) if i >= 8)


def main() -> None:
    """Train what is not trained yet, and write the folder."""
    make_data(OUTPUT / "data")
    for stage, command in (("stage1", "autoencoder"), ("stage2", "transformer")):
        program = Path(sys.executable).with_name(f"prod9-train-{command}")
        arguments = ["--config", str(HERE / f"{stage}.yaml")]
        subprocess.run([program, "train", *arguments, "--resume-or-start"], check=True)
        subprocess.run([program, "test", *arguments], check=True)
    folder = OUTPUT / "brain-regions"
    # By the file, so that its sampler counts, which may be chosen after the training.
    trained = HERE / "stage2.yaml"
    export(trained, folder, overwrite=True, half=True, licence=LICENCE, intended_use=USE)
    print(f"{folder}: {sum(p.stat().st_size for p in folder.iterdir()) / 1e6:.1f} MB")
    model = prod9.load(folder)
    assert isinstance(model, Model)
    print(f"generated are {draw_puzzle(model, OUTPUT / 'real_or_generated.png')}")


if __name__ == "__main__":
    main()
