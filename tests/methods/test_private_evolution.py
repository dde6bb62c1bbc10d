"""Private Evolution: who votes for what, what follows from votes, and that nothing else is looked at."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import veilset as vs
from veilset.core.errors import ConfigError
from veilset.methods.evolution import embedding
from veilset.methods.evolution.private_evolution import Votes, chosen, kept, vote
from veilset.methods.evolution.simulators import Glyphs, Nearest, restored
from veilset.privacy.private import from_arrays
from veilset.testing import INFO, Tape, watched

torch.set_num_threads(1)
SMALL = {"public": "dead-leaves", "votes": 2, "candidates": 6, "features": "pixels"}
DIGITS = dataclasses.replace(INFO, name="d", classes=tuple("0123"), shape=(1, 12, 12), units=4000)


def records(n: int = 60):
    rng = np.random.default_rng(0)
    return rng.random((n, *INFO.shape), np.float32), np.arange(n) % len(INFO.classes)


def fitted(n: int = 60, epsilon: float = math.inf, **params) -> tuple[vs.Synthesizer, Tape]:
    with watched() as tape:
        model = vs.make("private-evolution", **SMALL | params)
        model.fit(from_arrays(INFO, *records(n)), vs.Privacy(epsilon), seed=0)
    return model, tape


def test_every_image_has_one_vote_in_its_own_class() -> None:
    _, tape = fitted()
    assert [call[1] for call in tape.calls] == ["votes", "votes"]
    for votes in tape.answers:
        assert votes.shape == (5, 6, 1) and (votes.sum((1, 2)) - 12).abs().max() < 1e-3
        assert (votes - votes.round()).abs().max() < 1e-3  # truncated onto the grid


def test_a_vote_goes_to_the_nearest_candidate_and_has_norm_one() -> None:
    shown = torch.tensor([[[0.0, 0.0], [1.0, 1.0]], [[5.0, 5.0], [0.1, 0.0]]])
    f = vote(shown, lambda x: x.flatten(1)[:, :2])
    for x, y, cell in (([0.1, 0.1], 0, 0), ([0.9, 0.8], 0, 1), ([0.1, 0.1], 1, 1), ([4.0, 4.0], 1, 0)):
        got, value = f(torch.tensor(x).view(1, 1, 2), torch.tensor(y))
        assert int(got) == cell and value.tolist() == [1.0]


def test_votes_below_the_threshold_are_none_and_no_votes_at_all_are_equal_ones() -> None:
    got = kept(torch.tensor([[10.0, 4.0, 2.0, -9.0], [1.0, -3.0, 2.0, 0.0]]), 2.0)
    assert torch.allclose(got, torch.tensor([[0.8, 0.2, 0, 0], [0.25] * 4]))
    rows = torch.arange(8.0).view(2, 4, 1)
    picked = chosen(rows, got, 50)
    assert set(picked[0].unique().tolist()) == {0.0, 1.0} and set(picked[1].unique().tolist()) == {4.0, 5.0, 6.0, 7.0}


def test_images_are_drawn_in_proportion_to_the_last_votes() -> None:
    model, tape = fitted(candidates=3)
    state, _ = model.fitted()
    last = tape.answers[-1][:, :, 0]
    assert torch.allclose(state["weight"], (last / last.sum(1, keepdim=True)).float())


def test_private_images_decide_what_is_drawn() -> None:
    """Without noise, the images drawn are nearer to the private ones than candidates at random."""
    rng = torch.Generator().manual_seed(0)
    how = 0.2 * torch.randn(400, 23, generator=rng) + torch.tensor([0.6, -0.5, 0.5, 0.5, 0, 0, 0.8] + [0.0] * 16)
    made = Glyphs.of(DIGITS)
    y = torch.arange(400) % 4
    rows = torch.cat([made.random(y)[:, :2], how.clamp(-1, 1)], 1)
    x = made.images(rows)
    info = dataclasses.replace(DIGITS, units=400)
    data = from_arrays(info, x.numpy(), y.numpy())
    model = vs.make("private-evolution", public="glyphs", candidates=60, features="pixels").fit(
        data, vs.Privacy(math.inf), seed=0
    )
    drawn, random = model.sample(200, seed=0), made.images(made.random(torch.arange(200) % 4))

    def away(z: torch.Tensor) -> float:
        return float(torch.cdist(z.flatten(1), x.flatten(1)).amin(1).mean())

    assert away(drawn.x.float() / 255) < 0.8 * away(random)


def test_the_network_tells_apart_what_the_simulator_makes() -> None:
    made = Glyphs.of(DIGITS)
    y = torch.arange(200) % 4
    x = made.images(made.varied(made.random(y), 0.3))

    def right(seen) -> float:
        e = seen(x)
        away = torch.cdist(e, e).fill_diagonal_(math.inf)
        return float((y[away.argmin(1)] == y).float().mean())

    torch.manual_seed(0)
    few, many = (right(embedding.learned(made, steps)) for steps in (1, 60))
    assert many > few + 0.1
    assert embedding.of("network", made, 1)(x).shape == (200, 64)


def test_where_all_public_images_are_called_the_same_each_is_a_kind() -> None:
    one = Nearest.of(INFO, "dead-leaves", lambda x: x.flatten(1))
    rows = one.random(torch.zeros(7, dtype=torch.long))
    assert one.kinds > 100 and torch.equal(one.kind(rows), rows[:, 0].long())
    named = Nearest.of(INFO, "digits", lambda x: x.flatten(1))
    assert named.kinds == 10 and int(named.kind(named.random(torch.zeros(99, dtype=torch.long))).max()) < 10


def test_candidates_follow_from_declared_facts() -> None:
    def candidates(epsilon: float, units: int) -> int:
        return Votes(vs.make("private-evolution", **SMALL).config.__class__(public="dead-leaves"))._candidates(
            dataclasses.replace(INFO, units=units), vs.Privacy(epsilon)
        )

    assert candidates(1.0, 30_000) == round(30_000 / (2.5 * 5 * 3.7306 * 2)) == 322
    assert candidates(1.0, 60) == 8 and candidates(math.inf, 10**6) == 1000 and candidates(1.0, 10**6) == 1000


def test_a_class_that_is_called_by_a_symbol_has_that_symbol() -> None:
    info = dataclasses.replace(DIGITS, classes=("3", "Q", "boots"))
    made = Glyphs.of(info)
    rows = made.random(torch.arange(3).repeat_interleave(200))
    symbols = rows[:, 0].view(3, 200)
    assert len(symbols[0].unique()) == 1 == len(symbols[1].unique()) and len(symbols[2].unique()) > 40
    varied = made.varied(rows, 0.5)
    assert torch.equal(varied[:, 0], rows[:, 0]) and float(varied[:, 2:].abs().max()) <= 1
    assert torch.allclose(made.varied(rows, 0.0), rows, atol=1e-6)


def test_public_images_stand_for_the_class_of_their_name() -> None:
    info = dataclasses.replace(INFO, classes=("7", "3", "boots"))
    made = Nearest.of(info, "digits", lambda x: x.flatten(1))
    from veilset.data.public_set import open_public

    names = open_public("digits").images(INFO.shape)[1]
    rows = made.random(torch.arange(3).repeat_interleave(300))[:, 0].long().view(3, 300)
    assert {names[i] for i in rows[0].tolist()} == {"7"} and {names[i] for i in rows[1].tolist()} == {"3"}
    assert len({names[i] for i in rows[2].tolist()}) == 10
    again = restored(info, made.state)
    assert isinstance(again, Nearest) and again.images(made.random(torch.tensor([0, 1]))).shape == (2, 1, 8, 8)


def test_it_needs_public_data_and_others_refuse_it() -> None:
    with pytest.raises(ConfigError, match="private-evolution starts from public images; give --public") as e:
        vs.make("private-evolution").plan(INFO, vs.Privacy(1.0))
    assert "\n" not in str(e.value)
    with pytest.raises(ConfigError, match="public = 'glyphs': dp-moments uses no public data") as e:
        vs.make("dp-moments", public="glyphs")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("name", [*vs.methods(), "dp-scatter"])
def test_a_method_says_whether_it_uses_public_data(name: str) -> None:
    from veilset.core.config import fields
    from veilset.methods.catalogue import any_class

    cls = any_class(name)
    assert (cls.public_data == "ignored") != ("public" in {f.name for f in fields(cls.Config)})


def test_plan_ledger_and_receipt_name_the_public_set(tmp_path: Path) -> None:
    spec = vs.RunSpec(method="private-evolution", data="digits", epsilon=1.0, params=SMALL | {"candidates": 4})
    planned = spec.plan().to_json()["public"]
    vs.execute(spec, tmp_path / "run")
    start = json.loads((tmp_path / "run/ledger.jsonl").read_text().splitlines()[0])["body"]["plan"]
    receipt = json.loads((tmp_path / "run/receipt.json").read_text())
    assert start["public"] == planned == receipt["public"] and planned[0]["name"] == "dead-leaves"
    assert vs.verify(tmp_path / "run").release
    assert vs.open_model(tmp_path / "run").sample(10).x.shape == (10, 1, 8, 8)


def test_where_a_public_set_lies_is_not_written(tmp_path: Path) -> None:
    place = tmp_path / "secret-place" / "cards"
    (place / "a").mkdir(parents=True)
    from PIL import Image

    for i in range(4):
        Image.fromarray(np.full((8, 8), 60 * i, np.uint8)).save(place / "a" / f"{i}.png")
    (place / "veilset.toml").write_text(
        'name = "cards"\nclasses = ["a"]\nshape = [1, 8, 8]\nvalue_range = [0, 255]\nunits = 4\nconfirmed = true\n'
        'licence = "CC0-1.0"\ndeclared_by = "the ward"\n'
    )
    params = SMALL | {"public": str(place), "candidates": 3}
    spec = vs.RunSpec(method="private-evolution", data="digits", epsilon=1.0, params=params)
    vs.execute(spec, tmp_path / "run")
    for name in ("receipt.json", "ledger.jsonl", "model.json"):
        assert "secret-place" not in (tmp_path / "run" / name).read_text()
    assert vs.open_model(tmp_path / "run").sample(5).x.shape == (5, 1, 8, 8), "without the set itself"
