"""Simulators: public makers of candidates. A candidate is a row of numbers, from which its image follows.

Each makes rows at random for a class, varies rows by a degree from 0 to 1, and shows the images of rows. Which rows a
class may have follows from its declared name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch

from veilset.core.types import PublicInfo
from veilset.data.public_set import open_public
from veilset.data.simulators import glyphs
from veilset.learning.augmentation import moved_apart
from veilset.methods.base import State

MOST, NEIGHBOURS = 5000, 16  # public images that are candidates, and near ones that one may turn into
MOVES = 0.1, 0.15, 0.2, 15.0  # shift, stretch, slant, turn of a public image at degree 1
Embedding = Callable[[torch.Tensor], torch.Tensor]  # images [n, C, H, W] -> [n, E]


class Simulator(ABC):
    """What makes candidates.

    Attributes:
        state: every tensor from which it can be made again, without the public set.
    """

    def __init__(self, info: PublicInfo, state: State):
        self.info, self.state = info, state

    @abstractmethod
    def random(self, labels: torch.Tensor) -> torch.Tensor:
        """Rows [n, P] of candidates of the classes labels [n]."""

    @abstractmethod
    def varied(self, rows: torch.Tensor, degree: float) -> torch.Tensor:
        """Rows [n, P] that are like these; at degree 0 the same."""

    @abstractmethod
    def images(self, rows: torch.Tensor) -> torch.Tensor:
        """Images [n, C, H, W] in [0, 1]."""

    @property
    @abstractmethod
    def kinds(self) -> int:
        """How many kinds of things there are."""

    @abstractmethod
    def kind(self, rows: torch.Tensor) -> torch.Tensor:
        """What rows [n, P] are: int64 [n] below `kinds`."""


class Glyphs(Simulator):
    """Rows are a symbol, a face, and the numbers that deform it (module `glyphs`)."""

    @classmethod
    def of(cls, info: PublicInfo) -> Glyphs:
        """A class that is called by a symbol has this one, and what some write for it; others have all symbols."""
        called = [len(name) == 1 and name in glyphs.SYMBOLS for name in info.classes]
        own = [
            name + glyphs.ALIKE.get(name, "") if is_one else glyphs.SYMBOLS
            for name, is_one in zip(info.classes, called, strict=True)
        ]
        symbols = "".join(dict.fromkeys("".join(own)))
        return cls(info, {"masters": glyphs.masters(symbols), "may": _table([[*map(symbols.index, o)] for o in own])})

    def random(self, labels: torch.Tensor) -> torch.Tensor:
        """A symbol of the class, any face, uniform deformations."""
        face = torch.randint(self.state["masters"].shape[1], (len(labels),))
        which = torch.stack([_one(self.state["may"], labels), face], 1)
        return torch.cat([which.float(), 2 * torch.rand(len(labels), glyphs.HOW) - 1], 1)

    def varied(self, rows: torch.Tensor, degree: float) -> torch.Tensor:
        """The symbol stays, the face may be another one, deformations move."""
        face = torch.randint(self.state["masters"].shape[1], (len(rows),))
        face = torch.where(torch.rand(len(rows)) < degree, face, rows[:, 1])
        how = rows[:, 2:] + degree * torch.randn(len(rows), glyphs.HOW)
        how = 1 - ((how + 1) % 4 - 2).abs()  # reflected at -1 and 1
        return torch.cat([rows[:, :1], face[:, None], how], 1)

    def images(self, rows: torch.Tensor) -> torch.Tensor:
        """Rendered."""
        return glyphs.rendered(self.state["masters"], rows[:, :2].long(), rows[:, 2:], self.info.shape)

    @property
    def kinds(self) -> int:
        """Symbols."""
        return len(self.state["masters"])

    def kind(self, rows: torch.Tensor) -> torch.Tensor:
        """The symbol."""
        return rows[:, 0].long()


class Nearest(Simulator):
    """Rows are the number of a public image, and how it is moved (Lin et al., the interface "nearest image")."""

    @classmethod
    def of(cls, info: PublicInfo, source: str, embedding: Embedding) -> Nearest:
        """A class whose name public images have consists of those; others of all."""
        x, names = open_public(source).images(info.shape)
        chosen = torch.linspace(0, len(x) - 1, min(len(x), MOST)).long()
        x, names = x[chosen], tuple(names[i] for i in chosen.tolist())
        every = range(len(x))
        own = [[i for i in every if names[i] == name] or [*every] for name in info.classes]
        e = torch.cat([embedding(part.float() / 255) for part in x.split(500)])
        near = [torch.cdist(part, e).topk(min(NEIGHBOURS + 1, len(e)), largest=False).indices for part in e.split(500)]
        called = {name: i for i, name in enumerate(sorted(set(names)))}
        kind = torch.tensor([called[name] for name in names]) if len(called) > 1 else torch.arange(len(names))
        return cls(info, {"x": x, "near": torch.cat(near).int(), "may": _table(own), "kind": kind.short()})

    def random(self, labels: torch.Tensor) -> torch.Tensor:
        """An image of the class, as it is."""
        return torch.cat([_one(self.state["may"], labels)[:, None].float(), torch.zeros(len(labels), 1)], 1)

    def varied(self, rows: torch.Tensor, degree: float) -> torch.Tensor:
        """Perhaps a near image, and moved by a degree."""
        near = self.state["near"][rows[:, 0].long()]
        one = near.gather(1, torch.randint(near.shape[1], (len(rows), 1)))[:, 0].float()
        image = torch.where(torch.rand(len(rows)) < degree, one, rows[:, 0])
        return torch.stack([image, torch.full_like(image, degree)], 1)

    def images(self, rows: torch.Tensor) -> torch.Tensor:
        """The public images, moved."""
        x = self.state["x"][rows[:, 0].long()].float() / 255
        for degree in rows[:, 1].unique().tolist():
            if degree > 0:
                mine = rows[:, 1] == degree
                x[mine] = moved_apart(x[mine], *(degree * m for m in MOVES))
        return x

    @property
    def kinds(self) -> int:
        """Names of public images; where all are called the same, every image is a kind."""
        return int(self.state["kind"].max()) + 1

    def kind(self, rows: torch.Tensor) -> torch.Tensor:
        """The name of the public image."""
        return self.state["kind"][rows[:, 0].long()].long()


def simulator(info: PublicInfo, source: str, embedding: Embedding) -> Simulator:
    """The simulator that belongs to a public set."""
    return Glyphs.of(info) if source == glyphs.NAME else Nearest.of(info, source, embedding)


def restored(info: PublicInfo, state: State) -> Simulator:
    """A simulator from its tensors."""
    return (Glyphs if "masters" in state else Nearest)(info, state)


def _table(lists: Sequence[Sequence[int]]) -> torch.Tensor:
    """Lists of whole numbers as int32 [K, 1 + longest], each with its length in front."""
    longest = max(map(len, lists))
    return torch.tensor([[len(row), *row, *[0] * (longest - len(row))] for row in lists], dtype=torch.int32)


def _one(table: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """One number of each label's list, at random: int64 [n]."""
    mine = table[labels].long()
    place = (torch.rand(len(labels)) * mine[:, 0]).long()
    return mine.gather(1, 1 + place[:, None])[:, 0]
