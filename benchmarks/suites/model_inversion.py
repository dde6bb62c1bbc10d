"""The suite of DPMI and its variants: a public model of odd digits, private models of the codes of even ones."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.runner.quality import (
    SEEDS,
    fixed,
    judge,
    machine,
    machine_words,
    minutes,
    over_seeds,
    plain,
    seeds_of,
    some_epsilons,
    some_methods,
    some_seeds,
)
from benchmarks.runner.suite import Cell, missing
from veilset.core.rendering import plus_minus

COMMAND = "veilset bench model-inversion --jobs 2"
OPTIONS = ("methods", "epsilon", "seeds")
VARIANTS = tuple(
    f"dpmi:{v}"
    for v in ("ae-grad-vae", "ae-grad-gan", "wgan-vae", "ae-grad-moments", "ae-enc-vae", "ae-enc-gan", "wgan-gan")
)
EPSILONS = (10.0, 1.0, 5.0, float("inf"))  # in the order of worth
PRINTED = (321.0, 90.9, 34.8, 17.3)  # of the published runs, recomputed at delta 1e-6; theirs was 367.7 for the first
DELTA, PRINTED_DELTA = 1e-5, 1e-6
EVEN = {"public": "mnist-odd", "data": "mnist-even", "labelling": "mnist-labelling"}
LETTERS = {"public": "glyph-letters", "data": "mnist", "labelling": None}
CLIPS = (0.01, 0.05, 0.1, 0.25, 1.0, 4.0)
N, LEAST = 10_000, 0.05  # images, and the part of them from which a class counts as covered
MEASURES = ("gen2real-cnn", "fd-gabor")
TEXT = """With public data in every row: not to be set beside figures without. Public are odd digits of MNIST,
private its even digits; 20,000 further images teach the classifier that names the classes of drawn
images, which are drawn of all classes at once. Rows `letters`: public glyph letters, private all of
MNIST, private labels. A class counts if it has 5 % of the images. Rows `paper` are the published private
model at the epsilons that its noise gives at delta 1e-6 (the first was printed as 367.7)."""


def cells(
    quick: bool,
    methods: Iterable[str] | None = None,
    epsilon: Iterable[Any] | None = None,
    seeds: int | None = None,
) -> list[Cell]:
    """The cells of these variants, budgets and seeds: the first variant at epsilon 10 first, then one seed of all."""
    names, many = some_methods(methods, VARIANTS), some_seeds(seeds, 1 if quick else SEEDS)
    budgets = some_epsilons(epsilon, (10.0,) if quick else EPSILONS)
    n = 500 if quick else N
    params = {"public_steps": 50, "iterations": 10, "steps": 20} if quick else {}
    out = [_cell(v, e, s, params, n=n) for e in budgets for v in names for s in many]
    out.sort(key=lambda c: (c.params["method"] != VARIANTS[0] or c.params["epsilon"] != 10.0, c.params["seed"]))
    if quick or methods or epsilon:
        return out
    out.insert(SEEDS, Cell("speed", "speed", {"images": 20_000, "looked_at": 2000, "alone": 20}, alone=True))
    out += [_cell("dpmi:ae-grad-vae", e, 0, {}, n=N, tag="letters", sets=LETTERS) for e in (10.0, 1.0)]
    out += [_cell("dpmi:ae-grad-vae", e, 0, {"activation": a}, n=N, tag=a) for a in ("leaky-relu",) for e in EPSILONS]
    out += [_cell("dpmi:ae-grad-vae", 10.0, 0, {"clip_norm": c}, n=N, tag=f"clip{c:g}") for c in CLIPS if c != 1.0]
    return out + [_cell("dpmi:paper", e, 0, {}, n=N, delta=PRINTED_DELTA) for e in PRINTED]


def _cell(
    method: str,
    epsilon: float,
    seed: int,
    params: dict[str, Any],
    *,
    n: int,
    tag: str = "",
    delta: float = DELTA,
    sets: dict[str, Any] = EVEN,
) -> Cell:
    facts = {"method": method, "epsilon": plain(epsilon), "delta": delta, "seed": seed, "params": params, "n": n}
    name = ".".join(filter(None, (method.partition(":")[2], tag, f"eps{epsilon:g}", f"seed{seed}")))
    return Cell(name, "variant", facts | {"tag": tag} | sets)


# ---------------------------------------------------------------------- what a cell does


def variant(
    method: str,
    epsilon: float | str,
    delta: float,
    seed: int,
    params: dict[str, Any],
    n: int,
    tag: str,
    public: str,
    data: str,
    labelling: str | None,
) -> dict[str, Any]:
    """One fit: which classes its n images cover, what a classifier learns from them, how far they are from real ones.

    With a labelling set, images are drawn of all classes at once and named by its classifier; without, by private
    labels.
    """
    import torch

    from veilset.core.facts import peak_mb
    from veilset.core.types import Images
    from veilset.data.load import load
    from veilset.methods.catalogue import make
    from veilset.privacy.spec import Privacy

    bundle, began = load(data), (time.perf_counter(), time.process_time())
    name, _, recipe = method.partition(":")
    model: Any = make(name, recipe=recipe, **params, public=public, labelling=labelling)
    model.fit(bundle.train, Privacy(float(epsilon), delta), seed=seed)
    fit, used = time.perf_counter() - began[0], time.process_time() - began[1]
    state, info = model.fitted()
    if labelling is None:
        images = model.sample(n, seed=seed)
    else:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.default_generator.manual_seed(seed)
            x = torch.cat([model.drawn(state, info, part) for part in torch.zeros(n, dtype=torch.int64).split(1000)])
            y = model.labels(state, info, x).argmax(1)
        images = Images((255 * x.clamp(0, 1)).round().to(torch.uint8), y, info.classes)
    shares = (torch.bincount(images.y, minlength=len(info.classes)) / n).tolist()
    figures = judge(images, bundle.public_test(), seed, MEASURES)
    figures["classes covered"] = float(sum(s >= LEAST for s in shares))
    assert model.receipt_ is not None
    facts = {"epsilon": model.receipt_.facts["epsilon"], "config": model.receipt_.facts["config"], "shares": shares}
    cost = {"fit_seconds": fit, "fit_processor_seconds": used, "peak_mb": peak_mb()}
    return {"figures": figures} | facts | cost | {"sample_seconds": 0.0}


def speed(images: int, looked_at: int, alone: int) -> dict[str, Any]:
    """Seconds for so many images by the gate's map, and by a loop of single images on the same decoder by autograd.

    Few are inverted of either kind, in turns, so that other work on the machine hits both alike; processor seconds.
    """
    import torch

    from veilset.data.public_set import open_public
    from veilset.methods.inversion.dpmi import DPMI
    from veilset.privacy.features import Features

    info = _info()
    code = DPMI(public="mnist-odd").code(info)
    x = open_public("mnist-labelling").images(info.shape)[0][:looked_at].float() / 255
    spent = {"map": 0.0, "loop": 0.0}
    for part, single in zip(x.split(looked_at // 4), x[:alone].split(alone // 4), strict=True):
        begin = time.process_time()
        Features(code, len(part), torch.zeros(info.shape), code.rows)(torch.arange(len(part)), part)
        spent["map"] += (time.process_time() - begin) / looked_at
        begin = time.process_time()
        for one in single:
            _plainly(code, one.flatten())
        spent["loop"] += (time.process_time() - begin) / alone
    return {"figures": {f"{k} seconds": v * images for k, v in spent.items()} | {"times": spent["loop"] / spent["map"]}}


def _info() -> Any:
    from veilset.data.load import load

    return load("mnist-even").info


def _plainly(code: Any, x: Any) -> Any:
    """As many iterations of Adam for one image, as they are written in a first version."""
    import torch

    z = torch.zeros(code.model.latent, requires_grad=True)
    adam = torch.optim.Adam([z], code.how["rate"])
    for _ in range(code.how["iterations"]):
        adam.zero_grad()
        (code.model.decoder(z[None])[0] - x).square().mean().backward()
        adam.step()
        with torch.no_grad():
            z *= code.radius / z.norm().clamp_min(code.radius)
    return z.detach()


# ---------------------------------------------------------------------- what the cells say


def words(result: dict[str, Any]) -> str:
    """One line about a finished cell."""
    figures = ", ".join(f"{k} {v:.2f}" for k, v in result["figures"].items())
    return figures + (f", fit {result['fit_seconds'] / 60:.1f} min" if "fit_seconds" in result else "")


def summary(done: Sequence[tuple[Cell, dict[str, Any]]], wanted: Sequence[Cell]) -> dict[str, Any]:
    """The suite's JSON: a row for each variant, budget and change, and the inversion's speed."""
    groups: dict[tuple[Any, ...], tuple[list[Cell], list[tuple[Cell, dict[str, Any]]]]] = {}
    for c in wanted:
        if c.kind == "variant":
            groups.setdefault(_row(c), ([], []))[0].append(c)
    for c, result in done:
        if c.kind == "variant":
            groups[_row(c)][1].append((c, result))
    rows = []
    for (method, tag, epsilon, delta, data, public), (asked, made) in groups.items():
        facts = {"method": method, "tag": tag, "epsilon": epsilon, "delta": delta, "data": data, "public": public}
        rows.append(facts | over_seeds(made, len(asked)))
    fast: dict[str, float] = next((r["figures"] for c, r in done if c.kind == "speed"), {})
    return {"command": COMMAND, "rows": rows, "speed": fast} | machine(done)


def _row(c: Cell) -> tuple[Any, ...]:
    return tuple(c.params[k] for k in ("method", "tag", "epsilon", "delta", "data", "public"))


def render(result: dict[str, Any]) -> str:
    """The suite's section of README.md."""
    lines = [
        f"## model-inversion\n\n`{result['command']}`: private models of codes in a public model "
        f"([dpmi](../../docs/methods/dpmi.md)), {N:,} images each, {machine_words(result)}. {TEXT}",
        "",
        "| public set | private set | variant | epsilon | delta | classes | CNN % | fd-gabor | fit min | seeds |",
        "|---" * 10 + "|",
    ]
    for r in result["rows"]:
        if not r["figures"]:
            continue
        f = {k: plus_minus(r["figures"].get(k)) for k in ("classes covered", *MEASURES)}
        name = ", ".join(filter(None, (r["method"].partition(":")[2], r["tag"])))
        lines.append(
            f"| {r['public']} | {r['data']} | {name} | {fixed(float(r['epsilon']), 1)} | {r['delta']:g} "
            f"| {f['classes covered']} | {f['gen2real-cnn']} | {f['fd-gabor']} | {minutes(r, 'fit_minutes')} "
            f"| {seeds_of(r)} |"
        )
    if result["speed"]:
        f = result["speed"]
        lines += [
            "",
            f"Inversion of 20,000 images (decoder 100-128-784, 100 iterations), in processor seconds: "
            f"{f['map seconds']:.0f} by the gate's map, {f['loop seconds']:.0f} by a loop of single images: "
            f"{f['times']:.0f} times.",
        ]
    if result["missing"]:
        lines += ["", missing(result["missing"])]
    return "\n".join(lines) + "\n"
