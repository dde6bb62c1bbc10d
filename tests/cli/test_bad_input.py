"""Each bad input gets one clear line on stderr and a non-zero exit, and leaves nothing half-written."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
Copy = Callable[[str], Path]
PLAN = ("plan", "tiny", "--data", "digits")


def names(folder: Path) -> list[str]:
    """Everything in a folder, hidden files too."""
    return sorted(p.name for p in folder.iterdir())


# ---------------------------------------------------------------------- budget and parameters

BUDGETS = [
    (("--epsilon", "0"), "epsilon = 0"),
    (("--epsilon", "-1"), "epsilon = -1"),
    (("--epsilon", "nan"), "epsilon = nan"),
    (("--epsilon", "much"), "'much' is not a number"),
    (("--epsilon",), "expected one argument"),
    ((), "required: --epsilon"),
    (("--epsilon", "1", "--delta", "0"), "delta = 0"),
    (("--epsilon", "1", "--delta", "1"), "delta = 1"),
    (("--epsilon", "1", "--delta", "nan"), "delta = nan"),
    (("--epsilon", "1", "--delta", "-0.1"), "delta = -0.1"),
    (("--epsilon", "1", "--delta", "0.01"), "--allow-large-delta"),
]


@pytest.mark.parametrize(("options", "words"), BUDGETS)
@pytest.mark.parametrize("verb", ["plan", "fit"])
def test_a_bad_budget(veilset: Run, tmp_path: Path, verb: str, options: tuple[str, ...], words: str) -> None:
    out = ("--out", tmp_path / "run") if verb == "fit" else ()
    veilset(verb, "tiny", "--data", "digits", *out, *options).refused(words)
    assert names(tmp_path) == []


METHODS = [
    (("plan", "tinny"), "Did you mean 'tiny'?"),
    (("plan", "no-such-thing"), "Known: dp-merf"),
    (("plan", "tiny", "--spraed", "1"), "Did you mean 'spread'?"),
    (("plan", "tiny", "--nonsense", "1"), "It takes: spread, bound, shape"),
    (("plan", "tiny", "--spread", "2"), "spread = '2'"),
    (("plan", "tiny", "--spread", "nan"), "spread = 'nan'"),
    (("plan", "tiny", "--spread", "wide"), "must be float"),
    (("plan", "tiny", "--bound", "1.5"), "must be int"),
    (("plan", "tiny", "--bound", "0"), ">= 1"),
    (("plan", "tiny", "--bound=-3"), ">= 1"),
    (("plan", "tiny", "--shape", "flatt"), "Did you mean 'flat'?"),
    (("plan", "tiny", "--spread"), "a value is missing"),
    (("plan", "--method", "tiny"), "named without it"),
    (("plan", "tiny", "--alow-large-delta"), "Did you mean '--allow-large-delta'?"),
    (("plan", "tiny", "--spread", "0", "--spread", "1"), "given twice"),
    (("plan", "tiny", "stray"), "'stray' is not understood"),
]


@pytest.mark.parametrize(("command", "words"), METHODS)
def test_a_bad_method_or_parameter(veilset: Run, command: tuple[str, ...], words: str) -> None:
    veilset(*command[:2], "--data", "digits", "--epsilon", "1", *command[2:]).refused(words)


def test_a_parameter_that_is_known_brings_no_other_to_mind(veilset: Run) -> None:
    outcome = veilset("plan", "private-set", "--data", "digits", "--epsilon", "1", "--lr")
    outcome.refused("write --lr VALUE")
    assert "Did you mean" not in outcome.err


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("plann",), "Did you mean 'plan'?"),
        (("synthesize-it",), "Verbs: data"),
        (("data", "chek", "x"), "chek"),
        (("data",), "WHAT"),
        (("sample", "x", "-n", "ten", "--out", "y"), "invalid int value: 'ten'"),
        (("verify",), "required"),
        (("sign",), "give a folder and --key FILE"),
        (("bench", "no-such-suite"), "no-such-suite"),
        (("bench", "audit", "--list"), "write --stale --list"),
        (("bench", "audit", "--stale", "--quick"), "leave out --quick"),
        (("bench", "audit", "--stale", "--dry"), "leave out --quick and --dry"),
    ],
)
def test_a_bad_verb_or_argument(veilset: Run, command: tuple[str, ...], words: str) -> None:
    veilset(*command).refused(words)


def test_no_verb_prints_help_and_fails(veilset: Run) -> None:
    outcome = veilset()
    assert outcome.status != 0 and "verify" in outcome.out


@pytest.mark.parametrize("source", ["digit", "no/such/folder"])
def test_data_that_is_not_there(veilset: Run, tmp_path: Path, source: str) -> None:
    command = ("tiny", "--data", source, "--epsilon", "1")
    veilset("plan", *command).refused(source)
    veilset("fit", *command, "--out", tmp_path / "run").refused(source)
    veilset("data", "check", source).refused(source)
    assert names(tmp_path) == []


def test_a_faulty_image_is_found_before_the_run_folder_is_made(veilset: Run, tmp_path: Path) -> None:
    from PIL import Image

    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(20):
            Image.new("L", (8, 8), 40 * i % 256).save(tmp_path / "set" / name / f"{i}.png")
    veilset("plan", "tiny", "--data", tmp_path / "set", "--epsilon", "1").refused("data init")
    toml = Path(veilset("data", "init", tmp_path / "set", "--json").json["declaration"])
    toml.write_text(toml.read_text().replace("confirmed = false", "confirmed = true"))
    broken = tmp_path / "set" / "a" / "3.png"
    broken.write_bytes(broken.read_bytes()[:40])
    before = names(tmp_path)
    fit = ("fit", "tiny", "--data", tmp_path / "set", "--epsilon", "1", "--out", tmp_path / "run", "--json")
    veilset(*fit).refused("a/3.png")
    assert names(tmp_path) == before
    checked = veilset("data", "check", tmp_path / "set", "--json")
    assert checked.status != 0 and checked.json["ok"] is False


# ---------------------------------------------------------------------- folders in the way


def test_an_output_that_exists(veilset: Run, made: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine.txt").write_text("keep me")
    there = tmp_path / "there"
    veilset("fit", "tiny", "--data", "digits", "--epsilon", "1", "--out", there).refused("exists")
    veilset("sample", made / "run", "-n", "10", "--out", there).refused("exists")
    (tmp_path / "scores.json").write_text("{}")
    scores = ("--against", "digits", "--out", tmp_path / "scores.json")
    veilset("evaluate", made / "out", *scores).refused("exists")
    (tmp_path / "page.html").write_text("mine")
    veilset("report", made / "run", "--out", tmp_path / "page.html").refused("page.html")
    assert names(there) == ["mine.txt"] and (tmp_path / "page.html").read_text() == "mine"
    assert names(tmp_path) == ["page.html", "scores.json", "there"]


def test_a_parent_that_is_a_file(veilset: Run, made: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "run"
    veilset("fit", "tiny", "--data", "digits", "--epsilon", "1", "--out", out, "--json").refused(str(out))
    veilset("sample", made / "run", "-n", "10", "--out", out).refused("nothing was left behind")
    assert names(tmp_path) == ["file"]


def test_resuming_what_is_not_a_run_or_has_other_arguments(veilset: Run, copy: Copy, tmp_path: Path) -> None:
    fit = ("fit", "tiny", "--data", "digits", "--json")
    veilset(*fit, "--epsilon", "1", "--out", tmp_path / "new", "--resume").refused("drop --resume")
    run = copy("run")
    veilset(*fit, "--epsilon", "3", "--out", run, "--resume").refused("epsilon", "this run was started with")
    veilset(*fit, "--epsilon", "2", "--out", run, "--resume", "--spread", "0.2").refused("params")
    assert names(tmp_path) == ["run"]


def test_two_runs_in_one_folder(veilset: Run, copy: Copy) -> None:
    from veilset.core.io import lock

    run = copy("run")
    with lock(run / "private" / "lock", "the run"):
        again = veilset("fit", "tiny", "--data", "digits", "--epsilon", "2", "--out", run, "--resume", "--json")
    again.refused("in use by another process")


def test_a_disk_without_locks_is_named_and_nothing_is_left(
    veilset: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def refuse(fd: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    fit = ("fit", "tiny", "--data", "digits", "--epsilon", "1", "--out", tmp_path / "run", "--json")
    veilset(*fit).refused("its disk gives no locks")
    account = ("account", "create", tmp_path / "a.account", "--data", "digits", "--epsilon", "1", "--json")
    veilset(*account).refused("its disk gives no locks", "a.account")
    assert names(tmp_path) == []


def test_more_images_than_the_memory_holds_are_refused_before_they_are_begun(
    veilset: Run, made: Path, tmp_path: Path
) -> None:
    command = ("sample", made / "run", "-n", "10000000000", "--out", tmp_path / "out")
    veilset(*command).refused("n = 10000000000: so many images take", "GB of memory")
    assert names(tmp_path) == []


@pytest.mark.parametrize("format", ["folder", "npz"])
def test_a_full_disk_leaves_nothing(
    veilset: Run, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    from veilset.core import pictures

    def full(images: Any, folder: Path) -> None:
        (folder / "half.png").write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pictures, "write_pngs", full)
    monkeypatch.setattr(pictures, "write_npz", full)
    command = ("sample", made / "run", "-n", "10", "--out", tmp_path / "out", "--format", format)
    veilset(*command).refused("No space left on device")
    assert names(tmp_path) == []


def test_a_system_error_is_one_line(veilset: Run, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from veilset.methods import catalogue

    def refuse(folder: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))

    monkeypatch.setattr(catalogue, "open_model", refuse)
    veilset("sample", made / "run", "-n", "10", "--out", "x").refused("Permission denied", str(made / "run"))


# ---------------------------------------------------------------------- models from elsewhere


# A pickle that would make a file called pwned when it is opened.
PICKLE = b"cbuiltins\nopen\n(S'pwned'\nS'w'\ntR."


def test_a_model_that_is_a_pickle(veilset: Run, copy: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = copy("run")
    (run / "model.safetensors").write_bytes(PICKLE)
    veilset("sample", run, "-n", "10", "--out", "out").refused("not a whole safetensors file")
    veilset("evaluate", run, "--against", "digits").refused("not a whole safetensors file")
    assert names(tmp_path) == ["run"]


def test_the_tensors_of_another_model(veilset: Run, copy: Copy, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    run = copy("run")
    save_file({"other": torch.zeros(3)}, run / "model.safetensors")
    veilset("sample", run, "-n", "10", "--out", tmp_path / "out").refused("model.safetensors")
    assert names(tmp_path) == ["run"]


def test_a_truncated_model(veilset: Run, copy: Copy, tmp_path: Path) -> None:
    run = copy("run")
    whole = (run / "model.safetensors").read_bytes()
    for size in (0, 5, len(whole) // 2, len(whole) - 1):
        (run / "model.safetensors").write_bytes(whole[:size])
        veilset("sample", run, "-n", "10", "--out", tmp_path / "out").refused("model.safetensors")
    (run / "model.safetensors").unlink()
    veilset("sample", run, "-n", "10", "--out", tmp_path / "out").refused("model.safetensors")
    assert names(tmp_path) == ["run"]


@pytest.mark.parametrize(
    "text",
    ["", "not json", "[]", "{}", '{"format": "veilset-model/9"}', '{"format": "veilset-model/1"}'],
)
def test_a_model_json_from_elsewhere(veilset: Run, copy: Copy, tmp_path: Path, text: str) -> None:
    run = copy("run")
    (run / "model.json").write_text(text)
    veilset("sample", run, "-n", "10", "--out", tmp_path / "out").refused("model.json")


def test_a_model_json_with_wrong_parts(veilset: Run, copy: Copy, tmp_path: Path) -> None:
    run = copy("run")
    facts = json.loads((run / "model.json").read_text())
    for change in (
        {"method": "tinny"},
        {"config": {"spread": 9.0}},
        {"config": {"speed": 1}},
        {"config": 3},
        {"info": {}},
    ):
        (run / "model.json").write_text(json.dumps(facts | change))
        veilset("sample", run, "-n", "10", "--out", tmp_path / "out").refused()


@pytest.mark.parametrize(
    "verb", [("sample", "-n", "10", "--out", "o"), ("evaluate", "--against", "digits"), ("report",)]
)
def test_a_folder_that_is_no_run(
    veilset: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    veilset(verb[0], "nothing", *verb[1:]).refused("nothing")
    (tmp_path / "empty").mkdir()
    veilset(verb[0], "empty", *verb[1:]).refused("empty")
    assert names(tmp_path) == ["empty"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-n", "0"), "n = 0"),
        (("-n", "-5"), "n = -5"),
        (("-n", "10", "--class", "11"), "class '11' is not declared"),
        (("-n", "10", "--mix", "1"), "mix = '1'"),
        (("-n", "10", "--mix", "1=x"), "mix = '1=x'"),
        (("-n", "10", "--mix", "1=-1"), "mix 1 = -1.0"),
        (("-n", "10", "--mix", "1=nan"), "mix 1 = nan"),
        (("-n", "10", "--mix", "1=0"), "above 0"),
        (("-n", "10", "--mix", "1=1", "--class", "1"), "not both"),
        (("-n", "10", "--format", "jpeg"), "jpeg"),
    ],
)
def test_a_bad_draw(veilset: Run, made: Path, tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    veilset("sample", made / "run", *options, "--out", tmp_path / "out").refused(words)
    assert names(tmp_path) == []


def test_bad_evaluation(veilset: Run, made: Path, copy: Copy) -> None:
    veilset("evaluate", made / "out", "--against", "digits", "--metrics", "gen2rael-logreg").refused("Did you mean")
    veilset("evaluate", made / "out", "--against", "digits", "--seeds", "0").refused("seeds = 0")
    out = copy("out")
    next(out.glob("images/*/000003.png")).write_bytes(b"no picture")
    veilset("evaluate", out, "--against", "digits").refused("sample them again")


# ---------------------------------------------------------------------- verify answers instead of failing


def edit_ledger(folder: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    path = folder / "ledger.jsonl"
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "line dropped": lambda f: edit_ledger(f, lambda lines: [lines[0], *lines[2:]]),
    "lines swapped": lambda f: edit_ledger(f, lambda lines: [lines[0], lines[2], lines[1]]),
    "line edited": lambda f: edit_ledger(f, lambda lines: [w.replace(b'"steps":1', b'"steps":0') for w in lines]),
    "last line cut": lambda f: edit_ledger(f, lambda lines: [*lines[:-1], lines[-1][:-9]]),
    "last line gone": lambda f: edit_ledger(f, lambda lines: lines[:-1]),
    "no ledger": lambda f: (f / "ledger.jsonl").unlink(),
    "empty ledger": lambda f: (f / "ledger.jsonl").write_bytes(b""),
    "picture changed": lambda f: next(f.glob("images/*/000000.png")).write_bytes(b"other"),
    "picture gone": lambda f: next(f.glob("images/*/000000.png")).unlink(),
    "picture added": lambda f: (f / "images" / "extra.png").write_bytes(b"new"),
    "labels changed": lambda f: (f / "labels.csv").write_text("file,label,class\n"),
    "list of hashes changed": lambda f: (f / "SHA256SUMS").write_text(""),
    "receipt gone": lambda f: (f / "receipt.json").unlink(),
    "receipt is no JSON": lambda f: (f / "receipt.json").write_text("{"),
    "receipt is a list": lambda f: (f / "receipt.json").write_text("[]"),
    "receipt is empty": lambda f: (f / "receipt.json").write_text("{}"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_verify_answers_no_to(veilset: Run, copy: Copy, damage: str) -> None:
    out = copy("out")
    DAMAGE[damage](out)
    outcome = veilset("verify", out, "--json")
    assert outcome.status == 1 and outcome.err == ""
    assert outcome.json["ok"] is False and not all(c["ok"] for c in outcome.json["checks"])
    words = veilset("verify", out)
    assert words.status == 1 and "NOT VERIFIED" in words.out


@pytest.mark.parametrize(
    "change",
    [{"epsilon": 0.5}, {"delta": 1e-9}, {"unit": "one patient"}, {"max_images_per_unit": 9}, {"method": "other"}],
)
def test_verify_answers_no_to_an_edited_receipt(veilset: Run, copy: Copy, change: dict[str, Any]) -> None:
    out = copy("out")
    facts = json.loads((out / "receipt.json").read_text())
    (out / "receipt.json").write_text(json.dumps(facts | change))
    assert veilset("verify", out, "--json").status == 1


def test_sign_refuses_what_does_not_verify_and_keys_of_another_kind(veilset: Run, copy: Copy, tmp_path: Path) -> None:
    out, key = copy("out"), tmp_path / "key"
    assert veilset("sign", "--new-key", key, "--json").status == 0
    veilset("sign", "--new-key", key).refused("never overwritten")
    (tmp_path / "no-key").write_text("nothing")
    veilset("sign", out, "--key", tmp_path / "no-key").refused("not a readable private key")
    (out / "labels.csv").write_text("")
    veilset("sign", out, "--key", key).refused("does not verify")
    assert not (out / "receipt.sig.json").exists()
