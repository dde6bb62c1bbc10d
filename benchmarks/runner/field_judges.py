"""Judges of the field suite: what four plain classifiers learn from released images, and from real ones.

Every judge learns balanced classes and is tested by the mean of its recalls over classes, in %, so that a set of
90 : 9 : 1 has the chance 100 / K like any other. Logistic regression and the forest see pixels averaged to sides of at
most FEW; the edges and the network see images as they are, up to sides of MANY.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from veilset.core.types import Images

FEW, MANY = 32, 64  # longest sides that judges see
CELL, BINS = 7, 9  # of the edges: cells a side, directions in half a turn
TREES, TURNS = 100, 60  # of the forest; iterations of the linear judges
REAL = 4000  # the most real images that a ceiling is learned from
CHEAP = ("logreg", "forest", "hog")
JUDGES = (*CHEAP, "cnn")


def judge(name: str, train: Images, test: Images, seed: int) -> float:
    """Balanced accuracy in % on `test` of this judge, learned from `train`."""
    if name == "cnn":
        guess = _cnn(train, test, seed)
    else:
        see: Callable[[torch.Tensor], Any] = edges if name == "hog" else _pixels
        model = _forest(seed) if name == "forest" else _linear()
        guess = torch.from_numpy(model.fit(see(train.x), train.y.numpy()).predict(see(test.x)))
    return balanced(guess, test.y)


def balanced(guess: torch.Tensor, true: torch.Tensor) -> float:
    """Mean of the recalls of the classes that occur, in %."""
    return 100 * float(np.mean([(guess[true == k] == k).double().mean().item() for k in true.unique().tolist()]))


def even(images: Images, most: int, seed: int) -> Images:
    """At most so many images, by chance, with each class as often as the rarest allows or 1 in K of `most`."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    quota = most // len(images.classes)
    return images[torch.cat([order[images.y[order] == k][:quota] for k in range(len(images.classes))])]


def edges(x: torch.Tensor) -> Any:
    """Histograms of oriented gradients [n, CELL^2 BINS] (Dalal and Triggs 2005) of the lightness of uint8 images.

    Cells are an even grid whatever the size, votes go to the two nearest directions, and the whole is normalised in
    neighbourhoods of 3 x 3 cells.
    """
    parts = []
    for part in _shrunk(x, MANY).split(500):
        grey = F.pad(part.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
        across, down = (grey[..., 1:-1, 2:] - grey[..., 1:-1, :-2]), (grey[..., 2:, 1:-1] - grey[..., :-2, 1:-1])
        size, turn = torch.hypot(across, down), torch.atan2(down, across) / torch.pi % 1 * BINS
        away = (turn - torch.arange(BINS)[None, :, None, None]).abs()
        votes = size * (1 - torch.minimum(away, BINS - away)).clamp_min(0)
        cells = F.adaptive_avg_pool2d(votes, CELL)
        near = F.avg_pool2d(cells.square().sum(1, keepdim=True), 3, 1, 1).sqrt()
        parts.append((cells / (near + 0.01)).flatten(1))
    return torch.cat(parts).numpy()


def _shrunk(x: torch.Tensor, most: int) -> torch.Tensor:
    """Float images in [0, 1] with sides of at most `most`."""
    h, w = x.shape[-2:]
    return F.adaptive_avg_pool2d(x.float() / 255, (min(h, most), min(w, most)))


def _pixels(x: torch.Tensor) -> Any:
    return torch.cat([_shrunk(part, FEW).flatten(1) for part in x.split(500)]).numpy()


def _linear() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = LogisticRegression(C=0.1, max_iter=TURNS, class_weight="balanced")
    return _Quiet(make_pipeline(StandardScaler(), model))


def _forest(seed: int) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(TREES, class_weight="balanced", random_state=seed, n_jobs=1)


class _Quiet:
    """A linear judge, which stops early on purpose and need not say so."""

    def __init__(self, model: Any):
        self._model = model

    def fit(self, x: Any, y: Any) -> Any:
        import warnings

        from sklearn.exceptions import ConvergenceWarning

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return self._model.fit(x, y)


def _cnn(train: Images, test: Images, seed: int) -> torch.Tensor:
    from veilset.core.types import Images
    from veilset.evaluation.protocols import CNN_PROTOCOL
    from veilset.evaluation.training import predict, train_any

    small = [
        Images(torch.cat([(255 * _shrunk(p, MANY)).round().to(torch.uint8) for p in s.x.split(500)]), s.y, s.classes)
        for s in (train, test)
    ]
    return predict(train_any("cnn", small[0], seed, CNN_PROTOCOL), small[1].x)
