"""The site is built strictly, says where a link is broken, and takes nothing from elsewhere."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sphinx", reason="Sphinx is not installed: pip install 'prod9[docs]'")

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
pytestmark = [pytest.mark.slow, pytest.mark.ci]


def build(docs: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Build as ``make docs`` does."""
    (options,) = re.findall(r"sphinx-build (.*) docs outputs/site", (ROOT / "Makefile").read_text())
    command = [sys.executable, "-m", "sphinx", *options.split(), docs, site]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(DOCS, folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_there_and_can_be_reached(site: Path) -> None:
    contents = (site / "index.html").read_text()
    for page in DOCS.rglob("*.md"):
        name = page.relative_to(DOCS).with_suffix(".html")
        assert (site / name).is_file()
        assert name.as_posix() == "index.html" or f'href="{name.as_posix()}"' in contents


def test_nothing_comes_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        for tag in re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*>", page.read_text()):
            assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", tag), f"{page}: {tag}"
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", style.read_text()), style


def test_the_search_knows_the_pages(site: Path) -> None:
    index = (site / "searchindex.js").read_text()
    assert '"evaluation"' in index
    assert '"frechet"' in index.lower()


@pytest.mark.parametrize(
    "broken", ["[x](nowhere.md)", "[x](start.md#nowhere)", "![x](images/nowhere.png)"]
)
def test_a_broken_link_is_an_error(broken: str, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    shutil.copy(DOCS / "conf.py", docs)
    shutil.copytree(DOCS / "_static", docs / "_static")
    start = "# Start\n"
    (docs / "start.md").write_text(start)
    (docs / "index.md").write_text("# Home\n\n```{toctree}\nstart\n```\n")
    assert build(docs, tmp_path / "whole").returncode == 0
    (docs / "start.md").write_text(f"{start}\n{broken}\n")
    done = build(docs, tmp_path / "site")
    assert done.returncode != 0
    assert "nowhere" in done.stderr
    assert "start.md" in done.stderr
