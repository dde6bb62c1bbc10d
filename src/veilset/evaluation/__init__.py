"""Numbers about images: utility and fidelity, each with its unit, its direction and what it reads."""

from veilset.evaluation.evaluate import evaluate
from veilset.evaluation.extractors import Tools
from veilset.evaluation.protocols import CNN_PROTOCOL, PROTOCOLS, Protocol
from veilset.evaluation.registry import Entry, entries, groups
from veilset.evaluation.scores import Metric, Scores
from veilset.evaluation.selection import Selection

__all__ = [
    "CNN_PROTOCOL",
    "PROTOCOLS",
    "Entry",
    "Metric",
    "Protocol",
    "Scores",
    "Selection",
    "Tools",
    "entries",
    "evaluate",
    "groups",
]
