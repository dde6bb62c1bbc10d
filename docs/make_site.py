"""What the site shows beside docs/*.md: mkdocs calls this (`hooks` in mkdocs.yml; `make site`).

Three kinds of pages are made here: notebooks, the command line's help, and papers of the repository outside docs/.
Links from one page to another are followed to where the site has them; a link to a source file becomes its name.
"""

from __future__ import annotations

import argparse
import json
import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

from veilset.cli.main import GROUPS, verb_parser

ROOT = Path(__file__).parents[1]
OUTSIDE = ("CHANGELOG.md", "CONTRIBUTING.md", "benchmarks/**/*.md", "benchmarks/**/*.svg")
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def on_config(config: Any) -> Any:
    """Put the pages of benchmarks/ into the navigation: results, then logs."""
    pages = [p.relative_to(ROOT).as_posix() for p in outside() if p.suffix == ".md" and p.parent.name != "benchmarks"]
    figures = next(part["Figures"] for part in config.nav if "Figures" in part)
    figures += [uri for uri in pages if uri.startswith("benchmarks/results/")]
    figures.append({"Logs": [uri for uri in pages if uri.startswith("benchmarks/logs/")]})
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that no file of docs/ is."""
    made = {"reference/command-line.md": command_line()}
    for path in sorted((ROOT / "docs" / "tutorials").glob("*.ipynb")):
        made[f"tutorials/{path.stem}.md"] = notebook(json.loads(path.read_text()))
    for path in outside():
        made[path.relative_to(ROOT).as_posix()] = path.read_bytes()
    for name, content in made.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """A page's text with links that the site can follow."""
    return relinked(markdown, page.file.src_uri)


# ---------------------------------------------------------------------- links


def outside() -> Iterator[Path]:
    """Papers that the site shows although they lie outside docs/."""
    for pattern in OUTSIDE:
        yield from sorted(ROOT.glob(pattern))


def relinked(markdown: str, uri: str) -> str:
    """`markdown` of the page at `uri`, code blocks apart, with each link led to where the site has its target.

    Args:
        markdown: with links as they are right in the repository.
        uri: of the page on the site; of what lies outside docs/ also its path in the repository.
    """
    shown = {p.relative_to(ROOT).as_posix() for p in outside()}
    home = uri if uri in shown else f"docs/{uri}"

    def follow(match: re.Match[str]) -> str:
        image, words, target, anchor = match[1], match[2], match[3], match[4] or ""
        if re.match(r"[a-z]+:", target):  # an address, or a picture in place
            return match[0]
        real = posixpath.normpath(posixpath.join(posixpath.dirname(home), target))
        if real not in shown and not real.startswith("docs/"):
            return words  # a file of the repository
        page = re.sub(r"\.ipynb$", ".md", real.removeprefix("docs/"))
        to = posixpath.relpath(page, posixpath.dirname(uri) or ".")
        return f"{image}[{words}]({to}{anchor})"

    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.M | re.S)
    return "".join(part if i % 2 else LINK.sub(follow, part) for i, part in enumerate(parts))


# ---------------------------------------------------------------------- the command line


def command_line() -> str:
    """Every verb with its help, in the groups of `veilset --help`."""
    os.environ["COLUMNS"] = "84"  # what argparse fills
    text = [
        "# Command line",
        "What `veilset VERB --help` prints. Each verb also takes `--json`, and ends with 0 only on success.",
    ]
    for group, verbs in GROUPS.items():
        text.append(f"## {group.capitalize()}")
        for name, words in verbs.items():
            text += [f"### {name}", f"{words[0].upper()}{words[1:]}."]
            text += [f"```text\n{p.format_help().strip()}\n```" for p in parsers(verb_parser(name)[1])]
    return "\n\n".join(text) + "\n"


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A verb's parser, then those of the words that may follow it."""
    yield parser
    for action in parser._actions:  # noqa: SLF001 argparse names them nowhere else
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            yield from action.choices.values()


# ---------------------------------------------------------------------- notebooks


def notebook(book: dict[str, Any]) -> str:
    """A notebook as Markdown: text, code, and the outputs that it was committed with."""
    out: list[str] = []
    for cell in book["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            out.append(source)
            continue
        shell = source.startswith("%%bash\n")
        out.append(f"```{'bash' if shell else 'python'}\n{source.removeprefix('%%bash' + chr(10))}\n```")
        out += [shown for output in cell["outputs"] if (shown := _output(output))]
    return "\n\n".join(out) + "\n"


def _output(output: dict[str, Any]) -> str:
    data = output.get("data", {})
    if "image/png" in data:
        return f"![what the cell shows](data:image/png;base64,{''.join(data['image/png']).strip()})"
    text = "".join(output.get("text", data.get("text/plain", "")))
    return f"```text\n{COLOURS.sub('', text).rstrip()}\n```" if text.strip() else ""
