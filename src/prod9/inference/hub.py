"""Model folders on the Hugging Face Hub; the network is used here, and only when asked for."""

import re
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prod9.errors import Prod9Error
from prod9.inference.model_folder import FILES
from prod9.runtime.console import say

_NAME = re.compile(r"[\w][\w.-]*/[\w][\w.-]*", re.ASCII)
_FILE_ENDS = (".pt", ".ckpt", ".yaml", ".yml")


def is_hub_name(path: object) -> bool:
    """Whether ``path`` is text like ``user/name``, and nothing is there under that path."""
    return (
        isinstance(path, str)
        and _NAME.fullmatch(path) is not None
        and not path.endswith(_FILE_ENDS)
        and not Path(path).exists()
    )


def fetch(name: str, revision: str | None, *, download: bool = True) -> Path:
    """Return a local copy of a model folder, from the hub or from the hub's cache.

    Args:
        name: ``user/name``.
        revision: commit, tag or branch; the newest commit of the main branch when left out. The
            commit that was taken is said on stderr.
        download: False for what is in the cache alone.

    Raises:
        Prod9Error: huggingface_hub is not installed; there is no such model; no network.
    """
    hub = _library()
    where = f"{name} (revision {revision})" if revision else name
    if download:
        say(f"fetching {where} from the Hugging Face Hub")
    remedy = (
        "check name, revision, login and network, or pass the path of a folder that is there"
        if download
        else "allow the download (download=True), or pass the path of a folder that is there"
    )
    with _errors(f"cannot load {where}: it is no path here, and the Hugging Face Hub", remedy):
        found = hub.snapshot_download(
            name,
            revision=revision,
            allow_patterns=[*FILES],  # never code
            local_files_only=not download,
        )
    folder = Path(found)
    if revision != folder.name:
        say(f"{name} is at commit {folder.name}; load the same with revision={folder.name!r}")
    return folder


def push(save: Callable[[Path], None], name: str, *, private: bool, message: str) -> str:
    """Upload the model folder that ``save`` writes; return the commit.

    Raises:
        Prod9Error: huggingface_hub is not installed; no login; no network.
    """
    api: Any = _library().HfApi()
    with tempfile.TemporaryDirectory() as temporary:
        save(Path(temporary))
        remedy = "check name, login (`hf auth login`) and network"
        with _errors(f"cannot upload to {name}: the Hugging Face Hub", remedy):
            api.create_repo(name, private=private, exist_ok=True)
            done = api.upload_folder(
                repo_id=name,
                folder_path=temporary,
                allow_patterns=[*FILES],
                delete_patterns=[*FILES],  # of an earlier upload, such as a report
                commit_message=message,
            )
    return str(done.oid)


def _library() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise Prod9Error(
            "models on the Hugging Face Hub need the package huggingface_hub; install it with "
            "`pip install 'prod9[hub]'`, or pass the path of a folder that is there."
        ) from error
    return huggingface_hub


@contextmanager
def _errors(what: str, remedy: str) -> Generator[None]:
    try:
        yield
    except Exception as error:  # the library and its HTTP client raise many types
        raise Prod9Error(f"{what} did not serve it ({type(error).__name__}); {remedy}.") from error
