"""Pages of freed memory stay with the process: in fits and in the training of classifiers, too."""

from __future__ import annotations

import subprocess
import sys

import pytest

COUNT = """
import resource, torch
{first}
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(20_000_000)  # 80 MB, freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""
TRAIN = """
from veilset.core.types import Images
from veilset.evaluation.training import train
train("mlp128", Images(torch.zeros(32, 1, 28, 28, dtype=torch.uint8), torch.zeros(32, dtype=torch.long), ("a",)), 0)
"""
FIT = """
import veilset as vs
vs.make("dp-moments", n_components=1, mc_samples=0).fit(vs.load("digits").train, vs.Privacy(1.0), seed=0)
"""


def _faults(first: str) -> int:
    """Page faults of a process that allocates and frees after it has done `first`."""
    done = subprocess.run([sys.executable, "-c", COUNT.format(first=first)], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


@pytest.mark.long
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of glibc")
def test_after_a_fit_or_a_training_large_temporaries_come_from_memory_that_was_kept() -> None:
    usual = _faults("")
    assert usual > 100, "nothing to save here: this machine gives freed memory back at no cost"
    assert _faults(TRAIN) < usual / 10
    assert _faults(FIT) < usual / 10
