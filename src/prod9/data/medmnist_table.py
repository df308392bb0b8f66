"""The six data sets of MedMNIST 3D (record 10519652), and the embedded one, as a table.

Yang et al., MedMNIST v2, Scientific Data 2023; data CC BY 4.0.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from prod9.data import brain_regions

BRAIN = "brainregionmnist3d"


@dataclass(frozen=True)
class Row:
    """One data set."""

    flag: str
    class_names: tuple[str, ...]
    split_sizes: tuple[int, int, int]
    """Published numbers of train, val and test volumes (a file of another size is accepted)."""
    md5: Mapping[int, str]
    """By voxels per side; empty for the embedded data set."""
    flip_axes: tuple[int, ...]
    """Spatial axes (0, 1, 2) along which a mirror image is as likely a member of its class.

    Organ and brain regions: none. They show a body in a fixed position, and a class may be a side
    of it. Left-right turns a left kidney into a right one. Each other axis leaves an upside-down
    or back-to-front body, which no scan shows; a cube that is known by its content alone cannot be
    told from the other side's, turned by half a turn; and the frontal pole becomes an occipital
    one. The other five are nodules, ribs, adrenals, vessels and synapses whose position is not
    part of their class: all three axes.
    """

    def file(self, root: Path, size: int) -> Path:
        """Return where the npz of ``size``^3 volumes lies under ``root``."""
        suffix = "" if size == 28 else f"_{size}"
        # Built by prod9: the version keeps an older prod9's file from being taken for this one's.
        version = "" if self.md5 else f"_v{brain_regions.VERSION}"
        return root / f"{self.flag}{suffix}{version}.npz"

    def url(self, size: int) -> str:
        """Return where the npz of ``size``^3 volumes is published."""
        name = self.file(Path(), size).name
        return f"https://zenodo.org/records/10519652/files/{name}?download=1"


def _published(
    flag: str,
    class_names: tuple[str, ...],
    split_sizes: tuple[int, int, int],
    md5_28: str,
    md5_64: str,
    flip_axes: tuple[int, ...] = (0, 1, 2),
) -> Row:
    return Row(flag, class_names, split_sizes, {28: md5_28, 64: md5_64}, flip_axes)


_ORGANS = (
    "liver kidney-right kidney-left femur-right femur-left bladder heart lung-right lung-left "
    "spleen pancreas"
)

PUBLISHED: tuple[Row, ...] = (
    _published(
        "organmnist3d",
        tuple(_ORGANS.split()),
        (971, 161, 610),
        "a0c5a1ff56af4f155c46d46fbb45a2fe",
        "58a2205adf14a9d0a189cb06dc78bf10",
        flip_axes=(),
    ),
    _published(
        "nodulemnist3d",
        ("benign", "malignant"),
        (1158, 165, 310),
        "8755a7e9e05a4d9ce80a24c3e7a256f3",
        "c47c5b7d457bf6332200d2ea6d64ecd8",
    ),
    _published(
        "adrenalmnist3d",
        ("normal", "hyperplasia"),
        (1188, 98, 298),
        "bbd3c5a5576322bc4cdfea780653b1ce",
        "17721accfe9fb005146a47d33bc54b2f",
    ),
    _published(
        "fracturemnist3d",
        ("buckle", "nondisplaced", "displaced"),
        (1027, 103, 240),
        "6aa7b0143a6b42da40027a9dda61302f",
        "f01d7e6316aedf4210da0da5b7437b42",
    ),
    _published(
        "vesselmnist3d",
        ("vessel", "aneurysm"),
        (1335, 191, 382),
        "b41fd4f7e7e2feedddb201585ecafa1b",
        "6bb274a8846e1097066dcd64e2c4520f",
    ),
    _published(
        "synapsemnist3d",
        ("inhibitory", "excitatory"),
        (1230, 177, 352),
        "1235b78a3cd6280881dd7850a78eadb6",
        "43bd14ebf3af9d3dd072446fedc14d5e",
    ),
)
_SIZES = brain_regions.SPLIT_SIZES
EMBEDDED = Row(
    BRAIN, brain_regions.CLASS_NAMES, (_SIZES["train"], _SIZES["val"], _SIZES["test"]), {}, ()
)
TABLE: dict[str, Row] = {row.flag: row for row in (*PUBLISHED, EMBEDDED)}


def members(dataset_name: str) -> tuple[Row, ...]:
    """Return the data sets that a ``data.dataset_name`` stands for (six for ``all``)."""
    return PUBLISHED if dataset_name == "all" else (TABLE[dataset_name],)


def class_names(dataset_name: str) -> tuple[str, ...]:
    """Return the class names in label order; ``all``: 22, such as ``organmnist3d/liver``."""
    if dataset_name == "all":
        return tuple(f"{row.flag}/{name}" for row in PUBLISHED for name in row.class_names)
    return TABLE[dataset_name].class_names
