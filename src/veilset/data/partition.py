"""Parts of MNIST as a published project divided it: who labels, what is public, what is private.

Of the 60,000 training images a permutation (torch's, seed 42) gives the first 20,000 to a classifier that labels
images; of the others, odd digits (20,388) are public and even ones (19,612) private. Test splits are the test images of
the same digits.
"""

from __future__ import annotations

import numpy as np

from veilset.core.types import PublicInfo
from veilset.data.columns import Extra
from veilset.data.faults import Faults
from veilset.data.formats.detect import Glimpse, Source
from veilset.privacy.private import Chosen, Opened

WHOLE = "mnist"
SEED, LABELLING = 42, 20_000
DIGITS = {
    "mnist-labelling": tuple("0123456789"), "mnist-odd": tuple("13579"), "mnist-even": tuple("02468"),
}  # fmt: skip


class PartSource:
    """Some records of the whole set, which its own reader checks.

    Args:
        name: of the part, a key of DIGITS.
        whole: the reader, and what is declared of the whole set.
    """

    uses: tuple[str, ...] = ()

    def __init__(self, name: str, whole: Source, info: PublicInfo):
        self._name, self._whole, self._info = name, whole, info

    def has_test(self) -> bool:
        """As the whole set."""
        return self._whole.has_test()

    def extras(self) -> list[Extra]:
        """Nothing."""
        return []

    def scan(
        self, info: PublicInfo, split: str, faults: Faults, keep: bool = True, unit: str | None = None
    ) -> Opened | None:
        """One split of the part."""
        whole = self._whole.scan(self._info, split, faults, keep, unit)
        if whole is None:
            return None
        rows = self._rows(len(whole.labels)) if split == "train" else np.arange(len(whole.labels))
        own = np.array([info.classes.index(k) if k in info.classes else -1 for k in self._info.classes])
        labels = own[whole.labels[rows]]
        return Opened(Chosen(whole.records, rows[labels >= 0]), labels[labels >= 0].astype(np.uint8))

    def _rows(self, count: int) -> np.ndarray:
        """Which training images the part is chosen from, ascending."""
        import torch

        order = torch.randperm(count, generator=torch.Generator().manual_seed(SEED)).numpy()
        return np.sort(order[:LABELLING] if self._name == "mnist-labelling" else order[LABELLING:])

    def glimpse(self) -> Glimpse:
        """As the whole set; never drafted, since the declaration ships with the package."""
        return self._whole.glimpse()
