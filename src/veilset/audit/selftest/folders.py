"""Folders: what is read of strangers' ones, what a run keeps for its owner alone, and with what it goes on."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn

from veilset.audit.selftest.base import Check, facts, flat, gate_for, hidden, pictures, refused, wrong
from veilset.audit.selftest.books import _read, _release, _say
from veilset.core.errors import LedgerError, RunError
from veilset.core.pictures import decode_png, png_bytes, read_images
from veilset.core.types import Images
from veilset.methods import base
from veilset.privacy.gate import Gate
from veilset.privacy.ledger import Ledger
from veilset.privacy.plan import Release
from veilset.privacy.receipt import verify, write_release
from veilset.privacy.run.run_store import RunStore, drop_torn_line
from veilset.privacy.spec import Privacy

BUDGET = Privacy(1.0, 1e-5)
OTHERS = ("BMP", "GIF", "PPM", "TIFF", "JPEG")  # formats whose decoders nobody needs
OLD = (
    "0.1.0",
    "0.1.99",
    "0.1",
    "0",
    "",
    "1",
    "dev",
    "v9.9.9",
    "9.9",
    "0.2",
    "0.1.9.9",
    " 0.3.0",
    None,
    2,
    9.9,
    ["9.9.9"],
)
NOTHING: tuple[Any, ...] = (None, {}, [], "0.3.0")


def changed() -> Iterator[Check]:
    """Every file of a release, changed, gone, more, or elsewhere; nothing of it verifies."""
    of: dict[str, bool] = {}
    with tempfile.TemporaryDirectory() as home:
        made = _release(Path(home) / "made")
        (made / "more").mkdir()
        (made / "more" / "0.png").write_bytes(b"picture")
        ledger = (made / "ledger.jsonl").read_bytes()
        for name in ("receipt.json", "SHA256SUMS", "ledger.jsonl"):
            (made / name).unlink()
        write_release(made, _receipt(Path(home) / "other"), ledger)
        of["as it was made"] = verify(made).ok
        names = sorted(p.relative_to(made).as_posix() for p in made.rglob("*") if p.is_file())
        for what, change in CHANGES.items():
            for i, name in enumerate(names):
                copy = shutil.copytree(made, Path(home) / f"{what} {i}")
                change(copy / name)
                of[f"{name}: {what}"] = not verify(copy).ok
        for what, add in ADDED.items():
            copy = shutil.copytree(made, Path(home) / what)
            add(copy)
            of[what] = not verify(copy).ok
        of["a link to a release is one"] = verify(_link(Path(home) / "link", made)).ok
    yield wrong("only what was released verifies", "folders that verify, though something in them was changed", of=of)


def versions() -> Iterator[Check]:
    """Claims of versions with a fault are not trusted, nor those whose version is not said."""
    of: dict[str, bool] = {}
    with tempfile.TemporaryDirectory() as home:
        made = _release(Path(home) / "made")
        own = _read(made)["versions"]
        for stated in OLD:
            _say(made, versions=own | {"veilset": stated})
            got = verify(made)
            of[f"{stated!r}"] = got.recomputes and bool(got.known_fault) and not got.ok and not got.release
        for said in NOTHING:
            _say(made, versions=said)
            of[f"versions {said!r}"] = not verify(made).ok
        _say(made, versions=own)
        of["this one"] = verify(made).ok and not verify(made).known_fault
    yield wrong("claims of versions with a fault are not trusted", "versions that are taken at their word", of=of)


def decoded() -> Iterator[Check]:
    """Pictures of a release are PNG of the declared shape; no other decoder is asked, whatever their bytes say."""
    from PIL import Image

    of: dict[str, bool] = {}
    x = torch.arange(64, dtype=torch.uint8).view(1, 8, 8)
    asked: list[Any] = []
    real = Image.open

    def opened(f: Any, *a: Any, **how: Any) -> Any:
        asked.append(how.get("formats", a[1:]))
        return real(f, *a, **how)

    with mock.patch.object(Image, "open", opened):
        of["PNG"] = np.array_equal(decode_png(png_bytes(x), (1, 8, 8)), x.numpy())
        of["PNG of another shape"] = refused(lambda: decode_png(png_bytes(x), (1, 8, 9)), ValueError)
        of["a PNG that is cut short"] = refused(lambda: decode_png(png_bytes(x)[:45], (1, 8, 8)), Exception)
        with tempfile.TemporaryDirectory() as home:
            for kind in OTHERS:
                raw = io.BytesIO()
                Image.fromarray(x[0].numpy()).save(raw, kind)
                of[kind] = refused(lambda b=raw: decode_png(b.getvalue(), (1, 8, 8)), ValueError)  # type: ignore[misc]
                of[f"{kind} by the name of a PNG"] = _unread(Path(home) / kind, raw.getvalue())
    of["no other decoder is asked"] = all(tuple(formats) == ("PNG",) for formats in asked) and bool(asked)
    yield wrong("a picture of a release is a PNG of the declared shape", "pictures that are opened", of=of)


def kept() -> Iterator[Check]:
    """What a run keeps is for its owner alone, wherever it stops; and nothing in its folder leads elsewhere."""
    with tempfile.TemporaryDirectory() as home:
        folder, away = Path(home) / "run", Path(home) / "away"
        _train(folder, 3)
        base._public_seed(folder)
        inside = sorted((folder / "private").rglob("*"))
        of = {f"{p.name} is for its owner": p.stat().st_mode & 0o077 == 0 for p in inside if p.is_file()}
        of["the folder is"] = (folder / "private").stat().st_mode & 0o077 == 0
        of["all of it is kept"] = {"r.0.safetensors", "data.json", "public.json"} <= {p.name for p in inside}
        of["checkpoints are"] = any(p.suffix == ".ckpt" for p in inside)
        away.mkdir()
        for name in ("private", "private/answers", "private/data.json", "private/checkpoints"):
            copy = shutil.copytree(folder, Path(home) / name.replace("/", " "))
            _elsewhere(copy / name, away)
            of[f"{name} that is a link"] = refused(lambda c=copy: RunStore(c), RunError)  # type: ignore[misc]
        linked = Path(home) / "linked"
        linked.mkdir()
        _link(linked / "ledger.jsonl", away / "ledger.jsonl")
        of["a ledger that is a link"] = refused(
            lambda: Ledger(linked / "ledger.jsonl").append("open", format="veilset-ledger/1"), RunError, OSError
        ) and not (away / "ledger.jsonl").exists()  # fmt: skip
    yield wrong("what a run keeps is for its owner alone", "files that others read, or that lead elsewhere", of=of)


def resumed() -> Iterator[Check]:
    """An interrupted run goes on with its own data, units, seed, plan and budget, or not at all."""
    with tempfile.TemporaryDirectory() as home:
        folder, info = Path(home) / "run", facts(max_images_per_unit=2, unit="one person")
        x, y = pictures(20, info)
        units = np.arange(20) // 2

        def again(**changes: Any) -> Gate:
            a = {"x": x, "y": y, "units": units, "seed": None, "privacy": BUDGET, "bound": 1.0, "info": info} | changes
            data = hidden(a["info"], a["x"], a["y"], a["units"])
            return gate_for(
                data, Release(name="r", bound=a["bound"]), privacy=a["privacy"], seed=a["seed"], folder=folder
            )

        again().sum("r", flat)
        last = x.copy()
        last[-1, 0, 0, 0] += 0.01
        others: dict[str, dict[str, Any]] = {
            "other images": {"x": x[::-1].copy()},
            "one pixel": {"x": last},
            "one label": {"y": np.r_[(y[0] + 1) % 3, y[1:]]},
            "other units": {"units": np.r_[units[:-1], 10]},
            "a record less": {"x": x[:-1], "y": y[:-1], "units": units[:-1]},
            "a seed": {"seed": 3},
            "another budget": {"privacy": Privacy(2.0, 1e-5)},
            "another bound": {"bound": 2.0},
            "other declared facts": {"info": facts(max_images_per_unit=2, unit="one person", units=60)},
        }
        of = {what: refused(lambda c=c: again(**c), RunError) for what, c in others.items()}  # type: ignore[misc]
        of["its own"] = not refused(again, RunError)
        of |= _torn(folder / "ledger.jsonl")
        (folder / "private" / "data.json").unlink()
        of["without the key of its data"] = refused(again, RunError)
    yield wrong("a run goes on with what it was started with", "changes that are not noticed", of=of)


CHECKS = (changed, versions, decoded, kept, resumed)


def _receipt(folder: Path) -> Any:
    """The receipt of a release that is the same but for its noise."""
    from veilset.privacy.receipt import read_receipt

    return read_receipt(_release(folder))


def _link(path: Path, to: Path) -> Path:
    path.symlink_to(to)
    return path


def _elsewhere(path: Path, away: Path) -> None:
    """Put a link in its place."""
    path.rename(away / path.name)
    _link(path, away / path.name)


def _flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(bytes(raw))


CHANGES: dict[str, Callable[[Path], Any]] = {
    "a bit": _flip,
    "half of it": lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]),
    "more bytes": lambda p: p.write_bytes(p.read_bytes() + b"\n0"),
    "nothing in it": lambda p: p.write_bytes(b""),
    "gone": Path.unlink,
    "a link to it": lambda p: _elsewhere(p, _made(p.parents[1] / f"away of {p.parent.name}")),
}
ADDED: dict[str, Callable[[Path], Any]] = {
    "one more file": lambda f: (f / "1.png").write_bytes(b""),
    "one more in a folder": lambda f: (f / "more" / "1.png").write_bytes(b""),
    "a private folder": lambda f: _made(f / "private"),
    "a private folder with a file": lambda f: (_made(f / "private") / "raw").write_bytes(b"raw"),
    "a private file": lambda f: (f / "private").write_bytes(b"raw"),
    "a private folder in a folder": lambda f: (_made(f / "more" / "private") / "raw").write_bytes(b"raw"),
    "a private folder that is elsewhere": lambda f: _link(f / "private", _made(f.parent / "elsewhere")),
    "a folder that is elsewhere": lambda f: _link(f / "less", _made(f.parent / "somewhere")),
    "a link to nothing": lambda f: _link(f / "more" / "2.png", f / "nothing"),
    "a pipe": lambda f: os.mkfifo(f / "3.png"),
    "a word that it has no noise": lambda f: (f / "NON-PRIVATE.json").write_text("{}"),
}


def _made(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    return folder


def _unread(folder: Path, raw: bytes) -> bool:
    """Whether a release of one picture is not read if the picture's bytes are these."""
    info = facts((1, 8, 8))
    folder.mkdir()
    Images(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64), info.classes).write(
        folder, "folder"
    )
    whole = read_images(folder, info).x.shape[0] == 1
    next(folder.rglob("*.png")).write_bytes(raw)
    return whole and refused(lambda: read_images(folder, info), RunError)


