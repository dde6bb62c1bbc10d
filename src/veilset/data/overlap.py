"""Are real images that should be new really new? Exact and near copies of the training images in a reference set.

A reference that holds training images rewards a model that copies them, so exact copies are refused. Near copies are
counted: the standard sets have some (12 of the 10,000 test images of Fashion-MNIST by the measure below).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from veilset.core.errors import DataError

if TYPE_CHECKING:
    import torch

    from veilset.core.types import Images

NEAR = 0.1  # pixel distance to the nearest member, relative to the image's own deviation from its mean
ROWS = 500  # reference images compared at once


@dataclass(frozen=True)
class Overlap:
    """Reference images that equal a member, and that nearly do.

    Attributes:
        exact: with the same bytes.
        near: not equal, but within a tenth of their own contrast.
        of: reference images.
    """

    exact: int
    near: int
    of: int

    def check(self) -> Overlap:
        """Refuse exact copies.

        Raises:
            DataError: there is one.
        """
        if self.exact:
            raise DataError(
                f"against holds {self.exact} exact copies of training images (of {self.of}): a copying model would "
                "be rewarded; remove them, see veilset.data.overlap.without_copies"
            )
        return self

    @property
    def note(self) -> str:
        """One line for readers, or "" when nothing is near."""
        return f"{self.near} of {self.of} real images nearly equal a training image" if self.near else ""


def exact_copies(members: Images, reference: Images) -> torch.Tensor:
    """Mask bool [N] of the reference images whose bytes are those of a member, whatever the labels say."""
    import torch

    known = {bytes(row) for row in members.x.flatten(1).numpy()}
    return torch.tensor([bytes(row) in known for row in reference.x.flatten(1).numpy()], dtype=torch.bool)


def without_copies(members: Images, reference: Images) -> Images:
    """The reference without exact copies of members."""
    return reference[~exact_copies(members, reference)]


def overlap(members: Images, reference: Images) -> Overlap:
    """Count copies of `members` in `reference`; half a minute for 60,000 against 10,000 images of 28x28 on one core.

    Raises:
        DataError: the sets have other shapes.
    """
    import torch

    if members.x.shape[1:] != reference.x.shape[1:]:
        a, b = list(members.x.shape[1:]), list(reference.x.shape[1:])
        raise DataError(f"members have shape {a}, against has {b}: must be equal")
    exact = exact_copies(members, reference)
    rows = members.x.flatten(1).float()
    lengths = rows.square().sum(1)
    near = 0
    for i in range(0, len(reference), ROWS):
        part = reference.x[i : i + ROWS].flatten(1).float()
        d = torch.addmm(lengths, part, rows.T, alpha=-2).amin(1) + part.square().sum(1)
        contrast = (part - part.mean(1, keepdim=True)).square().sum(1)
        near += int(((d <= NEAR**2 * contrast) & ~exact[i : i + ROWS]).sum())
    return Overlap(int(exact.sum()), near, len(reference))
