"""Write the list of files that the claim rests on into architecture.md: python docs/make_trust.py

Those are `privacy/`, whole, and what it imports of the rest of the package, and what that imports in turn. A file that
only asks for privacy (a method, a verb) is not among them: the gate does not trust it. What is compiled is counted too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src" / "veilset"
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- the trust path: python docs/make_trust.py -->\n", "<!-- end of the trust path -->\n"


def trusted() -> list[Path]:
    """Files of the trust path, by name."""
    found: set[Path] = set()
    open_ = list((SOURCES / "privacy").rglob("*.py"))
    while open_:
        path = open_.pop()
        if path not in found:
            found.add(path)
            open_ += imported(path)
    found |= {*(SOURCES / "privacy").rglob("*.cpp")}
    return sorted(p for p in found if code_lines(p))


def imported(path: Path) -> Iterator[Path]:
    """Files of the package that a file imports, wherever in it, but for types alone."""
    tree = ast.parse(path.read_text())
    typed = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    apart = {id(inner) for outer in typed for inner in ast.walk(outer)}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("veilset") and id(node) not in apart:
            place = SOURCES.parent.joinpath(*(node.module or "").split("."))
            for one in [place, *(place / a.name for a in node.names)]:
                yield from (p for p in (one.with_suffix(".py"), one / "__init__.py") if p.exists())


def code_lines(path: Path) -> int:
    """Lines that hold code: no blank lines, comments or docstrings."""
    text = path.read_text()
    if path.suffix == ".cpp":
        return sum(1 for row in text.splitlines() if row.strip() and not row.strip().startswith("//"))
    spans = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)]
    prose = {line for n in spans if isinstance(n.value.value, str) for line in range(n.lineno, (n.end_lineno or 0) + 1)}
    rows = enumerate(text.splitlines(), start=1)
    return sum(1 for i, row in rows if row.strip() and not row.strip().startswith("#") and i not in prose)


def text() -> str:
    """The page with the list as it is."""
    rows, files = [], trusted()
    for folder in dict.fromkeys(p.parent for p in files):
        here = [p for p in files if p.parent == folder]
        names = ", ".join(f"`{p.stem if p.suffix == '.py' else p.name}` {code_lines(p)}" for p in here)
        name = folder.relative_to(SOURCES.parent).as_posix()
        rows.append(f"| `{name}/` | {sum(map(code_lines, here))} | {names} |")
    total = sum(map(code_lines, files))
    head = f"{len(files)} files with {total} lines of code, blank lines, comments and docstrings apart:\n\n"
    table = "\n".join(["| folder | lines | files |", "|---|---|---|", *rows]) + "\n"
    page = PAGE.read_text()
    before, after = page[: page.index(BEGIN) + len(BEGIN)], page[page.index(END) :]
    return before + head + table + after


if __name__ == "__main__":
    PAGE.write_text(text())
