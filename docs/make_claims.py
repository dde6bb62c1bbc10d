"""Write docs/published-claims.md from the constants of published runs: python docs/make_claims.py"""

from __future__ import annotations

import math
from pathlib import Path

from veilset.published.recompute import Recomputed, claim
from veilset.published.runs import RUNS

PAGE = Path(__file__).parent / "published-claims.md"
HEAD = """# Published claims, recomputed

What published private image generators cost, from the constants that their papers and code give. It is arithmetic about
other people's numbers, never a claim of this package, and may be wrong where a constant was misread: each row says
where its constants are from, has two derivations in the tests (`tests/published/`), and can be asked for alone.

```sh
veilset claim --list
veilset claim gs-wgan
veilset claim gs-wgan --json
veilset claim --mechanism shards --noise-multiplier 1.07 --rows 32 --shards 1000 --steps 20000 --printed 10
veilset claim --mechanism poisson --noise-multiplier 1.1 --sample-rate 0.004 --steps 14000 --delta 1e-5
```

- **printed**: epsilon as published.
- **follows**: by the main accountant, an upper bound close to the truth of the mechanism as described: the closed form
  of Gaussians, or privacy loss distributions. For hidden models of which one is drawn in secret, the argument is in
  [secret-shards.md](secret-shards.md).
- **check**: the smaller of two other upper bounds, Renyi divergences, and, for secret draws, the choices told to all.
- **at least**: what one attack on the mechanism proves, if other records answer as is worst for the one attacked.
- **guarantee**: whether the run as it was made has what follows. "no" means: it costs at least about that much by its
  accounting, and something else leaks besides, which the reason names.
"""


def cell(x: float | None) -> str:
    """A number of the table."""
    return "" if x is None else "infinite" if math.isinf(x) else f"{x:,.0f}" if x >= 1000 else f"{x:.3g}"


def row(found: Recomputed) -> str:
    """One line of the table."""
    p, r = found.price, found.run
    holds = "yes" if found.to_json()["guarantee"] else "no"
    numbers = " | ".join(cell(x) for x in (r.printed, p.epsilon, p.check, p.lower))
    return f"| `{found.name}` | {numbers} | {r.delta:g} | {found.relation} | {holds} |"


def section(found: Recomputed) -> str:
    """Reason, accountants, constants and source of a run."""
    p, r = found.price, found.run
    lines = [f"## {found.name}", "", f"{r.title}. {r.why}", ""]
    for phase in r.phases:
        constants = ", ".join(f"{k.replace('_', ' ')} {v:g}" for k, v in phase.given().items())
        lines.append(f"- {phase.mechanism}: {constants or 'no constants'}")
    lines += [f"- {k.replace('_', ' ')}: {v}" for k, v in r.origin.items()]
    lines += [f"- by {p.accountant}; check by {p.check_accountant}", f"- {r.source}"]
    return "\n".join(lines)


def page() -> str:
    """The whole page."""
    found = [claim(name) for name in RUNS]
    names = ("run", "printed", "follows", "check", "at least", "delta", "relation", "guarantee")
    table = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    words = (
        "Where a constant is from: [code], [paper], [derived] here from those, or [assumed], as it is not published."
    )
    made = "<!-- Made by docs/make_claims.py; do not edit. -->"
    return "\n\n".join([HEAD, "\n".join([*table, *map(row, found)]), words, *map(section, found), made]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
