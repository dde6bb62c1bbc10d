"""Numbers about images: utility and fidelity, each with its unit, its direction and what it reads."""

from veilset.evaluation.evaluate import evaluate
from veilset.evaluation.protocols import CNN_PROTOCOL, Protocol
from veilset.evaluation.registry import Entry, entries
from veilset.evaluation.scores import Metric, Scores

__all__ = ["CNN_PROTOCOL", "Entry", "Metric", "Protocol", "Scores", "entries", "evaluate"]
