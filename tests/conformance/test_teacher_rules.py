"""What a synthesizer must keep to, a teacher must too, except that it predicts where the other draws."""

from __future__ import annotations

import pytest

from veilset import testing as kit
from veilset.methods.teachers import TEACHERS, teacher_class

SMALL = {"dp-scatter": {"steps": 2, "batch_size": 10}}
DRAWING = ("save_and_load_give_the_same_samples", "samples_are_labelled_images", "without_noise_it_is_stamped")


@pytest.mark.parametrize("holds", [p for p in kit.PROPERTIES if p.__name__ not in DRAWING], ids=lambda p: p.__name__)
@pytest.mark.parametrize("name", TEACHERS)
def test_teacher(name, holds):
    holds(lambda: teacher_class(name)(**SMALL[name]))