def _train(folder: Path, steps: int) -> None:
    """A run of a sum and so many steps of a loop, stopped as if killed."""
    info, net = facts(), nn.Linear(16, 1)
    releases = Release(name="r"), Release(name="g", verb="grad", steps=8)
    gate = gate_for(hidden(info, *pictures(20, info)), *releases, privacy=BUDGET, folder=folder)
    gate.sum("r", flat)
    for t in gate.loop("g", {"net": net}):
        if t == steps:
            break
        gate.grad("g", lambda net, x, y: net(x.flatten()[None]).sum(), net)


def _torn(path: Path) -> dict[str, bool]:
    """A line without its end was never answered for; one that has an end is never dropped; others are refused."""
    whole, of = path.read_bytes(), dict[str, bool]()
    lines = whole.splitlines(keepends=True)
    for cut in (1, len(lines[-1]) // 2, len(lines[-1]) - 1):
        path.write_bytes(whole[:-cut])
        drop_torn_line(path)
        of[f"a line without its last {cut} bytes"] = path.read_bytes() == whole[: -len(lines[-1])]
    path.write_bytes(whole)
    drop_torn_line(path)
    of["whole lines stay"] = path.read_bytes() == whole
    path.write_bytes(lines[-1])
    of["a line that follows none"] = refused(lambda: Ledger(path), LedgerError)
    path.write_bytes(whole)
    return of
