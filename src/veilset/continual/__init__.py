"""Continual release: a stream of tasks on one private set, each on a few of its classes, each released once.

`plan` prices all tasks before any record is read, `stream` runs one when its data is there, `check` is the stranger's.
Calling this package plans: `veilset.continual(info, tasks)` is `veilset.continual.plan.plan`.
"""

from __future__ import annotations

from veilset.core.modules import called

called(__name__, "veilset.continual.plan", "plan")
