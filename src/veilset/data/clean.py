"""`veilset data clean`: removes what a run keeps about private records."""

from __future__ import annotations

import shutil
from pathlib import Path

from veilset.core.errors import RunError


def clean(run: str | Path) -> bool:
    """Remove RUN/private: decoded images, checkpoints, the keyed hash of the data. The run can no longer be resumed.

    Returns:
        Whether there was anything to remove.

    Raises:
        RunError: no such run folder, or the system refuses.
    """
    folder = Path(run) / "private"
    if not Path(run).is_dir():
        raise RunError(f"{run}: no such folder; name a run folder (the one given to `veilset fit --out`)")
    if not folder.is_dir():
        return False
    try:
        shutil.rmtree(folder)
    except OSError as e:
        raise RunError(f"cannot remove {folder}: {e.strerror or e}; remove it by hand") from e
    return True
