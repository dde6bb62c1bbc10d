"""What every synthesizer must keep to, found by experiment. For authors of methods: `check_synthesizer(Mine, width=8)`.

The main tool is a *replay*. A method is fitted on a set D, and its gate's answers are kept. Then it is fitted on a
neighbour D' by a gate that computes its own answers but hands out those of D. If the method learns from answers only,
everything it does and keeps is equal on D and D', to the bit. And because both gates draw the same noise, the
difference between what was computed on D and on D' is exactly what the differing unit contributed.

Examples:
    >>> vs.testing.check_synthesizer(vs.synthesizers.DPMERF, frequencies=20, steps=2, batch_size=20)
"""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from veilset.audit.selftest.coupled import INFO, Set, shapes
from veilset.core.config import fields
from veilset.core.errors import ConfigError, ModeError
from veilset.methods.base import Synthesizer, model_facts, restore
from veilset.methods.catalogue import method_class
from veilset.privacy import session
from veilset.privacy.gate import Gate
from veilset.privacy.mechanisms import of
from veilset.privacy.noise import Keys, Stream
from veilset.privacy.plan import Plan
from veilset.privacy.private import InMemory, Opened, PrivateImages
from veilset.privacy.receipt import verify
from veilset.privacy.run import run_store
from veilset.privacy.sampling import Units
from veilset.privacy.spec import Privacy

BUDGET = Privacy(2.0, 1e-5)
NEVER_KEPT = (PrivateImages, Opened, InMemory, Gate, Units, Keys, Stream)


# ---------------------------------------------------------------------- sets


