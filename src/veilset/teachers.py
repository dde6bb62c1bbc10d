"""Every built-in teacher as a class whose signature shows its options: `veilset.teachers.DPScatter(steps=100)`.

Each is the class that `veilset.make_teacher` makes by name, loaded when it is first used. What type checkers and
editors see is in `teachers.pyi`, which docs/make_stubs.py writes.

Examples:
    >>> vs.teachers.DPScatter(steps=100).get_params()["steps"]
    100
"""

from __future__ import annotations

from veilset.core.modules import lazy
from veilset.methods.catalogue import TEACHERS

__all__ = [e.attribute for e in TEACHERS.values()]
__getattr__, __dir__ = lazy(__name__, {e.attribute: (e.module, e.attribute) for e in TEACHERS.values()})
