"""Ranks: equal models share one, a real difference separates, few units give none."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidemark.benchmark.ranks import rank
from tidemark.benchmark.uncertainty import sign_flip_p, sign_flip_p_values
from tidemark.errors import InputError


def scenes(units, seed=0):
    """Scores of a model whose scenes differ much in difficulty."""
    return np.random.default_rng(seed).uniform(0.4, 0.9, units)


def test_two_identical_models_share_a_rank():
    base = scenes(40)
    assert rank({"a": base, "b": base.copy()}).ranks == {"a": 1, "b": 1}


def test_a_planted_difference_of_two_points_over_forty_scenes_separates():
    noise = np.random.default_rng(1).normal(0, 0.02, 40)
    found = rank({"worse": scenes(40), "better": scenes(40) + 0.02 + noise})
    assert found.ranks == {"worse": 2, "better": 1} and found.separates("worse", "better")
    assert rank({"worse": scenes(40), "better": scenes(40) + noise}).ranks == {"worse": 1, "better": 1}


def test_the_rank_counts_the_models_that_are_significantly_better():
    base, noise = scenes(40), np.random.default_rng(2).normal(0, 0.01, (4, 40))
    found = rank({"a": base + 0.1 + noise[0], "b": base + 0.1 + noise[1], "c": base + noise[2], "d": base - 0.1})
    assert found.ranks == {"a": 1, "b": 1, "c": 3, "d": 4}


def test_lower_is_better_for_errors():
    assert rank({"a": scenes(20), "b": scenes(20) + 0.1}, higher_is_better=False).ranks == {"a": 1, "b": 2}


def test_below_nine_units_there_is_no_rank_although_one_model_wins_every_unit():
    eight = rank({"a": scenes(8), "b": scenes(8) + 0.3})
    assert eight.ranks is None and eight.units == 8 and not eight.separates("a", "b")
    assert rank({"a": scenes(9), "b": scenes(9) + 0.3}).ranks == {"a": 2, "b": 1}


def test_nine_units_separate_two_models_but_not_within_a_family_of_ten_pairs():
    base = scenes(9)
    five = {str(i): base + i / 10 for i in range(5)}
    assert set(rank(five).ranks.values()) == {1, 2, 3, 4, 5}  # the smallest p is 2/2^9, times 10 is below 0.05
    twelve = {str(i): base + i / 10 for i in range(12)}
    assert set(rank(twelve).ranks.values()) == {1}  # times 66 it is not


def test_undefined_units_are_left_out_of_their_pairs_only():
    base = scenes(30)
    dry = base.copy()
    dry[8:] = np.nan
    found = rank({"a": base, "b": base + 0.1, "mostly undefined": dry - 0.3})
    assert found.ranks == {"a": 2, "b": 1, "mostly undefined": 1} and found.units == 30


def test_different_units_are_refused():
    with pytest.raises(InputError, match="one score a unit"):
        rank({"a": scenes(10), "b": scenes(11)})


def test_two_hundred_models_are_ranked_in_seconds_with_the_p_values_of_single_pairs():
    scores = {str(i): scenes(40, i) + i / 400 for i in range(200)}
    scores["0"][:3] = np.nan
    start = time.process_time()
    found = rank(scores)
    assert time.process_time() - start < 10
    assert len(found.p_values) == 200 * 199 // 2


@pytest.mark.parametrize("units", [10, 30])
def test_many_pairs_at_once_have_the_p_values_of_single_ones(units):
    differences = np.random.default_rng(3).normal(0.02, 0.05, (6, units))
    assert sign_flip_p_values(differences).tolist() == [sign_flip_p(d) for d in differences]


def test_no_model_and_one_model():
    assert rank({}).ranks is None
    assert rank({"a": scenes(10)}).ranks == {"a": 1}


@given(st.permutations(list(range(12))), st.integers(0, 5))
def test_the_order_of_units_and_of_models_changes_nothing(order, seed):
    scores = {name: scenes(12, seed) + shift for name, shift in (("a", 0.0), ("b", 0.2), ("c", 0.2))}
    shuffled = {name: scores[name][list(order)] for name in ("c", "a", "b")}
    assert rank(shuffled).ranks == rank(scores).ranks
