"""What anyone who holds a trained model can measure of a candidate; methods say themselves what that is.

Random draws are the same for every model (common random numbers), so that models can be compared record by record.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from veilset.audit.membership.features import Candidates

if TYPE_CHECKING:
    from veilset.methods.base import Synthesizer

BATCH = 1000


def model_features(model: Synthesizer, folder: Path, them: Candidates) -> dict[str, torch.Tensor]:
    """`Synthesizer.attack_features` of all candidates, float64 [n] each.

    Args:
        model: fitted.
        folder: its run folder.
        them: the candidates.

    Raises:
        RunError: what the method needs is not in the folder.
    """
    parts = []
    with torch.no_grad(), torch.random.fork_rng():
        for i in range(0, len(them.y), BATCH):
            torch.manual_seed(i)
            parts.append(model.attack_features(folder, them.x[i : i + BATCH], them.y[i : i + BATCH]))
    return {k: torch.cat([p[k] for p in parts]).double() for k in (parts[0] if parts else {})}
