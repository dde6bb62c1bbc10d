"""Folders from strangers: every kind ends in one line and a status that is not 0, and nothing outside is touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile as h
import numpy as np
import pytest

from veilset.core.facts import peak_mb
from veilset.core.rendering import UNSEEN, legible

Run = Callable[..., Any]
Copy = Callable[[str], Path]
PIXELS = np.zeros((3, 1, 8, 8), np.uint8)
LABELS = np.arange(3)


def answered(outcome: Any, verb: str) -> None:
    """One line of an error; or, of verify, a table that says no. Nothing in it acts on a terminal."""
    assert outcome.status != 0
    if verb == "verify":
        assert outcome.err == "" and outcome.out.splitlines()[-1] == "NOT VERIFIED"
    else:
        outcome.refused()
    told = outcome.out + outcome.err
    assert len(outcome.err) < 2500
    assert not any(unicodedata.category(c) in UNSEEN for c in told.replace("\n", ""))


def call(veilset: Run, verb: str, folder: Path, page: Path) -> Any:
    """One verb on a folder, in the form that a user types."""
    options = {
        "evaluate": ("--against", "digits", "--metrics", "gen2real-logreg", "--seeds", "1"),
        "audit": ("--draws", "40"),
        "sign": ("--key", page.parent / "key"),
        "report": ("--out", page),
        "sample": ("-n", "4", "--out", page.parent / "sampled"),
        "attack": (),
        "verify": (),
    }
    return veilset(verb, folder, *options[verb])


# ---------------------------------------------------------------------- pictures and their table

PICTURES: dict[str, h.Damage] = {
    "a PPM called png": h.first_picture(h.picture("PPM")),
    "a BMP called png": h.first_picture(h.picture("BMP")),
    "a GIF called png": h.first_picture(h.picture("GIF")),
    "a JPEG called png": h.first_picture(h.picture("JPEG")),
    "a TIFF called png": h.first_picture(h.picture("TIFF")),
    "text called png": h.first_picture(b"%!no picture at all"),
    "an empty png": h.first_picture(b""),
    "a png cut short": h.first_picture(h.picture("PNG")[:45]),
    "a broken checksum": h.first_picture(h.picture("PNG").replace(b"IDAT", b"IDAX")),
    "60,000 pixels a side": h.first_picture(h.huge_header()),
    "another size": h.first_picture(h.picture("PNG", size=(9, 8))),
    "colours": h.first_picture(h.picture("PNG", "RGB")),
    "a palette": h.first_picture(h.picture("PNG", "P")),
    "sixteen bits": h.first_picture(h.picture("PNG", "I;16")),
    "an alpha channel": h.first_picture(h.picture("PNG", "LA")),
    "padding without end": h.first_picture(h.picture("PNG") + bytes(200_000)),
    "an absolute name": h.named("/etc/hostname"),
    "an absolute png": h.named("/tmp/a.png"),
    "a name above": h.named("../out/images/000001.png"),
    "a name above in the middle": h.named("images/../../out/images/000001.png"),
    "backslashes": h.named("images\\000001.png"),
    "the name of a folder": h.named("images"),
    "the name of another file": h.named("receipt.json"),
    "a missing file": h.named("images/none.png"),
    "a name with escapes": h.named(f"images/{h.ESCAPE}.png"),
    "a name of 100,000 letters": h.named("images/" + "a" * 100_000 + ".png"),
    "one file twice": h.rows(lambda t: t[1].__setitem__(0, t[2][0])),
    "a million rows of one file": h.rows(lambda t: t.extend([t[1]] * 50_000)),
    "a negative label": h.labelled("-1"),
    "a label of no class": h.labelled("10"),
    "a label of 100,000 digits": h.labelled(h.DIGITS),
    "a label in words": h.labelled("seven"),
    "no label": h.rows(lambda t: t[1].__delitem__(slice(1, None))),
    "another header": h.rows(lambda t: t.__setitem__(0, ["a", "b", "c"])),
    "no rows": h.rows(lambda t: t.__delitem__(slice(1, None))),
    "a field without end": h.both(h.write("labels.csv", 'file,label\n"' + "x" * 300_000), h.forge),
    "nul bytes": h.both(h.write("labels.csv", b"file,label\n\0\0,1\n"), h.forge),
    "no UTF-8": h.both(h.write("labels.csv", b"file,label\n\xff\xfe,1\n"), h.forge),
    "a table of 65 MB": h.both(h.hole("labels.csv", 65 << 20), h.forge),
    "a table that is a pipe": h.fifo("labels.csv"),
    "npz: objects": h.arrays(x=np.array([None, None, None], object), y=LABELS),
    "npz: fractions": h.arrays(x=PIXELS.astype(float), y=LABELS),
    "npz: another shape": h.arrays(x=PIXELS[:, :, :7], y=LABELS),
    "npz: labels for two of three": h.arrays(x=PIXELS, y=LABELS[:2]),
    "npz: labels in words": h.arrays(x=PIXELS, y=np.array(["a", "b", "c"])),
    "npz: no labels": h.arrays(x=PIXELS),
    "npz: a label of no class": h.arrays(x=PIXELS, y=LABELS + 9),
    "npz: columns first": h.arrays(x=np.asfortranarray(np.zeros((3, 1, 8, 8), np.uint8)), y=LABELS),
    "npz: a trillion images": h.declared_rows(10**12),
    "npz: forty million images": h.declared_rows(40_000_000),
    "npz: a thousand images and no bytes": h.declared_rows(1000),
    "npz: text": h.both(lambda f: (f / "labels.csv").unlink(), h.write("images.npz", "no zip"), h.forge),
    "no pictures": h.both(lambda f: (f / "labels.csv").unlink(), h.forge),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_pictures(veilset: Run, copy: Copy, tmp_path: Path, kind: str, recwarn: pytest.WarningsRecorder) -> None:
    out = copy("out")
    PICTURES[kind](out)
    before = sorted(tmp_path.rglob("*"))
    answered(call(veilset, "evaluate", out, tmp_path / "p.html"), "evaluate")
    assert sorted(tmp_path.rglob("*")) == before and not recwarn.list
    outcome = call(veilset, "report", out, tmp_path / "p.html")  # a page is made, without pictures or with the reason
    assert outcome.status == 0 and outcome.err == ""
    html = (tmp_path / "p.html").read_text("utf-8")
    assert "data:image/png" not in html and ("None to show" in html or "NOT VERIFIED" in html)


def test_room_is_counted_before_it_is_taken(veilset: Run, copy: Copy, tmp_path: Path) -> None:
    out = copy("out")
    h.declared_rows(9_000_000)(out)
    call(veilset, "evaluate", out, tmp_path / "p.html").refused("take 576000000 bytes, at most 536870912 are read")


def test_pictures_in_parquet(veilset: Run, made: Path, tmp_path: Path) -> None:
    pq, pa = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    assert veilset("sample", made / "run", "-n", "20", "--format", "parquet", "--out", tmp_path / "out").status == 0
    (tmp_path / "out" / "images.parquet").write_bytes(b"no parquet")
    h.forge(tmp_path / "out")
    answered(call(veilset, "evaluate", tmp_path / "out", tmp_path / "p.html"), "evaluate")
    rows = [{"bytes": h.picture("BMP"), "path": "a.png"}] * 3
    pq.write_table(pa.table({"image": rows, "label": [0, 1, 2]}), tmp_path / "out" / "images.parquet")
    h.forge(tmp_path / "out")
    answered(call(veilset, "evaluate", tmp_path / "out", tmp_path / "p.html"), "evaluate")


@pytest.mark.parametrize("form", ["folder", "npz", "parquet"])
def test_an_honest_release_is_read_back(veilset: Run, made: Path, tmp_path: Path, form: str) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow")
    out = tmp_path / "out"
    assert veilset("sample", made / "run", "-n", "60", "--format", form, "--out", out, "--seed", "3").status == 0
    (tmp_path / "link").symlink_to(out)  # the folder itself may be named by a link
    got = call(veilset, "evaluate", tmp_path / "link", tmp_path / "p.html")
    assert got.status == 0 and veilset("verify", tmp_path / "link").status == 0
    figures = tmp_path / "f.json"
    options = ("--against", "digits", "--metrics", "gen2real-logreg", "--seeds", "1", "--out", figures)
    assert veilset("evaluate", out, *options).status == 0
    said = json.loads(figures.read_text())
    assert said["files_sha256"] == json.loads((out / "receipt.json").read_text())["files_sha256"]
    assert veilset("report", out, "--metrics", figures, "--out", tmp_path / "p.html").status == 0
    assert "Measured by whoever made this page, covered by no receipt" in (tmp_path / "p.html").read_text("utf-8")


# ---------------------------------------------------------------------- links, pipes, and what else is no file

LINKS: dict[str, tuple[str, h.Damage]] = {
    "private elsewhere": ("run", h.linked("private")),
    "private nowhere": (
        "run",
        h.both(h.linked("private"), lambda f: os.rename(f.parent / "away-private", f.parent / "x")),
    ),
    "a file in private elsewhere": ("run", h.linked("private/run.json")),
    "a listed file elsewhere": ("out", h.linked("labels.csv")),
    "a picture elsewhere": ("out", h.linked("images/0/000000.png")),
    "a folder elsewhere": ("out", h.linked("images")),
    "a folder in itself": ("out", lambda f: (f / "images" / "again").symlink_to(f)),
    "a link to itself": ("out", lambda f: (f / "loop").symlink_to(f / "loop")),
    "a link to nothing": ("out", lambda f: (f / "images" / "none.png").symlink_to("/nonexistent")),
    "a device": ("out", lambda f: (f / "images" / "zero.png").symlink_to("/dev/zero")),
    "the receipt elsewhere": ("out", h.linked("receipt.json")),
    "the ledger elsewhere": ("out", h.linked("ledger.jsonl")),
    "the list elsewhere": ("out", h.linked("SHA256SUMS")),
    "the signature elsewhere": ("out", lambda f: (f / "receipt.sig.json").symlink_to(f.parent / "new")),
    "the receipt from a device": ("out", h.linked("receipt.json", "/dev/zero")),
    "the model elsewhere": ("run", h.linked("model.safetensors")),
    "the model's facts elsewhere": ("run", h.linked("model.json")),
    "a pipe": ("out", h.fifo("images/pipe.png")),
    "the receipt is a pipe": ("out", h.fifo("receipt.json")),
    "the ledger is a pipe": ("out", h.fifo("ledger.jsonl")),
    "the receipt is a folder": ("out", lambda f: ((f / "receipt.json").unlink(), (f / "receipt.json").mkdir())),
}


@pytest.mark.parametrize("kind", LINKS)
def test_links_and_pipes(veilset: Run, copy: Copy, tmp_path: Path, kind: str) -> None:
    name, damage = LINKS[kind]
    folder = copy(name)
    assert veilset("sign", "--new-key", tmp_path / "key").status == 0
    damage(folder)
    outside = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file() and folder not in p.parents}
    for verb in ("verify", "evaluate", "sign", "audit", *(("sample", "attack") if name == "run" else ())):
        answered(call(veilset, verb, folder, tmp_path / "p.html"), verb)
    after = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*") if p.is_file() and folder not in p.parents}
    assert after == outside  # nothing was written through a link
    page = call(veilset, "report", folder, tmp_path / "p.html")
    if page.status == 0:
        html = (tmp_path / "p.html").read_text("utf-8")
        assert "NOT VERIFIED" in html and "data:image/png" not in html
    else:
        page.refused()


@pytest.mark.parametrize(
    "name", ["private", "private/lock", "private/data.json", "ledger.jsonl", "private/checkpoints"]
)
def test_a_run_with_a_link_does_not_go_on(veilset: Run, copy: Copy, tmp_path: Path, name: str) -> None:
    run = copy("run")
    (run / "receipt.json").unlink()
    h.linked(name)(run)
    again = ("fit", "tiny", "--data", "digits", "--epsilon", "2", "--out", run, "--resume", "--json")
    away = tmp_path / f"away-{Path(name).name}"
    before = {p: p.stat().st_mtime_ns for p in [away, *away.rglob("*")]}
    veilset(*again).refused("is a link")
    assert before == {p: p.stat().st_mtime_ns for p in [away, *away.rglob("*")]}


def test_a_temporary_name_that_is_a_link_is_not_written_through(veilset: Run, copy: Copy, tmp_path: Path) -> None:
    from veilset.core.errors import RunError
    from veilset.core.io import lock, write_bytes

    (tmp_path / "mine").write_text("mine")
    (tmp_path / ".a.partial").symlink_to(tmp_path / "mine")
    with pytest.raises(RunError):
        write_bytes(tmp_path / "a", b"x")
    (tmp_path / "lock").symlink_to(tmp_path / "new")
    with pytest.raises(RunError, match="is a link"), lock(tmp_path / "lock", "it"):
        pass
    assert (tmp_path / "mine").read_text() == "mine" and not (tmp_path / "new").exists()


# ---------------------------------------------------------------------- receipts, ledgers, lists, signatures

NAMES = {"name": h.ESCAPE, "classes": [f"{h.ESCAPE}{i}" for i in range(10)], "unit": h.ESCAPE}
MANY = [str(i) for i in range(300_000)]
FACTS: dict[str, h.Damage] = {
    "receipt: nested": h.write("receipt.json", h.DEEP),
    "receipt: nested in a fact": h.write("receipt.json", '{"format": "veilset-receipt/1", "config": ' + h.DEEP + "}"),
    "receipt: nested a hundred times": h.write("receipt.json", '{"a":' * 100 + "1" + "}" * 100),
    "receipt: 100,000 digits": h.write("receipt.json", '{"format": "veilset-receipt/1", "epsilon": ' + h.DIGITS + "}"),
    "receipt: 9 MB": h.hole("receipt.json", 9 << 20),
    "receipt: a terabyte": h.hole("receipt.json", 1 << 40),
    "receipt: no UTF-8": h.write("receipt.json", b"\xff\xfe{}"),
    "receipt: nothing but a format": h.write("receipt.json", '{"format": "veilset-receipt/1"}'),
    "receipt: another format": h.write("receipt.json", '{"format": "veilset-receipt/9"}'),
    "receipt: NaN": lambda f: (f / "receipt.json").write_text(
        (f / "receipt.json").read_text().replace('"delta": 1e-05', '"delta": NaN')
    ),
    "receipt: epsilon in words": h.fact(epsilon="1"),
    "receipt: a number with 4000 digits": h.fact(delta=10**4000),
    "receipt: method is a list": h.fact(method=[1]),
    "receipt: config is a list": h.fact(config=[1]),
    "receipt: data is a word": h.fact(data="digits"),
    "receipt: data is no set": h.fact(data={"classes": 3}),
    "receipt: no classes": lambda f: h.declare(f, classes=[]),
    "receipt: shape of a galaxy": lambda f: h.declare(f, shape=[3, 10**9, 10**9]),
    "receipt: shape in words": lambda f: h.declare(f, shape=["1", "8", "8"]),
    "receipt: half a million classes twice": lambda f: h.declare(f, classes=MANY + MANY),
    "receipt: a lone surrogate": h.write("receipt.json", '{"format": "veilset-receipt/1", "method": "\\ud800"}'),
    "ledger: line ends": lambda f: h.write("ledger.jsonl", (f / "ledger.jsonl").read_bytes().replace(b"\n", b"\r\n"))(
        f
    ),
    "ledger: nested": h.write("ledger.jsonl", h.DEEP + "\n"),
    "ledger: 100,000 digits": h.write("ledger.jsonl", '{"seq": ' + h.DIGITS + "}\n"),
    "ledger: 33 MB": h.hole("ledger.jsonl", 33 << 20),
    "ledger: one line of 9 MB": h.write("ledger.jsonl", '{"seq": 0, "body": "' + "x" * (9 << 20) + '"}\n'),
    "ledger: empty": h.write("ledger.jsonl", b""),
    "ledger: gone": lambda f: (f / "ledger.jsonl").unlink(),
    "ledger: no plan": lambda f: h.rechain(f, lambda bodies: bodies[0].pop("plan")),
    "ledger: no verb": lambda f: h.rechain(f, lambda bodies: bodies[0]["plan"]["releases"][0].__setitem__("verb", 7)),
    "ledger: a kind that is a list": lambda f: h.rechain(f, lambda bodies: bodies[1].__setitem__("kind", [])),
    "ledger: 4000 digits of steps": lambda f: h.rechain(f, lambda bodies: bodies[1].__setitem__("steps", 10**4000)),
    "ledger: names with escapes": lambda f: h.rechain(f, lambda bodies: bodies[1].__setitem__("release", h.ESCAPE)),
    "list: gone": lambda f: (f / "SHA256SUMS").unlink(),
    "list: empty": h.write("SHA256SUMS", b""),
    "list: 65 MB": h.hole("SHA256SUMS", 65 << 20),
    "list: names above": lambda f: (h.write("SHA256SUMS", "0" * 64 + "  ../../etc/hostname\n")(f), _sums(f)),
    "list: no hashes": lambda f: (h.write("SHA256SUMS", "a  b\n" * 1000)(f), _sums(f)),
    "a file with escapes in its name": lambda f: (f / h.ESCAPE.replace("/", "")).write_text("x"),
    "a private part": lambda f: ((f / "private").mkdir(), (f / "private" / "metrics.json").write_text("{}")),
    "an empty private part": lambda f: (f / "private").mkdir(),
    "private is a file": lambda f: (f / "private").write_text("x"),
    "signature: nested": h.write("receipt.sig.json", h.DEEP),
    "signature: a list": h.write("receipt.sig.json", "[]"),
    "signature: words": h.write("receipt.sig.json", '{"public_key": "zz", "signature": "zz"}'),
    "signature: 9 MB": h.hole("receipt.sig.json", 9 << 20),
}


def replaced(path: Path, old: bytes, new: bytes) -> None:
    """Other bytes in a file, everywhere."""
    raw = path.read_bytes()
    assert old in raw
    path.write_bytes(raw.replace(old, new))


def _sums(folder: Path) -> None:
    """The receipt covers the list as it is now."""
    from veilset.core.io import canonical, sha256, sha256_file

    facts = json.loads((folder / "receipt.json").read_text()) | {"files_sha256": sha256_file(folder / "SHA256SUMS")}
    facts["seal"] = sha256(canonical({k: v for k, v in facts.items() if k != "seal"}))
    (folder / "receipt.json").write_text(json.dumps(facts))


@pytest.mark.parametrize("kind", FACTS)
def test_receipts_ledgers_lists_and_signatures(veilset: Run, copy: Copy, tmp_path: Path, kind: str) -> None:
    out = copy("out")
    assert veilset("sign", "--new-key", tmp_path / "key").status == 0
    FACTS[kind](out)
    answered(call(veilset, "verify", out, tmp_path / "p.html"), "verify")
    assert veilset("verify", out, "--json").json["release"] is False
    answered(call(veilset, "audit", out, tmp_path / "p.html"), "audit")
    if not kind.startswith("signature"):  # a new signature takes the place of a broken one
        answered(call(veilset, "sign", out, tmp_path / "p.html"), "sign")
        assert not (out / "receipt.sig.json").exists()
    page = call(veilset, "report", out, tmp_path / "p.html")
    if page.status == 0:
        html = (tmp_path / "p.html").read_text("utf-8")
        assert "NOT VERIFIED" in html and "data:image/png" not in html
    else:
        page.refused()


def test_words_that_tell_what_happened(veilset: Run, copy: Copy) -> None:
    out = copy("out")
    raw = (out / "ledger.jsonl").read_bytes()
    (out / "ledger.jsonl").write_bytes(raw.replace(b"\n", b"\r\n"))
    assert "its line ends were changed (CRLF)" in veilset("verify", out).out
    (out / "ledger.jsonl").write_bytes(raw)
    (out / "SHA256SUMS").rename(out.parent / "SHA256SUMS")
    told = veilset("verify", out).out
    assert "SHA256SUMS: no such file" in told and "Errno" not in told
    (out.parent / "SHA256SUMS").rename(out / "SHA256SUMS")
    assert "not signed: it does not show who made it" in veilset("verify", out).out
    assert any("not signed" in note for note in veilset("verify", out, "--json").json["notes"])
    for name in (".DS_Store", "images/Thumbs.db", "images/desktop.ini", "._labels.csv", "images/.directory"):
        (out / name).write_bytes(b"left by a file manager")
    told = veilset("verify", out)
    assert told.status == 0 and told.out.count("skipped, the receipt does not cover it") == 5
    (out / "other.db").write_bytes(b"x")
    assert "other.db is not covered" in veilset("verify", out).out


def test_names_of_strangers_are_written_out(veilset: Run, copy: Copy, tmp_path: Path) -> None:
    """A release that verifies, of a set whose every name tries to move the cursor and to fake a line."""
    out = copy("out")
    h.declare(out, **NAMES)
    outcome = veilset("verify", out)
    assert outcome.status == 0 and "\\u001b[2J" in outcome.out and outcome.out.count("\nVERIFIED") == 1
    assert "\x1b" not in outcome.out and "\u202e" not in outcome.out and "\x9b" not in outcome.out
    found = veilset("verify", out, "--json")
    assert found.json["ok"] is True and "\u202e" not in found.out
    assert "\x1b" not in call(veilset, "evaluate", out, tmp_path / "p.html").err
    raw = "\x1b\u202e\U000e0001\ud800"
    assert legible(h.ESCAPE).isprintable() and json.loads('"' + legible(raw) + '"') == raw


# ---------------------------------------------------------------------- runs of strangers


def _model(**changes: Any) -> h.Damage:
    def make(folder: Path) -> None:
        facts = json.loads((folder / "model.json").read_text())
        (folder / "model.json").write_text(json.dumps(facts | changes))
        h.forge(folder)

    return make


def _tensors(**found: Any) -> h.Damage:
    def make(folder: Path) -> None:
        from safetensors.torch import save_file

        save_file(found, folder / "model.safetensors")
        h.forge(folder)

    return make


def _declared(**changes: Any) -> h.Damage:
    return lambda f: _model(info=json.loads((f / "model.json").read_text())["info"] | changes)(f)


def _ones(*shape: int) -> Any:
    import torch

    return torch.ones(*shape)


RUNS: dict[str, h.Damage] = {
    "nested": h.write("model.json", h.DEEP),
    "100,000 digits": h.write("model.json", '{"format": ' + h.DIGITS + "}"),
    "9 MB": h.hole("model.json", 9 << 20),
    "a method with escapes": _model(method=h.ESCAPE),
    "a parameter out of range": _model(config={"spread": 7}),
    "a parameter that is a list": _model(config={"spread": [1]}),
    "an unknown parameter": _model(config={h.ESCAPE: 1}),
    "4000 digits": _model(config={"bound": -(10**4000)}),
    "a galaxy": _declared(shape=[3, 10**9, 10**9]),
    "a shape of two": _declared(shape=[1, 8]),
    "a shape in words": _declared(shape="188"),
    "no units": _declared(units=0),
    "units in words": _declared(units="many"),
    "no such fact": _declared(colour="red"),
    "weights cut short": h.both(h.write("model.safetensors", b"\x10"), h.forge),
    "weights with a huge header": h.both(h.write("model.safetensors", b"\xff" * 64), h.forge),
    "weights of two gigabytes": h.hole("model.safetensors", 2 << 30),
    "weights of nothing": _tensors(other=_ones(2)),
    "weights of another shape": _tensors(mean=_ones(2, 1, 3, 3)),
    "weights that are not covered": h.write("model.safetensors", b"x"),
    "no list": lambda f: (f / "SHA256SUMS").unlink(),
    "no ledger": lambda f: (f / "ledger.jsonl").unlink(),
    "no receipt": lambda f: (f / "receipt.json").unlink(),
    "a receipt of half its facts": h.write("receipt.json", '{"format": "veilset-receipt/1", "stamp": ""}'),
}


@pytest.mark.parametrize("kind", RUNS)
def test_runs(veilset: Run, copy: Copy, tmp_path: Path, kind: str) -> None:
    run = copy("run")
    RUNS[kind](run)
    before = sorted(tmp_path.rglob("*"))
    for verb in ("sample", "evaluate"):
        answered(call(veilset, verb, run, tmp_path / "p.html"), verb)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("method", "huge"),
    [
        ("dp-merf", {"latent_dim": 10**9}),
        ("dp-merf", {"latent_dim": 300_000}),
        ("dp-gan", {"width": 60_000}),
        ("dp-gan", {"latent_dim": 10**8}),
        ("dp-cvae", {"hidden_dim": 40_000}),
        ("dp-diffusion", {"width": 4096}),
    ],
)
def test_parameters_of_strangers_take_no_more_than_their_weights(
    veilset: Run, copy: Copy, tmp_path: Path, method: str, huge: dict[str, int]
) -> None:
    """Built-in methods under names of parameters that are theirs, and weights of nothing."""
    from dataclasses import asdict

    import veilset as vs

    run = copy("run")
    config = asdict(vs.make(method).config)
    assert set(huge) <= set(config), config
    _tensors(mean=_ones(10, 1, 8, 8))(run)
    _model(method=method, config=config | huge)(run)
    before = peak_mb()
    outcome = call(veilset, "sample", run, tmp_path / "p.html")
    answered(outcome, "sample")
    assert "its weights are not those of" in outcome.err and peak_mb() - before < 600
    print(outcome.err)


FIGURES = {
    "nested": h.DEEP,
    "100,000 digits": '{"metrics": [{"value": ' + h.DIGITS + "}]}",
    "a list": "[]",
    "a value in words": '{"metrics": [{"name": "x", "value": "\\u001b[2J", "unit": "%"}]}',
    "infinite": '{"metrics": [{"name": "x", "value": Infinity, "unit": "%", "better": "", "reads_private": false}]}',
    "4000 digits": '{"metrics": [{"name": "x", "value": 1' + "0" * 4000 + "}]}",
}


@pytest.mark.parametrize("kind", FIGURES)
def test_figures_of_strangers(veilset: Run, copy: Copy, tmp_path: Path, kind: str) -> None:
    run = copy("run")
    (run / "private" / "metrics.json").write_text(FIGURES[kind])
    answered(call(veilset, "report", run, tmp_path / "p.html"), "report")
    (run / "private" / "metrics.json").unlink()
    (run / "private" / "audit.json").write_text(FIGURES[kind])
    assert call(veilset, "report", run, tmp_path / "p.html").status == 0
    assert "There is an audit, but it cannot be shown" in (tmp_path / "p.html").read_text("utf-8")


# ---------------------------------------------------------------------- what it costs

COSTLY: dict[str, tuple[str, h.Damage]] = {
    "three million names in the receipt": ("verify", lambda f: _names(f, 8_300_000)),
    "two million empty lists": ("verify", h.write("receipt.json", "[" + "[]," * 2_700_000 + "[]]")),
    "a ledger of short lines": ("verify", lambda f: _many_lines(f)),
    "a ledger of one value": ("verify", h.write("ledger.jsonl", '{"body":[' + "[]," * 2_700_000 + "[]]}\n")),
    "a list of half a million names": ("verify", lambda f: (_long_list(f), _sums(f))),
    "a million rows": ("evaluate", h.both(h.write("labels.csv", "file,label\n" + "a.png,1\n" * 1_500_000), h.forge)),
    "forty million images": ("evaluate", h.declared_rows(40_000_000)),
}


def _names(folder: Path, size: int) -> None:
    names, i, room = [], 0, size
    while room > 12:
        names.append(f"{i:x}")
        room -= len(names[-1]) + 3
        i += 1
    facts = json.loads((folder / "receipt.json").read_text())
    facts["data"]["classes"] = names
    (folder / "receipt.json").write_text(json.dumps(facts, separators=(",", ":")))


def _many_lines(folder: Path) -> None:
    from veilset.privacy.ledger import Ledger, _seal

    book = Ledger()
    first = json.loads((folder / "ledger.jsonl").read_text().splitlines()[0])["body"]
    book.lines.append(_seal(0, book.head, first))
    charge = json.loads((folder / "ledger.jsonl").read_text().splitlines()[1])["body"]
    for i in range(1, 30_000):
        book.lines.append(_seal(i, book.head, charge | {"steps": 0}))
    book.lines.append(_seal(30_000, book.head, {"kind": "close"}))
    (folder / "ledger.jsonl").write_bytes(book.to_bytes())
    h.forge(folder)


def _long_list(folder: Path) -> None:
    (folder / "SHA256SUMS").write_text("".join(f"{i:064x}  {i:x}\n" for i in range(400_000)))


# A small process between: the peak of a child counts what the process that it was forked from had.
MEASURED = """
import json, resource, subprocess, sys
limit = lambda: resource.setrlimit(resource.RLIMIT_CPU, (10, 10))
done = subprocess.run(sys.argv[1:], capture_output=True, text=True, preexec_fn=limit)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
told = {"status": done.returncode, "kb": used.ru_maxrss, "seconds": used.ru_utime + used.ru_stime}
print(json.dumps([told, done.stdout, done.stderr]))
"""


QUICK = "a ledger of one value"  # a process and its damage take seconds, so the others are long


@pytest.mark.parametrize("kind", [pytest.param(k, marks=() if k == QUICK else pytest.mark.long) for k in COSTLY])
def test_cost_is_bounded(copy: Copy, kind: str) -> None:
    out = copy("out")
    verb, damage = COSTLY[kind]
    damage(out)
    options = ["--against", "digits", "--metrics", "gen2real-logreg"] if verb == "evaluate" else []
    command = [sys.executable, "-m", "veilset.cli.main", verb, str(out), *options]
    done = subprocess.run([sys.executable, "-c", MEASURED, *command], capture_output=True, text=True)
    used, told, err = json.loads(done.stdout)
    print(f"{kind}: {used['kb'] / 1024:.0f} MB, {used['seconds']:.1f} s")
    assert used["status"] > 0 and used["kb"] < 1024**2, (used, told[-300:], err[-300:])
    assert len(err.splitlines()) == (verb != "verify") and "Traceback" not in err
