"""Does this tree compute what another commit does? `python tests/equality/same.py COMMIT`

Both builds run one after the other on this processor, with the installed libraries (`record.py`). Plans, claims,
bodies of ledgers, learned tensors and drawn images, also those of the commit's models, must be equal: texts to the
character, tensors to the bit, numbers to 1e-11, since a budget may be divided in another order. Ledgers that are not
equal to the byte are named. Exit status 1 if anything else differs. Parameters are compared by their present names. The
plan of a stream holds those of its time, and each task names the hash of that plan: where a name has changed, these
hashes are not compared.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CLOSE = 1e-11


def recorded(tree: Path, place: Path, others: Path) -> dict[str, Any]:
    """What the package in a tree computes, and draws from the run folders of another."""
    env = {**os.environ, "PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(place)}
    place.mkdir()
    words = [HERE / "record.py", place / "seen.json", place / "runs", others / "runs"]
    subprocess.run([sys.executable, *map(str, words)], env=env, check=True, cwd=place)
    seen: dict[str, Any] = json.loads((place / "seen.json").read_text())
    return seen


def differences(a: Any, b: Any, where: str = "") -> Iterator[str]:
    """A line each."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(a.keys() | b.keys()):
            if key not in a or key not in b:
                yield f"{where}/{key}: only in {'the commit' if key in a else 'this tree'}"
            else:
                yield from differences(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from differences(x, y, f"{where}/{i}")
    elif isinstance(a, float) and isinstance(b, float):
        if not math.isclose(a, b, rel_tol=CLOSE):
            yield f"{where}: {a!r}, now {b!r}"
    elif a != b:
        yield f"{where}: {str(a)[:300]}, now {str(b)[:300]}"


def by_present_names(seen: Any) -> set[str]:
    """Give parameters their present names, in place, wherever a method stands beside them; those that had others."""
    from veilset.methods.catalogue import any_class

    found: set[str] = set()
    if isinstance(seen, dict) and isinstance(seen.get("method"), str):
        modern = any_class(seen["method"]).modern
        for params in [seen.get("config") or {}, *seen.get("candidates", ())]:
            now = modern(params, tell=False)
            found |= params.keys() - now.keys()
            params.clear()
            params.update(now)
    for part in seen.values() if isinstance(seen, dict) else seen if isinstance(seen, list) else ():
        found |= by_present_names(part)
    return found


def without_heads(seen: Any) -> None:
    """Leave out, in place, the hash of the stream's plan that a task's ledger names."""
    if isinstance(seen, dict):
        if isinstance(seen.get("stream"), dict):
            seen["stream"].pop("head", None)
        for part in seen.values():
            without_heads(part)
    elif isinstance(seen, list):
        for part in seen:
            without_heads(part)


def main(commit: str) -> int:
    """Print what differs."""
    with tempfile.TemporaryDirectory() as tmp:
        tree = Path(tmp) / "tree"
        subprocess.run(
            ["git", "-C", ROOT, "worktree", "add", "--detach", tree, commit], check=True, capture_output=True
        )
        try:
            old = recorded(tree, Path(tmp) / "old", Path(tmp) / "old")
        finally:
            subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", tree], check=True, capture_output=True)
        new = recorded(ROOT, Path(tmp) / "new", Path(tmp) / "old")
    renamed = by_present_names(old) | by_present_names(new)
    if renamed:
        print("parameters that have other names now, and so other hashes of streams:", *sorted(renamed))
        without_heads(old), without_heads(new)
    old.pop("version"), new.pop("version")
    found = list(differences(old, new)) + [f"{k}: {v['error']}" for k, v in old.items() if "error" in v]
    rounded = [line.split("/")[1] for line in found if "ledger's bytes" in line]
    wrong = [line for line in found if "ledger's bytes" not in line]
    print("\n".join(wrong) or f"{len(old)} entries are equal")
    print(f"ledgers equal to {CLOSE:g} and not to the byte: {', '.join(rounded) or 'none'}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
