"""Answers of hidden models: who answers, from what, with which noise, and what nobody may learn."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from sets import facts, gate_for, pictures

from veilset.core.errors import BudgetExceeded, ConfigError, PlanError, RunError
from veilset.privacy import enclave
from veilset.privacy.noise import Keys, Stream
from veilset.privacy.plan import Release
from veilset.privacy.private import from_arrays

ROWS, SHARDS, INFO = 2, 5, facts(units=60)


def asked(shards: int = SHARDS, steps: int = 20, rows: int = ROWS, **changes) -> Release:
    given = {"name": "critic", "verb": "pull", "mechanism": "secret-shards", "steps": steps, "sample_rate": 1 / shards}
    return Release(**given | {"bound": 1e3, "facts": {"shards": shards, "rows": rows, "columns": 16}} | changes)


def turn(**changes) -> Release:
    return asked(mechanism="round-robin", **changes)


def hidden(n: int = 60, info=INFO, change=None):
    x, y = pictures(n, info)
    if change is not None:
        x, y = change(x.copy(), y.copy())
    return from_arrays(info, x, y)


def answers(h: enclave.Hidden) -> torch.Tensor:
    """Something that depends on all of a shard, its model and its draws."""
    mean = h.x.sum(0).flatten() / (1 + h.count)
    return torch.stack([mean + h.state.get("w", torch.zeros(())), h.batch(3)[0].mean(0).flatten() + torch.rand(16)])


def train(h: enclave.Hidden) -> dict[str, torch.Tensor]:
    """A tiny model by a step of gradient descent on a minibatch."""

    def loss(w):
        x, _, weight = h.batch(4)
        return weight * (x.flatten(1) - w).square().mean()

    w = torch.rand(16)
    return {"w": w - torch.func.grad(loss)(w)}


def drawn(gate, step: int, shards: int = SHARDS) -> int:
    return gate._keys.stream(f"draw/critic/{step}").below(shards)


def table(gate) -> np.ndarray:
    return gate._enclave(gate.plan["critic"])._table


# ---------------------------------------------------------------------- noise, bounds, charges


def test_every_row_is_clipped_and_the_noise_is_that_of_all_rows():
    gate = gate_for(hidden(), asked(bound=0.5, rows=3), epsilon=math.inf)
    got = gate.pull("critic", lambda h: torch.tensor([[3.0] * 16, [0.01] * 16, [-7.0] * 16]))
    assert got.norm(dim=1).tolist() == pytest.approx([0.5, 0.04, 0.5], rel=1e-5) and float(got.norm(dim=1).max()) <= 0.5
    big = asked(bound=0.5, rows=400, facts={"shards": SHARDS, "rows": 400, "columns": 50})
    gate = gate_for(hidden(0), big, epsilon=1.0)
    noise = gate.pull("critic", lambda h: torch.zeros(400, 50))
    sigma = gate.plan["critic"].noise_multiplier
    assert float(noise.std()) == pytest.approx(sigma * 0.5 * 2 * math.sqrt(400), rel=0.03)
    (charge,) = gate.ledger.bodies("charge")
    assert charge["sensitivity"] == 2 * 0.5 * 20 and charge["noise_multiplier"] == sigma


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_rows_of_a_model_that_diverged_count_as_zero_and_are_charged(bad):
    gate = gate_for(hidden(), asked(), epsilon=math.inf)
    got = gate.pull("critic", lambda h: torch.stack([torch.full((16,), bad), torch.ones(16)]))
    assert got[0].tolist() == [0.0] * 16 and got[1].tolist() == pytest.approx([1.0] * 16)
    assert gate.ledger.steps("critic", None) == 1


def test_an_answer_of_another_shape_is_refused_and_so_is_one_more():
    gate = gate_for(hidden(), asked(steps=2))
    for wrong in (torch.ones(ROWS, 15), torch.ones(ROWS + 1, 16), torch.ones(ROWS, 16, dtype=torch.int64), 3):
        fresh = gate_for(hidden(), asked(steps=2))
        with pytest.raises(ConfigError, match="planned were 2 rows of 16 floating-point numbers"):
            fresh.pull("critic", lambda h, wrong=wrong: wrong)
    gate.pull("critic", answers)
    gate.pull("critic", answers)
    with pytest.raises(BudgetExceeded, match="was planned 2 time"):
        gate.pull("critic", answers)
    with pytest.raises(PlanError, match="planned as 'pull' but asked as 'sum'"):
        gate.sum("critic", lambda x, y: x)


def test_a_second_pull_in_a_step_of_a_loop_is_refused():
    gate = gate_for(hidden(), asked())
    with pytest.raises(PlanError, match="asks `pull` exactly once per step"):
        for _ in gate.loop("critic", {}):
            gate.pull("critic", answers)
            gate.pull("critic", answers)


def test_it_is_charged_before_a_record_is_read(monkeypatch):
    gate = gate_for(hidden(), asked())

    def fails(h):
        raise ValueError("on private records")

    with pytest.raises(ValueError):
        gate.pull("critic", fails)
    assert gate.ledger.steps("critic", None) == 1


# ---------------------------------------------------------------------- who answers


def test_shards_are_drawn_alike_and_units_lie_in_one_each():
    gate = gate_for(hidden(), asked(steps=400), epsilon=math.inf)
    who = [drawn(gate, t) for t in range(400)]
    assert np.bincount(who, minlength=SHARDS).min() > 50
    sums = [gate.pull("critic", lambda h: h.x.sum((0, 1)).flatten().expand(ROWS, 16))[0] for _ in range(400)]
    by_shard = {k: sums[who.index(k)] for k in range(SHARDS)}
    assert all(torch.equal(s, by_shard[k]) for s, k in zip(sums, who, strict=True))
    x, _ = pictures(60, INFO)
    for k, s in by_shard.items():
        mine = torch.from_numpy(x[table(gate) == k] / 255.0).sum((0, 1)).flatten()
        assert s.tolist() == pytest.approx(mine.tolist(), rel=1e-5)


def test_the_draw_stands_nowhere_and_moves_no_public_generator(tmp_path):
    gate = gate_for(hidden(), asked(), folder=tmp_path)
    torch.manual_seed(3)
    np.random.seed(3)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    for _ in gate.loop("critic", {}):
        gate.pull("critic", lambda h: torch.rand(int(h.count) + 5)[:1] + torch.rand(ROWS, 16))
    assert torch.equal(torch.get_rng_state(), before[0]) and np.random.get_state()[1].tolist() == before[1]
    said = (tmp_path / "ledger.jsonl").read_text() + "".join(str(gate.ledger))
    charges = list(gate.ledger.bodies("charge"))
    assert {k for b in charges for k in b} == {
        "kind", "release", "part", "mechanism", "sensitivity", "noise_multiplier", "sample_rate", "steps", "facts"
    }  # fmt: skip
    assert "draw" not in said.replace("drawn in secret", "")
    assert json.loads(said.splitlines()[1])["body"]["facts"] == {"shards": SHARDS, "rows": ROWS, "columns": 16}
    release = gate_for(hidden(), asked(), seed=None), gate_for(hidden(), asked(), seed=None)
    assert [drawn(release[0], t) for t in range(20)] != [drawn(release[1], t) for t in range(20)]


def test_round_robin_goes_in_order_and_keeps_what_a_model_learned():
    gate = gate_for(hidden(), turn(steps=15), epsilon=math.inf)
    gate.train_hidden("critic", lambda h: {"seen": torch.zeros(1), "sum": h.x.sum()[None]})

    def once_more(h):
        h.state["seen"] += 1
        return torch.stack([h.state["seen"].expand(16), h.state["sum"].expand(16)])

    got = torch.stack([gate.pull("critic", once_more)[:, 0] for _ in range(15)])
    assert got[:, 0].tolist() == pytest.approx([1.0] * 5 + [2.0] * 5 + [3.0] * 5)
    assert torch.equal(got[:5, 1], got[5:10, 1]) and len(set(got[:5, 1].tolist())) == 5


def test_without_state_a_model_is_thrown_away():
    gate = gate_for(hidden(), asked(steps=40), epsilon=math.inf)
    gate.train_hidden("critic", lambda h: {"seen": torch.zeros(1)})

    def once_more(h):
        h.state["seen"] += 1
        return h.state["seen"].expand(ROWS, 16)

    assert {round(float(gate.pull("critic", once_more)[0, 0]), 6) for _ in range(40)} == {1.0}


def test_a_function_that_keeps_a_state_of_its_own_is_found_before_a_record_is_read():
    seen, kept = [], {}

    def counts(h):
        seen.append(1)
        return torch.full((ROWS, 16), float(len(seen)))

    def learns(h):
        kept["w"] = kept.get("w", torch.zeros(16)) * 0.9 + h.x.mean((0, 1)).flatten()
        return kept["w"].expand(ROWS, 16)

    for f in (counts, learns):
        gate = gate_for(hidden(), asked())
        with pytest.raises(ConfigError, match="it keeps a state, or a generator, of its own"):
            gate.pull("critic", f)


def test_no_gradient_reaches_a_public_network():
    net = torch.nn.Linear(16, 16)
    gate = gate_for(hidden(), asked())

    def leaks(h):
        out = net(h.x[:ROWS].flatten(1))
        out.sum().backward()
        return out

    with pytest.raises(RuntimeError, match="does not require grad"):
        gate.pull("critic", leaks)
    assert net.weight.grad is None


# ---------------------------------------------------------------------- nobody depends on another shard


def exchanged(k: int, gate) -> object:
    """The same set with other records in shard k, some of them NaN; labels changed, too."""

    def change(x, y):
        mine = table(gate) == k
        x[mine] = 255 - x[mine]
        y[mine] = 0
        return x, y

    return hidden(change=change)


@pytest.mark.parametrize("made", [asked, turn])
def test_all_records_of_one_shard_exchanged_leave_the_others_and_public_draws_as_they_were(made):
    first = gate_for(hidden(), made(steps=30), epsilon=2.0)
    second = gate_for(exchanged(2, first), made(steps=30), epsilon=2.0)
    out, after = [], []
    for gate in (first, second):
        torch.manual_seed(0)
        gate.train_hidden("critic", train, together=3)
        out.append([gate.pull("critic", answers) for _ in range(30)])
        after.append(torch.rand(5))
    assert torch.equal(*after)
    who = [t % SHARDS if made is turn else drawn(first, t) for t in range(30)]
    same = [torch.equal(a, b) for a, b in zip(*out, strict=True)]
    assert same == [k != 2 for k in who] and not all(same)


def test_a_model_that_diverges_in_the_vectorised_pass_spoils_no_other(monkeypatch):
    """A library that multiplies what lies beside a row by 0 is played: one NaN in a pass makes all of it NaN."""

    def diverges(h):
        return {"w": train(h)["w"] + torch.where(h.y.max() > 1, math.nan, 0.0)}

    def models(k):
        def change(x, y):
            y[:] = 0
            y[table(plain) == k] = 2
            return x, y

        gate = gate_for(hidden(change=change), asked(), epsilon=math.inf)
        gate.train_hidden("critic", diverges, together=5)
        return gate._enclave(gate.plan["critic"])._models

    def spoiling(f, **how):
        def mapped(*inputs):
            out = vmap(f, **how)(*inputs)
            return {k: v if v.isfinite().all() else torch.full_like(v, math.nan) for k, v in out.items()}

        return mapped

    plain, vmap = gate_for(hidden(), asked(), epsilon=math.inf), torch.func.vmap
    nobody = models(SHARDS)
    monkeypatch.setattr(torch.func, "vmap", spoiling)
    for k in (1, 3):
        got = models(k)
        assert got[k]["w"].isnan().all()
        assert all(torch.equal(got[j]["w"], nobody[j]["w"]) for j in range(SHARDS) if j != k)


def test_shapes_and_draws_follow_from_declared_facts_not_from_a_shard():
    seen = []

    def look(h):
        seen.append((h.x.shape, h.y.shape, h.batch(7)[0].shape))
        return torch.rand(ROWS, 16)  # after the minibatch: as many draws were taken before, whatever count is

    gate = gate_for(hidden(7), asked(), epsilon=math.inf)
    for _ in range(20):
        gate.pull("critic", look)
    place = enclave.room(INFO, SHARDS)
    assert set(seen) == {((place, 1, 4, 4), (place,), (7, 1, 4, 4))} and place == math.ceil(12 + 6 * math.sqrt(12) + 1)
    states = []
    for count in (0, 1, place):
        torch.manual_seed(0)
        h = enclave.Hidden(torch.zeros(place, 1, 4, 4), torch.zeros(place), torch.tensor(count), {})
        assert float(h.batch(9)[2]) == (count > 0)
        states.append(torch.get_rng_state())
    assert all(torch.equal(s, states[0]) for s in states)


@pytest.mark.parametrize("shards", [1, 200])
def test_one_shard_and_more_shards_than_units(shards):
    gate = gate_for(hidden(20), asked(shards=shards), epsilon=2.0)
    gate.train_hidden("critic", train)
    got = torch.stack([gate.pull("critic", answers) for _ in range(20)])
    assert got.isfinite().all()
    assert gate.plan["critic"].noise_multiplier > (5 if shards == 1 else 0.5)


def test_a_crowded_shard_reads_what_it_has_room_for():
    counts = []
    gate = gate_for(hidden(400), asked(), epsilon=math.inf)
    for _ in range(20):
        gate.pull("critic", lambda h: counts.append(int(h.count)) or torch.zeros(ROWS, 16))
    assert max(counts) == enclave.room(INFO, SHARDS) < 400 / SHARDS


def test_a_person_lies_in_one_shard():
    info = facts(units=20, unit="one person", max_images_per_unit=3)
    x, y = pictures(60, info)
    units = np.arange(60) // 3
    gate = gate_for(from_arrays(info, x, y, units), asked(shards=3, steps=40), epsilon=math.inf)
    images = []
    for _ in range(40):
        gate.pull("critic", lambda h: images.append(h.x[: int(h.count)].clone()) or torch.zeros(ROWS, 16))
    whole = [tuple(map(tuple, torch.from_numpy(x[units == u] / 255.0).float().flatten(1).tolist())) for u in range(20)]
    for shard in images[3:]:  # the first three are made up
        have = {tuple(r) for r in shard.flatten(1).tolist()}
        assert {sum(tuple(np.float32(v) for v in r) in have or r in have for r in person) for person in whole} <= {0, 3}


# ---------------------------------------------------------------------- interrupted runs


class Net:
    """Public state of a loop: what was answered, added up."""

    def __init__(self):
        self.sum = torch.zeros(ROWS, 16, dtype=torch.float64)

    def state_dict(self):
        return {"sum": self.sum}

    def load_state_dict(self, state):
        self.sum = state["sum"]


def run(data, release, stop=None, **how):
    gate, net = gate_for(data, release, **how), Net()
    gate.train_hidden("critic", train)

    def f(h):
        h.state["w"] = h.state["w"] + 0.1  # kept under round robin
        return answers(h)

    for t in gate.loop("critic", {"net": net}):
        if t == stop:
            break
        net.sum = net.sum + gate.pull("critic", f) * (1 + torch.rand(1))
    return gate, net.sum


@pytest.mark.parametrize("made", [asked, turn])
@pytest.mark.parametrize("stop", [1, 7, 13])
def test_a_research_run_goes_on_bit_for_bit(made, stop, tmp_path, monkeypatch):
    monkeypatch.setattr("veilset.privacy.run.run_store.KEEPING", 1e9)
    torch.manual_seed(0)
    _, whole = run(hidden(), made())
    torch.manual_seed(0)
    run(hidden(), made(), stop, folder=tmp_path)
    _, again = run(hidden(), made(), folder=tmp_path)
    assert torch.equal(whole, again)


@pytest.mark.parametrize("made", [asked, turn])
def test_a_release_goes_on_with_its_table_and_models_and_never_charges_twice(made, tmp_path, monkeypatch):
    monkeypatch.setattr("veilset.privacy.run.run_store.KEEPING", 1e9)
    gate, _ = run(hidden(), made(), 7, folder=tmp_path, seed=None)
    models = gate._enclave(gate.plan["critic"])._store.hidden("critic.models")
    asked_again = []
    monkeypatch.setattr(enclave.Enclave, "_trained", lambda *a: asked_again.append(1))
    more, _ = run(hidden(), made(), folder=tmp_path, seed=None)
    assert not asked_again, "models were kept"
    assert (table(more) == table(gate)).all() and more._keys._root != gate._keys._root
    assert torch.equal(more._enclave(more.plan["critic"])._store.hidden("critic.models")["w"], models["w"])
    assert more.ledger.steps("critic", None) == 20 and more.close()
    for path in (tmp_path / "private").rglob("*"):
        assert path.is_dir() or path.stat().st_mode & 0o777 == 0o600


def test_a_release_whose_table_is_gone_does_not_deal_units_anew(tmp_path):
    run(hidden(), asked(), 3, folder=tmp_path, seed=None)
    (tmp_path / "private" / "hidden" / "critic.shards.ckpt").unlink()
    with pytest.raises(RunError, match="the table of its shards is gone"):
        run(hidden(), asked(), folder=tmp_path, seed=None)


def test_models_are_trained_once_and_before_the_first_answer():
    gate = gate_for(hidden(), asked())
    gate.train_hidden("critic", train)
    with pytest.raises(ConfigError, match="trained once, before the first answer"):
        gate.train_hidden("critic", train)
    late = gate_for(hidden(), asked())
    late.pull("critic", answers)
    with pytest.raises(ConfigError, match="before the first answer"):
        late.train_hidden("critic", train)


def test_a_number_below_n_is_drawn_again_where_it_does_not_divide(monkeypatch):
    given = iter([2**64 - 1, 2**64 - 2, 8])
    monkeypatch.setattr(Stream, "uint64", lambda self, n: np.array([next(given)], np.uint64))
    assert Keys(0).stream("x").below(7) == 1, "2^64 - 2 is the first of those that would favour small numbers"
