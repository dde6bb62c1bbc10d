"""Copies of training images in the real set: exact ones are refused, near ones counted."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from veilset.core.errors import DataError
from veilset.core.types import Images
from veilset.data.overlap import Overlap, exact_copies, overlap, without_copies
from veilset.evaluation import evaluate


def with_rows(images: Images, rows: torch.Tensor) -> Images:
    return dataclasses.replace(images, x=torch.cat([images.x, rows]), y=torch.cat([images.y, images.y[: len(rows)]]))


def test_exact_and_near_copies_are_told_apart(train: Images, test: Images) -> None:
    base = overlap(train, test)
    assert base.exact == 0 and base.of == len(test)
    near = train.x[:4].clone()
    near[:, 0, 4, 4] += torch.where(near[:, 0, 4, 4] > 128, -4, 4).to(torch.uint8)
    mixed = with_rows(test, torch.cat([train.x[10:13], near]))
    got = overlap(train, mixed)
    assert (got.exact, got.near) == (3, base.near + 4)
    assert exact_copies(train, mixed).nonzero().flatten().tolist() == [len(test) + k for k in range(3)]
    assert len(without_copies(train, mixed)) == len(test) + 4


def test_evaluate_refuses_exact_copies_and_reports_near_ones(train: Images, test: Images) -> None:
    names = ["fd-gabor"]
    with pytest.raises(DataError, match="2 exact copies of training images.*without_copies"):
        evaluate(train, with_rows(test, train.x[:2]), metrics=names, members=train)
    near = train.x[:2].clone()
    near[:, 0, 4, 4] ^= 3
    private = dataclasses.replace(train, reads_private=True)
    scores = evaluate(train, with_rows(test, near), metrics=names, members=private)
    count = overlap(train, with_rows(test, near)).near
    assert scores.notes == (f"{count} of 599 real images nearly equal a training image",) and count >= 2
    assert scores.reads_private and "nearly equal" in repr(scores) and "nearly equal" in scores._repr_html_()
    assert Overlap(0, 0, 5).check().note == ""


def test_other_shapes_are_refused(train: Images, test: Images) -> None:
    wide = dataclasses.replace(test, x=test.x.repeat(1, 1, 1, 2))
    with pytest.raises(DataError, match=r"members have shape \[1, 8, 8\]"):
        overlap(train, wide)
