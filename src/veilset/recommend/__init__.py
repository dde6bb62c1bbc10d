"""Which method to take for declared facts, from measured figures that the package carries.

Calling this package asks: `veilset.recommend(info, epsilon)` is `veilset.recommend.recommend.recommend`.

Examples:
    >>> vs.recommend(data.info, epsilon=1.0).method
    'taught-moments'
"""

from __future__ import annotations

from veilset.core.modules import called

called(__name__, "veilset.recommend.recommend", "recommend")
