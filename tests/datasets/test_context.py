"""Coarser context around a chip: same centre, same number of pixels, nodata never mixed in."""

from __future__ import annotations

import numpy as np
import pytest
from tidemark.datasets.context import context_scale, context_window, shrink


def test_names_tell_the_scale():
    assert [context_scale(name) for name in ("image", "image_x2", "image_x8", "image_x", "pan")] == [
        None,
        2,
        8,
        None,
        None,
    ]


@pytest.mark.parametrize("scale", [2, 8])
def test_a_context_has_the_chips_centre(scale):
    row, column, height, width = context_window((100, 300, 256, 128), scale)
    assert (row + height / 2, column + width / 2) == (100 + 128, 300 + 64)
    assert (height, width) == (scale * 256, scale * 128)


def test_each_pixel_is_the_mean_of_its_valid_ones():
    stored = np.array([[[1, 3, 5, 0], [0, 5, 0, 0], [0, 0, 7, 8], [0, 0, 7, 10]]], np.int16)
    np.testing.assert_array_equal(shrink(stored, 2, 0), [[[3, 5], [0, 8]]])
    np.testing.assert_array_equal(shrink(stored, 2, None), [[[2, 1], [0, 8]]])
    floats = np.where(stored == 0, np.nan, stored).astype(np.float32)
    np.testing.assert_array_equal(shrink(floats, 2, None), np.float32([[[3, 5], [np.nan, 8]]]))
    np.testing.assert_array_equal(shrink(floats, 2, -9.0), np.float32([[[3, 5], [-9, 8]]]))
    assert shrink(floats, 2, None).dtype == np.float32 and shrink(stored, 2, 0).dtype == np.int16


def test_a_larger_factor_takes_the_four_pixels_in_the_middle():
    stored = np.arange(64, dtype=np.float32).reshape(1, 8, 8)
    assert shrink(stored, 8, None) == np.mean([27, 28, 35, 36])
    stored[0, 3, 3:5] = np.nan
    assert shrink(stored, 8, None) == np.mean([35, 36])


def test_a_side_that_is_no_multiple_is_refused():
    with pytest.raises(ValueError, match="cannot shrink by 2"):
        shrink(np.zeros((1, 3, 4)), 2, None)
