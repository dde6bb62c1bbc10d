"""No block of six or more lines stands twice in src/; `python tests/test_duplicates.py FOLDER` lists those of a folder.

Of lines that are code: blanks, comments, docstrings and imports are left out, and indentation is forgotten. A block is
as long as it can be, and each pair of places counts once.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections import defaultdict
from itertools import combinations
from pathlib import Path

LEAST = 6
Line = tuple[int, str]  # number in the file, text


def lines_of(path: Path) -> list[Line]:
    """The lines of a file that count."""
    source = path.read_text()
    out: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        says = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        if says or isinstance(node, ast.Import | ast.ImportFrom):
            out |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and token.line.lstrip().startswith("#"):
            out.add(token.start[0])
    return [(i, s.strip()) for i, s in enumerate(source.splitlines(), 1) if s.strip() and i not in out]


def blocks(folder: Path) -> list[tuple[int, str, str]]:
    """(lines, one place, the other) of every block that stands in two places."""
    files = {p.relative_to(folder).as_posix(): lines_of(p) for p in sorted(folder.rglob("*.py"))}
    at = defaultdict[tuple[str, ...], list[tuple[str, int]]](list)
    for name, lines in files.items():
        for i in range(len(lines) - LEAST + 1):
            at[tuple(text for _, text in lines[i : i + LEAST])].append((name, i))
    pairs = {pair for places in at.values() for pair in combinations(places, 2)}
    found = []
    for (a, i), (b, j) in sorted(pairs):
        if ((a, i - 1), (b, j - 1)) in pairs or (a == b and j - i < LEAST):
            continue
        n = LEAST
        while ((a, i + n - LEAST + 1), (b, j + n - LEAST + 1)) in pairs:
            n += 1
        found.append((n, f"{a}:{files[a][i][0]}", f"{b}:{files[b][j][0]}"))
    return sorted(found, reverse=True)


def test_no_block_of_the_package_stands_twice() -> None:
    assert blocks(Path(__file__).parents[1] / "src") == []


def test_blocks_are_found_whatever_stands_around_them(tmp_path: Path) -> None:
    body = [f"a{i} = f({i})" for i in range(8)]
    (tmp_path / "one.py").write_text('"""A."""\nimport os\n\n' + "\n".join(body))
    inside = [f"    {line}\n    # why" for line in body[1:]]
    (tmp_path / "two.py").write_text("def g():\n" + "\n\n".join(inside) + "\n    return a1")
    (tmp_path / "few.py").write_text("\n".join(body[:5]))
    assert blocks(tmp_path) == [(7, "one.py:5", "two.py:2")]


if __name__ == "__main__":
    got = blocks(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parents[1] / "src")
    print(*(f"{n} lines: {a} and {b}" for n, a, b in got), f"{len(got)} blocks", sep="\n")
