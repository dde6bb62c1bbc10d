"""How alike two image sets look to a network: Frechet and kernel distances, Inception Scores, nearest neighbours.

A name ends with the extractor that the features come from (`extractors`), and figures of two extractors never compare.
Only `fid`, `kid` and `is-inception` are made with the standard Inception weights; `fd-lite0` is not an FID. Labels are
not looked at. A Frechet distance is biased upwards when images are few: below 2,048 it is labelled with their number,
and the kernel distance, which has no bias, is measured beside it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from veilset.evaluation.distances import SPLITS, fit, frechet_between, inception_score, kernel_distance
from veilset.evaluation.extractors import Described, Tools, facts
from veilset.evaluation.neighbours import K_DENSITY, K_MANIFOLD, Neighbours, neighbours, radii
from veilset.evaluation.registry import Answer, Entry, Trial, register

FEW = 2048  # width of Inception's features: below it their covariance is singular
SETS = ("inception", "lite0", "domain")
KERNEL = {"inception": "kid", "lite0": "kd-lite0", "domain": "kd-domain"}
THOUSAND = 1000  # kernel distances are printed times this
WORDS = {
    "inception": "on the standard Inception features",
    "lite0": "on EfficientNet-Lite0 features (not FID)",
    "domain": "on features of a classifier trained on real images",
    "gabor": "on fixed Gabor features",
}
NEIGHBOURS = {
    "precision": "Share of images that lie among the real ones",
    "recall": "Share of real images that lie among these",
    "density": "How many real neighbourhoods an image lies in, 100 % as for real images",
    "coverage": "Share of real neighbourhoods that hold an image",
}


def sides(trial: Trial, extractor: str) -> tuple[Described, Described, dict[str, Any]]:
    """(features of the images, of the real set, facts that every figure of this extractor states)."""
    fake, real = trial.described(extractor, "images"), trial.described(extractor, "against")
    counts = {"images": len(fake.features), "against_images": len(real.features), "features": fake.features.shape[1]}
    return fake, real, {"extractor": extractor, **counts, **facts(extractor, trial.tools)}


def label(name: str, extractor: str, tools: Tools) -> str:
    """The name, with the first digits of the hash of Inception weights that are not the standard ones."""
    from veilset.evaluation.weights import INCEPTION_SHA256

    mine = (tools.inception_sha256 or INCEPTION_SHA256).lower()
    return f"{name}({mine[:8]})" if extractor == "inception" and mine != INCEPTION_SHA256 else name


def frechet_distance(extractor: str, name: str, trial: Trial) -> Answer:
    """Frechet distance between the features of the two sets, labelled with the number of images below 2,048."""
    fake, real, known = sides(trial, extractor)
    known["label"] = label(name, extractor, trial.tools)
    if (count := min(len(fake.features), len(real.features))) < FEW:
        known["label"] += f"@{count}"
        known["note"] = f"{known['label']}: {count} images are below {FEW:,}, biased upwards; read {KERNEL[extractor]}"
    expected = trial.keep(("fit", extractor), lambda: fit(real.features))
    return Answer(frechet_between(fit(fake.features), expected), facts=known)


def kernel(extractor: str, name: str, trial: Trial) -> Answer:
    """Kernel distance between the features of the two sets, times 1,000; its spread over subsets is in the detail."""
    fake, real, known = sides(trial, extractor)
    mean, deviation, size = kernel_distance(fake.features, real.features)
    over = None if deviation is None else THOUSAND * deviation
    known |= {"label": label(name, extractor, trial.tools), "subset": size, "over_subsets": over}
    return Answer(THOUSAND * mean, facts=known)


def score(extractor: str, name: str, trial: Trial) -> Answer:
    """Inception Score of the images; its spread over splits is in the detail."""
    described = trial.described(extractor, "images")
    assert described.logits is not None
    mean, deviation = inception_score(described.logits)
    known = {"extractor": extractor, "images": len(described.features), **facts(extractor, trial.tools)}
    known |= {"label": label(name, extractor, trial.tools), "splits": SPLITS, "over_splits": deviation}
    return Answer(mean, facts=known)


def neighbour(extractor: str, which: str, trial: Trial) -> Answer:
    """One of precision, recall, density and coverage, in percent. The four are computed once a trial."""
    fake, real, known = sides(trial, extractor)

    def all_four() -> Neighbours:
        around_real = trial.keep(("radii", extractor), lambda: radii(real.features))
        return neighbours(real.features, fake.features, around_real, radii(fake.features))

    value = getattr(trial.once(("neighbours", extractor), all_four), which)
    known |= {
        "label": label(f"{which}-{extractor}", extractor, trial.tools),
        "k": K_MANIFOLD if which in ("precision", "recall") else K_DENSITY,
    }
    return Answer(100 * value, facts=known)


for _e in SETS:
    _entry = partial(Entry, seeded=False, group=_e, extractor=_e)
    _name = "fid" if _e == "inception" else f"fd-{_e}"
    register(
        _entry(
            name=_name,
            unit="features²",
            better="lower",
            doc=f"Frechet distance {WORDS[_e]}.",
            run=partial(frechet_distance, _e, _name),
            beside=KERNEL[_e],
        )
    )
    register(
        _entry(
            name=KERNEL[_e],
            unit="x 1000",
            better="lower",
            doc=f"Unbiased kernel distance {WORDS[_e]}, times 1,000.",
            run=partial(kernel, _e, KERNEL[_e]),
        )
    )
    if _e != "lite0":
        register(
            _entry(
                name=f"is-{_e}",
                unit="score",
                better="higher",
                uses_against=False,
                doc=f"Inception Score by the {'standard network' if _e == 'inception' else 'domain classifier'}.",
                run=partial(score, _e, f"is-{_e}"),
            )
        )

for _e in (*SETS, "gabor"):
    _entry = partial(Entry, seeded=False, group=_e, extractor=_e)
    for _which, _words in NEIGHBOURS.items():
        register(
            _entry(
                name=f"{_which}-{_e}",
                unit="%",
                better="higher",
                doc=f"{_words}, {WORDS[_e]}.",
                run=partial(neighbour, _e, _which),
            )
        )
