"""How much of the template's anatomy is in brains that a model draws from nothing.

For models of the phantom cohort (``prod9 demo brats``), whose cases are one template, moved and
bent. Each drawn T1 is registered to the template (affine, SimpleITK), and so are the held-out cases
of the cohort. Then, on the template's grid at 2 mm:

- *ncc*: normalised cross-correlation with the template over its brain;
- *ventricles*: symmetric difference, in ml, of what is fluid within 6 mm of the template's lateral
  and third ventricles, in the volume and in the template. Fluid is what is darker than a share of
  the median of the brain, which is half-way between fluid and grey matter in the template.

    python -m benchmarks.whole_anatomy outputs/demo_brats [--draws 8] [--channel T1] [--seed 0]

Needs ``prod9[itk]``. Writes ``whole_anatomy.json`` and ``whole_anatomy.png`` into the folder.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from scipy import ndimage

import prod9
from prod9.config.load import load_stage2
from prod9.data.brats.phantom.anatomy import read_atlas
from prod9.data.dataset import Dataset, open_splits
from prod9.inference.model import Model
from prod9.montage import montage, save_figure

STEP_MM = 2.0
_REACH_MM, _DEEP_MM = 6.0, 20.0
_MARGIN = 4
"""Empty voxels around the template."""


@dataclass(frozen=True)
class Template:
    """The template at 2 mm, axes RAS+."""

    t1: np.ndarray
    brain: np.ndarray
    ventricles: np.ndarray
    around: np.ndarray
    """Where ventricles are looked for."""
    darkness: float
    """Fluid is darker than this share of the brain's median."""


def read_template() -> Template:
    """Return the template of the phantoms."""
    brain, t1, white, grey, _ = read_atlas().maps
    fluid = (1 - white - grey).clamp(min=0) * brain
    step = int(STEP_MM)
    small = torch.nn.functional.avg_pool3d(torch.stack([brain, t1, fluid, grey])[None], step)[0]
    wide = torch.nn.functional.pad(small, [_MARGIN] * 6).numpy()
    inside, image, wet, cortex = wide[0] > 0.5, wide[1], wide[2] > 0.5, wide[3] > 0.8
    deep = ndimage.distance_transform_edt(inside) * STEP_MM > _DEEP_MM
    parts, _ = ndimage.label(wet & deep)
    ventricles = parts == np.bincount(parts[parts > 0]).argmax()
    middle = np.median(image[inside])
    half = (np.median(image[ventricles]) + np.median(image[cortex])) / 2
    reach = ndimage.distance_transform_edt(~ventricles) * STEP_MM <= _REACH_MM
    return Template(image, inside, ventricles, reach & deep, float(half / middle))


def _image(volume: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(volume.astype(np.float32))
    image.SetSpacing([STEP_MM] * 3)
    return image


def registered(volume: np.ndarray, template: Template) -> np.ndarray:
    """Return a volume of 2 mm on the template's grid, by the affine map of the best correlation."""
    fixed, moving = _image(template.t1), _image(volume)
    start = sitk.CenteredTransformInitializer(
        fixed, moving, sitk.AffineTransform(3), sitk.CenteredTransformInitializerFilter.MOMENTS
    )
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsCorrelation()
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(0.3, seed=1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-4, 200, 0.6)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([2, 1, 0])
    method.SetInitialTransform(start, inPlace=False)
    found = method.Execute(fixed, moving)
    return sitk.GetArrayFromImage(sitk.Resample(moving, fixed, found, sitk.sitkLinear, 0.0))


@dataclass(frozen=True)
class Score:
    """Of one volume, on the template's grid."""

    ncc: float
    ventricles_ml: float
    difference_ml: float
    """Symmetric difference with the template's."""


def fluid_of(volume: np.ndarray, template: Template) -> np.ndarray:
    """Return the fluid in and around the template's ventricles."""
    return template.around & (volume < template.darkness * np.median(volume[template.brain]))


def score(volume: np.ndarray, template: Template) -> Score:
    """Compare a registered volume with the template."""
    ncc = np.corrcoef(volume[template.brain], template.t1[template.brain])[0, 1]
    own, true = fluid_of(volume, template), fluid_of(template.t1, template)
    ml = STEP_MM**3 / 1000
    return Score(float(ncc), float(own.sum() * ml), float((own ^ true).sum() * ml))


def summary(scores: Sequence[Score]) -> dict[str, Any]:
    """Return mean and spread of each figure, and all of them."""
    rows = [asdict(each) for each in scores]
    return {
        name: {"mean": float(np.mean(values)), "std": float(np.std(values)), "each": values}
        for name in rows[0]
        if (values := [row[name] for row in rows])
    }


def measure(
    model: Model, test: Dataset, folder: Path, *, channel: str, draws: int, seed: int
) -> dict[str, Any]:
    """Draw, register and score; write the figures and the picture to ``folder``."""
    index = model.network.channel_of(channel) if len(model.network.channels) > 1 else 0
    held_out = [test.whole(item, index) for item in range(len(test))]
    begun = time.monotonic()
    label = channel if len(model.network.channels) > 1 else "all"
    images = model.generate(label, draws, seed=seed)
    seconds = (time.monotonic() - begun) / draws
    drawn = [np.asarray(image.dataobj, np.float32) for image in images]
    template = read_template()
    on_grid = {
        name: [registered(volume, template) for volume in volumes]
        for name, volumes in (("held_out", held_out), ("drawn", drawn))
    }
    found: dict[str, Any] = {
        name: summary([score(volume, template) for volume in volumes])
        for name, volumes in on_grid.items()
    }
    found["share_of_ncc"] = found["drawn"]["ncc"]["mean"] / found["held_out"]["ncc"]["mean"]
    found["template_ventricles_ml"] = score(template.t1, template).ventricles_ml
    found["seconds_per_volume"] = seconds
    (folder / "whole_anatomy.json").write_text(json.dumps(found, indent=2) + "\n")
    count = min(6, len(held_out), draws)
    rows = [("template", [template.t1] * count), *on_grid.items()]
    shown = [(name, torch.from_numpy(np.stack(each[:count]))[:, None]) for name, each in rows]
    columns = [str(number + 1) for number in range(count)]
    save_figure(folder / "whole_anatomy.png", montage(shown, columns, "after registration"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="of `prod9 demo brats`")
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--channel", default="T1")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    model = prod9.load(chosen.folder / "stage2")
    assert isinstance(model, Model)
    config = load_stage2(chosen.folder / "stage2" / "config.yaml", [])
    test = open_splits(config.data, model.network.tokenizer.spec.preprocessing)["test"]
    how = {"channel": chosen.channel, "draws": chosen.draws, "seed": chosen.seed}
    found = measure(model, test, chosen.folder, **how)
    for name in ("held_out", "drawn"):
        own = {key: f"{each['mean']:.3f} +- {each['std']:.3f}" for key, each in found[name].items()}
        print(name, own)
    print(f"share of ncc {found['share_of_ncc']:.3f}, {found['seconds_per_volume']:.1f} s a volume")


if __name__ == "__main__":
    main()
