"""PATE-GAN: teachers vote which generated images could be records; a student learns the votes, a generator from it.

Paper: Jordon, Yoon, van der Schaar 2019, "PATE-GAN: Generating Synthetic Data with Differential Privacy Guarantees",
ICLR 2019, Algorithm 1.
Idea: a critic that saw generated images only, each with the noisy vote of many teachers, is a critic that anyone may
have; the generator plays against it for nothing.

Private access: `vote`s, "votes": for each of `images` generated images how many teachers take it for a record, at every
step; and one `sum` by class, "mean", that the generator starts from.

Differs from the paper and the six code bases that Ganev, Annamalai and De Cristofaro 2024 (arXiv 2406.13985) looked at:
  * Counts get Gaussian noise, and every one of every step is charged, at the sensitivity 1 of a count, whatever the
    votes are; the number of steps is planned. The paper charges by how well teachers agree, and stops by that.
  * Each unit is with one teacher, by a draw of its own, once.
  * The student learns the noisy share of votes, not which side it is on, and keeps those of the last steps. Half of
    the images that are asked about have noise added, so that it learns what is around them.
  * A teacher may say how sure it is, from 0 to 1, which costs the same as 0 or 1; `votes` "hard" is the paper's.
  * Images with labels in place of rows of a table. Teachers are fully connected critics of low frequencies, trained all
    in one pass. The generator starts from class means.

Figures, one seed: MNIST, 50,000 images of its training split, 250 teachers; a linear classifier and a small
convolutional network learn 5,000 generated images and label the other 10,000. Epsilon 10: 75 and 74 %; epsilon 1: 74
and 74. The class means that it starts from give 75 and 74 by themselves, so accuracy is the start's, and the votes do
not add to it; without a start the same steps give 14 and 7. Kept for comparison; use another method.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from veilset.core.config import option
from veilset.core.types import PublicInfo
from veilset.methods.base import State, Synthesizer
from veilset.methods.gan import voters
from veilset.methods.gan.voters import PATE, Game, Polled, Voters
from veilset.networks.critics import MLPCritic, score


@dataclass(frozen=True, kw_only=True)
class Config(voters.Config):
    images: int = option(100, "generated images per step that are voted on", ge=1, le=2**16)
    generator_lr: float = option(2e-4, "learning rate of the generator (Adam)", gt=0)
    votes: str = option(
        "soft", "what a teacher says of an image: how sure it is, or yes or no", choices=("soft", "hard")
    )
    jitter: float = option(0.5, "deviation of the noise on half of the images that are asked about", ge=0)
    kept: int = option(3000, "answers that the student learns from, the latest ones", ge=1)
    student_width: int = option(64, "units of the student's hidden layer", ge=1)
    student_steps: int = option(60, "steps of the student per vote", ge=1)
    student_lr: float = option(2e-3, "learning rate of the student (Adam)", gt=0)
    generator_steps: int = option(2, "steps of the generator per vote", ge=1)


class PATEGAN(PATE, Synthesizer):
    """A student learns noisy votes on generated images, and a generator from it."""

    name = "pate-gan"
    Config: ClassVar[type] = Config
    recipes: ClassVar = {
        "paper": {"shards": 1000, "images": 64, "steps": 500, "votes": "hard", "jitter": 0.0, "kept": 64}
        | {"student_steps": 1, "generator_steps": 1, "start": "none", "basis": 0, "warm_steps": 5, "teacher_steps": 5}
        | {"batch_size": 64, "lr": 1e-4, "student_lr": 1e-4, "generator_lr": 1e-4, "width": 784, "student_width": 784}
        | {"ema_decay": 0.0, "snapshots": 1, "latent_dim": 196, "generator_width": 3136}
    }

    def _polled(self) -> Polled:
        return Counts(self.config)


class Counts(Polled):
    """A count for each image."""

    def ballot(self, info: PublicInfo) -> dict[str, Any]:
        """Counts."""
        return {"kind": "count", "rows": self.config.images, "columns": 1, "entries": 1}

    def extra(self, info: PublicInfo) -> dict[str, Any]:
        """The student, its optimiser and what it has been told."""
        c = self.config
        student = MLPCritic((1, 1, self.seen(info)), len(info.classes), (c.student_width,)).to(self.device)
        adam = torch.optim.Adam(student.parameters(), c.student_lr)
        return {"student": student, "student's": adam, "told": Told(c.kept)}

    def asked(self, x: torch.Tensor, info: PublicInfo) -> tuple[torch.Tensor, Any]:
        """Every second image with noise of its own size."""
        level = self.config.jitter * torch.rand(len(x), 1).to(x) * 2
        level[::2] = 0
        return x + level * torch.randn(x.shape).to(x), None

    def voted(self, voters: Voters, state: State, x: torch.Tensor, y: torch.Tensor, public: Any) -> torch.Tensor:
        """How sure a teacher is that an image is a record."""
        logit = voters.scores(state, x, y)[:, None]
        return logit.sigmoid() if self.config.votes == "soft" else (logit > 0).to(logit.dtype)

    def teach(self, game: Game, counts: torch.Tensor, t: int) -> None:
        """Some steps of the student on what was told, then of the generator against the student."""
        c, student, adam, told = self.config, game.extra["student"], game.extra["student's"], game.extra["told"]
        told.add(game.x_asked, game.y, counts[:, 0])
        for _ in range(c.student_steps):
            x, y, share = told.draw(64)
            adam.zero_grad()
            (self._score(student, x, y).sigmoid() - share).square().mean().backward()
            adam.step()
        for i in range(c.generator_steps):
            game.drawn(100, game.generator.classes, i)
            x = game.voters.seen(game.generator(game.z, game.y))
            game.descend(-self._score(student, x, game.y).mean())

    @staticmethod
    def _score(student: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return score(student(x[:, None, None], y), y)


class Told:
    """The latest images that were asked about, with their labels and noisy shares of votes."""

    def __init__(self, kept: int):
        self._kept = kept
        self._rows: dict[str, torch.Tensor] = {}

    def add(self, x: torch.Tensor, y: torch.Tensor, share: torch.Tensor) -> None:
        """Some more."""
        for name, new in (("x", x), ("y", y), ("share", share)):
            self._rows[name] = torch.cat([self._rows[name], new] if name in self._rows else [new])[-self._kept :]

    def draw(self, n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """n of them at random."""
        i = torch.randint(len(self._rows["y"]), (n,), device=self._rows["y"].device)
        return self._rows["x"][i], self._rows["y"][i], self._rows["share"][i]

    def state_dict(self) -> dict[str, torch.Tensor]:
        """For the checkpoints of `gate.loop`."""
        return dict(self._rows)

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Restore what `state_dict` returned."""
        self._rows = dict(state)
