"""Every built-in method as a class whose signature shows its options: `veilset.synthesizers.DPMoments(size=20)`.

Each is the class that `veilset.make` makes by name, loaded when it is first used. What type checkers and editors see
is in `synthesizers.pyi`, which docs/make_stubs.py writes.

Examples:
    >>> vs.synthesizers.DPMERF(frequencies=500, lr=0.05).get_params()["lr"]
    0.05
"""

from __future__ import annotations

from veilset.core.modules import lazy
from veilset.methods.catalogue import BUILT_IN

__all__ = [e.attribute for e in BUILT_IN.values()]
__getattr__, __dir__ = lazy(__name__, {e.attribute: (e.module, e.attribute) for e in BUILT_IN.values()})
