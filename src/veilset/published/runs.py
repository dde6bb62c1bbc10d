"""Constants of published runs, with where each is from, and why what follows is not what was printed.

[code]: read in the authors' code or its documentation; [paper]: in the paper's text; [derived]: computed here from
those; [assumed]: not known, and said so. Readings of other people's code can err: each has a derivation in the tests.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from veilset.published.mechanisms import Phase

STATE = "Hidden models keep what they learned when drawn, and amplification by a secret draw is not proved then; "


@dataclass(frozen=True)
class Run:
    """A published run.

    Attributes:
        title: method, paper, data.
        printed: epsilon as printed.
        delta: as printed.
        phases: its steps; disjoint in time, composed.
        why: why what follows differs from what was printed.
        source: where it was published.
        origin: constant -> where it is from.
        relation: which sets it tells apart; None: what its mechanisms say.
        holds: whether the epsilon that follows is a guarantee of the run as it was made; if not, `why` says why not.
        spent: share of delta that the mechanism may use; the rest is a tail event.
    """

    title: str
    printed: float
    phases: tuple[Phase, ...]
    why: str
    source: str
    origin: dict[str, str] = field(default_factory=dict)
    delta: float = 1e-5
    relation: str | None = None
    holds: bool = True
    spent: float = 1.0


def swd_sensitivity(width: int, directions: int, tail: float) -> float:
    """Sensitivity of `directions` random projections of a row in `width` dimensions, but for an event of probability
    `tail` (Rakotomamonjy and Ralaivola 2021, by Bernstein): the root of a sum of Beta(1/2, (width - 1) / 2).
    """
    variance = 2 * (width - 1) / (width**2 * (width + 2))
    log = math.log(1 / tail)
    return math.sqrt(directions / width + 2 / 3 * log + math.sqrt(2 * directions * variance * log))


def _shards(noise: float, rows: int, steps: int) -> Phase:
    return Phase("shards", noise_multiplier=noise, rows=rows, shards=1000, steps=steps)


def _sampled(noise: float, rate: float, steps: int) -> Phase:
    return Phase("poisson", noise_multiplier=noise, sample_rate=rate, steps=steps)


CODE, DERIVED, ASSUMED = "[code]", "[derived]", "[assumed]"
GS_CODE = {"noise_multiplier": CODE, "rows": CODE, "shards": CODE, "steps": f"{CODE} (the loop makes one more)"}
SWD_STEPS = 100 * 79
RUNS = {
    "gs-wgan": Run(
        "GS-WGAN (Chen, Orekondy and Fritz 2020), MNIST", 10, (_shards(1.07, 32, 20_000),),
        "Printed: 32 x 20,000 separately amplified rows. One secret draw moves all 32 rows together, so the answer is "
        "amplified once, with noise multiplier 1.07 / sqrt(32). " + STATE
        + "without amplification, the check is what is proved.",
        "arXiv 2006.08265; github DingfanChen/GS-WGAN: source/config.py, evaluation/privacy_analysis.py", GS_CODE,
        holds=False,
    ),
    "gs-wgan-benchmark": Run(
        "GS-WGAN in DPImageBench, MNIST", 10, (_shards(0.4835, 32, 20_000),),
        "Printed: 20,000 amplified releases of one row; an answer has 32 rows, and the factor is left out. " + STATE
        + "and in the version read all of them start from the last one's weights.",
        "arXiv 2503.14681; github 2019ChenGong/DPImageBench: models/gs_wgan.py, configs/GS-WGAN/mnist_28_eps10.0.yaml",
        GS_CODE | {"noise_multiplier": f"{CODE} its log; solves for 10 without the rows"}, holds=False,
    ),
    "dp-gan-dpac": Run(
        "DP-GAN-DPAC (Chen et al. 2023), MNIST", 10, (_shards(1.07, 32, 6_000), _shards(1.07, 2_000, 14_000)),
        "Printed: GS-WGAN's figure, for 32 rows. From the classifier's start on a batch is the 1,000 fakes that "
        "the classifier learned from, and they are released twice per step, by critic and classifier. " + STATE
        + "without amplification, the check is what is proved.",
        "CVPR 2023; github chenchen-usyd/DP-GAN-DPAC: source/main.py",
        GS_CODE | {"rows": f"{CODE} 32, then 1,000 by two paths", "steps": f"{CODE} 20,000; start at 6,000 {ASSUMED}"},
        holds=False,
    ),
    "pate-gan": Run(
        "PATE-GAN (Jordon, Yoon and van der Schaar 2019), votes of one iteration", 1,
        (Phase("laplace", noise_multiplier=1.0, rows=64, steps=1),),
        "This is one iteration of the loop, the least that can run: 64 votes with Laplace noise of scale 1. How many "
        "ran is not published; the loop ends on a figure that follows from private votes, which is no guarantee. In "
        "the version read all teachers learn from the same part, so a record there moves all ten votes.",
        "ICLR 2019; github vanderschaarlab/mlforhealthlabpub: alg/pategan; flaws: arXiv 2406.13985",
        {"noise_multiplier": CODE, "rows": CODE, "steps": f"{ASSUMED} 1 of an unknown number"}, holds=False,
    ),
    "g-pate": Run(
        "G-PATE (Long et al. 2021), MNIST", 10,
        (
            Phase("votes", noise_multiplier=100.0, rows=300, steps=1_000),
            Phase("count", noise_multiplier=600.0, rows=300, steps=1_000),
        ),
        "Printed: a data-dependent figure, at which training stops, too, and which charges nothing for a vote that "
        "fails its threshold. This is the most that its command runs, 1,000 epochs of one step; where it stopped "
        "is not published. 10 pays for 51 such steps by Renyi divergences, whatever the votes are.",
        "arXiv 1906.09338; github AI-secure/G-PATE: README.md, main.py, rdp_utils.py",
        {"noise_multiplier": CODE, "rows": f"{CODE} 30 images of 10 coordinates", "steps": f"{ASSUMED} at most 1,000"},
    ),
    "datalens": Run(
        "DataLens (Wang et al. 2021), MNIST", 1,
        (Phase("signs", noise_multiplier=2_500.0, rows=15, steps=87, nonzeros=200),),
        "Classes with too few images are dealt out again from their start, so some records teach two models, and an "
        "answer moves twice as far: noise 5,000 counts as 2,500. The partition also follows from the labels.",
        "arXiv 2103.11109; github AI-secure/DataLens: README.md, rdp_utils.py",
        {
            "noise_multiplier": f"{CODE} 5,000, halved {DERIVED}", "rows": CODE, "nonzeros": CODE,
            "steps": f"{DERIVED} those that its own charge allows",
        },
        holds=False,
    ),
    "dp-cgan": Run(
        "DP-CGAN (Torkzadehmahani, Kairouz and Paten 2019), MNIST", 9.6, (_sampled(0.56, 0.01, 30_100),),
        "Four tensors are clipped to C each, with noise for one: multiplier 1.12 / 2; and its accountant was told "
        "1.12 x C. The generator's step reads private labels without any noise, which no epsilon covers.",
        "arXiv 2001.09700; github reihaneh-torkzadehmahani/DP-CGAN",
        {"noise_multiplier": f"{CODE} 1.12, halved {DERIVED}", "sample_rate": CODE, "steps": f"{DERIVED} its stop"},
        holds=False,
    ),
    "dp-swd": Run(
        "DP-SWD (Rakotomamonjy and Ralaivola 2021), USPS to MNIST", 10,
        (
            Phase(
                "without-replacement", noise_multiplier=4.74 / swd_sensitivity(784, 200, 5e-6 / SWD_STEPS),
                sample_rate=0.0128, steps=SWD_STEPS,
            ),
        ),
        "Directions are drawn anew at each step, so their tail event must be paid 7,900 times and not once: by the "
        "accountant that it used (the check) 10 is too small; by the finer one it is not. Batches are taken for fresh "
        "draws, as it takes them.",
        "arXiv 2107.01848; github arakotom/dp_swd: da_dp_analysis.py",
        {"noise_multiplier": f"{CODE} 4.74 / sensitivity {DERIVED}", "sample_rate": CODE, "steps": CODE},
        spent=0.5, holds=False,
    ),
    "dp-mepf": Run(
        "DP-MEPF (Harder et al. 2023), two moments", 10,
        (Phase("gaussian", noise_multiplier=1 / (2.0004 * math.sqrt(1.5)), steps=1),),
        "Second moments of two images can lie sqrt(2) apart when one image is replaced, and were noised for 1: of the "
        "squared noise ratios that give 10, half must be doubled. Sums over a class are also divided by its private "
        "size, which this leaves out.",
        "arXiv 2205.12900; github ParkLabML/DP-MEPF: code/dp_analysis.py",
        {"noise_multiplier": f"{DERIVED} from the printed epsilon, spent as its code does", "steps": DERIVED},
        relation="replace-one",
        holds=False,
    ),
    "dp-lflow": Run(
        "DP-LFlow (Jiang, Zhang, Karami, Chen, Shao and Yu), MNIST", 10, (_sampled(1.25 / math.sqrt(2), 1 / 12, 300),),
        "Autoencoder and flow are clipped and noised apart, each with multiplier 1.25, and paid for once: together the "
        "multiplier is 1.25 / sqrt(2). Batches are shuffled and not Poisson samples, which this figure takes them for.",
        "github dihjiang/DP-LFlow",
        {"noise_multiplier": f"{CODE} 1.25 twice", "sample_rate": f"{CODE} 500 of 6,000", "steps": CODE}, holds=False,
    ),
    "private-set": Run(
        "Private-Set (Chen, Kerkouche and Fritz 2022), MNIST", 10, (_sampled(0.9657, 256 / 60_000, 100_100),),
        "The saved set has seen 1,001 outer iterations where 1,000 are paid for: by its own accountant (the check) "
        "that is a little above 10; by the finer one 10 holds.",
        "arXiv 2211.04446; github DingfanChen/Private-Set: main.py",
        {"noise_multiplier": f"{DERIVED} as its code solves", "sample_rate": CODE, "steps": f"{CODE} 1,001 x 100"},
    ),
    "three-families": Run(
        "Gandhi and Viradiya (three families compared), CVAE on MNIST", 10, (_sampled(1.1, 128 / 60_000, 140_700),),
        "Printed as 10 for 300 epochs with multiplier 1.1, which cost less if gradients are clipped record by record, "
        "as assumed here; the training call is not shown. Its two other models are `three-families-gan`.",
        "github pinakin7/Project-2412", {"noise_multiplier": CODE, "sample_rate": CODE, "steps": f"{CODE} 300 epochs"},
        holds=False,
    ),
    "three-families-gan": Run(
        "Gandhi and Viradiya (three families compared), CGAN and diffusion on MNIST", 10, (Phase("none"),),
        "Gradients of single records are not clipped, so no noise is large enough; what is clamped are weights.",
        "github pinakin7/Project-2412", {"noise_multiplier": f"{CODE} but without a bound"}, holds=False,
    ),
    "model-inversion": Run(
        "DPMI variants (model inversion), ae-grad-VAE on even digits", 367.7, (_sampled(0.3, 64 / 19_612, 48_000),),
        "The finer accountant lowers the figure. But 400 images are inverted together, under one schedule, so a record "
        "moves up to 399 other codes, which this figure does not cover.",
        "the report on DPMI variants, figure 9; after arXiv 2201.03139",
        {"noise_multiplier": "[paper]", "sample_rate": CODE, "steps": "[paper]"},
        delta=1e-6, holds=False,
    ),
}  # fmt: skip
