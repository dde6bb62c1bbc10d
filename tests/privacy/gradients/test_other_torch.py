"""A torch that renamed what the fast path uses: gradients are the same, by the general path, and a note says so."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import warnings
import torch
import torch._functorch.pyfunctorch
home, name = {home}, "{name}"
kept = getattr(home, name)
delattr(home, name)
from veilset.privacy.gradients import taps
setattr(home, name, kept)  # torch itself needs it
import veilset as vs
from veilset.core.errors import Note

assert taps._missing
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    data = vs.load("digits")
    model = vs.make(
        "dp-diffusion", width=8, embedding_dim=8, steps=1, noise_multiplicity=1, sampling_steps=1, batch_size=20
    )
    model.fit(data.train, vs.Privacy(3.0, 1e-4), seed=0)
notes = [str(w.message) for w in told if issubclass(w.category, Note)]
assert len(notes) == 1 and "general path" in notes[0] and "lacks" in notes[0], notes
print("fitted")
"""
NAMES = {
    "retrieve_current_functorch_interpreter": "torch._functorch.pyfunctorch",
    "get_unwrapped": "torch._C._functorch",
}


@pytest.mark.parametrize(
    "name", ["retrieve_current_functorch_interpreter", pytest.param("get_unwrapped", marks=pytest.mark.long)]
)
def test_methods_work_without_names_that_torch_keeps_private(name: str) -> None:
    program = PROGRAM.format(home=NAMES[name], name=name)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() == "fitted", done.stderr
