"""Every method on images of a few pixels: it is refused when it is planned, in one line, or it fits and draws."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

import veilset as vs
from veilset.audit.selftest.coupled import INFO, Set
from veilset.audit.selftest.methods import SMALL
from veilset.core.errors import ConfigError
from veilset.methods.catalogue import BUILT_IN, method_class
from veilset.networks.embeddings import SMALLEST, Embeddings

FREE = vs.Privacy(math.inf)
SHAPES = [(1, 1, 1), (1, 2, 2), (1, 4, 4), (1, 6, 6), (3, 4, 4), (3, 8, 8), (1, 1, 9)]
BOTH = {"dp-condense": ({"start": "noise"}, {"start": "moments"})}


def planned(name, shape, other):
    """The facts, where a plan was made; None where it was refused in one line that names the shape."""
    info = dataclasses.replace(INFO, shape=shape)
    model = method_class(name)(**SMALL[name] | other)
    try:
        model.plan(info, FREE)
    except ConfigError as e:
        assert f"shape = {list(shape)}" in str(e) and "\n" not in str(e)
        return None
    return info, model


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", BUILT_IN)
def test_a_plan_is_made_or_refused_in_one_line(name, shape):
    for other in BOTH.get(name, ({},)):
        got = planned(name, shape, other)
        assert got or min(shape[1:]) < 8, "images of 8 x 8 are what digits are"


@pytest.mark.long
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", BUILT_IN)
def test_what_is_planned_fits_and_draws(name, shape):
    for other in BOTH.get(name, ({},)):
        if got := planned(name, shape, other):
            info, model = got
            x = np.random.default_rng(0).random((60, *shape)).astype(np.float32)
            model.fit(Set(x, np.arange(60) % 5, None, info).hide(), FREE, seed=0)
            assert model.sample(5, seed=0).x.shape == (5, *shape)


def test_the_smallest_side_of_embeddings_is_the_smallest_that_has_some():
    assert Embeddings((1, 1, SMALLEST), 1, 2, False, torch.float32).size > 0
    with pytest.raises(ConfigError, match=f"shape = .*at least {SMALLEST} pixels"):
        Embeddings((1, SMALLEST - 1, SMALLEST - 1), 1, 2, False, torch.float32)
