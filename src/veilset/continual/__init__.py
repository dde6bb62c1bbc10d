"""Continual release: a stream of tasks on one private set, each on a few of its classes, each released once.

`plan` prices all tasks before any record is read, `stream` runs one when its data is there, `check` is the stranger's.
Calling this package plans: `veilset.continual(info, tasks)` is `veilset.continual.plan.plan`.

Examples:
    >>> from veilset.continual.plan import Task
    >>> tasks = [Task(classes=names, method="dp-moments", epsilon=1.0) for names in (("0", "1"), ("2", "3"))]
    >>> round(vs.continual(data.info, tasks).claim().epsilon, 2)  # no unit is in both
    1.0
"""

from __future__ import annotations

from veilset.core.modules import called

called(__name__, "veilset.continual.plan", "plan")
