"""The site: built without a warning, readable without a network, and all that the repository says is in it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from base64 import b64decode
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from io import BytesIO
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from veilset.cli.main import VERBS

ROOT = Path(__file__).parents[2]
# What a page loads by itself, as it stands in HTML; a link that a reader may follow is none of it.
LOADED = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*?\bsrc=[\"']?([^\"' >]+)|<link\b[^>]*?\bhref=[\"']?([^\"' >]+)"
)
FROM_A_NETWORK = re.compile(r"^(?:https?:)?//")

needs_mkdocs = pytest.mark.skipif(not all(map(find_spec, ("mkdocs", "material", "mkdocstrings"))), reason="[docs]")


def script(name: str) -> ModuleType:
    spec = spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stderr
    return folder


@needs_mkdocs
def test_nothing_is_loaded_from_a_network(site: Path) -> None:
    assert LOADED.findall('<script async src="https://a/b.js"><link rel=x href=//c>') == [
        ("https://a/b.js", ""),
        ("", "//c"),
    ]
    pages, loaded = sorted(site.rglob("*.html")), set()
    for page in pages:
        loaded |= {(page.name, a or b) for a, b in LOADED.findall(page.read_text())}
    assert len(pages) > 50 and len(loaded) > 100
    assert not [(page, url) for page, url in loaded if FROM_A_NETWORK.match(url)]
    for sheet in site.rglob("*.css"):
        assert not re.search(r"@import|url\([\"']?(https?:)?//", sheet.read_text()), sheet


@needs_mkdocs
def test_every_page_that_a_page_loads_or_links_is_there(site: Path) -> None:
    for page in site.rglob("*.html"):
        if page.name == "404.html":  # its links are those of a server's root
            continue
        for target in re.findall(r"\b(?:href|src)=[\"']?([^\"' >#?]+)", page.read_text()):
            if not re.match(r"[a-z]+:|//", target):
                assert (page.parent / target).exists(), (page.name, target)


@needs_mkdocs
def test_pages_are_whole(site: Path) -> None:
    assert "check_synthesizer" in (site / "reference" / "python.html").read_text()
    command_line = (site / "reference" / "command-line.html").read_text()
    assert all(f"usage: veilset {verb}" in command_line for verb in VERBS)
    assert "--noise-multiplier" in command_line  # of a word behind a verb, too
    for name, pictures in {"hospital": 1, "comparing": 2, "auditing": 0}.items():
        text = (site / "tutorials" / f"{name}.html").read_text()
        found = re.findall(r'src="data:image/png;base64,([^"]*)"', text)
        assert len(found) == pictures
        for picture in found:
            Image.open(BytesIO(b64decode(picture, validate=True))).load()
        assert ">VERIFIED: " in text.replace("\n", ">") or name == "comparing"
    assert not list(site.rglob("*.py")) and not list(site.rglob("*.ipynb"))


@needs_mkdocs
def test_links_lead_to_where_the_site_has_them() -> None:
    relinked = script("make_site").relinked
    assert (
        relinked("[a](../benchmarks/results/README.md#audit)", "audit.md") == "[a](benchmarks/results/README.md#audit)"
    )
    assert relinked("[a](../docs/continual.md)", "benchmarks/README.md") == "[a](../continual.md)"
    assert relinked("[`m`](../../src/veilset/runs.py)", "methods/dp-gan.md") == "`m`"
    assert relinked("![p](accuracy.svg)", "benchmarks/README.md") == "![p](accuracy.svg)"
    assert relinked("[t](tutorials/auditing.ipynb)", "faq.md") == "[t](tutorials/auditing.md)"
    assert relinked("[x](https://a.b/c)", "faq.md") == "[x](https://a.b/c)"
    assert relinked("```\n[a](../src/x.py)\n```\n", "faq.md") == "```\n[a](../src/x.py)\n```\n"


def test_every_page_is_in_the_navigation() -> None:
    named = set(re.findall(r"^ +- (?:\w+: )?(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M))
    pages = {p.relative_to(ROOT / "docs").as_posix() for p in (ROOT / "docs").rglob("*.md")}
    pages |= {f"tutorials/{p.stem}.md" for p in (ROOT / "docs" / "tutorials").glob("*.ipynb")}
    assert pages <= named
    assert named - pages == {"reference/command-line.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md"}


def test_lists_and_tables_are_such_for_the_site_too() -> None:
    """Its Markdown wants a blank line before a table, and four spaces where an item of a list goes on after one."""
    pages = [p for folder in ("docs", "benchmarks") for p in (ROOT / folder).rglob("*.md")]
    for page in pages:
        text = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(), flags=re.M | re.S)
        for before, line in zip(text.splitlines(), text.splitlines()[1:], strict=False):
            assert not (line.startswith("|") and before.strip() and before[0] != "|"), (page.name, line)
            assert before.strip() or not re.match(r" {1,3}\S", line), (page.name, line)


def test_every_public_name_is_in_the_reference() -> None:
    import veilset

    text = (ROOT / "docs" / "reference" / "python.md").read_text()
    missing = [n for n in veilset.__all__ if not re.search(rf"[.:`]{n}\b", text)]
    assert not missing


def test_the_plot_of_the_benchmarks_is_current() -> None:
    plot = script("make_plot")
    assert plot.PLOT.read_text() == plot.text(), "out of date; run: python docs/make_plot.py"


def test_there_are_questions_with_short_answers_and_links() -> None:
    answers = re.split(r"^### .+\?$", (ROOT / "docs" / "faq.md").read_text(), flags=re.M)[1:]
    assert len(answers) >= 15
    for answer in answers:
        answer = answer.split("\n## ")[0]
        assert "](" in answer and 2 <= len(re.findall(r"[.?!](?=\s|$|\))", answer)) <= 5, answer


# ---------------------------------------------------------------------- notebooks


def test_committed_notebooks_are_small_and_were_run() -> None:
    books = script("make_notebooks")
    paths = books.tutorials()
    assert [p.stem for p in paths] == ["auditing", "comparing", "hospital"]
    for path in paths:
        assert path.stat().st_size < books.MOST_BYTES
        code = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
        assert [c["execution_count"] for c in code] == list(range(1, len(code) + 1))
        assert not [o for c in code for o in c["outputs"] if o["output_type"] == "error"]
        assert not re.search(r"/tmp/|/home/", path.read_text())


@pytest.mark.long
@pytest.mark.parametrize("name", ["auditing", "comparing", "hospital"])
def test_a_tutorial_runs(name: str) -> None:
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    book = script("make_notebooks").execute(ROOT / "docs" / "tutorials" / f"{name}.ipynb")
    assert all(c.execution_count for c in book.cells if c.cell_type == "code")
