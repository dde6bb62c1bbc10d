"""Files on which pyarrow can end the process: another process reads them first, so that a user gets one line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from veilset.core.errors import DataError
from veilset.data.formats.items import library

# Says "ok" for each file that it has read, whether that was whole or not: what can be told is told by the reader.
READ = """
import sys
import pyarrow.ipc, pyarrow.parquet
for line in sys.stdin:
    path = line[:-1]
    try:
        if path.endswith(".parquet"):
            batches = pyarrow.parquet.ParquetFile(path).iter_batches(256, use_threads=False)
        else:
            batches = pyarrow.ipc.open_stream(pyarrow.OSFile(path))
        for batch in batches:
            batch.validate(full=True)
    except Exception:
        pass
    print("ok", flush=True)
"""
_survived: set[tuple[str, int, int]] = set()  # path, size and time of change of files that were read


def check_survives(paths: Iterable[Path]) -> None:
    """Read files in another process, each once as long as it stays the same.

    Raises:
        DataError: reading one of them ends the process.
    """
    library("pyarrow", "parquet")
    marks = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in paths]
    new = [m for m in marks if m not in _survived]
    if not new:
        return
    if odd := next((name for name, *_ in new if "\n" in name), ""):
        raise DataError(f"{odd!r}: its name has a line break; rename it")
    names = "".join(f"{name}\n" for name, *_ in new)
    done = subprocess.run([sys.executable, "-P", "-c", READ], input=names, capture_output=True, text=True)
    read = done.stdout.count("ok\n")
    if read < len(new):
        raise DataError(f"{new[read][0]}: damaged so that reading it ends the process; restore the shard")
    _survived.update(new)
