"""Movements of images, each by a map of its own."""

from __future__ import annotations

import torch

from veilset.learning.augmentation import moved_apart


def test_no_movement_changes_nothing() -> None:
    x = torch.rand(3, 2, 9, 14)
    assert torch.allclose(moved_apart(x, 0, 0, 0, 0), x, atol=1e-5)


def test_each_image_is_shifted_on_its_own_and_not_too_far() -> None:
    x = torch.zeros(200, 1, 20, 30)
    x[:, :, 9:11, 14:16] = 1
    got = moved_apart(x, 0.1, 0, 0, 0)[:, 0]
    mass = got.sum((1, 2))
    down = (got.sum(2) * torch.arange(20)).sum(1) / mass - 9.5
    right = (got.sum(1) * torch.arange(30)).sum(1) / mass - 14.5
    for way, most in ((down, 2.0), (right, 3.0)):
        assert 0.9 * most < float(way.abs().max()) < most + 0.3 and abs(float(way.mean())) < most / 4
    assert abs(float(torch.corrcoef(torch.stack([down, right]))[0, 1])) < 0.3


def test_turns_keep_the_form_on_sides_of_other_length() -> None:
    x = torch.zeros(50, 1, 20, 60)
    x[:, :, 9:11, 20:40] = 1  # a bar of 20 x 2
    got = moved_apart(x, 0, 0, 0, 40)[:, 0]
    grid = torch.stack(torch.meshgrid(torch.arange(20.0), torch.arange(60.0), indexing="ij"))
    for image in got:
        from_centre = (grid - torch.tensor([9.5, 29.5])[:, None, None]).flatten(1)
        spread = torch.linalg.eigvalsh((from_centre * image.flatten()) @ from_centre.T / image.sum())
        assert 30 < float(spread[1]) < 37 and float(spread[0]) < 1, "still a bar of that length"


def test_what_comes_in_is_the_edge() -> None:
    x = torch.full((20, 3, 12, 12), 0.7)
    assert torch.allclose(moved_apart(x, 0.3, 0.3, 0.3, 45), x, atol=1e-5)
