"""A file on which the library ends the process is one line; a harmless stand-in ends the reading process here."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_sets import pixels
from test_data_formats import parquet, refused, rows_of, saved

from veilset.core.errors import DataError
from veilset.data import init
from veilset.data.formats import guard

pytest.importorskip("pyarrow")

ENDS = """
import os, signal, sys
for line in sys.stdin:
    if "bad" in line:
        os.kill(os.getpid(), signal.SIGABRT)
    print("ok", flush=True)
"""


@pytest.mark.parametrize("script", [ENDS, ENDS.replace("os.kill(os.getpid(), signal.SIGABRT)", "os._exit(3)")])
def test_a_shard_that_ends_the_process_is_named_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    for name in ("train-0.parquet", "train-1-bad.parquet", "train-2.parquet"):
        parquet(tmp_path / "s" / name, rows_of(pixels(2), [0, 1]))
    monkeypatch.setattr(guard, "READ", script)
    refused(tmp_path / "s", "train-1-bad.parquet: damaged so that reading it ends the process", capfd)
    with pytest.raises(DataError, match="ends the process"):
        init(tmp_path / "s")
    assert not (tmp_path / "s" / "veilset.toml").exists()


def test_whole_shards_are_read_ahead_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [parquet(tmp_path / "a.parquet", rows_of(pixels(2), [0, 1]))]
    saved(tmp_path / "d", rows_of(pixels(2), [0, 1]))
    paths += (tmp_path / "d").glob("*.arrow")
    paths.append(tmp_path / "b.parquet")
    paths[-1].write_bytes(paths[0].read_bytes()[:-20])  # cut short: the reader says so, in its words
    guard.check_survives(paths)
    monkeypatch.setattr(guard, "READ", "raise SystemExit(1)")
    guard.check_survives(paths)
    paths[0].write_bytes(paths[0].read_bytes() + b" ")
    with pytest.raises(DataError, match="a.parquet: damaged so that reading it ends the process"):
        guard.check_survives(paths)
