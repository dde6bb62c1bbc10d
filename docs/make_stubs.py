"""Write what type checkers see of the built-in methods, synthesizers.pyi and teachers.pyi: python docs/make_stubs.py

The classes get their signatures from their options when they are made, which a type checker cannot see.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import indent

from veilset.core.config import FieldSpec, fields
from veilset.methods.catalogue import BUILT_IN, TEACHERS, Entry, method_class, teacher_class

FOLDER = Path(__file__).parents[1] / "src" / "veilset"
OWN = {name: e for name, e in BUILT_IN.items() if e.module.startswith("veilset.")}  # none that a test registers
STUBS = {"synthesizers": OWN, "teachers": TEACHERS}
HEAD = "# Made from the options of the methods by docs/make_stubs.py; do not edit.\n# ruff: noqa: E501\n# fmt: off\n"


def stub(entries: Mapping[str, Entry]) -> str:
    """The text of one stub file."""
    classes = [_class(name, entry) for name, entry in entries.items()]
    literal = "from typing import Literal\n\n" if any("Literal[" in c for c in classes) else ""
    imports = sorted(f"from {e.module} import {e.attribute} as _{e.attribute}" for e in entries.values())
    names = "".join(f'    "{e.attribute}",\n' for e in entries.values())
    return f"{HEAD}\n{literal}" + "\n".join(imports) + f"\n\n__all__ = [\n{names}]\n\n" + "\n".join(classes)


def _class(name: str, entry: Entry) -> str:
    cls = (teacher_class if name in TEACHERS else method_class)(name)
    specs = fields(cls.Config)
    takes = ["self", *(["*"] if specs else []), *(f"{f.name}: {_type(f)} = {_default(f)}" for f in specs)]
    doc = indent((cls.__doc__ or "").strip(), "    ").strip()
    return (
        f'class {entry.attribute}(_{entry.attribute}):\n    r"""{doc}\n    """\n\n'
        f"    def __init__(\n" + "".join(f"        {t},\n" for t in takes) + "    ) -> None: ...\n"
    )


def _type(f: FieldSpec) -> str:
    choices = ", ".join(f'"{c}"' for c in f.rules["choices"] or ())
    kind = f"Literal[{choices}]" if choices else f.type.__name__
    return f"{kind} | None" if f.default is None else kind


def _default(f: FieldSpec) -> str:
    return f'"{f.default}"' if isinstance(f.default, str) else repr(f.default)


if __name__ == "__main__":
    for name, entries in STUBS.items():
        (FOLDER / f"{name}.pyi").write_text(stub(entries))
        print(f"src/veilset/{name}.pyi")
