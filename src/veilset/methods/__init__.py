"""One synthesizer per file; `ls` is the catalogue. Calling this package lists it: `veilset.methods()`."""

from __future__ import annotations

from veilset.core.modules import called

called(__name__, "veilset.methods.catalogue", "methods")
