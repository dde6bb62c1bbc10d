"""Run every tutorial from its first cell to its last: `make notebooks`. With --write, keep what the cells show.

Each runs in an empty folder, with the command line of this installation in front. A cell that fails, or a command
of a shell cell that does, ends it; what the texts say is asserted by the cells.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "tutorials"
MOST_BYTES = 400_000  # of a notebook with its outputs


def tutorials() -> list[Path]:
    """The notebooks, in order of name."""
    return sorted(FOLDER.glob("*.ipynb"))


def execute(path: Path) -> Any:
    """The notebook at `path`, with what its cells show now.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails.
    """
    import nbformat
    from nbclient import NotebookClient

    book = nbformat.read(path, as_version=4)
    before = {name: os.environ.get(name) for name in ("PATH", "XDG_CACHE_HOME", "NO_COLOR", "SHELLOPTS")}
    with tempfile.TemporaryDirectory() as place:
        os.environ |= {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
            "XDG_CACHE_HOME": f"{place}/cache",  # results of self-tests here are not this user's
            "NO_COLOR": "1",
            "SHELLOPTS": "errexit",  # a shell cell ends with the first command that fails
        }
        (Path(place) / "here").mkdir()
        try:
            here = {"metadata": {"path": f"{place}/here"}}
            NotebookClient(book, timeout=600, kernel_name="python3", resources=here, coalesce_streams=True).execute()
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
    for cell in book.cells:
        cell.metadata.pop("execution", None)  # when it ran
        for output in cell.get("outputs", ()):
            output.get("data", {}).pop("image/jpeg", None)  # there is a PNG
            if "text" in output:
                output["text"] = output["text"].replace(f"{place}/here/", "")
    return book


def main() -> None:
    """Run them all, with the time of each."""
    import nbformat

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="keep what the cells show")
    parser.add_argument("names", nargs="*", help="only these, such as hospital")
    args = parser.parse_args()
    for path in tutorials():
        if args.names and path.stem not in args.names:
            continue
        begun, cpu = time.monotonic(), sum(os.times()[:4])
        book = execute(path)
        print(
            f"{path.stem}: {time.monotonic() - begun:.0f} s, {sum(os.times()[:4]) - cpu:.0f} s of processor time",
            flush=True,
        )
        if args.write:
            nbformat.write(book, path)


if __name__ == "__main__":
    main()
