"""What all tests share: one thread, and quiet accountants."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import logging

import pytest


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Tests share two cores with each other; a second thread only slows them down."""
    import torch

    torch.set_num_threads(1)
    logging.getLogger("absl").setLevel(logging.ERROR)  # RDP says which orders it drops; claims do not rest on them
