"""The embedded data set brainregionmnist3d as numbers: what is known of it without PyTorch."""

# Centres in MNI coordinates, mm (x to the right, y to the front, z up).
REGIONS: dict[str, tuple[float, float, float]] = {
    "hippocampus-left": (-28.0, -22.0, -14.0),
    "hippocampus-right": (28.0, -22.0, -14.0),
    "thalamus": (0.0, -16.0, 8.0),
    "cerebellum-left": (-24.0, -64.0, -36.0),
    "cerebellum-right": (24.0, -64.0, -36.0),
    "brainstem": (0.0, -28.0, -36.0),
    "frontal-pole": (0.0, 56.0, 4.0),
    "occipital-pole": (0.0, -84.0, 6.0),
    "motor-cortex-left": (-36.0, -22.0, 56.0),
    "motor-cortex-right": (36.0, -22.0, 56.0),
    "temporal-left": (-52.0, -12.0, -16.0),
}
CLASS_NAMES = tuple(REGIONS)
SPLIT_SIZES = {"train": 971, "val": 161, "test": 610}
SPACING_MM = {28: 2.0, 64: 1.0}

# Changing any number here or in brain_regions.py changes the data: raise the version with it, so
# that files built by an older prod9 are not mistaken for this one's.
VERSION = 1
