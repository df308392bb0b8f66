"""Nothing is lost or half-written when a process is killed, wherever that happens."""

from collections.abc import Generator
from pathlib import Path

import pytest
from kill_cases import Trained, commands, writers
from kill_site import DIGEST, site
from kill_trials import Case, Trials
from nursery import Kill, Nursery, Work

WRITERS = [case.name for case in writers("", "")]
QUICK = [
    "text file",
    "export",
    "split file",
    "token store",
    "token store, torn before",
    "download",
]


@pytest.fixture(scope="module")
def nursery() -> Generator[Nursery]:
    nursery = Nursery("kill_targets")
    yield nursery
    nursery.close()


@pytest.fixture(scope="module")
def patient_nursery() -> Generator[Nursery]:
    """One that has drawn phantoms."""
    nursery = Nursery("kill_targets", "kill_phantoms", "kill_runs")
    yield nursery
    nursery.close()


@pytest.fixture(scope="module")
def address() -> Generator[str]:
    with site() as url:
        yield url


def trials(name: str, nursery: Nursery, address: str, place: Path) -> Trials:
    cases = {case.name: case for case in writers(address, DIGEST)}
    return Trials(cases[name], nursery, place)


@pytest.mark.parametrize("name", QUICK)
def test_writer(name: str, nursery: Nursery, address: str, tmp_path: Path) -> None:
    trial = trials(name, nursery, address, tmp_path)
    calls = trial.every_call()
    for kill in [*calls[:: 1 + len(calls) // 8], *trial.some_bytes(3)]:
        trial.kill(kill)
    assert trial.tally.faults == []
    assert trial.tally.count >= 4


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_writer_before_every_call(
    name: str, patient_nursery: Nursery, address: str, tmp_path: Path
) -> None:
    trial = trials(name, patient_nursery, address, tmp_path)
    for kill in [*trial.every_call(), *trial.some_bytes(5), *trial.some_moments(5)]:
        trial.kill(kill)
    assert trial.tally.faults == []
    assert trial.tally.count >= 8


def toy(name: str) -> Case:
    work = Work(f"kill_targets:{name}")
    return Case(name, work, lambda folder: work)


def test_a_torn_file_is_found(nursery: Nursery, tmp_path: Path) -> None:
    trial = Trials(toy("careless"), nursery, tmp_path)
    trial.kill(Kill("byte", 1000))
    (fault,) = trial.tally.faults
    assert "metrics.txt is neither the old one nor a new one" in fault


def test_a_leftover_is_found(nursery: Nursery, tmp_path: Path) -> None:
    trial = Trials(toy("untidy"), nursery, tmp_path)
    assert [call.split()[0] for call in trial.survey.calls] == ["open", "open", "os.remove"]
    trial.kill(Kill("call", 1))
    (fault,) = trial.tally.faults
    assert "left over" in fault


def test_a_kill_that_does_not_happen_is_found(nursery: Nursery, tmp_path: Path) -> None:
    trial = Trials(toy("careless"), nursery, tmp_path)
    trial.kill(Kill("call", 1))
    assert trial.tally.count == 0
    assert "was not killed" in trial.tally.faults[0]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[Nursery, Trained]]:
    scripts = ("prod9.cli.main", "prod9.cli.autoencoder", "prod9.cli.transformer")
    nursery = Nursery("kill_targets", *scripts)
    yield nursery, Trained(nursery, tmp_path_factory.mktemp("trained") / "all")
    nursery.close()


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize("index", range(8))
def test_command(index: int, trained: tuple[Nursery, Trained], tmp_path: Path) -> None:
    nursery, folder = trained
    trial = Trials(commands(folder)[index], nursery, tmp_path)
    calls = trial.every_call()
    for kill in [*calls[:: 1 + len(calls) // 3], *trial.some_bytes(2), *trial.some_moments(2)]:
        trial.kill(kill)
    assert trial.tally.faults == []
    assert trial.tally.count >= 5
