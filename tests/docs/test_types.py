"""What a type checker sees: the example of README.md is clean, options of methods are known, stubs are current."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# mypy's --strict, spelt out for one file, so that what mypy remembers of the package serves here as well.
STRICT = """# mypy: disallow-untyped-defs, disallow-incomplete-defs, disallow-untyped-calls, disallow-untyped-decorators
# mypy: disallow-any-generics, disallow-subclassing-any, check-untyped-defs, warn-return-any, warn-unused-ignores
# mypy: no-implicit-reexport, strict-equality, extra-checks
"""


def checked(folder: Path, text: str) -> str:
    """What mypy says about a user's file."""
    file = folder / "user_file.py"
    file.write_text(STRICT + text)
    mypy = [sys.executable, "-m", "mypy", "--no-error-summary", "--hide-error-context", str(file)]
    return subprocess.run(mypy, cwd=ROOT, capture_output=True, text=True).stdout.replace(f"{folder}/", "")


def test_the_example_of_the_readme_is_clean(tmp_path: Path) -> None:
    example = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert len(example) == 1 and checked(tmp_path, example[0]) == ""


def test_options_of_methods_are_known(tmp_path: Path) -> None:
    text = """import veilset as vs

vs.synthesizers.DPMoments(basis_size=20)
vs.synthesizers.DPMERF(loss="unbiased", lr=None)
vs.teachers.DPScatter(steps=1).get_params()
data = vs.load("digits")
model: vs.synthesizers.DPMoments = vs.synthesizers.DPMoments().fit(data.train, vs.Privacy(1.0)).set_params(size=3)
vs.recommend(data.info, 1.0, goal="accuracy").method
vs.methods()["dp-merf"].upper()
vs.selftest().ok
"""
    assert checked(tmp_path, text) == ""
    wrong = {
        "vs.synthesizers.DPMoments(sise=20)": 'Unexpected keyword argument "sise"',
        'vs.synthesizers.DPMoments(basis_size="20")': "incompatible type",
        'vs.synthesizers.DPMERF(loss="unbiasd")': "incompatible type",
        "vs.synthesizers.DPMoments(20)": "Too many positional arguments",
        "vs.synthesizers.DPNonsense()": 'no attribute "DPNonsense"',
        "vs.teachers.DPScatter(step=1)": 'Unexpected keyword argument "step"',
        "vs.recommend(data.info)": 'Missing positional argument "epsilon"',
        'vs.audit("gate")': "Missing positional arguments",
    }
    said = checked(tmp_path, "\n".join(['import veilset as vs\n\ndata = vs.load("digits")', *wrong]))
    first, lines = len((STRICT + "\n\n\n").splitlines()) + 1, said.splitlines()
    for at, word in enumerate(wrong.values(), start=first):
        assert any(line.startswith(f"user_file.py:{at}: error: ") and word in line for line in lines), (word, said)


@pytest.mark.parametrize("name", ["synthesizers", "teachers"])
def test_committed_stubs_are_current(name: str) -> None:
    spec = spec_from_file_location("make_stubs", ROOT / "docs" / "make_stubs.py")
    assert spec and spec.loader
    script = module_from_spec(spec)
    spec.loader.exec_module(script)
    text = (script.FOLDER / f"{name}.pyi").read_text()
    assert text == script.stub(script.STUBS[name]), "out of date; run: python docs/make_stubs.py"
    compile(text, f"{name}.pyi", "exec")


def test_stubs_are_installed() -> None:
    assert '"py.typed", "*.pyi"' in (ROOT / "pyproject.toml").read_text()
