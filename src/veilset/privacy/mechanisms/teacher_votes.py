"""All of K hidden models vote, each on its own shard's behalf; the votes are counted, and the counts are noised.

A step asks B queries, and a vote on one is a vector of d numbers of a declared kind (see `privacy/ballots.py`):

* "one-hot": a 1 in one of d places, or nothing. Two votes differ by at most sqrt(2), by 1 if one of them is nothing.
* "count": one number from 0 to 1 (d = 1). They differ by at most 1.
* "signs": at most k entries are 1 or -1, the others 0. They differ by at most 2 sqrt(k): with s entries in common their
  squared distance is at most 4 s + 2 (k - s), which is largest for s = k, all signs turned.

*One step.* A unit lies in one shard (a draw of its own, docs/secret-shards.md), so adding, removing or replacing it
changes one hidden model, in any way, and so that model's votes on all B queries. What the others answer is the same
given what was released before and their coins. The counts are sums of votes: they move by at most sqrt(B) times the
above. *Steps.* A model may keep what it learned, since nothing about who answers is secret. So T steps are T adaptive
Gaussians of that sensitivity, mu = sqrt(T) / noise multiplier, exactly, and no draw saves anything: every unit is asked
every time. *Whatever is made of the noisy counts* (a largest one, a threshold, a sign) costs nothing, and is no cheaper
for being clear: a charge that follows how well the votes agree would itself tell about them.

Paper: Papernot et al. 2018, arXiv 1802.08908, Section 4.1 (GNMax), without its data-dependent analysis.
"""

from __future__ import annotations

import math

from veilset.privacy.mechanisms.base import Known, Line
from veilset.privacy.mechanisms.sampled_gaussian import Gaussians
from veilset.privacy.mechanisms.secret_shards import count
from veilset.privacy.spent import Spent

NAME = "teacher-votes"
KINDS = {"one-hot": "a 1 in one place", "count": "a number from 0 to 1", "signs": "a few entries of 1 or -1"}


def teacher_votes(
    noise_multiplier: float, kind: str, parts: int, steps: int, rows: int = 1, columns: int = 1, entries: int = 1
) -> Spent:
    """The accountant's line of `steps` polls of `parts` models with `rows` queries each."""
    facts = (("columns", columns), ("entries", entries), ("kind", kind), ("rows", rows), ("shards", parts))
    return Spent(noise_multiplier, 1.0, steps, None, NAME, facts)


class TeacherVotes(Gaussians):
    """Counts of the votes of all hidden models."""

    name, label, verbs = NAME, "Gaussian on the votes of all hidden models", ("vote",)
    rules = {"shards": count, "rows": count, "columns": count, "entries": count, "kind": lambda k: k in KINDS}
    demands = " (and the rate is 1, a count has 1 column, and entries are 1, or of signs at most the columns)"
    state = True
    # mu^2 = steps / noise^2. Found by the bisection of Phi(mu/2 - e/mu) - exp(e) Phi(-mu/2 - e/mu) in fifty digits.
    known = (
        Known("forty polls about ten queries", (teacher_votes(12.0, "one-hot", 500, 40, 10, 10),), 1e-5, 2.113978814),
        Known("counts", (teacher_votes(80.0, "count", 1000, 1600, 50),), 1e-5, 1.993091404),
        Known("signs", (teacher_votes(5.0, "signs", 100, 100, 5, 64, 9),), 1e-5, 9.997256146),
    )

    def fits(self, line: Line) -> bool:
        """Everybody votes; what an entry is follows from the kind."""
        if not super().fits(line) or line.sample_rate != 1:
            return False
        facts = dict(line.facts)
        few = facts["entries"] <= facts["columns"] if facts["kind"] == "signs" else facts["entries"] == 1
        return few and (facts["kind"] != "count" or facts["columns"] == 1)

    def factor(self, line: Line) -> float:
        """What one model's votes on all queries may change: the root of B times one vote's."""
        facts = dict(line.facts)
        squared = {"one-hot": 2, "count": 1, "signs": 4 * facts["entries"]}[facts["kind"]]
        return math.sqrt(squared * facts["rows"])

    def met(self, s: Spent) -> int:
        """Everybody is asked every time."""
        return s.steps

    def sentence(self, line: Line) -> str:
        """Who votes on what, and what a unit may change."""
        facts = dict(line.facts)
        signs = facts["kind"] == "signs"
        moved = {"one-hot": "√2", "count": "1", "signs": f"2√{facts['entries']}"}[facts["kind"]]
        of = f"{facts['entries']} of {facts['columns']} entries are 1 or -1" if signs else KINDS[facts["kind"]]
        return (
            f"Votes of {facts['shards']} hidden models on {facts['rows']} queries a step, each made from units that "
            f"the others never see; a vote is {of}. One unit changes one model's votes, each by {moved} at most; "
            f"the noise has a standard deviation of noise multiplier × bound × {moved} × √queries, however "
            "well votes agree."
        )
