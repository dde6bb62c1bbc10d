"""README.md: install and picture come first, its example runs as it is printed, and so does that of the quickstart."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_first_screen_has_picture_install_and_five_commands() -> None:
    first = README.splitlines()[:20]
    text = "\n".join(first)
    assert "](docs/samples.png)" in text and "pip install ." in text
    assert [line.split()[1] for line in first if line.startswith("veilset ")] == [
        "plan", "fit", "sample", "verify", "report"
    ]  # fmt: skip
    assert len(README.split()) < 600


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_the_example_runs(page: str, tmp_path: Path, monkeypatch, capsys) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.S)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, page, "exec"), {})
    said = capsys.readouterr().out
    assert "VERIFIED: epsilon = 4 at delta = 1e-05" in said and "NOT" not in said
    assert len(list((tmp_path / "release" / "images").rglob("*.png"))) == 2000
    assert page != "README.md" or "gen2real-logreg" in said
