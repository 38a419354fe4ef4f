"""Means over coarse pixels by shared areas, and predictions that are held to them."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tidemark.models.harmonization.consistency import average, back_project
from tidemark.models.harmonization.resample import resample


def by_hand(fine, scale, offset, coarse):
    """Means over coarse pixels along one axis, on a grid a hundred times as fine; offset and scale in coarse pixels."""
    places = (np.arange(len(fine) * 300) + 0.5) / 300  # in fine pixels
    pixel = np.floor(scale * places + offset).astype(int)
    values = fine[places.astype(int)]
    return [values[pixel == k].mean() if (pixel == k).any() else 0.0 for k in range(coarse)]


@settings(max_examples=25)
@given(st.integers(-60, 60), st.integers(3, 12), st.integers(0, 10_000))
def test_means_are_weighted_by_the_area_that_is_shared(shift, n, seed):
    offset = shift / 30  # whole metres
    rng = np.random.default_rng(seed)
    down, across = rng.random(n), rng.random(n + 2)
    fine = torch.from_numpy(down[:, None] * across)[None, None]
    grid = torch.tensor([[1 / 3, offset, 1 / 3, 0.5]], dtype=torch.float64)
    means, cover = average(fine, grid, (5, 6))
    expected = np.outer(by_hand(down, 1 / 3, 0.5, 5), by_hand(across, 1 / 3, offset, 6))
    np.testing.assert_allclose(means[0, 0], expected, atol=0.02)
    ends = np.clip([[0.5, 0.5 + n / 3], [offset, offset + (n + 2) / 3]], 0, [[5], [6]])
    np.testing.assert_allclose(cover.sum(), np.prod(ends[:, 1] - ends[:, 0]), rtol=1e-6)


@settings(max_examples=15)
@given(st.integers(-30, 0), st.integers(-30, 0), st.integers(0, 10_000))
def test_what_is_held_has_the_measured_level(left, top, seed):
    torch.manual_seed(seed)
    image = torch.rand(2, 3, 14, 15)
    grid = torch.tensor([[1 / 3, 1 - left / 30, 1 / 3, 1 - top / 30]] * 2, dtype=torch.float64)
    measured = resample(image, grid, (36, 36))
    fine = 1.2 * measured + 0.1 * torch.rand(2, 3, 36, 36) + torch.linspace(0, 0.3, 36)
    held = back_project(fine, image, grid)
    before, after = (
        ((average(x, grid, (14, 15))[0] - image)[..., 3:11, 3:11].mean((2, 3))).abs().max() for x in (fine, held)
    )
    assert before > 0.2 and after < 0.05 * before


def test_detail_stays_and_the_grid_of_30_m_does_not_come_back():
    """A field's edge that the prediction has between two coarse pixels is not pulled back to their edge."""
    fine = torch.full((1, 1, 36, 36), 0.2)
    fine[..., 16:] = 0.4
    grid = torch.tensor([[1 / 3, 0.0, 1 / 3, 0.0]])
    image = average(fine, grid, (12, 12))[0] + 0.05 * torch.randn(1, 1, 12, 12, generator=torch.manual_seed(0))
    change = (back_project(fine, image, grid) - fine)[0, 0]
    steps = change.diff(dim=1).abs().mean(0)
    assert steps.max() < 3 * steps.mean() < 0.05


def test_what_is_right_already_stays_as_sharp_as_it_was():
    fine = torch.zeros(1, 1, 30, 30)
    fine[..., ::3] = 0.5  # below Landsat's sight
    grid = torch.tensor([[1 / 3, 0.0, 1 / 3, 0.0]])
    image = average(fine, grid, (10, 10))[0]
    torch.testing.assert_close(back_project(fine, image, grid), fine, atol=1e-6, rtol=0)
