"""A patient with several images, end to end: declared, checked, planned, paid, fitted, verified, audited and reported.

The audit's neighbours differ by a whole patient, who has more images than the cap, in both classes.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from veilset.audit.mechanism.audit import audit
from veilset.core.errors import DataError
from veilset.data.load import load
from veilset.privacy.gate import Gate
from veilset.privacy.plan import Plan, Release
from veilset.privacy.sampling import Units
from veilset.privacy.spec import Privacy

Run = Callable[..., "object"]
CAP, DECLARED, CANARY = 3, 60, "p07"
BOUND = 0.5


def make_set(folder: Path, without: str | None = None, column: str = "unit") -> Path:
    """About 60 patients with one to five 6x6 images; the canary's five are white, and in both classes."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    rows = []
    for p in range(DECLARED):
        for k in range(5 if f"p{p:02d}" == CANARY else 1 + p % 5):
            y = (p + (k if f"p{p:02d}" == CANARY else 0)) % 2
            x = rng.integers(0, 60, (6, 6)) + 150 * y
            x = np.full((6, 6), 255) if f"p{p:02d}" == CANARY else x
            if f"p{p:02d}" != without:
                Image.fromarray(x.astype(np.uint8)).save(folder / "images" / f"p{p:02d}.{k}.png")
                rows.append({"file": f"images/p{p:02d}.{k}.png", "label": "sick" if y else "well", column: f"p{p:02d}"})
    with open(folder / "labels.csv", "w", newline="") as f:
        out = csv.DictWriter(f, rows[0])
        out.writeheader()
        out.writerows(rows)
    return folder


