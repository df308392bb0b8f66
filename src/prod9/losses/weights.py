"""Where MedicalNet's weights are published, where they are kept, and what to do without them."""

from pathlib import Path

from prod9.errors import Prod9Error

MEDICALNET_FILE = "resnet_10_23dataset.pth"
MEDICALNET_URL = (
    f"https://huggingface.co/TencentMedicalNet/MedicalNet-Resnet10/resolve/main/{MEDICALNET_FILE}"
)
# As in the Git LFS pointer of MONAI's copy (huggingface.co/MONAI/checkpoints, commit d75b7244), and
# in MediSwarm's build script for TencentMedicalNet/MedicalNet-Resnet10; not checked by a download.
MEDICALNET_SHA256 = "afa8055f3e47f4a18239495d92a7abc587902c69c31c743de2b2784653b72605"


def medicalnet_cache_path(cache: Path) -> Path:
    """Where the weights belong inside the cache folder."""
    return cache / "medicalnet" / MEDICALNET_FILE


def find_medicalnet(weights_path: Path | None, cache: Path) -> Path | None:
    """Path of the weights: the one that was asked for, else the cached one, else None.

    Raises:
        Prod9Error: ``weights_path`` is given but is no file.
    """
    if weights_path is not None:
        path = weights_path.expanduser()
        if not path.is_file():
            raise Prod9Error(
                f"loss.perceptual.weights_path: there is no file {path}; give the path of "
                f"{MEDICALNET_FILE}, or leave the key out to use the cache."
            )
        return path
    cached = medicalnet_cache_path(cache)
    return cached if cached.is_file() else None


def missing_weights_message(path: Path, reason: str = "") -> str:
    """What to do about weights that are not at ``path`` and could not be fetched (``reason``)."""
    why = f" and could not be fetched ({reason})" if reason else ""
    return (
        f"the perceptual loss needs MedicalNet's weights, which are not at {path}{why}: run "
        "`prod9 weights fetch medicalnet` on a machine with internet access and copy the file to "
        "that path, or name a copy with loss.perceptual.weights_path=FILE, or train without them "
        "with loss.loss_type=ffl."
    )
