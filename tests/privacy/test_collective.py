"""Several processes answer as one: same questions, same ledger, noise once, each unit in one shard."""

from __future__ import annotations

import math
import os
import signal
import time

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from sets import facts, gate_for, linear_loss, linear_params, pictures, pixels, priced, private

from veilset.audit.selftest.together import alone, together
from veilset.core.errors import RunError
from veilset.privacy import gate as gate_module
from veilset.privacy.draws import Uniform
from veilset.privacy.gate import Gate
from veilset.privacy.plan import Release
from veilset.privacy.private import from_arrays
from veilset.privacy.run.process_group import Team

SUM = Release(name="sum", sample_rate=0.6)
STEP = Release(name="step", verb="grad", sample_rate=0.6, steps=6)
BOTH = (SUM, STEP)
LEARNING = 0.5


@pytest.fixture(autouse=True)
def _priced_before(monkeypatch):
    """Copies of this process need not price again; that what was spent is within the budget is tested elsewhere."""
    priced(BOTH, 1.0, facts())
    monkeypatch.setattr(gate_module, "check_within", lambda *a: None)


def answer(found) -> list:
    """What the processes returned; all must have ended well."""
    assert [status for status, _ in found] == [0] * len(found), found
    return [value for _, value in found]


def questions(gate: Gate) -> dict:
    """A sum by class, a loop of gradient steps, and the ledger."""
    total = gate.sum("sum", pixels, by_class=True)
    net = torch.nn.Linear(16, 3)
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()

    def loss(net, x, y):
        return torch.nn.functional.cross_entropy(net(x.flatten()[None]), y[None])

    for _ in gate.loop("step", {"net": net}):
        grads = gate.grad("step", loss, net)
        with torch.no_grad():
            for k, p in net.named_parameters():
                p -= LEARNING * grads[k]
    gate.close()
    return {"sum": total, "net": dict(net.state_dict()), "ledger": gate.ledger.to_bytes().decode()}


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("n", [50, 1])
def test_a_research_run_of_several_processes_is_that_of_one(tmp_path, size, n):
    one = questions(gate_for(private(n), *BOTH, folder=tmp_path / "one"))
    several = answer(together(lambda r: questions(gate_for(private(n), *BOTH, folder=tmp_path / "r")), tmp_path, size))
    for got in several:
        assert torch.equal(got["sum"], one["sum"])  # to the bit
        for k, v in one["net"].items():
            assert torch.allclose(got["net"][k], v, rtol=1e-5, atol=1e-6)
        assert got["ledger"] == one["ledger"]
        assert all(torch.equal(got["net"][k], v) for k, v in several[0]["net"].items())  # in step to the bit
    assert (tmp_path / "r" / "ledger.jsonl").read_bytes() == (tmp_path / "one" / "ledger.jsonl").read_bytes()


