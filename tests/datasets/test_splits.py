from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidemark.datasets.splits import (
    IndexBlock,
    PhaseBlock,
    by_index_blocks,
    by_phase_blocks,
    by_scene,
    by_spatial_block,
    check_phase_guard,
)
from tidemark.errors import ConfigError, LeakError

FRACTIONS = {"train": 0.7, "val": 0.15, "test": 0.15}


def box_distance(a, b):
    dx = max(a[0] - b[2], b[0] - a[2], 0)
    dy = max(a[1] - b[3], b[1] - a[3], 0)
    return np.hypot(dx, dy)


@given(n=st.integers(3, 60), seed=st.integers(0, 2**32), turn=st.randoms())
def test_every_scene_goes_to_one_split_and_no_split_is_empty(n, seed, turn):
    scenes = [f"scene-{i}" for i in range(n)]
    dealt = by_scene(scenes, FRACTIONS, seed)
    assert sorted(dealt) == sorted(scenes)
    counts = {name: list(dealt.values()).count(name) for name in FRACTIONS}
    assert min(counts.values()) >= 1 and sum(counts.values()) == n
    assert all(abs(counts[name] - FRACTIONS[name] * n) < 2 for name in FRACTIONS)
    turn.shuffle(scenes)
    assert by_scene(scenes, FRACTIONS, seed) == dealt


def test_the_seed_changes_the_deal():
    scenes = [f"{i}" for i in range(30)]
    assert by_scene(scenes, FRACTIONS, 0) != by_scene(scenes, FRACTIONS, 1)


def test_impossible_deals_are_refused():
    with pytest.raises(ConfigError, match="2 scenes or blocks cannot fill 3"):
        by_scene(["a", "b"], FRACTIONS)
    with pytest.raises(ConfigError, match="repeat"):
        by_scene(["a", "a", "b", "c"], FRACTIONS)
    with pytest.raises(ConfigError, match="sum to 1"):
        by_scene(["a", "b", "c"], {"train": 0.5, "test": 0.2})


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 1000),
    guard=st.sampled_from([0.0, 1.0, 25.0, 60.0]),
    block=st.sampled_from([50.0, 120.0]),
    n=st.integers(40, 120),
)
def test_spatial_blocks_keep_the_guard_distance(seed, guard, block, n):
    rng = np.random.default_rng(seed)
    corner, size = rng.uniform(-200, 200, (n, 2)), rng.uniform(5, 40, (n, 2))
    boxes = np.hstack([corner, corner + size])
    names = by_spatial_block(boxes, block, guard, FRACTIONS, seed)
    kept = [i for i, name in enumerate(names) if name is not None]
    for i, j in combinations(kept, 2):
        if names[i] != names[j]:
            assert box_distance(boxes[i], boxes[j]) >= guard - 1e-9
            overlap = np.minimum(boxes[i, 2:], boxes[j, 2:]) - np.maximum(boxes[i, :2], boxes[j, :2])
            assert (overlap < 1e-6).any()
    assert names == by_spatial_block(boxes, block, guard, FRACTIONS, seed)


def test_touching_tiles_survive_without_a_guard_and_the_training_split_gives_way_with_one():
    boxes = np.array([[x, 0, x + 10, 10] for x in range(0, 200, 10)], float)
    free = by_spatial_block(boxes, 50, 0.0, FRACTIONS)
    assert None not in free and set(free) == set(FRACTIONS)
    guarded = by_spatial_block(boxes, 50, 5.0, FRACTIONS)
    lost = {free[i] for i, name in enumerate(guarded) if name is None}
    assert "train" in lost and "test" not in lost


@given(
    ids=st.sets(st.integers(0, 300), min_size=20, max_size=200),
    cuts=st.lists(st.integers(0, 300), min_size=2, max_size=6, unique=True),
    drop=st.integers(0, 4),
)
def test_index_blocks_drop_ids_at_every_cut(ids, cuts, drop):
    edges = [0, *sorted(set(cuts) - {0}), 301]
    blocks = [IndexBlock(a, b, ("train", "val")[k % 2]) for k, (a, b) in enumerate(zip(edges, edges[1:], strict=False))]
    dealt = by_index_blocks(sorted(ids), blocks, drop)
    assert set(dealt) <= ids
    ordered, kept = sorted(ids), list(dealt)
    for a, b in zip(kept, kept[1:], strict=False):
        if dealt[a] != dealt[b]:
            assert sum(a < i < b for i in ordered) >= drop
    for i, split in dealt.items():
        assert [b.split for b in blocks if b.start <= i < b.stop] == [split]


def test_index_blocks_drop_two_ids_at_a_cut():
    blocks = [IndexBlock(0, 50, "train"), IndexBlock(50, 100, "val")]
    dealt = by_index_blocks(range(100), blocks, drop=2)
    assert sorted(set(range(100)) - set(dealt)) == [49, 50]
    with pytest.raises(LeakError, match="overlap"):
        by_index_blocks(range(100), [IndexBlock(0, 51, "train"), IndexBlock(50, 100, "val")], 2)


@given(
    start=st.floats(0, 1),
    widths=st.lists(st.floats(0.01, 0.1), min_size=3, max_size=3),
    phase=st.lists(st.floats(0, 1, exclude_max=True), min_size=10, max_size=80),
)
def test_phase_blocks_keep_the_guard_around_the_circle(start, widths, phase):
    guard, blocks, at = 0.08, [], start
    for split, width in zip(FRACTIONS, widths, strict=True):
        low, high = at % 1, at % 1 + width
        blocks += [PhaseBlock(low, min(high, 1), split)] if low < 1 else []
        blocks += [PhaseBlock(0.0, high - 1, split)] if high > 1 + 1e-9 else []
        at += width + 0.1
    phase = np.array(phase)
    number = by_phase_blocks(phase, blocks, guard)
    for i, j in combinations(np.flatnonzero(number >= 0), 2):
        if blocks[number[i]].split != blocks[number[j]].split:
            apart = abs(phase[i] - phase[j])
            assert min(apart, 1 - apart) >= guard - 1e-9


def test_phase_blocks_too_close_are_a_leak_also_across_the_wrap():
    with pytest.raises(LeakError, match="0.070 apart"):
        check_phase_guard([PhaseBlock(0.1, 0.2, "train"), PhaseBlock(0.27, 0.4, "test")], 0.08)
    with pytest.raises(LeakError, match="phase-0.020-0.200.*phase-0.500-0.950"):
        check_phase_guard([PhaseBlock(0.02, 0.2, "train"), PhaseBlock(0.5, 0.95, "test")], 0.08)
    check_phase_guard([PhaseBlock(0.02, 0.2, "train"), PhaseBlock(0.2, 0.3, "train")], 0.08)
    assert by_phase_blocks(np.array([0.05, 0.25, 0.5]), [PhaseBlock(0.0, 0.2, "a")], 0.1).tolist() == [0, -1, -1]
