"""Published figures that stand beside ours in tables, with the classifier and the selection rule behind each.

They were made by other protocols on other machines, so no table calls one of them beaten or missed. Only figures that
were read in a paper's text, in public code and its README, in DPImageBench or in slides are here; none from memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Paper:
    """Where figures come from.

    Attributes:
        classifier: what was trained on the synthetic images and tested on real ones.
        selection: which epoch or setting was reported.
        read_in: "text" (of the paper), "code" (the authors' code or README), "bench" (DPImageBench's README and plot
            data) or "slides" (of a talk or poster).
    """

    classifier: str
    selection: str
    read_in: str


PAPERS = {
    "DPImageBench": Paper(
        "mean of a WRN, a ResNet and a ResNeXt, 50 epochs of 55,000 synthetic images; by DP-FETA's authors' group",
        "epoch chosen by accuracy on a clean private validation set",
        "bench",
    ),
    "DPDM": Paper(
        "the same three-convolution CNN, Adam 3e-4, 50 epochs, batch 128; eight data-centre GPUs",
        "epoch chosen on held-out synthetic images; sampler tuned for accuracy",
        "text",
    ),
    "GANs revisited": Paper(
        "a CNN; adaptive number of critic steps, up to 450,000 critic steps",
        "not stated in what we read",
        "code",
    ),
    "DPDM's table": Paper("a CNN", "figures of earlier papers, selection not stated there", "text"),
    "PSG slides": Paper(
        "ConvNet (the slides' second table gives DP-CGAN one and the same row for both sets)",
        "last epoch, no selection",
        "slides",
    ),
    "DPAC slides": Paper("a CNN", "not stated", "slides"),
}

# (method, data, paper) -> epsilon -> (accuracy in %, FID or None). FID is of 2048-d Inception features: not fd-gabor.
FIGURES: dict[tuple[str, str, str], dict[float, tuple[float, float | None]]] = {
    ("dp-feta", "mnist", "DPImageBench"): {1: (95.6, 13.7), 10: (98.1, 3.4)},
    ("dp-feta", "fashion-mnist", "DPImageBench"): {1: (81.7, 31.4), 10: (87.3, 13.2)},
    ("dp-diffusion", "mnist", "DPDM"): {1: (95.3, 35.5), 10: (98.1, 6.65)},
    ("dp-diffusion", "fashion-mnist", "DPDM"): {1: (79.4, 51.4), 10: (86.2, 19.1)},
    ("dp-diffusion", "mnist", "DPImageBench"): {1: (89.2, 36.1), 10: (97.7, 4.4)},
    ("dp-diffusion", "fashion-mnist", "DPImageBench"): {1: (76.4, None), 10: (85.6, 17.1)},
    ("dp-gan", "mnist", "DPImageBench"): {1: (92.4, None), 10: (92.7, 30.3)},
    ("dp-gan", "fashion-mnist", "DPImageBench"): {1: (71.8, 74.8), 10: (70.3, 76.9)},
    ("dp-gan", "mnist", "GANs revisited"): {10: (94.4, 13.3)},
    ("dp-cgan", "mnist", "DPDM's table"): {10: (63, 179.2)},
    ("dp-cgan", "fashion-mnist", "DPDM's table"): {10: (46, 243.8)},
    ("private-set", "mnist", "PSG slides"): {1: (80.9, None), 10: (95.6, None)},
    ("private-set", "fashion-mnist", "PSG slides"): {1: (70.2, None), 10: (77.7, None)},
    ("dp-cgan", "mnist", "PSG slides"): {10: (52.5, None)},
    ("dp-cgan", "fashion-mnist", "PSG slides"): {10: (50.2, None)},
    ("g-pate", "mnist", "PSG slides"): {1: (58.8, None), 10: (80.9, None)},
    ("g-pate", "fashion-mnist", "PSG slides"): {1: (58.1, None), 10: (69.3, None)},
    ("datalens", "mnist", "PSG slides"): {1: (71.2, None), 10: (80.7, None)},
    ("datalens", "fashion-mnist", "PSG slides"): {1: (64.8, None), 10: (70.6, None)},
    ("gs-wgan", "mnist", "PSG slides"): {10: (84.9, None)},
    ("gs-wgan", "fashion-mnist", "PSG slides"): {10: (63.1, None)},
    ("dp-sinkhorn", "mnist", "PSG slides"): {10: (83.2, None)},
    ("dp-sinkhorn", "fashion-mnist", "PSG slides"): {10: (71.1, None)},
    ("dp-merf", "mnist", "DPImageBench"): {1: (80.3, None), 10: (81.3, 106.3)},
    ("dp-merf", "fashion-mnist", "DPImageBench"): {1: (62.2, None), 10: (62.2, 106.4)},
    ("dp-merf", "mnist", "PSG slides"): {1: (72.7, None), 10: (85.7, None)},
    ("dp-merf", "fashion-mnist", "PSG slides"): {1: (61.2, None), 10: (72.4, None)},
    ("dp-merf", "mnist", "DPAC slides"): {10: (82, 121.4)},
    ("dp-merf", "fashion-mnist", "DPAC slides"): {10: (73, 110.4)},
}
# Why a method has no published accuracy here.
NONE = {
    "dp-cvae": "none: distances only, see three-families.md",
    "vae-gm": "none that we could read",
    "au-gm": "none: the paper publishes an encoder, not images",
    "dp-moments": "none: it has no paper",
}


def beside(method: str, data: str, epsilon: float) -> list[dict[str, Any]]:
    """The published figures for a row: paper, accuracy, fid, classifier, selection, read_in."""
    out = []
    for (m, d, name), by_epsilon in FIGURES.items():
        if (m, d) == (method, data) and epsilon in by_epsilon:
            accuracy, fid = by_epsilon[epsilon]
            paper = PAPERS[name]
            words = {"classifier": paper.classifier, "selection": paper.selection, "read_in": paper.read_in}
            out.append({"paper": name, "accuracy": accuracy, "fid": fid} | words)
    return out


def table(paper: str, columns: Sequence[tuple[str, float]]) -> dict[str, list[float | None]]:
    """A paper's accuracy in %: method -> its value for each (set, epsilon), None where it gives none."""
    methods = dict.fromkeys(m for m, _, name in FIGURES if name == paper)
    return {m: [FIGURES.get((m, d, paper), {}).get(e, (None, None))[0] for d, e in columns] for m in methods}


def words(figures: list[dict[str, Any]], method: str) -> str:
    """The published figures of a row as the text of a table cell."""
    if not figures:
        return NONE.get(method, "")
    fid = [f", FID {f['fid']:g}" if f["fid"] is not None else "" for f in figures]
    return "; ".join(f"{f['accuracy']:g}{more} ({f['paper']})" for f, more in zip(figures, fid, strict=True))


def legend(names: list[str]) -> str:
    """What the papers' names in a table stand for, as a Markdown list."""
    where = {
        "text": "the paper",
        "code": "the authors' code or README",
        "bench": "DPImageBench's README and plot data",
        "slides": "slides",
    }
    lines = []
    for name in names:
        p = PAPERS[name]
        lines.append(f"* {name}: classifier: {p.classifier}; selection: {p.selection}; read in {where[p.read_in]}.")
    return "\n".join(lines)
