"""The rules of resizing: constants stay, means are means, growing and shrinking differ where they should."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from orbit4d.datasets.images.resize import area, resampled, smooth


def test_means_of_blocks_are_kept() -> None:
    planes = torch.rand(2, 4, 12, 8, generator=torch.Generator().manual_seed(0))
    halves = planes.unflatten(-1, (4, 2)).unflatten(-3, (6, 2)).mean((-1, -3))
    assert torch.allclose(area(planes, (6, 4)), halves, atol=1e-6)  # float32 sums of four
    arrays = planes[0].permute(1, 2, 0).numpy()
    assert np.allclose(resampled(arrays, (4, 6), shrinks=True), halves[0].permute(1, 2, 0), atol=1e-6)


def test_one_colour_stays_under_every_rule() -> None:
    plane = torch.full((1, 3, 6, 10), 0.25)
    for size in ((3, 5), (13, 7)):
        assert torch.allclose(area(plane, size), torch.tensor(0.25))
        assert torch.allclose(smooth(plane, size), torch.tensor(0.25))
        array = resampled(plane[0].permute(1, 2, 0).numpy(), size[::-1], shrinks=size[0] < 6)
        assert array.shape == (*size, 3) and np.allclose(array, 0.25, atol=1e-6)


def test_smooth_stays_between_0_and_1_and_growing_has_its_filter() -> None:
    edge = np.zeros((4, 8, 1), np.float32)
    edge[:, 4:] = 1
    grown = smooth(torch.from_numpy(edge).permute(2, 0, 1)[None], (8, 16))
    assert grown.min() >= 0 and grown.max() <= 1
    assert resampled(edge, (16, 8), False).max() > 1.01, "bicubic overshoots at an edge"
    assert resampled(edge, (16, 8), False, Image.Resampling.BILINEAR).max() <= 1
    part = resampled(edge, (4, 4), True, box=(4.0, 0.0, 8.0, 4.0))
    assert part.shape == (4, 4, 1) and (part == 1).all()
