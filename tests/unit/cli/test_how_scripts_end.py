"""The sentence and the exit code of a console script that met a fault of the machine."""

import errno
import os

import pytest

from prod9.cli.run import guarded


def ended(error: Exception, capsys: pytest.CaptureFixture[str]) -> str:
    def app() -> None:
        raise error

    with pytest.raises(SystemExit) as left:
        guarded(app)()  # pyright: ignore[reportArgumentType]
    assert left.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    error = OSError(number, os.strerror(number), "x.pt")
    said = f"error: cannot write x.pt: {os.strerror(number)}; free some space or choose another"
    assert ended(error, capsys).startswith(said)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE, errno.EROFS])
def test_a_file_that_may_have_been_read(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    told = ended(OSError(number, os.strerror(number), "scan.nii"), capsys)
    assert told.startswith(f"error: cannot use scan.nii: {os.strerror(number)}; ")
    assert "space" not in told


def test_anything_else_is_a_bug_of_ours() -> None:
    def app() -> None:
        raise OSError(errno.EINVAL, "invalid")

    with pytest.raises(OSError, match="invalid"):
        guarded(app)()  # pyright: ignore[reportArgumentType]
