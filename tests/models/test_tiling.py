"""Tiles cover every pixel, their weights sum to one, and rows of tiles come out in order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidemark.errors import InputError
from tidemark.models.tiling import blend_strips, in_blocks, make_tiling


@settings(max_examples=200, deadline=None)
@given(
    st.integers(1, 70), st.integers(1, 70), st.integers(1, 40), st.floats(0, 0.95), st.sampled_from(["hann", "crop"])
)
def test_weights_sum_to_one_at_every_pixel(height, width, tile, overlap, blend):
    tiling = make_tiling(height, width, tile, overlap, blend)
    for length, size, starts, weights in ((height, tiling.height, tiling.tops, tiling.weight_y),
                                          (width, tiling.width, tiling.lefts, tiling.weight_x)):  # fmt: skip
        total = np.zeros(length)
        for start, weight in zip(starts, weights, strict=True):
            assert 0 <= start and start + size <= length and len(weight) == size
            total[start : start + size] += weight
        np.testing.assert_allclose(total, 1, atol=1e-6)


def test_crop_takes_each_pixel_from_the_tile_whose_middle_is_nearest():
    tiling = make_tiling(1, 12, 6, 0.5, "crop")
    assert tiling.lefts == [0, 3, 6]
    assert tiling.weight_x.tolist() == [[1, 1, 1, 1, 1, 0], [0, 0, 1, 1, 1, 0], [0, 0, 1, 1, 1, 1]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0.5, "hann"), "pixels"),
        ((8, 1.0, "hann"), "overlap"),
        ((8, -0.1, "hann"), "overlap"),
        ((8, 0.5, "mean"), "blend"),
    ],
)
def test_impossible_tilings_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        make_tiling(20, 20, *arguments)


@pytest.mark.parametrize("blend", ["hann", "crop"])
@pytest.mark.parametrize("shape", [(50, 37), (8, 8), (3, 41), (5, 4)])
def test_a_pointwise_model_gives_the_same_in_tiles_as_in_one_pass(shape, blend):
    image = np.random.default_rng(0).random((2, *shape)).astype(np.float32)
    image[0, 1, 1] = np.nan
    asked = []

    def read_rows(first, stop):
        asked.append((first, stop))
        return image[:, first:stop]

    def predict(batch):
        return np.nan_to_num(batch), np.isfinite(batch).all(1)

    tiling = make_tiling(*shape, 8, 0.4, blend)
    strips = list(blend_strips(tiling, read_rows, predict, 3))
    assert [first for first, _, _ in strips] == tiling.tops
    assert asked[0][0] == 0 and asked[-1][1] == shape[0]
    assert all(a[1] == b[0] for a, b in zip(asked, asked[1:], strict=False)), "each row of pixels is read once"
    probability, valid = (np.concatenate([s[k] for s in strips], axis=-2) for k in (1, 2))
    np.testing.assert_allclose(probability, np.nan_to_num(image), atol=1e-6)
    np.testing.assert_array_equal(valid, np.isfinite(image).all(0))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 10))
def test_strips_are_regrouped_into_whole_blocks(heights, rows):
    column = np.arange(sum(heights))
    cuts = np.split(column[:, None], np.cumsum(heights)[:-1])
    blocks = list(in_blocks(((c, c[None]) for c in cuts), rows))
    assert [len(a) for _, (a, _) in blocks][:-1] == [rows] * (len(blocks) - 1)
    np.testing.assert_array_equal(np.concatenate([a for _, (a, _) in blocks])[:, 0], column)
    assert all(a[0, 0] == first and b.shape == (1, *a.shape) for first, (a, b) in blocks)