def test_units_of_several_images_stay_together(tmp_path):
    info = facts(max_images_per_unit=3, unit="one person")
    x, y = pictures(50, info)
    people = np.random.default_rng(1).integers(0, 20, 50)
    people = np.unique(people, return_inverse=True)[1]

    def ask(_=0):
        return questions(gate_for(from_arrays(info, x, y, people), *BOTH))

    one = ask()
    for got in answer(together(ask, tmp_path)):
        assert torch.equal(got["sum"], one["sum"])
        assert torch.allclose(got["net"]["weight"], one["net"]["weight"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seed", [0, None])
def test_noise_enters_once(tmp_path, seed):
    """About nobody an answer of three processes is noise alone, of the deviation that one process would add."""
    info = facts(shape=(1, 100, 100))
    nobody = from_arrays(info, *(a[:0] for a in pictures(1, info)))
    releases = (Release(name="sum", bound=1.5), Release(name="step", verb="grad", bound=1.5))
    plan = priced(releases, 1.0, info)

    def ask(_):
        gate = gate_for(nobody, *releases, seed=seed)
        grads = gate.grad("step", linear_loss, linear_params(info))
        return {"sum": gate.sum("sum", pixels), "step": grads["w"].flatten() * info.units}

    got = answer(together(ask, tmp_path, 3))
    for name in ("sum", "step"):
        std = plan[name].noise_multiplier * 1.5
        values = got[0][name].double()
        assert float(values.std()) == pytest.approx(std, rel=5 / math.sqrt(2 * len(values)))
        assert abs(float(values.mean())) < 5 * std / math.sqrt(len(values))
        assert all(torch.equal(other[name], got[0][name]) for other in got)


@pytest.mark.parametrize("seed", [0, None])
def test_each_unit_is_in_one_shard_and_throws_its_own_coin(tmp_path, seed):
    """In research mode the sample is that of one process; in release mode each process has coins of its own."""
    info, rate, steps = facts(units=400), 0.3, 30
    releases = (Release(name="step", verb="grad", sample_rate=rate, steps=steps),)
    plan = priced(releases, 1.0, info)

    def coins(rank):
        gate = Gate(private(400, info), plan, seed=seed)
        mine = torch.zeros(steps, 400)
        for t in range(steps):
            mine[t, torch.from_numpy(gate._chosen(plan["step"], None, t))] = 1
        everybody = [gate._reader.units.sample(rate, gate._keys.stream(f"sample/step/None/{t}")) for t in range(steps)]
        return {"mine": mine, "all": [torch.from_numpy(a) for a in everybody], "key": gate._keys._root.hex()}

    a, b = answer(together(coins, tmp_path))
    assert not (a["mine"].any(0) & b["mine"].any(0)).any()  # no unit is read by both
    assert a["mine"][:, 1::2].sum() == b["mine"][:, ::2].sum() == 0
    if seed == 0:
        whole = a["mine"] + b["mine"]
        assert all(torch.equal(whole[t].nonzero()[:, 0], a["all"][t]) for t in range(steps))
    else:
        assert a["key"] != b["key"]
        n, hits = 200 * steps, [a["mine"].sum(), b["mine"].sum()]
        assert all(abs(float(h) - rate * n) < 5 * math.sqrt(n * rate * (1 - rate)) for h in hits)
        pair = torch.corrcoef(torch.stack([a["mine"][:, ::2].flatten(), b["mine"][:, 1::2].flatten()]))[0, 1]
        assert abs(float(pair)) < 5 / math.sqrt(n)


def test_a_release_has_fresh_noise_and_the_same_ledger(tmp_path):
    got = [answer(together(lambda r: questions(gate_for(private(), *BOTH, seed=None)), tmp_path)) for _ in range(2)]
    for pair in got:
        assert torch.equal(pair[0]["sum"], pair[1]["sum"])
        assert torch.equal(pair[0]["net"]["weight"], pair[1]["net"]["weight"])
    assert not torch.equal(got[0][0]["sum"], got[1][0]["sum"])
    gate = gate_for(private(), *BOTH, seed=None)
    assert got[0][1]["ledger"] == questions(gate)["ledger"]


def test_draws_of_torchs_generator_are_the_same_in_all_processes(tmp_path):
    """Or a record's share would depend on the shard that it is in, and so on the units in front of it."""
    release = Release(name="step", verb="grad", bound=1e6, steps=2)

    def loss(p, x, y):
        return (torch.randn(8) * p["w"]).sum()

    def ask(n):
        info = facts()
        gate = Gate(from_arrays(info, *pictures(n, info)), priced((release,), 1.0, info), seed=0)
        gate._noised = lambda exact, *a, **k: exact.value
        torch.manual_seed(0)
        return torch.stack([gate.grad("step", loss, {"w": torch.zeros(8)})["w"] * info.units for _ in range(2)])

    one, several = ask(1), answer(together(lambda _: ask(20), tmp_path))
    assert float(one.std()) > 0.3 and not torch.allclose(one[0], one[1], rtol=0.1)  # fresh in every step
    for got in several:
        assert torch.allclose(got, 20 * one, rtol=1e-6)


@pytest.mark.parametrize("seed", [0, None])
def test_declared_draws_differ_between_processes_steps_chunks_and_records(tmp_path, seed, monkeypatch):
    """Each record's latent codes and noise levels are its own; each record has a class, and so a row, to itself."""
    n, width = 40, 16
    info = facts(units=n, classes=tuple(f"class{k}" for k in range(n)))
    x, _ = pictures(n, info)
    release = Release(name="step", verb="grad", bound=1e6, steps=2)
    monkeypatch.setattr(gate_module, "GRADIENT_BYTES", 8)  # a record at a time

    def loss(p, x, y, own):
        row = (torch.arange(n) == y).float()[:, None] * torch.cat([own["normal"], own["level"]])
        return (row * p["w"]).sum()

    def ask(_=0):
        gate = Gate(from_arrays(info, x, np.arange(n)), priced((release,), 1.0, info), seed=seed)
        gate._noised = lambda exact, *a, **k: exact.value
        torch.manual_seed(0)  # of no effect
        params, draws = {"w": torch.zeros(n, 2 * width)}, {"normal": (width,), "level": Uniform((width,))}
        steps = [gate.grad("step", loss, params, draws=draws)["w"] * info.units for _ in range(2)]
        return torch.stack(steps), max(gate._rows.values())

    for got, rows in (answer(together(ask, tmp_path))[0], ask()):
        assert rows < n // 2  # several chunks, also in each of two processes
        normal, level = got.double().split(width, dim=2)
        for values in (normal, level):
            assert len(values.flatten(0, 1).unique(dim=0)) == 2 * n
            assert len(values.unique()) > 0.99 * values.numel()  # of 2^24 uniforms two may be equal
        pairs = torch.corrcoef(torch.cat([normal, level]).flatten(0, 1))[np.triu_indices(4 * n, 1)]
        assert float(pairs.abs().max()) < 0.98 and abs(float(pairs.mean())) < 0.02
        assert kstest(normal.flatten().numpy(), "norm").pvalue > 1e-4
        assert kstest(level.flatten().numpy(), "uniform").pvalue > 1e-4
    again, _ = ask()
    assert torch.equal(again.float(), got.float()) == (seed == 0)


def test_only_the_first_process_writes(tmp_path):
    def ask(rank):
        folder = tmp_path / f"of{rank}"
        questions(gate_for(private(), *BOTH, folder=folder, seed=None))
        return sorted(p.name for p in folder.rglob("*")) if folder.exists() else []

    first, second = answer(together(ask, tmp_path))
    assert second == []
    assert {"ledger.jsonl", "data.json", "sum.0.safetensors"} <= set(first)


def test_raw_records_are_the_same_everywhere_and_logged_once(tmp_path):
    def ask(_):
        gate = gate_for(private(), *BOTH)
        seen = gate.inspect("check")
        return {"x": seen.x, "lines": len(gate.ledger.lines)}

    for got in answer(together(ask, tmp_path)):
        assert torch.equal(got["x"], torch.from_numpy(pictures(50)[0])) and got["lines"] == 2


@pytest.mark.parametrize("seed", [0, None])
def test_an_interrupted_run_goes_on_with_another_number_of_processes(tmp_path, seed):
    """One process, then two, then one: paid answers and checkpoints are handed to all."""
    whole = questions(gate_for(private(), *BOTH, seed=0))

    def part(stop):
        def ask(_=0):
            gate = gate_for(private(), *BOTH, seed=seed, folder=tmp_path / "r")
            first = gate.sum("sum", pixels, by_class=True)
            net, done = torch.nn.Linear(16, 3), 0
            with torch.no_grad():
                [p.zero_() for p in net.parameters()]
            loss = lambda net, x, y: torch.nn.functional.cross_entropy(net(x.flatten()[None]), y[None])  # noqa: E731
            for t in gate.loop("step", {"net": net}):
                grads = gate.grad("step", loss, net)
                with torch.no_grad():
                    for k, p in net.named_parameters():
                        p -= LEARNING * grads[k]
                done += 1
                if t + 1 == stop:
                    gate._journal.store.keep_checkpoint("step", t + 1, {"net": net}, last=True)
                    break
            return {"sum": first, "net": dict(net.state_dict()), "done": done}

        return ask

    torch.manual_seed(0)
    first = part(2)()
    second = answer(together(part(4), tmp_path))
    third = part(6)()
    assert [first["done"], second[0]["done"], second[1]["done"], third["done"]] == [2, 2, 2, 2]
    assert torch.equal(first["sum"], third["sum"]) and torch.equal(first["sum"], second[1]["sum"])
    charges = [line["body"] for line in gate_for(private(), *BOTH, seed=seed, folder=tmp_path / "r").ledger.lines]
    assert sum(b["steps"] for b in charges if b.get("release") == "step") == 6
    if seed == 0:
        assert torch.equal(first["sum"], whole["sum"])
        for k, v in whole["net"].items():
            assert torch.allclose(third["net"][k], v, rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------------- faults


@pytest.mark.parametrize("what", ["data", *(pytest.param(w, marks=pytest.mark.long) for w in ("plan", "seed"))])
def test_different_data_plans_or_seeds_are_refused_by_all(what, tmp_path):
    """A unit that is at another place in another process's copy could be summed twice."""
    other = pictures(50, seed=1)

    def data(rank):
        gate_for(private() if rank == 0 else from_arrays(facts(), *other), SUM)

    def plan(rank):
        gate_for(private(), SUM, epsilon=1.0 + rank)

    def seed(rank):
        gate_for(private(), SUM, seed=rank)

    for status, said in together({"data": data, "plan": plan, "seed": seed}[what], tmp_path):
        assert status == 1 and said.startswith("RunError: data, plan and seed: not the same in all processes")


@pytest.mark.parametrize("dead", [0, 1])
def test_when_a_process_is_killed_the_other_says_so_within_seconds(tmp_path, dead):
    def ask(rank):
        gate = gate_for(private(), *BOTH, folder=tmp_path / "r", seed=None)
        net = torch.nn.Linear(16, 3)
        for t in gate.loop("step", {"net": net}):
            if t == 2 and rank == dead:
                os.kill(os.getpid(), signal.SIGKILL)
            gate.grad("step", lambda net, x, y: net(x.flatten()[None]).sum(), net)

    begun = time.monotonic()
    found = together(ask, tmp_path)
    assert time.monotonic() - begun < 20
    assert found[dead] == (-signal.SIGKILL, None)
    status, said = found[1 - dead]
    assert status == 1 and said.startswith("RunError: another process of this run ended") and "\n" not in said
    answer(together(lambda r: questions(gate_for(private(), *BOTH, folder=tmp_path / "r", seed=None)), tmp_path))


@pytest.mark.parametrize("what", ["ledger", "answer", "checkpoint"])
def test_a_full_disk_of_the_first_process_ends_all(tmp_path, what, monkeypatch):
    from veilset.privacy.ledger import Ledger
    from veilset.privacy.run.run_store import RunStore

    def full(*a, **k):
        raise RunError("cannot write: No space left on device")

    real = Ledger.append
    append = lambda self, kind, **b: full() if kind == "charge" and self._path else real(self, kind, **b)  # noqa: E731
    monkeypatch.setattr(
        *{
            "ledger": (Ledger, "append", append),
            "answer": (RunStore, "keep_answer", full),
            "checkpoint": (RunStore, "keep_checkpoint", lambda self, *a, **k: full() if self._home else None),
        }[what]
    )
    found = together(lambda r: questions(gate_for(private(), *BOTH, folder=tmp_path / "r")), tmp_path)
    assert found[0] == (1, "RunError: cannot write: No space left on device")
    assert found[1][0] == 1 and found[1][1].startswith("RunError: ")


def test_a_process_that_is_told_of_others_but_not_how_to_meet_them(tmp_path):
    def ask():
        os.environ |= {"RANK": "1", "WORLD_SIZE": "2"}
        os.environ.pop("MASTER_ADDR", None)
        Team().share(lambda: 1)

    status, said = alone(ask, tmp_path)
    assert status == 1 and said.startswith("RunError: WORLD_SIZE = 2, but the processes do not meet")
    assert "torchrun" in said and "\n" not in said


def test_a_rank_alone_is_the_first(monkeypatch):
    """Some schedulers set RANK and no WORLD_SIZE: this process must still write its ledger."""
    monkeypatch.setenv("RANK", "3")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert Team().first and Team().size == 1


def test_alone_nothing_travels(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    team, units = Team(), np.arange(5)
    assert team.first and team.size == 1
    assert team.shard(units) is units
    value = object()
    assert team.share(lambda: value) is value
    team.agree("anything", b"x")
    questions(gate_for(private(), *BOTH))
    assert not torch.distributed.is_initialized()
