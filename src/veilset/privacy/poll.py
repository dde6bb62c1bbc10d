"""All hidden models of a release, asked for their votes in a few vectorised passes.

A model that votes is all in its state: `train_hidden` puts into it what the model needs of its shard (records as it
wants them, weights), and a vote reads nothing else. So a poll of a thousand models opens no file. No model sees
another: they are mapped by `torch.func.vmap`, what one draws is its own, and one that diverges votes no more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from veilset.core.errors import ConfigError
from veilset.privacy import ballots
from veilset.privacy.alone import equal
from veilset.privacy.draws import shared
from veilset.privacy.enclave import Enclave, Hidden, State, Train

Vote = Callable[[State], torch.Tensor]
MADE_UP = (-2, -1)  # shards that hold no record: a function is looked at on their models first


class Poll(Enclave):
    """An enclave whose models vote together, and keep what they learn. Arguments as of `Enclave`."""

    def __init__(self, release: Any, *rest: Any):
        super().__init__(release, *rest)
        self._facts = dict(release.facts)
        self._all: State = {}  # name -> [shards, ...]
        self._like: State = {}  # the same of made-up shards
        self._changed: set[str] = set()
        self._dead = torch.zeros(self.shards, dtype=torch.bool)  # models that diverged

    def train(self, train: Train, together: int) -> None:
        """As `Enclave.train`, and of made-up shards, too."""
        super().train(train, together)
        self._like = self._trained(train, MADE_UP[0], MADE_UP[1] + 1)
        self._all = {name: torch.stack([self._models[k][name] for k in range(self.shards)]) for name in self._models[0]}
        self._dead = ~_finite(self._all, self.shards)
        self._models = {0: {}}

    def vote(self, step: int, f: Vote, together: int, worth: int) -> torch.Tensor:
        """The counts of all votes, [rows, columns] float64 on the processor: not noised, so for the gate only.

        A whole vote counts `worth` of the grid's spacings, and a part of one is cut down to whole spacings before
        anything is added: sums of whole numbers are exact, so one model moves them by its own votes and no rounding.

        Raises:
            ConfigError: the models are not trained; scores are of another shape than planned, or f keeps a state.
        """
        if not self._all:
            raise ConfigError(
                f"release {self._name!r}: nobody can vote yet; make the models by `gate.train_hidden` first"
            )
        if not self._steady:
            self._look(f)
        total = torch.zeros(self._shape, dtype=torch.float64)
        for first in range(0, self.shards, together):
            total += self._cast(step, f, first, min(first + together, self.shards), worth)
        return total

    def state_dict(self) -> dict[str, Any]:
        """What models learned since they were trained, and which of them diverged."""
        return {"models": {name: self._all[name] for name in sorted(self._changed)}, "dead": self._dead}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; the models are trained, or read back, before."""
        self._changed = set(state["models"])
        self._all = self._all | state["models"]
        self._dead = state["dead"]

    def _cast(self, step: int, f: Vote, first: int, end: int, worth: int) -> torch.Tensor:
        """The counts of models first to end; keeps what they learned.

        What one that diverges may have spoilt beside it (0 x NaN) is made once more, each alone in its place among
        made-up models. One that is not finite then has diverged: it votes no more.
        """

        seed = self._seed(f"vote/{step}/{first}")

        def asked(kept: range) -> tuple[torch.Tensor, State]:
            mine = torch.tensor([k in kept and not self._dead[k] for k in range(first, end)])
            states = {name: v[first:end].clone() for name, v in self._all.items()}
            for name, v in states.items():
                v[~mine] = self._like[name][0]
            return self._mapped(f, states, seed)

        scores, states = asked(range(first, end))
        good = _finite({"scores": scores} | states, end - first)
        for i in (~good).nonzero()[:, 0].tolist():
            alone, own = asked(range(first + i, first + i + 1))
            scores[i] = alone[i]
            for name, v in states.items():
                v[i] = own[name][i]
        sound = _finite(states, end - first) & ~self._dead[first:end]
        self._dead[first:end] = ~sound
        for name in states:
            if name not in self._changed:
                self._changed.add(name)
                self._all[name] = self._all[name].clone()
            self._all[name][first:end] = torch.where(
                _wide(sound, states[name]), states[name], self._all[name][first:end]
            )
        return (ballots.votes(scores, self._facts) * _wide(sound, scores) * worth).trunc_().sum(0)

    def _mapped(self, f: Vote, states: State, seed: int) -> tuple[torch.Tensor, State]:
        """(scores of so many models, the entries of their states that f changed)."""
        names = set[str]()

        def one(state: State) -> tuple[torch.Tensor, State]:
            given = dict(state)
            scores = f(state)
            changed = {k: v for k, v in state.items() if v is not given.get(k)}
            names.update(changed)
            return scores, changed

        device = next(iter(states.values())).device
        with shared(seed, device), torch.no_grad():  # a `backward` would reach public networks
            scores, changed = torch.func.vmap(one, randomness="different")(states)
        self._fit(scores, changed)
        return scores.detach().clone(), {k: v.detach().clone() for k, v in changed.items()}

    def _fit(self, scores: Any, changed: State) -> None:
        if tuple(scores.shape[1:]) != self._shape or not scores.is_floating_point():
            raise ConfigError(
                f"release {self._name!r}: its scores are {list(scores.shape[1:])}, planned were {self._shape[0]} rows "
                f"of {self._shape[1]} floating-point numbers; return what was planned, or plan what is returned"
            )
        odd = [k for k, v in changed.items() if k not in self._like or v.shape[1:] != self._like[k].shape[1:]]
        if odd:
            raise ConfigError(
                f"release {self._name!r}: a model's state may change its values, not its names or shapes: {odd[0]!r}; "
                "return all of it from what `train_hidden` is given"
            )

    def _look(self, f: Vote) -> None:
        """Ask f about the models of made-up shards, and again: it must say the same."""
        once, _ = self._mapped(f, dict(self._like), 0)
        self._mapped(f, {name: v.flip(0) for name, v in self._like.items()}, 1)
        again, _ = self._mapped(f, dict(self._like), 0)
        if not equal(once, again):
            raise ConfigError(
                f"release {self._name!r}: asked twice about one model, f gives two answers; it keeps a state, or a "
                "generator, of its own. Keep nothing between calls but what stands in a model's state"
            )
        self._steady = True

    def _read(self, shard: int) -> Hidden:
        """A shard's records; a made-up shard's are noise."""
        return self._made_up(shard + 2, self._room) if shard in MADE_UP else super()._read(shard)


def _finite(state: State, models: int) -> torch.Tensor:
    """[models] whether all that belongs to a model is finite."""
    good = torch.ones(models, dtype=torch.bool)
    for v in state.values():
        good &= v.isfinite().flatten(1).all(1).cpu() if v.dim() > 1 else v.isfinite().cpu()
    return good


def _wide(marks: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return marks.to(like.device).view(-1, *[1] * (like.dim() - 1))
