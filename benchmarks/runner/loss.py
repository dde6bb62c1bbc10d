"""Where a released set loses: what the same networks learn from the private images, spoilt step by step as it is.

For suites that judge the default method: put `cells` among theirs, offer `loss` as a kind, and show `rows` beside. The
private images are read as they are, for research: nothing of these cells is a release.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from benchmarks.runner.quality import fixed, judge, over_seeds, plain, seeds_of
from benchmarks.runner.suite import Cell
from veilset.core.rendering import plus_minus
from veilset.evaluation.protocols import THREE
from veilset.methods.base import BATCH
from veilset.methods.catalogue import DEFAULT

KIND = "loss"
STEPS = {  # from the private images towards those of the default
    "real": ("private images", "their own"),
    "reduced": ("private images reduced to the default's frequencies", "their own"),
    "taught": ("private images reduced to the default's frequencies", "by the default's classifier"),
}
LABELS, TEACHER = "labels", "teacher"  # figures of "taught"
TEXT = f"""Where the loss sits at epsilon {{epsilon:g}} on {{data}}: the three networks trained on as many private
images, which no budget pays for, spoilt step by step as those of `{DEFAULT}` are; the last two lines differ in the
images alone. Labels right: how many of the classifier's labels are the images' own, in %; it has {{teacher}} % on the
test images. One seed a line but for the last."""
Done = Sequence[tuple[Cell, dict[str, Any]]]


def cells(data: str, epsilon: float, seed: int, n: int = 60_000, params: dict[str, Any] | None = None) -> list[Cell]:
    """A cell for each step."""
    facts = {"method": DEFAULT, "data": data, "epsilon": plain(epsilon), "seed": seed, "params": params or {}, "n": n}
    return [Cell(f"{KIND}-{s}.{data}.eps{epsilon:g}.seed{seed}", KIND, facts | {"step": s}) for s in STEPS]


def loss(
    method: str, data: str, epsilon: float | str, seed: int, params: dict[str, Any], n: int, step: str
) -> dict[str, Any]:
    """The three networks, each by its own protocol, on n private images after this step; on the public test split."""
    from veilset.audit.membership.records import inspect
    from veilset.core.types import Images
    from veilset.data.load import load
    from veilset.methods.catalogue import make
    from veilset.methods.moments.taught_moments import TaughtMoments, reduced
    from veilset.privacy.spec import Privacy

    bundle = load(data)
    images, test = inspect(bundle.train, seed)[:n], bundle.test
    assert isinstance(test, Images)
    x, y, figures, facts = images.x, images.y, dict[str, float](), dict[str, Any]()
    if step == "taught":
        model = make(method, **params).fit(bundle.train, Privacy(float(epsilon)), seed=seed)
        assert isinstance(model, TaughtMoments) and model.receipt_ is not None
        facts = {k: model.receipt_.facts[k] for k in ("epsilon", "config")}
        y, of_test = (model.labels(z.float() / 255) for z in (x, test.x))
        figures = {LABELS: _share(y == images.y), TEACHER: _share(of_test == test.y)}
    if step != "real":
        x = torch.cat([(255 * reduced(part.float() / 255)).round().to(torch.uint8) for part in x.split(BATCH)])
    images = replace(images, x=x, y=y)
    judged = judge(images, test, seed, [f"gen2real-{net}" for net in THREE], None)
    return {"figures": {"mean": statistics.fmean(judged.values())} | judged | figures} | facts


def rows(done: Done, wanted: Sequence[Cell]) -> list[dict[str, Any]]:
    """A row for each set, budget and step among the cells of kind "loss"."""
    out = []
    for key in dict.fromkeys(_key(c) for c in wanted if c.kind == KIND):
        made = [(c, r) for c, r in done if c.kind == KIND and _key(c) == key]
        many = sum(c.kind == KIND and _key(c) == key for c in wanted)
        out.append(dict(zip(("data", "epsilon", "step"), key, strict=True)) | over_seeds(made, many))
    return out


def render(rows: Sequence[dict[str, Any]], judged: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of Markdown: a table for each set and budget, its last line the default's own row; none without cells."""
    lines = list[str]()
    for data, epsilon in dict.fromkeys((r["data"], r["epsilon"]) for r in rows if r["seeds"]):
        own = [r for r in rows if (r["data"], r["epsilon"]) == (data, epsilon)]
        said = next((r["figures"][TEACHER]["mean"] for r in own if TEACHER in r["figures"]), None)
        lines += ["", TEXT.format(data=data, epsilon=epsilon, teacher=fixed(said, 2) or "(not run)"), ""]
        heads = ["images", "labels", "mean", *THREE, "labels right", "seeds"]
        lines += [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
        last = [r for r in judged if (r["data"], r["epsilon"], r["method"]) == (data, epsilon, DEFAULT)]
        for r, words in [*((r, STEPS[r["step"]]) for r in own), *((r, ("released", "its own")) for r in last)]:
            figures = [plus_minus(r["figures"].get(k)) for k in ("mean", *(f"gen2real-{net}" for net in THREE), LABELS)]
            lines.append(f"| {' | '.join([*words, *figures, seeds_of(r)])} |")
    return lines


def _share(right: torch.Tensor) -> float:
    return 100 * float(right.float().mean())


def _key(cell: Cell) -> tuple[str, float, str]:
    p = cell.params
    return p["data"], float(p["epsilon"]), p["step"]
