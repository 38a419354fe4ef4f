"""Boundary F1 against hand-drawn masks and SciPy's distance transform."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tidemark.benchmark.boundary import boundary_counts, boundary_f1

masks = arrays(np.uint8, (6, 5, 4), elements=st.sampled_from((0, 1, 255)))


def test_boundary_f1_by_hand():
    truth = np.zeros((1, 12), np.uint8)
    answer = truth.copy()
    truth[0, :4] = 1  # its boundary is column 3
    answer[0, :6] = 1  # column 5: two pixels away
    assert boundary_counts(truth, answer).tolist() == [1, 1, 1, 1]
    answer[0, :7] = 1  # column 6: three pixels away
    counts = boundary_counts(truth, answer)
    assert counts.tolist() == [1, 0, 1, 0]
    assert boundary_f1(counts) == 0
    assert boundary_f1(np.array([4, 2, 2, 2])) == pytest.approx(2 / 3)  # P = 1/2, R = 1
    assert boundary_f1(np.array([0, 0, 3, 0])) == 0
    assert np.isnan(boundary_f1(np.zeros(4)))


def test_edges_of_the_chip_and_of_ignored_areas_are_no_boundaries():
    truth = np.ones((5, 6), np.uint8)
    truth[:, 4:] = 255
    answer = np.ones((5, 6), np.uint8)
    answer[:, 5] = 0
    assert boundary_counts(truth, answer).tolist() == [0, 0, 0, 0]


@settings(max_examples=30, deadline=None)
@given(masks, masks)
def test_boundary_matches_the_distance_transform(truth, answer):
    from scipy.ndimage import distance_transform_edt

    counts = np.zeros(4, np.int64)
    for t, a in zip(truth, answer, strict=True):
        valid, wet = t != 255, t == 1
        said = np.where(a == 255, ~wet, a == 1) & valid

        def edge(mask, valid=valid):
            out = np.zeros_like(mask)
            for r, c in np.argwhere(mask & valid):
                around = [(r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)]
                out[r, c] = any(
                    0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and valid[y, x] and not mask[y, x]
                    for y, x in around
                )
            return out

        def near(mask, other):
            return np.count_nonzero(mask & (distance_transform_edt(~other) <= 2)) if other.any() else 0

        true, stated = edge(wet), edge(said)
        counts += [stated.sum(), near(stated, true), true.sum(), near(true, stated)]
    assert boundary_counts(truth, answer).tolist() == counts.tolist()


@settings(max_examples=20, deadline=None)
@given(masks, masks, masks)
def test_what_is_predicted_on_ignored_pixels_moves_no_boundary(truth, answer, other):
    changed = np.where(truth == 255, other, answer)
    assert np.array_equal(boundary_counts(truth, answer), boundary_counts(truth, changed))


@settings(max_examples=20, deadline=None)
@given(masks, masks, st.randoms())
def test_permuting_chips_and_splitting_them_into_shards_changes_nothing(truth, answer, random):
    order = list(range(len(truth)))
    random.shuffle(order)
    cut = random.randint(0, len(order))
    parts = [boundary_counts(truth[part], answer[part]) for part in (order[:cut], order[cut:]) if part]
    assert np.array_equal(sum(parts), boundary_counts(truth, answer))
