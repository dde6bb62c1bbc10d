"""Data that the owner declares to be public: in plan, ledger, receipt and words; absent where there is none."""

from __future__ import annotations

import json

import pytest
import torch
from sets import facts, pixels, private

from veilset.core.errors import ConfigError
from veilset.core.io import canonical, sha256
from veilset.core.types import PublicInfo
from veilset.methods import catalogue
from veilset.methods.base import Synthesizer
from veilset.privacy.ledger import parse
from veilset.privacy.plan import Plan, Release
from veilset.privacy.public_data import PublicData, read_public
from veilset.privacy.receipt import read_receipt, verify
from veilset.privacy.session import Session
from veilset.privacy.spec import Privacy
from veilset.report.page import write_report

CARDS = {"name": "cards", "sha256": "ab" * 32, "images": 500, "licence": "CC0-1.0", "declared_by": "the ward"}
SENTENCE = (
    "the claim rests on cards being public (500 images, licence CC0-1.0, SHA-256 abababababababab), as the ward "
    "declares; nothing here can check that"
)


class ByCards(Synthesizer):
    """A mean, and the declaration."""

    name = "by-cards"

    def _plan(self, info: PublicInfo, privacy: Privacy) -> Plan:
        return Plan((Release(name="a"),), public=(PublicData(**CARDS),))

    def _fit(self, gate, info: PublicInfo, plan: Plan) -> dict[str, torch.Tensor]:
        return {"a": gate.sum("a", pixels).float()}

    def _sample(self, state, info: PublicInfo, labels: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(labels), *info.shape)


def release(folder, *public):
    plan = Plan((Release(name="a"),), public=tuple(PublicData(**p) for p in public)).price(Privacy(1.0), facts())
    with Session(private(), plan, what="tester", config={}) as session:
        session.gate.sum("a", pixels)
    session.write(folder)
    return plan


def edit(folder, **changes):
    said = json.loads((folder / "receipt.json").read_text()) | changes
    said = {k: v for k, v in said.items() if v != "left out"}
    said["seal"] = sha256(canonical({k: v for k, v in said.items() if k != "seal"}))
    (folder / "receipt.json").write_text(json.dumps(said))


def test_it_stands_in_plan_ledger_receipt_and_words(tmp_path):
    plan = release(tmp_path, CARDS)
    first = next(parse((tmp_path / "ledger.jsonl").read_bytes()))["body"]
    assert first["plan"]["public"] == [CARDS] == plan.to_json()["public"]
    receipt = read_receipt(tmp_path)
    assert receipt.public == [CARDS] and SENTENCE in str(receipt) and SENTENCE in str(plan)
    got = verify(tmp_path)
    assert got.ok and SENTENCE in got.notes


def test_a_report_says_what_the_claim_rests_on(tmp_path, monkeypatch):
    monkeypatch.setitem(catalogue.BUILT_IN, "by-cards", catalogue.Entry(__name__, "ByCards", ""))
    ByCards().fit(private(), Privacy(1.0)).save(tmp_path / "run")
    html = write_report(tmp_path / "run", tmp_path / "page.html").read_text("utf-8")
    assert f"T{SENTENCE[1:]}</bdi>." in html


def test_without_any_nothing_is_written(tmp_path):
    plan = release(tmp_path)
    assert "public" not in plan.facts() and "public" not in plan.to_json()
    assert b'"public"' not in (tmp_path / "ledger.jsonl").read_bytes() + (tmp_path / "receipt.json").read_bytes()
    assert verify(tmp_path).ok and not any("public" in note for note in verify(tmp_path).notes)


@pytest.mark.parametrize("other", [[CARDS | {"images": 5}], "left out"], ids=["another", "left-out"])
def test_a_receipt_that_says_otherwise_than_the_ledger(tmp_path, other):
    release(tmp_path, CARDS)
    edit(tmp_path, public=other)
    found = {c["name"]: c["detail"] for c in verify(tmp_path).checks if not c["ok"]}
    assert "the receipt says public = " in found["plan"]


WRONG = {
    "no list": CARDS,
    "empty": [],
    "null": None,
    "a fact more": [CARDS | {"colour": "grey"}],
    "a fact less": [{k: v for k, v in CARDS.items() if k != "licence"}],
    "a short hash": [CARDS | {"sha256": "ab"}],
    "a hash that is none": [CARDS | {"sha256": "XY" * 32}],
    "no images": [CARDS | {"images": 0}],
    "images that are true": [CARDS | {"images": True}],
    "no name": [CARDS | {"name": ""}],
    "a long licence": [CARDS | {"licence": "x" * 300}],
    "nobody": [CARDS | {"declared_by": None}],
}


@pytest.mark.parametrize("what", WRONG)
def test_what_describes_no_data_is_refused_in_one_line(tmp_path, what):
    with pytest.raises(ConfigError) as e:
        read_public({"public": WRONG[what]})
    assert str(e.value).startswith("public") and "\n" not in str(e.value)
    release(tmp_path, CARDS)
    edit(tmp_path, public=WRONG[what])
    got = verify(tmp_path)
    assert not got.ok and "public" in got.checks[0]["detail"]
