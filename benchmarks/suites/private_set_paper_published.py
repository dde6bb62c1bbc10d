"""What Private Set Generation (Chen, Kerkouche and Fritz 2022) publishes, read in its slides.

Accuracy in % at delta 1e-5 of networks trained on released images and tested on real ones; last epoch. Its comparison
with generators is among the papers of `published`.
"""

from __future__ import annotations

# Of a ConvNet on private-set's images: (set, epsilon, images per class, prior) -> value.
SIZE_TABLE = {
    ("mnist", 1.0, 20, False): 80.9, ("fashion-mnist", 1.0, 20, False): 70.2,
    ("mnist", 10.0, 1, False): 81.4, ("mnist", 10.0, 10, False): 94.9, ("mnist", 10.0, 20, False): 95.6,
    ("fashion-mnist", 10.0, 1, False): 66.7, ("fashion-mnist", 10.0, 10, False): 75.6,
    ("fashion-mnist", 10.0, 20, False): 77.7,
    ("mnist", 10.0, 1, True): 88.2, ("mnist", 10.0, 10, True): 92.2, ("mnist", 10.0, 20, True): 90.6,
    ("fashion-mnist", 10.0, 1, True): 63.0, ("fashion-mnist", 10.0, 10, True): 70.2,
    ("fashion-mnist", 10.0, 20, True): 70.7,
}  # fmt: skip
# Of six networks at epsilon 10, in the order of `protocols.SIX`: (set, what they learned from) -> values.
NETWORK_TABLE = {
    ("mnist", "real images"): (99.6, 99.2, 99.5, 99.6, 99.7, 98.3),
    ("mnist", "private-set, 10 per class"): (94.9, 91.3, 90.3, 93.6, 94.3, 86.1),
    ("mnist", "private-set, 20 per class"): (95.6, 93.0, 92.3, 94.5, 94.1, 87.1),
    ("mnist", "dp-cgan"): (50.2, 52.6, 52.1, 54.7, 51.8, 54.3),
    ("mnist", "gs-wgan"): (84.9, 83.2, 80.5, 87.9, 89.3, 74.7),
    ("mnist", "dp-merf"): (85.7, 87.2, 84.4, 81.7, 81.3, 85.0),
    ("fashion-mnist", "real images"): (93.5, 88.9, 91.5, 93.8, 94.5, 86.9),
    ("fashion-mnist", "private-set, 10 per class"): (75.6, 68.0, 66.2, 74.7, 72.1, 62.8),
    ("fashion-mnist", "private-set, 20 per class"): (77.7, 68.0, 59.1, 76.8, 70.8, 62.2),
    ("fashion-mnist", "dp-cgan"): (50.2, 52.6, 52.1, 54.7, 51.8, 54.3),
    ("fashion-mnist", "gs-wgan"): (54.7, 62.7, 55.1, 57.3, 58.9, 65.4),
    ("fashion-mnist", "dp-merf"): (72.4, 67.9, 64.9, 70.1, 66.7, 73.1),
}
DOUBTS = """Published rows of dp-cgan are the same for both sets, so at least one is not its own; gs-wgan's ConvNet on
Fashion-MNIST is 63.1 in the first table and 54.7 here."""
