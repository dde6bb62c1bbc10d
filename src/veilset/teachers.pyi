# Made from the options of the methods by docs/make_stubs.py; do not edit.
# ruff: noqa: E501
# fmt: off

from veilset.methods.teachers.dp_scatter import DPScatter as _DPScatter

__all__ = [
    "DPScatter",
]

class DPScatter(_DPScatter):
    r"""Linear classifier on scattering features.

    Parameters:
        batch_size (int, >= 1, default: derived): expected units per step; default a seventh of all, at most 8192
        steps (int, >= 1, default: derived): gradient steps; default 146 epsilon^0.3, from 50 to 600
        clip_norm (float, > 0, default 0.1): max_grad_norm of one unit
        lr (float, > 0, default: derived): learning rate; default by the noise of the steps, at most 64
        momentum (float, >= 0, < 1, default 0.9): of the steps
    """

    def __init__(
        self,
        *,
        batch_size: int | None = None,
        steps: int | None = None,
        clip_norm: float = 0.1,
        lr: float | None = None,
        momentum: float = 0.9,
    ) -> None: ...
