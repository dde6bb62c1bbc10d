"""The sum of clipped per-unit gradients, by one forward and one backward pass.

Read in this order: `clipped` (what the gate calls), `sheet` (per-record norms, clipping, the sum), `taps` (how a loss
is run so that layers hand over their inputs and output gradients), `rules` and `convolution` (one rule a layer),
`kernels` with `kernels.cpp` and `build` (the compiled part, if there is one), `reference` (the same gradients by
`vmap(grad)`: what all rules are tested equal to, and the fallback).

Which rule runs when, on the processor, in float32 and bfloat16:

| what | with the compiled part | without it |
|---|---|---|
| convolution, also transposed | `kernels.cpp`, with norms | windows, or groups (`convolution`) |
| 1x1 convolution, linear layer | the library's products | the same |
| group norm in channels_last | `kernels.cpp`, for multiples of 16 channels | written out (`rules`) |
| group norm otherwise | the library's, shown one image | the same |
| the clipped sum | `kernels.cpp` | products in float64, block by block (`sheet`) |
| a layer without a rule | autograd, with a copy of the weight a record | the same |
| a network that cannot be run so | `reference`, with a warning | the same |

float64 and other devices take the second column. Before the first record is read, `Clipped` compares what runs with
`reference`, first on three random images, then in whole chunks of the run's own rows; where they differ it warns and
takes `reference`. `veilset.privacy.alone` sees that no row of such a chunk moves another by a bit. Whole chunks are
looked at once in a process for all that runs the same operations (`program`).
"""

from veilset.privacy.gradients.clipped import Clipped, Total, code_of
from veilset.privacy.gradients.reference import Loss, Parameters

__all__ = ["Clipped", "Loss", "Parameters", "Total", "code_of"]
