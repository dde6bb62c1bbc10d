"""Write docs/methods/NAME.md for every built-in method and teacher from its docstrings: python docs/make_methods.py"""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from textwrap import dedent

from veilset.core.config import fields
from veilset.methods.catalogue import BUILT_IN, TEACHERS, method_class, teacher_class
from veilset.methods.parameters import HEADING

FOLDER = Path(__file__).parent / "methods"


def present() -> list[str]:
    """The built-in methods and teachers whose module is there."""
    return [name for name, entry in (BUILT_IN | TEACHERS).items() if find_spec(entry.module)]


def page(name: str) -> str:
    """One method's page: summary, docstring of its module, docstring of its class, table of parameters."""
    taught = name in TEACHERS
    entry, cls = (BUILT_IN | TEACHERS)[name], teacher_class(name) if taught else method_class(name)
    own = inspect.cleandoc(cls.__doc__ or "").split(f"\n\n{HEADING}")[0]  # the page has a table instead
    texts = [inspect.getdoc(import_module(entry.module)), own]
    body = [_markdown(text) for text in dict.fromkeys(texts) if text]
    source = f"[`{entry.module}`](../../src/{entry.module.replace('.', '/')}.py)"
    head = f"# {name}\n\n{entry.summary[:1].upper()}{entry.summary[1:]}. Source: {source}."
    given = " --public glyphs" if cls.public_data == "needed" else ""
    use = f"```sh\nveilset fit {name} --data digits --epsilon 1{given} --out runs/{name}\n```"
    if taught:
        call = f'teacher = vs.make_teacher("{name}").fit(data.train, vs.Privacy(epsilon=1.0))'
        asked = "labels = teacher.predict(data.test.x)\nprobabilities = teacher.predict_proba(data.test.x)"
        use = f'```python\ndata = vs.load("digits")\n{call}\n{asked}\n```'
    made = "<!-- Made from docstrings by docs/make_methods.py; do not edit. -->"
    recipes = [f"Recipe `{k}`: " + ", ".join(f"`{a}={b}`" for a, b in v.items()) for k, v in cls.recipes.items()]
    return "\n\n".join([head, *body, use, "## Parameters", _table(cls.Config), *recipes, made]) + "\n"


def _markdown(text: str) -> str:
    """A docstring as Markdown: runs of indented lines become lists where each item has a mark or a word in front."""
    out: list[str] = []
    for indented, run in groupby(text.splitlines(), key=lambda line: line.startswith("  ")):
        lines = list(run)
        out += ["", *_listed(dedent("\n".join(lines)).splitlines()), ""] if indented else lines
    return re.sub(r"\n{3,}", "\n\n", "\n".join(out)).strip()


def _listed(lines: list[str]) -> list[str]:
    out = []
    for line in lines:
        if line.startswith("* "):
            out.append(f"- {line[2:]}")
        elif line.startswith(" ") and out:
            out.append(f"  {line.strip()}")
        elif part := re.fullmatch(r"(\S.*?) {2,}(\S.*)", line):
            out.append(f"- `{part[1]}`: {part[2]}")
        else:
            return ["```text", *lines, "```"]
    return out


def _table(config: type) -> str:
    rows = ["| parameter | default | values | meaning |", "|---|---|---|---|"]
    for f in fields(config):
        default = "derived" if f.default is None else f"`{f.default}`"
        values = ", ".join(v for v in (f.type.__name__, f.range.replace(" | ", ", ")) if v)
        rows.append(f"| `--{f.name.replace('_', '-')}` | {default} | {values} | {f.doc.replace('|', chr(92) + '|')} |")
    return "\n".join(rows) if len(rows) > 2 else "None."


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for method in present():
        (FOLDER / f"{method}.md").write_text(page(method))
        print(f"docs/methods/{method}.md")
