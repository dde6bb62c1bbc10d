"""The sum of clipped per-unit gradients, by one forward and one backward pass.

Read in this order: `clipped` (what the gate calls), `sheet` (per-record norms, clipping, the sum), `taps` (how a loss
is run so that layers hand over their inputs and output gradients), `rules` and `convolution` (one rule a layer),
`reference` (the same gradients by `vmap(grad)`: what all rules are tested equal to, and the fallback).
"""

from veilset.privacy.gradients.clipped import Clipped, Total, code_of
from veilset.privacy.gradients.reference import Loss, Parameters

__all__ = ["Clipped", "Loss", "Parameters", "Total", "code_of"]