def neighbours() -> Iterator[tuple[Set, dict[str, Set]]]:
    """(D, what differs -> D'): one unit, ordinary or adversarial."""
    d, size = shapes(60), INFO.pixels
    yield (
        d,
        {
            "an ordinary record": d.plus(d.x[3], 1),
            "a white record of a rare class": d.plus(np.ones(size), len(INFO.classes) - 1),
            "NaN": d.plus(np.full(size, np.nan), 0),
            "infinity": d.plus(np.full(size, np.inf), 0),
            "1e30": d.plus(np.tile([1e30, -1e30], size // 2), 2),
        },
    )
    yield Set(d.x[:0], d.y[:0]), {"the only record": Set(d.x[:1], d.y[:1])}
    people = dataclasses.replace(INFO, unit="one person", max_images_per_unit=3)
    many = dataclasses.replace(d, units=np.arange(60) // 2, info=people)
    yield many, {"a unit of five white images, two above the cap": many.plus(np.ones((5, size)), 3)}


# ---------------------------------------------------------------------- a gate that is watched


class Tape:
    """What was asked of a gate, and what it computed."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.answers: list[Any] = []


@contextmanager
def watched(replay: Tape | None = None) -> Iterator[Tape]:
    """Fits inside write a tape; with `replay` they are handed the answers of that tape."""
    tape = Tape()

    def heard(self: Gate, call: tuple[Any, ...], answer: Any) -> Any:
        i = len(tape.answers)
        tape.calls.append((*call, _shapes(answer)))
        tape.answers.append(answer)
        given = replay.answers[i] if replay and i < len(replay.answers) else answer
        return {k: v.clone() for k, v in given.items()} if isinstance(given, dict) else given.clone()

    class Watched(Gate):
        def sum(self, name: str, f: Any, **how: Any) -> torch.Tensor:
            return heard(self, ("sum", name, sorted(how.items())), super().sum(name, f, **how))

        def grad(self, name: str, loss: Any, params: Any, **how: Any) -> dict[str, torch.Tensor]:
            return heard(self, ("grad", name, sorted(how.items())), super().grad(name, loss, params, **how))

        def pull(self, name: str, f: Any) -> torch.Tensor:
            return heard(self, ("pull", name), _pulled_twice(self, super().pull, name, f))

        def vote(self, name: str, f: Any, **how: Any) -> torch.Tensor:
            return heard(self, ("vote", name, sorted(how.items())), super().vote(name, f, **how))

        def batch(self, name: str, f: Any, **how: Any) -> torch.Tensor:
            return heard(self, ("batch", name, sorted(how.items())), super().batch(name, f, **how))

        def unit(self, name: str, f: Any, **how: Any) -> torch.Tensor:
            return heard(self, ("unit", name, sorted(how.items())), super().unit(name, f, **how))

    with mock.patch.object(session, "Gate", Watched):
        yield tape


def _pulled_twice(gate: Gate, pull: Any, name: str, f: Any) -> torch.Tensor:
    """The gate's answer, where a stateless model was asked once more: it must say the same, or something was kept."""
    release, step, rows = gate.plan[name], gate._taken.get((name, None), 0), []

    def noted(hidden: Any) -> Any:
        rows.append(f(hidden).detach().clone())
        return rows[-1]

    answer: torch.Tensor = pull(name, noted)
    if not of(release).state:
        again = gate._enclave(release).answer(step, f).nan_to_num(0.5)
        same = torch.equal(again, rows[-1].double().nan_to_num(0.5))
        assert same, f"{name}: a hidden model answers otherwise when asked again: the method keeps something of it"
    return answer


def _shapes(answer: Any) -> Any:
    return {k: tuple(v.shape) for k, v in answer.items()} if isinstance(answer, dict) else tuple(answer.shape)


def _flat(answer: Any) -> torch.Tensor:
    values = answer.values() if isinstance(answer, dict) else [answer]
    return torch.cat([v.double().flatten() for v in values])


def _divisor(plan: Any, call: tuple[Any, ...]) -> float:
    """What `grad` divides the noised sum by: public."""
    return plan[call[1]].sample_rate * plan.info.units if call[0] == "grad" else 1.0


# ---------------------------------------------------------------------- properties

Make = Callable[[], Synthesizer]


def contributions_are_bounded_and_nothing_else_is_learned(make: Make) -> None:
    """On neighbours: the same questions, answers within the planned bound, and an equal model from equal answers."""
    for d, others in neighbours():
        plan = make().plan(d.info, BUDGET)
        with watched() as tape:
            first = make().fit(d.hide(), BUDGET, seed=0)
        for what, e in others.items():
            with watched(replay=tape) as other:
                second = make().fit(e.hide(), BUDGET, seed=0)
            assert tape.calls == other.calls, f"{what}: the questions asked depend on the data"
            _within_bounds(what, plan, tape, other)
            same = _equal_states(first, second)
            assert same, (
                f"{what}: the model differs although the gate's answers were equal: it saw data outside the gate"
            )
            same = _remembered(first) == _remembered(second)
            assert same, f"{what}: the object keeps something that depends on the data"


def _within_bounds(what: str, plan: Plan, tape: Tape, other: Tape) -> None:
    """Each answer moved by its release's bound at most."""
    for call, a, b in zip(tape.calls, tape.answers, other.answers, strict=True):
        moved = float((_flat(a) - _flat(b)).norm()) * _divisor(plan, call)
        rounding = 1e-6 * float(_flat(a).norm()) * _divisor(plan, call) if call[0] == "grad" else 0.0
        bound = plan[call[1]].bound * of(plan[call[1]]).factor(plan[call[1]])
        assert moved <= bound + rounding, f"{what}: {call[1]} moved by {moved:.6g}, planned bound {bound:.6g}"


def plan_and_ledger_agree(make: Make) -> None:
    """Each planned release is charged as often as planned, with the planned noise; the claim keeps to the budget."""
    model = make()
    plan = model.plan(INFO, BUDGET)
    assert plan.to_json()["epsilon"] <= BUDGET.epsilon * (1 + 1e-9)
    model.fit(shapes(60).hide(), BUDGET, seed=0)
    lines = [json.loads(line)["body"] for line in model.ledger.splitlines()]
    charges = [b for b in lines if b["kind"] == "charge"]
    assert json.loads(json.dumps(plan.facts())) == lines[0]["plan"], "the plan that was used is not the one announced"
    for r in plan.releases:
        mine = [b for b in charges if b["release"] == r.name]
        parts = range(len(INFO.classes)) if r.partition else [None]
        for part in parts:
            steps = sum(b["steps"] for b in mine if b["part"] == part)
            assert steps == r.steps, f"{r.name}: planned {r.steps} step(s), charged {steps}"
        for b in mine:
            asked = {"kind": "charge", **of(r).body(r, b["part"], b["steps"])}
            assert b == asked, f"{r.name}: not charged as planned"
    assert {b["release"] for b in charges} <= {r.name for r in plan.releases}
    assert model.receipt_ is not None and model.receipt_.epsilon <= BUDGET.epsilon * (1 + 1e-9)


def noise_has_the_planned_scale(make: Make) -> None:
    """About nobody, an answer is noise alone: its deviation is noise multiplier x bound (and / q N for gradients)."""
    nobody = Set(np.zeros((0, *INFO.shape), np.float32), np.zeros(0, np.int64)).hide()
    with watched() as tape:
        model = make().fit(nobody, BUDGET, seed=1)
    plan = model.plan(INFO, BUDGET)
    for call, answer in zip(tape.calls, tape.answers, strict=True):
        release = plan[call[1]]
        moved = release.bound * of(release).factor(release)
        z = _flat(answer) * _divisor(plan, call) / (release.noise_multiplier * moved)
        allowed = 5 / math.sqrt(2 * len(z)) + 0.01
        assert abs(float(z.square().mean().sqrt()) - 1) < allowed, f"{call[1]}: noise of another scale than planned"


def nothing_private_is_kept(make: Make) -> None:
    """Walk all that hangs on a fitted model: no gate, no records, no keys."""
    model = make().fit(shapes(60).hide(), BUDGET, seed=0)
    for path, thing in _walk(model):
        assert not isinstance(thing, NEVER_KEPT), f"the model keeps a {type(thing).__name__} at {path}"
    for name, value in model.fitted()[0].items():
        assert isinstance(name, str) and isinstance(value, torch.Tensor) and not value.requires_grad


def save_and_load_give_the_same_samples(make: Make) -> None:
    """A model read back draws bit-equal images for a seed, and its folder verifies."""
    model = make().fit(shapes(60).hide(), BUDGET)
    with tempfile.TemporaryDirectory() as tmp:
        folder = model.save(Path(tmp) / "m")
        got = verify(folder)
        assert got.ok and got.release, str(got)
        again = restore(type(model), folder, model_facts(folder))
        same = torch.equal(model.sample(23, seed=5).x, again.sample(23, seed=5).x)
        assert same, "a model read back draws other images: what it learned is not all in its state"
        assert again.config == model.config and again.info_ == model.info_
        out = again.write_samples(again.sample(7, seed=1), Path(tmp) / "s", "npz")
        assert verify(out).ok and verify(out).release


def samples_are_labelled_images(make: Make) -> None:
    """uint8 images of the declared shape; labels as asked; every draw new unless seeded."""
    model = make().fit(shapes(60).hide(), BUDGET, seed=0)
    images = model.sample(20)
    assert images.x.shape == (20, *INFO.shape) and images.x.dtype == torch.uint8, (
        "one image a label, of the shape asked"
    )
    assert images.y.bincount(minlength=5).tolist() == [4] * 5
    assert images.classes == INFO.classes and "NOT A RELEASE" in images.label
    assert set(model.sample(6, classes=["b", "d"]).y.tolist()) == {1, 3}
    assert model.sample(10, mix={"a": 4, "e": 1}).y.bincount().tolist() == [8, 0, 0, 0, 2]
    same, other = model.sample(9, seed=2).x, model.sample(9, seed=2).x
    assert torch.equal(same, other), "two draws with one seed differ: draw from torch's generator alone"
    assert not torch.equal(model.sample(40, seed=2).x, model.sample(40, seed=3).x), "draws do not vary with the seed"
    raw = model._sample(model.fitted()[0], INFO, images.y)
    assert raw.shape == images.x.shape and raw.is_floating_point(), "`_sample` gives floats, one image a label"
    assert bool(raw.isfinite().all()), "`_sample` gives NaN or infinity, of which a release would make black pixels"


def without_noise_it_is_stamped(make: Make) -> None:
    """epsilon = infinity works, and cannot pass for a release."""
    model = make().fit(shapes(60).hide(), Privacy(math.inf))
    assert (
        model.receipt_ is not None and "NON-PRIVATE" in model.receipt_.stamp and "NON-PRIVATE" in model.sample(5).label
    )
    with tempfile.TemporaryDirectory() as tmp:
        folder = model.save(Path(tmp) / "m")
        assert (folder / "NON-PRIVATE.json").exists() and not (folder / "receipt.json").exists()
        assert not verify(folder).ok


def research_repeats_and_release_does_not(make: Make) -> None:
    """One seed, one model, whatever torch's and NumPy's generators were doing; without a seed, fresh noise."""
    data, fitted = shapes(60), []
    for ambient in (0, 1):
        torch.manual_seed(ambient)
        np.random.seed(ambient)
        fitted.append(make().fit(data.hide(), BUDGET, seed=7))
    assert _equal_states(*fitted), "two research runs with one seed differ"
    assert not _equal_states(fitted[0], make().fit(data.hide(), BUDGET, seed=8)), "another seed gives the same model"
    torch.manual_seed(0)
    a = make().fit(data.hide(), BUDGET)
    torch.manual_seed(0)
    assert not _equal_states(a, make().fit(data.hide(), BUDGET)), "two releases are equal: their noise is not fresh"


def an_interrupted_fit_ends_the_same(make: Make) -> None:
    """Stopped half-way through its questions and gone on with, a research fit gives the bits of an undisturbed one."""
    data, asked = shapes(60), [0]
    with watched() as tape:
        whole = make().fit(data.hide(), BUDGET, seed=3)

    class Stop(Exception):
        pass

    class Stopping(Gate):
        def _affordable(self, *a: Any) -> int:  # comes first in every question
            asked[0] += 1
            if asked[0] > len(tape.calls) // 2:
                raise Stop
            return super()._affordable(*a)

    every = mock.patch.object(run_store, "KEEPING", 1e9)  # checkpoints at every step
    with tempfile.TemporaryDirectory() as tmp, every:
        try:
            with mock.patch.object(session, "Gate", Stopping):
                make().fit(data.hide(), BUDGET, seed=3, folder=Path(tmp))
        except Stop:
            pass
        again = make().fit(data.hide(), BUDGET, seed=3, folder=Path(tmp))
    assert _equal_states(whole, again), "a resumed fit differs: `gate.loop` was not given all that its body changes"
    assert again.ledger == whole.ledger, "a resumed fit has another ledger"


def parameters_say_what_they_are(make: Make) -> None:
    """Each field of the config has a doc and, if a number, a range that is enforced."""
    cls = type(make())
    for spec in fields(cls.Config):
        assert len(spec.doc) > 10, f"{spec.name}: the doc says too little"
        if spec.type in (int, float):
            assert spec.range, f"{spec.name}: a number without a range"
        wrong: list[Any] = [object(), [1]]
        rules = spec.rules
        wrong += ["no such choice"] if rules["choices"] else []
        wrong += [rules[k] - 1 for k in ("ge", "gt") if rules[k] is not None and spec.type in (int, float)]
        wrong += [rules[k] + 1 for k in ("le", "lt") if rules[k] is not None and spec.type in (int, float)]
        wrong += [rules[k] for k in ("gt", "lt") if rules[k] is not None]
        wrong += [math.nan, math.inf, -math.inf] if spec.type is float else []
        for value in wrong:
            _refused(cls, {spec.name: value}, spec.name)
        _refused(cls, {spec.name + "z": 1}, "Did you mean" if len(spec.name) > 2 else "no parameter")
    _refused(cls, {"no_such_parameter": 1}, "no parameter")
    assert cls.__doc__, f"{cls.__name__} has no docstring; its first line is its summary in `veilset methods`"
    assert cls.name == cls.name.lower() and " " not in cls.name, f"name = {cls.name!r}: small letters without spaces"


PROPERTIES: tuple[Callable[[Make], None], ...] = (
    contributions_are_bounded_and_nothing_else_is_learned,
    plan_and_ledger_agree,
    noise_has_the_planned_scale,
    nothing_private_is_kept,
    save_and_load_give_the_same_samples,
    samples_are_labelled_images,
    without_noise_it_is_stamped,
    research_repeats_and_release_does_not,
    an_interrupted_fit_ends_the_same,
    parameters_say_what_they_are,
)


def check_synthesizer(method: str | type[Synthesizer], **params: Any) -> None:
    """Run every property of `PROPERTIES` over a method; it is fitted some thirty times on sixty images of 8 x 8.

    Args:
        method: a name in `veilset.methods()`, or a subclass of `veilset.Synthesizer`.
        params: its parameters; choose them so that a fit takes a second.

    Raises:
        AssertionError: the first property that does not hold, by name.
        ConfigError: no such method or parameter, or something else than a method.
        ModeError: Python runs with -O, which drops the checks.
    """
    if not __debug__:
        raise ModeError("check_synthesizer: Python runs with -O, which drops every check; run it without")
    cls = method_class(method) if isinstance(method, str) else method
    if not (isinstance(cls, type) and issubclass(cls, Synthesizer)):
        raise ConfigError(f"method = {method!r}: must be a name in veilset.methods() or a veilset.Synthesizer class")
    cls(**params)  # a wrong parameter is the caller's fault, not the method's
    for holds in PROPERTIES:
        try:
            holds(lambda: cls(**params))
        except AssertionError as e:
            said = f": {e}" if str(e) else ""
            raise AssertionError(f"{cls.__name__}: {holds.__name__.replace('_', ' ')}{said}") from e


# ---------------------------------------------------------------------- helpers


def _refused(cls: type[Synthesizer], params: dict[str, Any], word: str) -> None:
    try:
        cls(**params)
    except ConfigError as e:
        assert word in str(e) and "\n" not in str(e), f"{params}: unclear message: {e}"
    else:
        raise AssertionError(f"{params} was accepted")


def _equal_states(a: Synthesizer, b: Synthesizer) -> bool:
    assert a._state is not None and b._state is not None
    return a._state.keys() == b._state.keys() and all(
        torch.equal(v.nan_to_num(0.5), b._state[k].nan_to_num(0.5)) for k, v in a._state.items()
    )


def _walk(root: Any) -> Iterator[tuple[str, Any]]:
    """(path, thing) for everything reachable from an object by attributes, containers and closures."""
    seen: set[int] = set()
    todo = [("model", root)]
    while todo:
        path, thing = todo.pop()
        if id(thing) in seen or isinstance(thing, types.ModuleType | type):
            continue
        seen.add(id(thing))
        yield path, thing
        if isinstance(thing, dict):
            todo += [(f"{path}[{k!r}]", v) for k, v in thing.items()]
        elif isinstance(thing, list | tuple | set | frozenset):
            todo += [(f"{path}[{i}]", v) for i, v in enumerate(thing)]
        elif isinstance(thing, types.FunctionType):
            todo += [(f"{path}.closure", c.cell_contents) for c in thing.__closure__ or ()]
        elif isinstance(thing, types.MethodType):
            todo += [(f"{path}.self", thing.__self__)]
        elif not isinstance(thing, torch.Tensor | np.ndarray):
            todo += [(f"{path}.{k}", v) for k, v in getattr(thing, "__dict__", {}).items()]


def _remembered(model: Synthesizer) -> dict[str, bytes]:
    """Every number, text and array that hangs on a model, as bytes."""
    out = {}
    for path, thing in _walk(model):
        if isinstance(thing, torch.Tensor):
            thing = thing.detach().cpu().numpy()
        if isinstance(thing, np.ndarray):
            out[path] = thing.tobytes()
        elif isinstance(thing, int | float | str | bytes | np.generic):
            out[path] = repr(thing).encode()
    return out