def confirm(folder: Path, column: str) -> None:
    """What an owner does with the draft of `data init`."""
    path = folder / "veilset.toml"
    lines = path.read_text().splitlines()
    mine = {
        "name": '"ward"', "units": str(DECLARED), "unit": '"one patient"', "max_images_per_unit": str(CAP),
        "unit_column": f'"{column}"', "confirmed": "true",
    }  # fmt: skip
    for i, line in enumerate(lines):
        key = line.partition(" = ")[0]
        lines[i] = f"{key} = {mine[key]}" if key in mine else line
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(params=["unit", "Patient ID"])
def ward(veilset: Run, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A column `unit` is the unit by its name; one that looks like people is so once the owner says it."""
    folder = make_set(tmp_path / "ward", column=request.param)
    said = veilset("data", "init", folder)
    text = (folder / "veilset.toml").read_text()
    assert said.status == 0 and (request.param == "unit" or request.param in said.out)
    assert 'unit = "one unit id"' in text if request.param == "unit" else 'unit_column = "Patient ID"' in text
    confirm(folder, request.param)
    return folder


def test_a_patient_column_from_declaration_to_report(veilset: Run, ward: Path, tmp_path: Path) -> None:
    found = veilset("data", "check", ward)
    assert "more than the declared max_images_per_unit = 3" in found.out  # further images are left out, which is said
    fit = ("tiny", "--data", ward, "--epsilon", "2")
    plan = veilset("plan", *fit, "--json").json
    assert plan["unit"] == "one patient" and "unit: one patient" in veilset("plan", *fit).out

    account = tmp_path / "ward.account"
    words = veilset("account", "create", account, "--data", ward, "--epsilon", "3").out
    assert "60 units declared, one unit is one patient" in words
    receipt = veilset("fit", *fit, "--out", tmp_path / "run", "--account", account, "--json").json["receipt"]
    assert (receipt["unit"], receipt["max_images_per_unit"], receipt["data"]["units"]) == ("one patient", CAP, DECLARED)
    assert receipt["account"]["line"] == 1
    assert veilset("verify", tmp_path / "run", "--json").json["release"] is True

    assert veilset("report", tmp_path / "run", "--out", tmp_path / "page.html").status == 0
    page = (tmp_path / "page.html").read_text()
    assert "one patient" in page and f"at most {CAP} images" in page


def test_a_patient_column_that_nobody_decided_on_stops_every_verb(veilset: Run, tmp_path: Path) -> None:
    folder = make_set(tmp_path / "ward", column="PatientID")
    (said,) = veilset("data", "init", folder, "--json").json["columns"]
    assert said["severity"] == "fault" and 'column "PatientID" looks like people' in said["text"]
    text = (folder / "veilset.toml").read_text()
    (folder / "veilset.toml").write_text(text.replace("confirmed = false", "confirmed = true"))
    assert veilset("data", "check", folder).status == 1
    fit = ("tiny", "--data", folder, "--epsilon", "2")
    for verb in (("plan", *fit), ("fit", *fit, "--out", tmp_path / "run")):
        veilset(*verb, "--json").refused('column "PatientID" looks like people', "unit_column", "ignored")
    assert not (tmp_path / "run").exists()


def test_a_receipt_that_names_images_for_patients_fails(veilset: Run, ward: Path, tmp_path: Path) -> None:
    from veilset.privacy.receipt import _seal

    veilset("fit", "tiny", "--data", ward, "--epsilon", "2", "--out", tmp_path / "run")
    path = tmp_path / "run" / "receipt.json"
    facts = json.loads(path.read_text()) | {"unit": "one image"}
    path.write_text(json.dumps(facts | {"seal": _seal(facts)}))
    assert veilset("verify", tmp_path / "run", "--json").status == 1


def test_an_account_of_patients_does_not_pay_for_images(veilset: Run, ward: Path, tmp_path: Path) -> None:
    account = tmp_path / "a"
    veilset("account", "create", account, "--data", ward, "--epsilon", "3")
    text = (ward / "veilset.toml").read_text()
    (ward / "veilset.toml").write_text(text.replace('unit = "one patient"', 'unit = "one image"'))
    fit = ("fit", "tiny", "--data", ward, "--epsilon", "1", "--out", tmp_path / "run", "--account", account)
    veilset(*fit, "--json").refused("unit", "one patient", "one image")


def answers(folder: Path, verb: str) -> torch.Tensor:
    """One answer about a set, of which only the noise is known: it follows from the seed."""
    data = load(folder).train
    release = Release(name="asked", verb=verb, bound=BOUND)
    gate = Gate(data, Plan((release,)).price(Privacy(1.0), data.info), seed=0)
    if verb == "sum":
        return gate.sum("asked", lambda x, y: 100 * x, by_class=True).flatten()
    loss = lambda p, x, y: 100 * (p["w"] * x).sum()  # noqa: E731
    return DECLARED * gate.grad("asked", loss, {"w": torch.zeros(1, 6, 6, dtype=torch.float64)})["w"].flatten()


@pytest.mark.parametrize("verb", ["sum", "grad"])
def test_neighbours_that_differ_by_a_whole_patient_move_an_answer_by_the_bound_at_most(
    ward: Path, tmp_path: Path, verb: str
) -> None:
    """Five images far beyond the bound, in both classes: together they move the answer by one bound, not by three."""
    column = next(csv.reader((ward / "labels.csv").open()))[-1]
    neighbour = make_set(tmp_path / "neighbour", without=CANARY, column=column)
    (neighbour / "veilset.toml").write_text((ward / "veilset.toml").read_text())
    moved = float((answers(ward, verb) - answers(neighbour, verb)).norm())
    assert 0.5 * BOUND < moved <= BOUND * (1 + 1e-6)


def test_an_audit_by_whole_patients_finds_nothing_in_sound_code() -> None:
    seen = audit("sum-patient", epsilon=4.0, draws=300, seed=1)
    assert seen.ok and 1.0 < seen.lower_bound <= seen.claim


def test_an_audit_by_whole_patients_catches_a_gate_that_protects_single_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each image with a bound of its own: right for images, and three times too little noise for this patient."""
    real = Units.chunks

    def apart(self: Units, *asked: Any) -> Iterator[Any]:
        for records, unit, images in real(self, *asked):
            yield records, unit, np.ones_like(images)

    monkeypatch.setattr(Units, "chunks", apart)
    seen = audit("sum-patient", epsilon=4.0, draws=300, seed=1)
    assert not seen.ok and seen.lower_bound > seen.claim


def test_a_patient_in_both_splits_is_a_fault(ward: Path) -> None:
    rows = list(csv.DictReader((ward / "labels.csv").open()))
    with open(ward / "labels.csv", "w", newline="") as f:
        out = csv.DictWriter(f, [*rows[0], "split"])
        out.writeheader()
        out.writerows({**row, "split": "test" if i == 8 else "train"} for i, row in enumerate(rows))
    with pytest.raises(DataError, match="unit is in both splits"):
        load(ward).train.check()
