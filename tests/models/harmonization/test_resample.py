"""Resampling by transforms: exact on ramps, equal to Torch where the grids are aligned, clamped at the edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tidemark.datasets.grids import grid_between
from tidemark.errors import InputError
from tidemark.models.harmonization.resample import MODES, resample
from torch.nn.functional import interpolate

L8 = (30.0, 0, 600_000, 0, -30.0, 5_000_010)
S2 = (10.0, 0, 600_020, 0, -10.0, 5_000_000)
THIRD = torch.tensor([1 / 3, 0, 1 / 3, 0], dtype=torch.float64)


def noise(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_a_ramp_in_map_coordinates_stays_that_ramp_on_a_shifted_grid(mode):
    def ramp(transform, size):
        x = transform[2] + transform[0] * (np.arange(size) + 0.5) - 600_000
        y = transform[5] + transform[4] * (np.arange(size) + 0.5) - 5_000_000
        return torch.from_numpy(0.001 * x[None, :] - 0.002 * y[:, None])[None, None]

    grid = torch.from_numpy(grid_between(L8, S2))
    found = resample(ramp(L8, 20), grid, (48, 48), mode)
    inside = slice(6, -6)  # two source pixels from the edge, where nothing is clamped
    torch.testing.assert_close(found[..., inside, inside], ramp(S2, 48)[..., inside, inside], rtol=0, atol=1e-12)


def test_a_shift_by_half_a_pixel_has_the_values_computed_by_hand():
    x = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0, 0.0]).view(1, 1, 1, 6)
    grid = torch.tensor([1.0, 0.5, 1.0, 0.0])
    assert resample(x, grid, (1, 6), "nearest").flatten().tolist() == [0, 1, 0, 0, 0, 0]
    assert resample(x, grid, (1, 6), "bilinear").flatten().tolist() == [0, 0.5, 0.5, 0, 0, 0]
    # Keys' kernel with a = -0.5 at distances 1.5, 0.5, 0.5, 1.5.
    keys = [-0.0625, 0.5625, 0.5625, -0.0625, 0, 0]
    torch.testing.assert_close(resample(x, grid, (1, 6), "bicubic").flatten(), torch.tensor(keys))


@pytest.mark.parametrize(
    ("mode", "torchs", "margin"),
    [("nearest", {"mode": "nearest-exact"}, 0), ("bilinear", {"mode": "bilinear"}, 0),
     # Torch's kernel has a = -0.5 only with antialias, which drops what lies outside where ours repeats the edge.
     ("bicubic", {"mode": "bicubic", "antialias": True}, 6)],
)  # fmt: skip
def test_it_equals_torchs_enlargement_where_the_grids_are_aligned(mode, torchs, margin):
    x = noise(2, 3, 9, 11)
    inside = (..., slice(margin, 27 - margin), slice(margin, 33 - margin))
    theirs = interpolate(x, size=(27, 33), **torchs)
    torch.testing.assert_close(resample(x, THIRD, (27, 33), mode)[inside], theirs[inside], rtol=0, atol=1e-9)


@pytest.mark.parametrize("mode", MODES)
def test_beyond_the_source_its_edge_goes_on(mode):
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).view(1, 1, 2, 2)
    far = resample(x, torch.tensor([1.0, -9.0, 1.0, -9.0]), (20, 20), mode)[0, 0]
    assert [far[0, 0], far[0, -1], far[-1, 0], far[-1, -1]] == [1, 2, 3, 4]


def test_each_image_has_its_own_grid_and_rows_are_not_columns():
    x = noise(2, 1, 8, 8)
    grids = torch.tensor([[1.0, 0, 1, 2], [1.0, 3, 1, 0]])
    found = resample(x, grids, (5, 4))
    torch.testing.assert_close(found[0], x[0, :, 2:7, 0:4])
    torch.testing.assert_close(found[1], x[1, :, 0:5, 3:7])


@pytest.mark.parametrize("mode", MODES)
def test_gradients_pass_and_agree_with_finite_differences(mode):
    x = noise(1, 1, 4, 5).requires_grad_()
    grid = torch.tensor([0.4, 0.3, 0.7, -0.2], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda image: resample(image, grid, (5, 7), mode), x)


def test_what_cannot_be_resampled_is_refused_in_words():
    x = noise(2, 1, 4, 4)
    with pytest.raises(InputError, match="lanczos.*bicubic"):
        resample(x, THIRD, (4, 4), "lanczos")
    with pytest.raises(InputError, match="3 grids for 2"):
        resample(x, THIRD.expand(3, 4), (4, 4))
    with pytest.raises(InputError, match="not finite"):
        resample(x, THIRD * float("nan"), (4, 4))
    with pytest.raises(InputError, match="expected"):
        resample(x[:, :, :0], THIRD, (4, 4))
