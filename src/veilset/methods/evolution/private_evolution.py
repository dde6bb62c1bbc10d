"""Private Evolution: public candidates, which private images vote for. Nothing is trained on private images.

Papers: Lin et al. 2024, arXiv 2305.15560 (algorithm 1); Lin et al. 2025, arXiv 2502.05505 (simulators as generators).
Idea: a public simulator shows candidates of each class. Each private image votes for the candidate of its own class
that is nearest to it; candidates with many votes are kept and varied, and the private images vote again. Drawn images
are variations of the candidates that won the last vote.

Private access: one `sum`, "votes", asked `votes` times, bound 1 per unit: each image of a unit adds its part of one
vote to one candidate of its class, so the histogram moves by at most 1 in L2 norm. Every unit, no sampling: the cost
is that of `votes` Gaussian sums, exactly. Candidates follow from public data and from earlier noisy histograms.

Public data: needed. `glyphs` are rendered symbols (a class that is called by a digit or letter has that one); of any
other set the candidates are its images, of the same class name where there is one, moved and exchanged for near ones.

Distances are those of a public embedding (`embedding`): features of a small network that learned to tell apart what the
simulator makes, or pixels, strengths of edges in eight directions, or scattering of the image made smaller; along the
directions in which public candidates differ most.

Differs from the papers and their code:
  * A vote is one of K x M numbers, and the number M of candidates follows from declared facts, so that a candidate has
    a few times as many votes as noise. The authors' 6,000 per class leave one vote against noise of 7 at epsilon 1.
  * Class shares are declared by who draws; theirs are those of the private set.
  * The embedding's network learns from the simulator alone, in a minute; theirs is Inception or CLIP, with its weights.
  * When noise leaves no candidate of a class a vote, all have the same; theirs divides 0 by 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from veilset.core.config import option
from veilset.core.errors import ConfigError
from veilset.core.progress import progress
from veilset.core.types import PublicInfo
from veilset.data.public_set import NAMES, open_public
from veilset.methods.base import BATCH, State
from veilset.methods.evolution import embedding
from veilset.methods.evolution.simulators import Embedding, restored, simulator
from veilset.methods.stages import Asked, Earlier, Single, Stage
from veilset.privacy.accounting import gaussian_noise_multiplier
from veilset.privacy.plan import Plan, Release
from veilset.privacy.spec import Privacy

FEWEST, MOST = 8, 1000  # candidates a class


@dataclass(frozen=True, kw_only=True)
class Config:
    public: str | None = option(None, "public set, by name (glyphs, dead-leaves, mnist, ...) or path; needed")
    votes: int = option(4, "rounds of voting", ge=1, le=50)
    candidates: int | None = option(
        None, "candidates a class; default N / (2.5 K noise_multiplier), from 8 to 1000", ge=1, le=10000
    )
    features: str = option(
        "network",
        "what distances are of: features of a small network that tells apart what the simulator makes, or fixed ones",
        choices=("network", *embedding.FIXED),
    )
    network_steps: int = option(1500, "steps of that network's training, on what the simulator makes", ge=1)
    threshold: float = option(1.0, "what is taken from each count, in standard deviations of its noise", ge=0, le=10)
    start: float = option(0.3, "degree of the variations after the first vote, from 0 to 1", gt=0, le=1)
    end: float = option(0.15, "degree of those that are drawn; between, by a geometric rule", gt=0, le=1)


class PrivateEvolution(Single):
    """Public candidates, which private images vote for."""

    name = "private-evolution"
    public_data = "needed"
    Config = Config

    def _stage(self) -> Stage:
        return Votes(self.config)


class Votes(Stage):
    """Candidates, their votes, and what is drawn from them."""

    def __init__(self, config: Config):
        self.config = config

    @property
    def _public(self) -> str:
        if self.config.public is None:
            raise ConfigError(
                f"public: {PrivateEvolution.name} starts from public images; give --public NAME or PATH "
                f"({', '.join(NAMES)}, or a set that is declared public)"
            )
        return str(self.config.public)

    def _candidates(self, info: PublicInfo, budget: Privacy) -> int:
        """How many a class has."""
        if self.config.candidates is not None:
            return int(self.config.candidates)
        one = gaussian_noise_multiplier(budget.epsilon, budget.delta) if budget.private else 0.0
        noise = max(one * math.sqrt(self.config.votes), 1e-9)
        return max(FEWEST, min(MOST, round(info.units / (2.5 * len(info.classes) * noise))))

    def plan(self, info: PublicInfo, budget: Privacy) -> Plan:
        """One sum, several times."""
        public, c = open_public(self._public), self.config
        m, k = self._candidates(info, budget), len(info.classes)
        each = {"scattering": 2e-3, "network": 5e-4}.get(c.features, 2e-4)
        learning = 4e-2 * c.network_steps if c.features == "network" else 0.0
        asked = c.votes * (info.units + k * m)
        seconds = 10 + learning + asked * (each * min(info.pixels, 784) / 784 + 2e-7 * m)
        release = Release(name="votes", bound=1.0, steps=c.votes)
        return Plan((release,), seconds=seconds, memory_mb=600 + 2e-3 * k * m, public=(public.declaration,))

    def fit(self, gate: Asked, info: PublicInfo, budget: Privacy, earlier: Earlier) -> State:
        """ "rows" [K, M, P] and "weight" [K, M] of the candidates of the last vote, and what shows them."""
        c, classes, m = self.config, len(info.classes), self._candidates(info, budget)
        made = simulator(info, self._public, embedding.FIXED.get(c.features, embedding.edges))
        embed = embedding.of(c.features, made, c.network_steps)
        rows = made.random(torch.arange(classes).repeat_interleave(m))
        weight = torch.ones(classes, m)
        for t in progress(range(c.votes), "votes"):
            if t:
                degree = c.start * (c.end / c.start) ** ((t - 1) / (c.votes - 1))
                rows = made.varied(chosen(rows.unflatten(0, (classes, m)), weight, m).flatten(0, 1), degree)
            shown = torch.cat([embed(made.images(part)) for part in rows.split(BATCH)])
            votes = gate.sum("votes", vote(shown.unflatten(0, (classes, m)), embed), by_class=True, cells=m)
            weight = kept(votes[:, :, 0].float(), c.threshold * gate.deviation("votes"))
        return {"rows": rows.unflatten(0, (classes, m)), "weight": weight} | made.state

    def draw(self, state: State, info: PublicInfo, labels: torch.Tensor) -> torch.Tensor:
        """Variations of candidates, in proportion to their votes."""
        made = restored(info, state)
        which = torch.multinomial(state["weight"][labels], 1)[:, 0]
        return made.images(made.varied(state["rows"][labels, which], self.config.end))


def kept(votes: torch.Tensor, threshold: float) -> torch.Tensor:
    """Weights [K, M] that add up to 1, of noisy votes: what is above a threshold; equal ones where nothing is."""
    weight = (votes - threshold).clamp_min(0)
    total = weight.sum(1, keepdim=True)
    return torch.where(total > 0, weight / total, torch.full_like(weight, 1 / weight.shape[1]))


def chosen(rows: torch.Tensor, weight: torch.Tensor, n: int) -> torch.Tensor:
    """n rows [K, n, P] of each class's [K, M, P], drawn by weight [K, M]."""
    which = torch.multinomial(weight, n, replacement=True)
    return rows.gather(1, which[..., None].expand(-1, -1, rows.shape[2]))


def vote(shown: torch.Tensor, embed: Embedding):  # type: ignore[no-untyped-def]
    """f: the number of the nearest of the candidates shown [K, M, E] of the image's own class, and one vote."""

    def f(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        away = (shown[y] - embed(x[None])[0]).square().sum(1)
        return away.argmin(), x.new_ones(1)

    return f
