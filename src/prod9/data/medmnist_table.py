"""The six data sets of MedMNIST 3D (record 10519652), and the embedded one, as a table.

Yang et al., MedMNIST v2, Scientific Data 2023; data CC BY 4.0.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prod9.data import brain_region_table as brain

BRAIN = "brainregionmnist3d"


@dataclass(frozen=True)
class Row:
    """One data set."""

    flag: str
    class_names: tuple[str, ...]
    split_sizes: tuple[int, int, int]
    """Published numbers of train, val and test volumes (a file of another size is accepted)."""
    flip_axes: tuple[int, ...]
    """Spatial axes (0, 1, 2) along which a mirrored volume keeps its class.

    Organ and brain regions: none, as a class may be a side of the body. The other five are nodules,
    ribs, adrenals, vessels and synapses whose position is not part of their class: all three axes.
    """
    md5: Mapping[int, str] = field(default_factory=dict[int, str])
    """Of the published files, by voxels per side; empty for the embedded data set."""

    def file(self, root: Path, size: int) -> Path:
        """Return where the npz of ``size``^3 volumes lies under ``root``."""
        suffix = "" if size == 28 else f"_{size}"
        # Built by prod9: an older prod9's file must not be taken for this one's.
        version = "" if self.md5 else f"_v{brain.VERSION}"
        return root / f"{self.flag}{suffix}{version}.npz"

    def url(self, size: int) -> str:
        """Return where the npz of ``size``^3 volumes is published."""
        name = self.file(Path(), size).name
        return f"https://zenodo.org/records/10519652/files/{name}?download=1"


_CLASSES = {
    "organmnist3d": "liver kidney-right kidney-left femur-right femur-left bladder heart "
    "lung-right lung-left spleen pancreas",
    "nodulemnist3d": "benign malignant",
    "adrenalmnist3d": "normal hyperplasia",
    "fracturemnist3d": "buckle nondisplaced displaced",
    "vesselmnist3d": "vessel aneurysm",
    "synapsemnist3d": "inhibitory excitatory",
}
# Volumes in train, val and test; MD5 of the files of 28 and of 64 voxels per side.
_FILES = """
organmnist3d     971 161 610 a0c5a1ff56af4f155c46d46fbb45a2fe 58a2205adf14a9d0a189cb06dc78bf10
nodulemnist3d   1158 165 310 8755a7e9e05a4d9ce80a24c3e7a256f3 c47c5b7d457bf6332200d2ea6d64ecd8
adrenalmnist3d  1188  98 298 bbd3c5a5576322bc4cdfea780653b1ce 17721accfe9fb005146a47d33bc54b2f
fracturemnist3d 1027 103 240 6aa7b0143a6b42da40027a9dda61302f f01d7e6316aedf4210da0da5b7437b42
vesselmnist3d   1335 191 382 b41fd4f7e7e2feedddb201585ecafa1b 6bb274a8846e1097066dcd64e2c4520f
synapsemnist3d  1230 177 352 1235b78a3cd6280881dd7850a78eadb6 43bd14ebf3af9d3dd072446fedc14d5e
"""


def _row(line: str) -> Row:
    flag, train, val, test, *md5 = line.split()
    flips = () if flag == "organmnist3d" else (0, 1, 2)
    sizes = (int(train), int(val), int(test))
    return Row(
        flag, tuple(_CLASSES[flag].split()), sizes, flips, dict(zip((28, 64), md5, strict=True))
    )


PUBLISHED: tuple[Row, ...] = tuple(_row(line) for line in _FILES.strip().splitlines())
_SIZES = brain.SPLIT_SIZES
_EMBEDDED = Row(BRAIN, brain.CLASS_NAMES, (_SIZES["train"], _SIZES["val"], _SIZES["test"]), ())
TABLE: dict[str, Row] = {row.flag: row for row in (*PUBLISHED, _EMBEDDED)}


def licence_of(dataset_name: str) -> str:
    """Return the licence of a data set of this table, "" of others."""
    if dataset_name == BRAIN:
        return (
            "made from the ICBM 2009a MNI152 template, Copyright (C) 1993-2009 Louis Collins, "
            "McConnell Brain Imaging Centre, Montreal Neurological Institute, McGill University: "
            "free to use, copy, change and pass on where this notice is kept"
        )
    return "CC BY 4.0, MedMNIST v2 (Yang et al. 2023)" if dataset_name in (*TABLE, "all") else ""


def members(dataset_name: str) -> tuple[Row, ...]:
    """Return the data sets that a ``data.dataset_name`` stands for (six for ``all``)."""
    return PUBLISHED if dataset_name == "all" else (TABLE[dataset_name],)


def class_names(dataset_name: str) -> tuple[str, ...]:
    """Return the class names in label order; ``all``: 22, such as ``organmnist3d/liver``."""
    if dataset_name == "all":
        return tuple(f"{row.flag}/{name}" for row in PUBLISHED for name in row.class_names)
    return TABLE[dataset_name].class_names
