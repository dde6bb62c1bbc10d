"""G-PATE: teachers vote in which direction each generated image should move, along a few random public directions.

Paper: Long, Wang, Yang, Kailkhura, Zhang, Gunter, Li 2021, "G-PATE: Scalable Differentially Private Data Generator via
Private Aggregation of Teacher Discriminators", arXiv 1906.09338, Algorithms 1 and 2.
Idea: a generator needs of its critics no more than a direction for each image. Projected on a few random axes and cut
into bins it is a vote, and votes of many teachers are counted with little noise.

Private access: `vote`s, "votes": for each of `images` images and each of `directions` axes a histogram of the teachers'
bins (one-hot votes), at every step; and one `sum` by class, "mean", that the generator starts from.

Differs from the paper and its code:
  * Every histogram of every step is charged, at the sensitivity sqrt(2) of a histogram and whatever the votes are. The
    paper's epsilon depends on how well teachers agree, is printed all the same, and decides when to stop; its presets
    allow 131 (epsilon 1) and 51 (epsilon 10) steps if nothing is left out (`veilset claim g-pate`).
  * The noisy histogram is what is released, so a threshold on its largest bin costs nothing further, and more is read
    from it: the mean of the bins is the default. `decode` "largest" is the paper's.
  * A step of an image's low frequencies is voted on, along axes among them; bins follow a gradient's own length.
  * Teachers are fully connected critics of few weights, trained all in one pass. The generator starts from class means.

Figures, one seed: MNIST, 50,000 images of its training split, 250 teachers; a linear classifier and a small
convolutional network learn 5,000 generated images and label the other 10,000. Epsilon 10: 73 and 71 %; epsilon 1: 74
and 74. The class means that it starts from give 75 and 74 by themselves, so accuracy is the start's, and the votes do
not add to it; without a start the same steps give 19 and 15. Kept for comparison; use another method.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from veilset.core.config import option
from veilset.core.types import PublicInfo
from veilset.methods.base import State, Synthesizer
from veilset.methods.gan import voters
from veilset.methods.gan.voters import PATE, Game, Moved, Polled, Voters


@dataclass(frozen=True, kw_only=True)
class Config(voters.MovedConfig):
    directions: int = option(10, "random axes per image on which teachers vote", ge=1, le=4096)
    bins: int = option(2, "bins of a vote, equal parts of two deviations to either side; 2: the sign", ge=2, le=256)
    decode: str = option(
        "mean", "what is read from a noisy histogram: its mean, or its largest bin", choices=("mean", "largest")
    )
    threshold: float = option(0.0, "largest: part of the teachers that must agree, or the image stays", ge=0, le=1)


class GPATE(PATE, Synthesizer):
    """Teachers vote on directions of generated images."""

    name = "g-pate"
    Config: ClassVar[type] = Config
    recipes: ClassVar = {
        "paper": {"shards": 2000, "images": 30, "steps": 51, "critic": "conv", "width": 32, "generator": "deconv"}
        | {"generator_width": 64, "basis": 0, "start": "none", "warm_steps": 1, "teacher_steps": 1, "batch_size": 30}
        | {"lr": 1e-3, "bins": 10, "decode": "largest", "threshold": 0.5, "inner_steps": 1, "latent_dim": 100}
        | {"ema_decay": 0.0, "snapshots": 1}
    }

    def _polled(self) -> Polled:
        return Directions(self.config)


class Directions(Moved):
    """A histogram for each image and axis."""

    def ballot(self, info: PublicInfo) -> dict[str, Any]:
        """Histograms."""
        c = self.config
        return {"kind": "one-hot", "rows": c.images * self._axes(info), "columns": c.bins, "entries": 1}

    def asked(self, x: torch.Tensor, info: PublicInfo) -> tuple[torch.Tensor, Any]:
        """The images themselves, and orthonormal axes of each, [images, d, directions]."""
        axes = torch.randn(len(x), self.seen(info), self._axes(info)).to(x)
        return x, torch.linalg.qr(axes)[0]

    def voted(self, voters: Voters, state: State, x: torch.Tensor, y: torch.Tensor, public: Any) -> torch.Tensor:
        """How near each bin's middle is to the slope along an axis, in units of two deviations."""
        slope = voters.slopes(state, x, y)
        slope = slope / slope.norm(dim=1, keepdim=True).clamp_min(1e-12) * (math.sqrt(slope.shape[1]) / 2)
        along = (slope[:, None] @ public).flatten().clamp(-1, 1)
        return -(along[:, None] - self._middles(x)).square()

    def direction(self, game: Game, counts: torch.Tensor) -> torch.Tensor:
        """Along the image's axes, as far as the bins say."""
        c, middles = self.config, self._middles(counts)
        told = counts @ middles
        if c.decode == "largest":
            most, which = counts.max(1)
            told = torch.where(most >= c.threshold, middles[which], 0.0)
        out: torch.Tensor = (game.public @ told.view(len(game.x), -1, 1))[..., 0]
        return out

    def _axes(self, info: PublicInfo) -> int:
        return min(int(self.config.directions), self.seen(info))

    def _middles(self, like: torch.Tensor) -> torch.Tensor:
        n = self.config.bins
        return (2 * torch.arange(n, device=like.device) + 1 - n).to(like.dtype) / (n if n > 2 else 1)
