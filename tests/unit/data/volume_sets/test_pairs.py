from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prod9.data.volume_sets.pairs import paired
from prod9.data.volume_sets.volume_set import ONE_CLASS, VolumeSet
from prod9.errors import Prod9Error


def collection(*names: str, files: bool = True, name: str = "real", **change: Any) -> VolumeSet:
    """Volume i is full of i / 100."""

    def read(index: int) -> np.ndarray:
        return np.full((2, 2, 2), index / 100, np.float32)

    plain = VolumeSet(
        name=name,
        names=names,
        labels=np.zeros(len(names), np.int64),
        class_names=ONE_CLASS,
        shape=(2, 2, 2),
        spacing_mm=None,
        intensity="",
        read=read,
        files=tuple(Path(f"{n}.nii") for n in names) if files else None,
    )
    return replace(plain, **change)


def recon(*names: str, **change: Any) -> VolumeSet:
    return collection(*names, name="recon", **change)


def refused(real: VolumeSet, reconstructed: VolumeSet) -> str:
    with pytest.raises(Prod9Error) as caught:
        paired(real, reconstructed)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_partners_by_name_in_the_reconstructions_order() -> None:
    real = collection("a", "b", "c", "d", "e")
    originals, result = paired(real, recon("d_recon", "a_reconstructed", "e", "b_rec"))
    assert originals.names == ("d", "a", "e", "b")
    assert result.names == ("d_recon", "a_reconstructed", "e", "b_rec")
    assert [round(100 * float(originals[i].max())) for i in range(4)] == [3, 0, 4, 1]
    assert [round(100 * float(result[i].max())) for i in range(4)] == [0, 1, 2, 3]
    assert originals.files == tuple(Path(f"{n}.nii") for n in "daeb")


def test_only_one_ending_is_taken_off() -> None:
    real = collection("a_rec", "b")
    assert paired(real, recon("a_rec_reconstructed", "b"))[0].names == ("a_rec", "b")
    assert "a_rec_rec_rec of recon has no original" in refused(real, recon("a_rec_rec_rec"))


def test_a_sub_folder_of_one_side_is_no_part_of_the_name() -> None:
    real = collection("heart/2", "liver/1")
    assert paired(real, recon("1_recon", "2"))[0].names == ("liver/1", "heart/2")
    assert paired(collection("1", "2"), recon("liver/2_rec"))[0].names == ("2",)
    # On both sides it is: the other liver is no heart.
    assert "heart/1_rec of recon has no original" in refused(real, recon("heart/1_rec"))
    twins = collection("heart/1", "liver/1")
    assert "1_rec of recon may be the reconstruction of heart/1 or liver/1" in refused(
        twins, recon("1_rec")
    )


def test_doubtful_names_are_refused() -> None:
    message = refused(collection("a", "a_rec"), recon("a_rec"))
    assert "a_rec of recon may be the reconstruction of a or a_rec in real" in message
    message = refused(collection("a"), recon("a", "a_rec"))
    assert "a and a_rec of recon are both reconstructions of a in real; remove one." in message
    message = refused(collection("a", "b"), recon("a", "x_reconstructed"))
    assert (
        "x_reconstructed of recon has no original in real (which has 2 volumes, such as a)"
        in message
    )
    assert "_reconstructed, _recon, _rec" in message


def dataset(count: int = 12, name: str = "set/test", **change: Any) -> VolumeSet:
    return collection(*(f"{name}/{i}" for i in range(count)), files=False, **change)


def test_a_data_set_is_paired_by_all_its_numbers_only() -> None:
    names = [f"{i:04d}_reconstructed" for i in range(12)]
    originals, _ = paired(dataset(), recon(*names[::-1]))
    assert originals.names == tuple(f"set/test/{i}" for i in range(11, -1, -1))
    assert paired(dataset(), recon(*(f"x/{i}" for i in range(12))))[0].names[3] == "set/test/3"
    # One more or one less: another split's, or some other numbering.
    for others in (names[1:], [*names, "0012_reconstructed"], [*names[:-1], "0000"]):
        message = refused(dataset(), recon(*others))
        assert "has no original in real (which has 12 volumes, such as set/test/0)" in message
    # Generated volumes are no reconstructions, though they have numbers.
    assert "0000_liver of recon" in refused(
        dataset(), recon(*(f"{i:04d}_liver" for i in range(12)))
    )
    several = collection("one/test/0", "two/test/1", files=False)
    assert "has no original" in refused(several, recon("0", "1"))


def test_numbers_of_files_are_names() -> None:
    assert "1 of recon has no original" in refused(collection("0001"), recon("1"))


def test_equal_names_without_files() -> None:
    volumes = dataset()
    originals, result = paired(volumes, replace(volumes, name="recon"))
    assert originals.names == result.names == volumes.names


def test_classes_are_the_originals() -> None:
    labels = np.array([0, 1, 1])
    real = collection("a", "b", "c", labels=labels, class_names=("liver", "heart"))
    originals, result = paired(real, recon("c_rec", "a_rec"))
    for part in (originals, result):
        assert part.labels.tolist() == [1, 0]
        assert part.class_names == ("liver", "heart")
    other = recon("a", "b", labels=np.array([1, 0]), class_names=("heart", "liver"))
    assert paired(real, other)[1].labels.tolist() == [0, 1]


def test_shapes_must_agree() -> None:
    message = refused(collection("a"), recon("a", shape=(2, 2, 3)))
    assert "the volumes of recon are 2 x 2 x 3, those of real 2 x 2 x 2; resample" in message
