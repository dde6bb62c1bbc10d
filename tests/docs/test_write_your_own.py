"""The example of docs/write-your-own.md runs end to end as it is printed, and as an installed plug-in."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import veilset as vs
from veilset.cli.main import main
from veilset.core.errors import ConfigError
from veilset.testing import check_synthesizer

PAGE = Path(__file__).parents[2] / "docs" / "write-your-own.md"
SOURCE = Path(__file__).parents[2] / "src"
torch.set_num_threads(1)


def block(language: str, holds: str) -> str:
    """The page's one code block of a language that holds a text."""
    found = [b for b in re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.S) if holds in b]
    assert len(found) == 1
    return found[0]


def install(folder: Path, lines: str) -> Path:
    """What pip leaves of a package: its modules and a dist-info with entry points."""
    info = folder / "portraits-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: portraits\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[veilset.methods]\n{lines}\n")
    (folder / "portraits.py").write_text(block("python", "class Portraits"))
    (folder / "broken.py").write_text("import a_module_that_is_not_there\n")
    (folder / "other.py").write_text("class Portraits:\n    pass\n")
    return folder


@pytest.fixture
def plug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Install entry points into a folder on sys.path; modules are forgotten afterwards."""
    for name in ("portraits", "broken", "other"):
        monkeypatch.delitem(sys.modules, name, raising=False)

    def add(lines: str) -> None:
        monkeypatch.syspath_prepend(str(install(tmp_path / "site", lines)))

    yield add
    for name in ("portraits", "broken", "other"):
        sys.modules.pop(name, None)


def declared() -> str:
    """The entry point as the page prints it, in the form that an installed package has it (no quotes)."""
    return block("toml", "entry-points").splitlines()[1].replace('"', "")


def test_the_example_is_about_forty_lines() -> None:
    assert 30 <= len(block("python", "class Portraits").splitlines()) <= 50


def test_the_example_runs_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plug) -> None:
    plug(declared())
    monkeypatch.chdir(tmp_path)
    import portraits

    names = {"vs": vs, "Portraits": portraits.Portraits}
    exec(compile(block("text", "model.fit"), str(PAGE), "exec"), names)
    for folder in ("release", "runs/portraits"):
        checked = vs.verify(tmp_path / folder)
        assert checked.ok and checked.release, str(checked)
        assert checked.epsilon == pytest.approx(3.0, rel=1e-6) and checked.epsilon <= 3.0
    again = vs.open_model("runs/portraits")
    assert torch.equal(again.sample(20, seed=1).x, names["model"].sample(20, seed=1).x)


def test_the_example_learns_something(plug) -> None:
    plug(declared())
    data = vs.load("digits")
    model = vs.make("portraits", spread=0.5).fit(data.train, vs.Privacy(3.0), seed=0)
    images = model.sample(200, seed=0)
    assert torch.bincount(images.y).tolist() == [20] * 10
    means = torch.stack([images.x[images.y == k].float().mean(0).flatten() for k in range(10)])
    nearest = torch.cdist(data.test.x.float().flatten(1), means).argmin(1)
    assert (nearest == data.test.y).float().mean() > 0.7


def test_the_example_is_a_method_of_the_command_line(tmp_path: Path) -> None:
    site = install(tmp_path / "site", declared())
    path = os.pathsep.join([str(site), str(SOURCE)])
    command = next(line for line in block("sh", "veilset fit").splitlines() if line.startswith("veilset fit"))
    run = [sys.executable, "-m", "veilset.cli.main", *command.split()[1:]]
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(run, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert vs.verify(tmp_path / "runs" / "portraits").ok


def test_a_good_plug_in_is_listed_and_passes_the_check(plug, capsys: pytest.CaptureFixture[str]) -> None:
    plug(declared())
    assert "portraits" in vs.methods()
    assert main(["methods", "--check"]) == 0
    assert "portraits      plug-in portraits:Portraits" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("bad = broken:Method", "ModuleNotFoundError"),
        ("bad = portraits:NoSuchName", "AttributeError"),
        ("bad = other:Portraits", "not a veilset.Synthesizer"),
    ],
)
def test_a_broken_plug_in_is_loud(plug, capsys: pytest.CaptureFixture[str], lines: str, reason: str) -> None:
    plug(lines)
    assert vs.methods()["bad"].startswith("plug-in")  # listing names loads nothing
    with pytest.raises(ConfigError, match=f"plug-in 'bad' .*{reason}"):
        vs.make("bad")
    assert main(["plan", "bad", "--data", "digits", "--epsilon", "1"]) != 0
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and reason in error
    assert main(["methods", "--check"]) != 0
    assert f"bad            plug-in 'bad' ({lines[6:]})" in capsys.readouterr().out


def test_an_entry_point_of_another_name_than_its_class_is_refused(plug) -> None:
    plug("other-name = portraits:Portraits")  # a model of it could be fitted, but not opened again
    with pytest.raises(ConfigError, match="portraits"):
        vs.make("other-name")


def test_a_broken_plug_in_does_not_disturb_the_others(plug) -> None:
    plug(f"bad = broken:Method\n{declared()}")
    assert vs.make("portraits").name == "portraits"


def composed(name: str) -> vs.Synthesizer:
    """A method of two stages, as it is printed."""
    source = block("python", f"class {name}")
    assert len(source.splitlines()) <= 40
    space: dict[str, Any] = {"__name__": name.lower()}
    exec(compile(source, f"{name.lower()}.py", "exec"), space)
    return space[name]()


def test_the_composed_method_fits_draws_and_names_its_releases() -> None:
    data, model = vs.load("digits"), composed("Checked")
    plan = model.plan(data.info, vs.Privacy(4.0, 1e-4))
    assert [r.name for r in plan.releases] == ["images-mean", "images-within", "teacher-linear"]
    assert 3.9 < plan.claim().epsilon <= 4
    images = model.fit(data.train, vs.Privacy(4.0, 1e-4), seed=0).sample(200, seed=1)
    shown = vs.evaluate(images, against=data.test, metrics=["gen2real-logreg"], seeds=1)
    assert next(iter(shown)).value > 60


def test_stages_of_ones_own_fit_and_keep_to_the_properties() -> None:
    data, model = vs.load("digits"), composed("Widened")
    plan = model.plan(data.info, vs.Privacy(4.0, 1e-4))
    assert {r.name: round(share, 3) for r, (share, _) in zip(plan.releases, plan.shares(), strict=True)} == {
        "mean-pixels": 0.9,
        "distance-distances": 0.1,
    }
    images = model.fit(data.train, vs.Privacy(4.0, 1e-4), seed=0).sample(200, seed=1)
    shown = vs.evaluate(images, against=data.test, metrics=["gen2real-logreg"], seeds=1)
    assert next(iter(shown)).value > 60
    check_synthesizer(type(model))


def test_every_name_of_the_package_that_the_page_uses_is_there() -> None:
    import importlib

    for path in set(re.findall(r"veilset(?:\.\w+)+", PAGE.read_text())):
        module, name = path, ""
        while True:
            try:
                found = importlib.import_module(module)
                break
            except ModuleNotFoundError:
                module, _, name = module.rpartition(".")
        assert not name or hasattr(found, name), path
