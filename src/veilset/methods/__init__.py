"""One synthesizer a file; `ls` is the catalogue. Calling this package lists it: `veilset.methods()`."""

from __future__ import annotations

import sys
from types import ModuleType


class _Catalogue(ModuleType):
    """Importing a package binds its name in the parent, which would hide the public function of the same name."""

    def __call__(self) -> dict[str, str]:
        from veilset.methods.catalogue import methods

        return methods()


sys.modules[__name__].__class__ = _Catalogue
