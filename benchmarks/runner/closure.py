"""What a function rests on, read from the code without running it: part of the code -> hash of its text.

* Of the suites and their runner: the function and what it names, followed from name to name. Tables and words stand
  in the same files, and change no figure.
* Of veilset: every whole module that these import, that those import, and so on, wherever the import stands, with the
  packages around them.
* What is loaded by name: methods that strings in the suites' code or the cell's parameters name, and the modules of
  a package that `import_module(f"package.{name}")` can mean.
`veilset/__init__.py` and the list of methods only say where things lie: these are followed, and the lists do not count.

Of a text counts what Python runs: comments, docstrings and blank lines are cut out where they stand, so a better
comment makes no figure old. (A syntax tree would forgive a new line break too, but differs between versions of Python.)
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from veilset.core.io import sha256
from veilset.methods.catalogue import registry

Manifest = dict[str, str]  # module, or module:name -> hash of its text
Place = tuple[str, str]  # module, name in it; the name is empty for the whole module
PACKAGE, CATALOGUE = "veilset", "veilset.methods.catalogue"


def short(data: bytes) -> str:
    """Enough of a SHA-256 to tell texts apart; it protects against nobody."""
    return sha256(data)[:16]


def closure(module: str, name: str, params: Mapping[str, Any]) -> Manifest:
    """All that a function rests on when it is called with these parameters.

    Args:
        module, name: of the function. What lies in its top package is followed by name, all else by module.
        params: JSON values; those that name a method add its module.
    """
    methods = {name: entry.module for name, entry in registry().items()}
    own, named = module.partition(".")[0], _loaded(_texts(params), methods)
    tops = {own, PACKAGE, *(home.partition(".")[0] for home, _ in named)}
    out: Manifest = {}
    todo: list[Place] = [(module, name), *named]
    seen = set(todo)
    while todo:
        home, name = todo.pop()
        path = _path(home, tops)
        if path is None:
            continue
        file, by_name = _file(home, path, path.stat().st_mtime_ns, path.stat().st_size), home.partition(".")[0] == own
        text, more, texts = file.part(name) if name and (by_name or home == PACKAGE) else file.whole(by_name)
        more |= _loaded(texts, methods)
        if text:
            out[f"{home}:{name}" if name and by_name else home] = short(text.encode())
        for place in {_at(found, own, tops) for found in more} - seen:
            seen.add(place)
            todo.append(place)
    return out


def _at(place: Place, own: str, tops: Collection[str]) -> Place:
    """A name may be a module; and modules outside the function's own package are taken whole."""
    home, name = place
    if name and _path(f"{home}.{name}", tops):
        return f"{home}.{name}", ""
    return place if home.partition(".")[0] == own or home == PACKAGE else (home, "")


def _path(module: str, tops: Collection[str]) -> Path | None:
    """The file of a module of these top packages; None for others, and for what is no module."""
    top, *rest = module.split(".")
    spec = find_spec(top) if top in tops else None
    if spec is None or spec.origin is None or not all(part.isidentifier() for part in rest):
        return None
    if not rest:
        return Path(spec.origin)
    path = Path(spec.origin).parent.joinpath(*rest)
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


def _loaded(texts: Iterable[str], methods: Mapping[str, str]) -> set[Place]:
    """The modules of the methods (NAME or NAME:RECIPE) among these texts."""
    return {(methods[name], "") for text in texts if (name := text.partition(":")[0]) in methods}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item)


# ---------------------------------------------------------------------- one file


@lru_cache(None)
def _file(module: str, path: Path, _time: int, _size: int) -> _File:
    return _File(module, path)


