"""DataLens: teachers vote with the signs of the few largest entries of the direction in which an image should move.

Paper: Wang, Wu, Long, Rimanic, Zhang, Li 2021, "DataLens: Scalable Privacy Preserving Training via Gradient Compression
and Aggregation", arXiv 2103.11109, Algorithms 1 and 2.
Idea: as G-PATE, but a teacher says about an image, at once, which of its numbers should change most and which way:
the signs of the largest entries of a gradient. Their sum over teachers is noised once.

Private access: `vote`s, "votes": for each of `images` images the sum over teachers of sparse signs with `entries`
entries, at every step; and one `sum` by class, "mean", that the generator starts from.

Differs from the paper and its code:
  * Every image of every step is charged at 2 sqrt(entries), whatever the votes are. The paper's accountant analyses the
    argmax of a histogram, which is not what is released; its presets allow 87 (epsilon 1) and 110 (epsilon 10) steps
    (`veilset claim datalens`).
  * Each unit is with one teacher, by a draw of its own. The code deals classes out evenly and begins anew where a class
    is used up, so some records are with two teachers.
  * Signs are those of the gradient; the paper draws them at random, with a probability that follows the entry.
  * Low frequencies vote, not pixels, and the noisy sum itself is the direction; `threshold` above 0 keeps the signs of
    what passes that part of the teachers, as the paper does.
  * Teachers are fully connected critics of few weights, trained all in one pass. The generator starts from class means.

Figures, one seed: MNIST, 50,000 images of its training split, 250 teachers; a linear classifier and a small
convolutional network learn 5,000 generated images and label the other 10,000. Epsilon 10: 74 and 70 %; epsilon 1: 74
and 74. The class means that it starts from give 75 and 74 by themselves, so accuracy is the start's, and the votes do
not add to it; without a start the same steps give 20 and 15. Kept for comparison; use another method.
"""

from __future__ import annotations

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
    entries: int = option(20, "entries of an image's direction whose signs a teacher says", ge=1, le=2**20)
    generator_lr: float = option(5e-4, "learning rate of the generator (Adam)", gt=0)
    threshold: float = option(0.0, "part of the teachers that must agree on an entry; 0: all are read", ge=0, le=1)


class DataLens(PATE, Synthesizer):
    """Teachers vote with sparse signs of gradients."""

    name = "datalens"
    Config: ClassVar[type] = Config
    recipes: ClassVar = {
        "paper": {"shards": 4000, "images": 15, "steps": 110, "critic": "conv", "width": 32, "generator": "deconv"}
        | {"generator_width": 64, "basis": 0, "start": "none", "warm_steps": 2, "teacher_steps": 2, "batch_size": 15}
        | {"lr": 1e-3, "entries": 300, "threshold": 0.2, "inner_steps": 1, "latent_dim": 64}
        | {"ema_decay": 0.0, "snapshots": 1}
    }

    def _polled(self) -> Polled:
        return Signs(self.config)


class Signs(Moved):
    """Sparse signs for each image."""

    def ballot(self, info: PublicInfo) -> dict[str, Any]:
        """One row an image."""
        size = self.seen(info)
        return {"kind": "signs", "rows": self.config.images, "columns": size, "entries": min(self.config.entries, size)}

    def asked(self, x: torch.Tensor, info: PublicInfo) -> tuple[torch.Tensor, Any]:
        """The images themselves."""
        return x, None

    def voted(self, voters: Voters, state: State, x: torch.Tensor, y: torch.Tensor, public: Any) -> torch.Tensor:
        """The slopes; the gate keeps the signs of the largest."""
        return voters.slopes(state, x, y)

    def direction(self, game: Game, counts: torch.Tensor) -> torch.Tensor:
        """Along the counts, or the signs of those that enough teachers agree on."""
        threshold = self.config.threshold
        return counts.sign() * (counts.abs() >= threshold) if threshold else counts
