"""One synthesizer per file; `ls` is the catalogue. Calling this package lists it: `veilset.methods()`.

Examples:
    >>> vs.methods()["dp-moments"]
    'class means and covariances in a low-frequency basis'
"""

from __future__ import annotations

from veilset.core.modules import called

called(__name__, "veilset.methods.catalogue", "methods")
