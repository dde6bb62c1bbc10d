"""What the slides of DP-GAN-DPAC (Chen, Liu, Ma, Nepal and Xu 2023) publish, at a printed epsilon of 10.

Accuracies in %; the digit of its own MLP on MNIST is not readable there.
"""

from __future__ import annotations

# Its figures, in the order of the columns: g2r MLP, g2r CNN, r2g MLP, r2g CNN, IS, FID; None: not given.
Row = tuple[float | None, float | None, float | None, float | None, float | None, float | None]
PUBLISHED: dict[tuple[str, str], Row] = {
    ("mnist", "dp-gan-dpac"): (None, 88, 100, 100, 9.71, 54.06),
    ("mnist", "gs-wgan"): (79, 80, 99, 99, 9.23, 61.34),
    ("mnist", "dp-merf"): (81, 82, None, None, None, 121.40),
    ("mnist", "dp-cgan"): (60, 63, None, None, None, 179.20),
    ("mnist", "pate-gan"): (None, None, None, None, 1.46, 253.55),
    ("mnist", "g-pate"): (None, 81, None, None, 5.16, 150.62),
    ("mnist", "datalens"): (None, 81, None, None, 5.78, 137.50),
    ("mnist", "dp-sinkhorn"): (80, 83, None, None, None, 55.56),
    ("fashion-mnist", "dp-gan-dpac"): (75, 73, 97, 98, 6.60, 90.77),
    ("fashion-mnist", "gs-wgan"): (65, 65, 85, 85, 5.32, 131.34),
    ("fashion-mnist", "dp-merf"): (71, 73, None, None, None, 110.40),
    ("fashion-mnist", "dp-cgan"): (50, 46, None, None, None, 243.80),
    ("fashion-mnist", "pate-gan"): (None, None, None, None, 2.35, 229.25),
    ("fashion-mnist", "g-pate"): (None, 69, None, None, 4.33, 171.90),
    ("fashion-mnist", "datalens"): (None, 71, None, None, 4.58, 167.70),
    ("fashion-mnist", "dp-sinkhorn"): (73, 71, None, None, None, 129.40),
}
ABLATIONS: dict[str, Row] = {  # on Fashion-MNIST; its first table has FID 131.34 for the first row
    "baseline": (65, 65, 85, 85, 5.32, 131.24),
    "without g2r": (73, 68, 94, 95, 6.33, 88.17),
    "without r2g": (74, 71, 92, 92, 6.47, 86.91),
    "not sequential": (65, 64, 88, 77, 4.91, 128.25),
    "not re-initialised": (72, 65, 97, 95, 6.56, 101.69),
    "full": (75, 73, 97, 98, 6.60, 90.77),
}
CELEBA = """On CelebA with gender at 32 x 32 (not run here) it prints g2r 80 and 85, r2g 99 and 98, IS 1.90 and FID
139.99 for DP-GAN-DPAC, and 68 and 66, 66 and 60, 1.85 and 297.35 for GS-WGAN."""