class _File:
    """A module, as its statements."""

    def __init__(self, module: str, path: Path):
        text = path.read_text()
        tree = ast.parse(text)
        self._module, self._lines = module, bare(text, tree)
        self._parts = [_Part(s) for s in tree.body if module == PACKAGE or not _for_types(s)]
        self._bound = {name: place for p in self._parts if p.plain_import for name, place in p.imports.items()}

    def whole(self, by_name: bool) -> tuple[str, set[Place], set[str]]:
        """Its text, what it imports, and no strings: of these modules they name no methods."""
        if self._module == PACKAGE:
            return "", set(), set()
        more = {place for p in self._parts for place in p.imports.values()}
        if not by_name and self._module != CATALOGUE:
            texts = {text for p in self._parts for text in p.texts}
            more |= {(f"{home}{text}", "") for p in self._parts for home in p.prefixes for text in texts}
        around = self._module.split(".")
        more |= {(".".join(around[:i]), "") for i in range(1, len(around))}
        return "" if self._module == CATALOGUE else "\n".join(line for line in self._lines if line), more, set()

    def part(self, name: str) -> tuple[str, set[Place], set[str]]:
        """The text of what is called `name` here, with statements that have no name; what these name; their strings."""
        if name in self._bound:
            return "", {self._bound[name]}, set()
        if self._module == PACKAGE:
            return "", set(), set()
        text: list[str] = []
        texts: set[str] = set()
        more: set[Place] = set()
        for part in self._parts:
            if name in part.binds or part.runs:
                text += self._lines[part.first : part.last]
                more |= self._named(part)
                texts |= part.texts
        return "\n".join(line for line in text if line), more, texts

    def _named(self, part: _Part) -> set[Place]:
        """What a statement names: here, in what it imports itself, and by strings."""
        here = {name for p in self._parts for name in p.binds}
        more = {(text, "") for text in part.texts if "." in text}  # as "veilset.cli.main"; most are no module
        used = part.bare | {name for name, _ in part.dotted}
        more |= {place for name, place in part.imports.items() if name not in used}  # for what importing it does
        for name in used:
            place = part.imports.get(name) or self._bound.get(name)
            if place is None:
                more |= {(self._module, name)} if name in here else set()
                continue
            whole = name in part.bare or place[1]  # a name in a module, or a module handed on
            more |= {place} if whole else {(place[0], attribute) for of, attribute in part.dotted if of == name}
            if place[1]:  # may be a module after all: `from benchmarks.runner import ceiling`
                more |= {(f"{place[0]}.{place[1]}", attribute) for of, attribute in part.dotted if of == name}
        return more


class _Part:
    """A statement of a module: where it stands, what it binds, and what it names."""

    def __init__(self, statement: ast.stmt):
        decorators = getattr(statement, "decorator_list", [])
        self.first = min([statement.lineno, *(d.lineno for d in decorators)]) - 1
        self.last = statement.end_lineno or statement.lineno
        self.plain_import = isinstance(statement, ast.Import | ast.ImportFrom | ast.If)
        self.runs = isinstance(statement, ast.Expr | ast.For | ast.With)  # whatever of the module is wanted
        self.imports: dict[str, Place] = {}
        self.texts: set[str] = set()
        self.prefixes: set[str] = set()  # of f"package.{name}"
        self.dotted: set[Place] = set()
        names: list[str] = []
        owners: list[str] = []  # names that a dot follows
        self.binds: set[str] = set()
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            self.binds.add(statement.name)
        elif not self.plain_import:
            stored = (n for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
            self.binds |= {n.id for n in stored}
        for node in _walk(statement):
            if isinstance(node, ast.Import):
                self.imports |= {a.asname or a.name.partition(".")[0]: (a.name, "") for a in node.names}
            elif isinstance(node, ast.ImportFrom):
                self.imports |= {a.asname or a.name: (node.module or "", a.name) for a in node.names}
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                self.dotted.add((node.value.id, node.attr))
                owners.append(node.value.id)
            elif isinstance(node, ast.Name):
                names.append(node.id)
            elif isinstance(node, ast.Call) and _name(node.func) == "import_module":
                self.prefixes |= {
                    str(first.value) for first in map(_first, node.args) if isinstance(first, ast.Constant)
                }
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                self.texts.add(node.value)
        self.bare = {name for name in names if names.count(name) > owners.count(name)}


def _walk(statement: ast.stmt) -> Iterator[ast.AST]:
    """As ast.walk, without what is for type checkers only (but where the statement itself is that)."""
    todo: list[ast.AST] = [statement]
    while todo:
        node = todo.pop()
        yield node
        todo += [child for child in ast.iter_child_nodes(node) if not _for_types(child)]


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _first(text: ast.expr) -> ast.expr | None:
    """The first piece of an f-string."""
    return text.values[0] if isinstance(text, ast.JoinedStr) and text.values else None


def _for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def bare(text: str, tree: ast.Module) -> list[str]:
    """Lines of a module, without comments and docstrings and what stands empty then."""
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            doc = node.body[0]
            assert doc.end_lineno is not None and doc.end_col_offset is not None
            after = lines[doc.end_lineno - 1].encode()[doc.end_col_offset :].decode()  # columns are of bytes
            before = lines[doc.lineno - 1].encode()[: doc.col_offset].decode()
            lines[doc.lineno - 1 : doc.end_lineno] = [before + after, *[""] * (doc.end_lineno - doc.lineno)]
    return [line.rstrip() for line in lines]
