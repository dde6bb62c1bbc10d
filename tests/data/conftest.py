"""The set that most bad-input tests spoil."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from small_sets import class_folder, confirm, pixels


@pytest.fixture
def pets(tmp_path: Path) -> Callable[..., Path]:
    """Make a confirmed class folder of 6 grey 5x4 images."""

    def make(**facts: object) -> Path:
        root = class_folder(tmp_path / "pets", pixels(6))
        confirm(root, **facts)
        return root

    return make
