"""A method that takes milliseconds, a finished run of it, and how to call the command line in this process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import veilset as vs
from veilset.cli.main import main
from veilset.methods import catalogue

torch.set_num_threads(1)


@dataclass(frozen=True)
class Config:
    spread: float = vs.option(0.1, "noise on sampled pixels", ge=0, le=1)
    bound: int = vs.option(4, "L2 bound", ge=1)
    shape: str = vs.option("flat", "shape of the noise", choices=("flat", "normal"))


class Tiny(vs.Synthesizer):
    """Class means."""

    name = "tiny"
    Config = Config

    def _plan(self, info: Any, privacy: Any) -> Any:
        return vs.Plan((vs.Release(name="mean", bound=float(self.config.bound)),), seconds=0.1, memory_mb=200.0)

    def _fit(self, gate: Any, info: Any, plan: Any) -> Any:
        total = gate.sum("mean", lambda x, y: x - 0.5, by_class=True)
        return {"mean": (total / (info.units / len(info.classes)) + 0.5).float()}

    def _sample(self, state: Any, info: Any, labels: torch.Tensor) -> torch.Tensor:
        return state["mean"][labels] + self.config.spread * torch.rand(len(labels), *info.shape)


@contextmanager
def registered() -> Iterator[None]:
    """With the tiny method as if it were built in. Tests of other folders see the catalogue as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(catalogue.BUILT_IN, "tiny", catalogue.Entry(__name__, "Tiny", "class means, for tests"))
        patch.setattr(catalogue, "import_module", _find(catalogue.import_module))
        yield


@pytest.fixture(autouse=True)
def tiny() -> Iterator[type[Tiny]]:
    """The tiny method, registered for one test."""
    with registered():
        yield Tiny


def _find(real: Callable[[str], Any]) -> Callable[[str], Any]:
    class Here:
        pass

    Here.Tiny = Tiny  # type: ignore[attr-defined]
    return lambda name: Here if name == __name__ else real(name)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with run/ (release mode), research/ (a seed), public/ (epsilon inf) and out/ (sampled from run)."""
    top = tmp_path_factory.mktemp("made")
    fit = ["fit", "tiny", "--data", "digits", "--json"]
    with registered():
        assert main([*fit, "--epsilon", "2", "--out", str(top / "run")]) == 0
        assert main([*fit, "--epsilon", "2", "--out", str(top / "research"), "--seed", "1"]) == 0
        assert main([*fit, "--epsilon", "inf", "--out", str(top / "public")]) == 0
        assert main(["sample", str(top / "run"), "-n", "300", "--out", str(top / "out"), "--json"]) == 0
    return top


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A private copy of one of the made folders, to be damaged."""
    return lambda name: Path(shutil.copytree(made / name, tmp_path / name))


class Outcome:
    """What one command printed, and its exit status."""

    def __init__(self, status: int, out: str, err: str):
        self.status, self.out, self.err = status, out, err

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on stdout."""
        assert len(self.out.splitlines()) == 1, self.out
        value = json.loads(self.out, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
        assert isinstance(value, dict)
        return value

    def refused(self, *words: str) -> None:
        """One line on stderr with these words, nothing on stdout, a non-zero status."""
        assert self.status != 0
        assert self.out == ""
        assert len(self.err.splitlines()) == 1, self.err
        assert self.err.startswith("veilset: ") and "Traceback" not in self.err
        for word in words:
            assert word in self.err, self.err


@pytest.fixture
def veilset(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run a command in this process."""

    def run(*argv: object) -> Outcome:
        capsys.readouterr()
        try:
            status = main([str(a) for a in argv])
        except SystemExit as e:  # argparse leaves this way for --help and --version
            status = int(e.code or 0)
        return Outcome(status, *capsys.readouterr())

    return run
