"""What the repository says of speed is what its result files say."""

import json
import re
from pathlib import Path

import pytest

from benchmarks import medmnist3d
from benchmarks.results import RESULTS, read_all
from benchmarks.tables import tables

AVX2 = RESULTS / "avx2"
_ABSOLUTE_PATH = re.compile(r'(?<![\w.])/\w+/[^\s"]*')


@pytest.mark.parametrize("folder", [RESULTS, AVX2], ids=["native", "avx2"])
def test_tables_are_of_the_committed_results(folder: Path) -> None:
    found = read_all(folder)
    assert found
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert page == tables(found), "run: make pages"


@pytest.mark.parametrize("folder", [RESULTS, AVX2], ids=["native", "avx2"])
def test_results_count_and_name_no_place(folder: Path) -> None:
    for name, result in read_all(folder).items():
        assert result.counts, f"{name} was measured on a busy machine, or quickly"
        assert result.machine, name
        assert {"torch", "python", "prod9"} <= set(result.versions), name
        text = (folder / f"{name}.json").read_text(encoding="utf-8")
        assert not _ABSOLUTE_PATH.findall(text), name
        assert result.goal is None or result.met is not None, name


def test_avx2_results_are_of_avx2() -> None:
    capabilities = {str(result.machine) for result in read_all(AVX2).values()}
    assert all("AVX2" in text for text in capabilities), capabilities


def test_the_page_of_published_data_is_of_the_committed_result() -> None:
    text = medmnist3d.RESULT.read_text(encoding="utf-8")
    assert not _ABSOLUTE_PATH.findall(text)
    page = (RESULTS.parents[1] / "docs" / "results.md").read_text(encoding="utf-8")
    for table in medmnist3d.tables(json.loads(text)["rows"]):
        assert table in page, "run: python -m benchmarks.medmnist3d --tables"
