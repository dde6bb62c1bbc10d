"""Classifiers learned under a budget. They draw no images; they label, filter and set the ceiling.

A teacher plans, fits and is saved like a synthesizer, with a ledger and a receipt of its own; where a synthesizer
samples, it predicts. Its accuracy on real images is what training on released images can hope for at the same budget.
"""

from __future__ import annotations

from veilset.methods.catalogue import TEACHERS, make_teacher, open_teacher, teacher_class, teachers

__all__ = ["TEACHERS", "make_teacher", "open_teacher", "teacher_class", "teachers"]
