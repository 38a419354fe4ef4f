"""Axes, strips and the Pareto front."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tidemark.leaderboard import charts

SCORES = st.lists(st.floats(0, 1), min_size=1, max_size=8)
SPEEDS = st.floats(1e-3, 1e6)


@given(SCORES)
def test_a_linear_axis_is_round_and_covers_the_values(values):
    axis = charts.linear_axis(values, 10, 166)
    assert axis.low <= min(values) + 1e-9 and axis.high >= max(values) - 1e-9
    assert 2 <= len(axis.ticks) <= 5 and axis.at(axis.low) == 10 and axis.at(axis.high) == 166


@given(st.lists(SPEEDS, min_size=1, max_size=8))
def test_a_log_axis_covers_the_values_with_few_ticks(values):
    axis = charts.log_axis(values, 0, 100)
    assert axis.low <= min(values) and axis.high >= max(values)
    assert 1 <= len(axis.ticks) <= 12
    assert axis.at(axis.low) == 0 and axis.at(axis.high) == 100


def test_scores_that_differ_by_rounding_alone_have_an_axis():
    axis = charts.linear_axis([0.0, 5e-324], 10, 166)
    assert axis.low == 0 and axis.high > 0.05


def test_equal_scores_are_not_spread_over_the_whole_strip():
    axis = charts.strip_axis([0.911, 0.912])
    assert axis.high - axis.low >= 0.1


def test_decibels_have_an_axis_of_a_decibel_at_least_and_no_end_at_one():
    axis = charts.strip_axis([34.11, 34.12], span=1.0)
    assert axis.low > 33 and 1 <= axis.high - axis.low <= 2 and axis.low <= 34.11 <= 34.12 <= axis.high


def test_where_lower_is_better_the_front_runs_along_the_lowest():
    points = [charts.Point(str(i), "t", "tip", *pair, None, False) for i, pair in enumerate([(10, 2.0), (10, 3.0)])]
    marks = charts.pareto(points, lower=True).marks
    assert [m.front for m in marks] == [True, False] and marks[0].y < marks[1].y


def test_the_front_holds_what_nothing_beats():
    points = [(10, 0.9), (100, 0.8), (50, 0.7), (1000, 0.1), (1000, 0.05), (100, 0.8)]
    assert sorted(charts.pareto_front(points)) == [0, 1, 3, 5]


@given(st.lists(st.tuples(SPEEDS, st.floats(0, 1)), min_size=1, max_size=12))
def test_every_point_off_the_front_is_beaten_by_one_on_it(points):
    front = charts.pareto_front(points)
    for i, (speed, score) in enumerate(points):
        beaten = any(points[j][0] >= speed and points[j][1] >= score and points[j] != points[i] for j in front)
        assert beaten != (i in front)


@given(st.lists(st.tuples(st.floats(1, 1e5), st.floats(0, 1)), min_size=2, max_size=10))
def test_labels_cover_neither_each_other_nor_a_point_nor_the_front(pairs):
    points = [charts.Point(f"model {i}", "t", "tip", *pair, None, False) for i, pair in enumerate(pairs)]
    plot = charts.pareto(points)
    corners = [tuple(map(float, corner.split())) for corner in plot.steps[1:].split("L")]
    boxes = []
    for mark in plot.marks:
        assert charts.PLOT_LEFT <= mark.x <= charts.PLOT_WIDTH and 0 <= mark.y <= charts.PLOT_HEIGHT
        if mark.label:
            x, y, anchor = mark.label
            width = charts.CHARACTER_WIDTH * len(mark.point.label)
            left = x - {"start": 0, "middle": width / 2, "end": width}[anchor]
            boxes.append((left, y - 11, left + width, y + 3))
    for i, a in enumerate(boxes):
        assert not any(a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3] for b in boxes[:i])
        for (x0, y0), (x1, y1) in zip(corners, corners[1:], strict=False):
            assert max(x0, x1) <= a[0] or min(x0, x1) >= a[2] or max(y0, y1) <= a[1] or min(y0, y1) >= a[3]


def test_long_names_are_cut_in_the_middle_so_that_a_family_stays_told_apart():
    assert charts.short("U-Net, resnet18; bands hh, hv, dem, hand") == "U-Net, resnet1…hv, dem, hand"
    assert all(len(charts.short("x" * 40, most)) == most for most in (14, 27, 28)) and charts.short("unet") == "unet"
