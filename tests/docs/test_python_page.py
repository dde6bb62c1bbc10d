"""The example of docs/python.md runs as it is printed, and its table is true."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

from test_house import CALLED

PAGE = (Path(__file__).parents[2] / "docs" / "python.md").read_text()


def test_the_example_runs(tmp_path: Path, monkeypatch, capsys) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(example, "docs/python.md", "exec"), names)
    said = capsys.readouterr().out
    assert (
        "{'basis_size': 20, 'n_components': None, 'rounds': 2, 'mc_samples': 1000, 'pooled': False}" in said
        and "VERIFIED" in said
    )
    assert len(names["pictures"]) == 500 and names["x"].shape == (1, 8, 8) and names["larger"].config.basis_size == 36
    assert names["advice"].method in said


def test_the_table_is_of_all_modules_that_can_be_called() -> None:
    rows = dict(re.findall(r"^\| `vs\.(\w+)\(.*?\)` \| `([\w.]+)` \|", PAGE, re.M))
    assert rows == {name: ".".join(home) for name, home in CALLED.items()}
    for names in re.findall(r"`veilset\.([\w.]+)\.(\w+)`", PAGE):
        assert hasattr(import_module(f"veilset.{names[0]}"), names[1])
