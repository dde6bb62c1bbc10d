"""Choosing a classifier: by held-out synthetic images for nothing, or by private records, paid once."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from veilset.core.errors import ConfigError, RunError
from veilset.core.types import Images, PublicInfo
from veilset.evaluation import Protocol, Selection, evaluate
from veilset.evaluation import selection as module
from veilset.evaluation.registry import Trial
from veilset.evaluation.selection import choose_classifier
from veilset.privacy.private import PrivateImages, from_arrays
from veilset.privacy.receipt import verify
from veilset.privacy.spec import Privacy

QUICK = Protocol("mlp-2-epochs", epochs=2)
NAMES = ["gen2real-logreg"]


def private(images: Images, units: int | None = None) -> PrivateImages:
    info = PublicInfo(name="ward", classes=images.classes, shape=(1, 8, 8), units=units or len(images))
    return from_arrays(info, images.x.numpy(), images.y.numpy())


def paid(images: Images, out: Path, epsilon: float = 2.0, seed: int | None = None) -> Selection:
    return Selection("private", ("mlp", "logreg"), private(images), Privacy(epsilon, 1e-4), out, seed)


def test_nothing_is_chosen_unless_asked(train: Images, test: Images) -> None:
    assert [m.name for m in evaluate(train, test, metrics=NAMES, seeds=1)] == NAMES


def test_the_synthetic_rule_takes_the_best_on_held_out_images(train: Images, test: Images) -> None:
    chosen = Selection("synthetic", ("mlp", "logreg"))
    scores = evaluate(train[:600], test, metrics=NAMES, seeds=2, protocol=QUICK, select=chosen)
    m = scores["gen2real-selected-synthetic"]
    table = m.detail["scores"]
    assert table["logreg"] > table["mlp"] + 5  # two epochs are few
    assert m.detail["selected"] == "logreg" and m.detail["values"] == scores["gen2real-logreg"].detail["values"] * 2
    assert m.seeds == 2 and not m.reads_private


def test_held_out_images_do_not_teach(train: Images, test: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []

    def watched(name: str, images: Images, seed: int, protocol: Protocol | None) -> object:
        held = {bytes(r) for r in train.x.flatten(1).numpy()} - {bytes(r) for r in images.x.flatten(1).numpy()}
        seen.append((len(images), len(held)))
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))

    monkeypatch.setattr("veilset.evaluation.training.train_any", watched)
    trial = Trial(train, test, 0)
    module._held_out_accuracy("logreg", trial)
    assert seen == [(1080, 120)]


def test_the_private_rule_pays_once_and_leaves_a_receipt_that_verifies(
    train: Images, test: Images, tmp_path: Path
) -> None:
    out = tmp_path / "choice"
    scores = evaluate(train[:600], test, metrics=NAMES, seeds=2, protocol=QUICK, select=paid(train[600:], out))
    m = scores["gen2real-selected-private"]
    assert m.detail["selected"] == "logreg" and m.detail["leads"]["logreg"] > m.detail["leads"]["mlp"]
    assert m.detail["paid"]["epsilon"] == pytest.approx(2.0, rel=1e-2) and m.detail["paid"]["delta"] == 1e-4
    assert not m.reads_private  # what was read was paid for
    assert verify(out)
    text = (out / "ledger.jsonl").read_text()
    assert text.count('"kind":"charge"') == 1
    assert f'"sensitivity":{math.sqrt(2) / 2}' in text
    with pytest.raises(RunError, match="is finished"):
        evaluate(train[:600], test, metrics=NAMES, seeds=1, protocol=QUICK, select=paid(train[600:], out))


def test_a_seeded_private_choice_is_research_and_stamped(train: Images, test: Images, tmp_path: Path) -> None:
    rule = paid(train[600:], tmp_path / "a", seed=0)
    scores = evaluate(train[:300], test, metrics=NAMES, seeds=1, protocol=QUICK, select=rule)
    assert scores["gen2real-selected-private"].reads_private and "NOT A RELEASE" in repr(scores)


class Fixed(torch.nn.Module):
    """Gives every picture one label: the best a candidate can be on one class, and the worst on the others."""

    def __init__(self, label: int):
        super().__init__()
        self.logits = torch.nn.functional.one_hot(torch.tensor(label), 10).float()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits + 0 * x.flatten(1).sum(1, keepdim=True)


def exact_leads(
    records: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, candidates: tuple[str, ...]
) -> torch.Tensor:
    """The vector that the private rule asks for, before noise."""
    monkeypatch.setattr(Trial, "classifier", lambda self, name: Fixed(candidates.index(name)))
    taken: list[torch.Tensor] = []

    def ask(data: PrivateImages, plan: object, out: Path, question: object, **_: object) -> object:
        class Open:
            def sum(self, name: str, f: object) -> torch.Tensor:
                each = torch.func.vmap(f)(records.x.float() / 255, records.y)  # type: ignore[arg-type]
                taken.append(each)
                return each.sum(0).double()

        question(Open())  # type: ignore[operator]

        class Receipt:
            facts = {"epsilon": 0.0, "delta": 0.0}

        return Receipt()

    monkeypatch.setattr("veilset.evaluation.buying.buy", ask)
    rule = Selection("private", candidates, private(records), Privacy(1.0, 1e-4), tmp_path / "x")
    choose_classifier(rule, [Trial(records, records, 0)])
    assert taken[0].norm(dim=1).max() <= rule.plan()["selection"].bound + 1e-6
    return taken[0]


@pytest.mark.parametrize("candidates", [("mlp", "cnn"), ("logreg", "mlp", "cnn", "lenet", "vgg11")])
def test_one_record_moves_the_answer_by_at_most_the_bound(
    candidates: tuple[str, ...], test: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    each = exact_leads(test[:200], tmp_path, monkeypatch, candidates)
    m = len(candidates)
    assert each.shape == (200, m) and torch.allclose(each.sum(1), torch.zeros(200), atol=1e-6)
    right = test.y[:200] < m  # exactly one candidate is right about these, none about the others
    assert torch.allclose(each[right].norm(dim=1), torch.tensor(math.sqrt(1 - 1 / m)), atol=1e-6)
    assert each[~right].abs().max() < 1e-6


def test_the_bound_is_the_largest_norm_there_is() -> None:
    for m in range(2, 7):
        corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * m)
        largest = (corners - corners.mean(1, keepdim=True)).norm(dim=1).max().item()
        assert largest <= math.sqrt(m) / 2 + 1e-6 and (m % 2 or largest == pytest.approx(math.sqrt(m) / 2))


def test_bad_rules_get_one_line(train: Images, tmp_path: Path) -> None:
    cases: list[tuple[dict[str, object], str]] = [
        ({"rule": "test"}, "must be synthetic or private"),
        ({"rule": "synthetic", "candidates": ("mlp",)}, "at least two different"),
        ({"rule": "synthetic", "candidates": ("mlp", "mlp")}, "at least two different"),
        ({"rule": "synthetic", "candidates": ("mlp", "cnnn")}, "Did you mean 'cnn'"),
        ({"rule": "private", "data": private(train)}, "a budget and a new folder"),
    ]
    for options, words in cases:
        with pytest.raises(ConfigError, match=words) as caught:
            Selection(**options)  # type: ignore[arg-type]
        assert "\n" not in str(caught.value)
    rule = paid(train, tmp_path / "x")
    assert dataclasses.replace(rule, candidates=("mlp", "cnn", "lenet", "logreg")).plan()["selection"].bound == 1.0
