"""One grid's pixels in another's, against values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from rasterio.transform import Affine
from tidemark.datasets.grids import grid_between
from tidemark.errors import InputError

L8 = (30.0, 0, 600_000, 0, -30.0, 5_000_010)
S2 = (10.0, 0, 600_020, 0, -10.0, 5_000_000)


def test_a_sentinel_grid_lies_in_a_landsat_grid_as_by_hand():
    # 20 m right of and 10 m below the L8 corner, at a third of the pixel size.
    np.testing.assert_allclose(grid_between(L8, S2), [1 / 3, 2 / 3, 1 / 3, 1 / 3], rtol=0, atol=1e-12)


def test_the_grid_agrees_with_the_transforms_themselves():
    scale_x, offset_x, scale_y, offset_y = grid_between(L8, S2)
    column, row = ~Affine(*L8) * (Affine(*S2) * (7.5, 3.5))
    assert column == pytest.approx(scale_x * 7.5 + offset_x)
    assert row == pytest.approx(scale_y * 3.5 + offset_y)


def test_there_and_back_is_the_identity():
    there, back = grid_between(L8, S2), grid_between(S2, L8)
    for axis in (0, 2):
        assert there[axis] * back[axis] == pytest.approx(1)
        assert there[axis] * back[axis + 1] + there[axis + 1] == pytest.approx(0, abs=1e-9)


def test_many_chips_at_once():
    shifted = np.array([L8, L8]) + np.array([[0] * 6, [0, 0, 30, 0, 0, -60]])
    grids = grid_between(shifted, S2)
    assert grids.shape == (2, 4)
    np.testing.assert_allclose(grids[0] - grids[1], [0, 1, 0, 2], atol=1e-9)


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        ((10.0, 0, 0), "shape"),
        ((float("nan"),) * 6, "not finite.*georeference"),
        ((10.0, 1, 0, 1, -10, 0), "rotated"),
        ((10.0, 0, 0, 0, 10, 0), "rows south"),
        ((0.0, 0, 0, 0, -10, 0), "columns must run east"),
    ],
)
def test_what_is_no_north_up_grid_is_refused_in_words(transform, message):
    for pair in ((transform, S2), (L8, transform)):
        with pytest.raises(InputError, match=message):
            grid_between(*pair)
