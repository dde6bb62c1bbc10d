"""Votes from scores: whatever a hidden model computes, what is counted is of the planned kind.

The gate makes the votes itself, so that no function can cast two where one is paid for, and a model whose scores are
not finite casts none. What a vote may move: `mechanisms/teacher_votes.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def votes(scores: torch.Tensor, facts: Mapping[str, Any]) -> torch.Tensor:
    """The votes of models with these scores, [models, rows, columns] float64 each.

    Args:
        scores: "one-hot": the largest of a row has the vote, the first one of equals. "count": cut to 0 .. 1. "signs":
            the `entries` of a row that are largest in absolute value (the first ones of equals) vote by their signs,
            where they are not 0.
        facts: of the release.
    """
    good = scores.isfinite().all(-1, keepdim=True)
    scores = torch.where(good, scores, 0.0)
    if facts["kind"] == "count":
        cast = scores.clamp(0, 1)
    elif facts["kind"] == "one-hot":
        cast = torch.zeros_like(scores).scatter_(-1, scores.argmax(-1, keepdim=True), 1.0)
    else:
        largest = scores.abs().argsort(dim=-1, descending=True, stable=True)[..., : facts["entries"]]
        cast = torch.zeros_like(scores).scatter_(-1, largest, scores.gather(-1, largest).sign())
    return (cast * good).to("cpu", torch.float64)
