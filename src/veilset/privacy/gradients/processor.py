"""Which of several ways to the same gradients is quicker on the processor at hand. Never decided by a timing.

A timing would let the load of a machine choose the rounding of a run. The processor's name and the width of its vectors
are facts that stay, and receipts carry them.
"""

from __future__ import annotations

import functools

import torch

from veilset.core.facts import VECTORS, processor


@functools.cache
def vendor_products() -> bool:
    """Whether matrix products go to a BLAS by the processor's own maker: MKL, on Intel's with AVX2 or AVX-512.

    There batched products beat the library's grouped convolution. On AMD's, where MKL takes another path, the grouped
    convolution was measured to be quicker, and processors that nobody measured get it too.
    """
    name = processor()
    return torch.backends.mkl.is_available() and "intel" in name.lower() and name.endswith(tuple(VECTORS.values()))
