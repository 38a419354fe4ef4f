import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidemark.datasets import footprints
from tidemark.datasets.footprints import corners_lonlat, near_pairs
from tidemark.datasets.mosaic import overlap
from tidemark.datasets.products import ground_keys
from tidemark.datasets.raster import Grid


def squares(lon, lat, size=0.01):
    """Outlines (N, 4, 2) of squares, by their corner."""
    steps = np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * size
    return np.stack([lon, lat], axis=-1)[:, None] + steps


@settings(max_examples=60, deadline=None)
@given(
    lat=st.floats(-89.5, 89),
    lon=st.floats(-180, 179),
    gap_m=st.floats(50, 5000),
    guard_m=st.sampled_from([100.0, 1000.0]),
)
def test_footprints_are_measured_on_the_ground_anywhere_on_earth(lat, lon, gap_m, guard_m):
    first = squares(np.array([lon]), np.array([lat]))
    second = first + [0, 0.01 + np.degrees(gap_m / 6_371_000)]
    shifted = np.where(second[..., :1] > 0, [-360.0, 0.0], [360.0, 0.0]) + second  # the same place, written otherwise
    if abs(gap_m - guard_m) > 0.01 * guard_m:
        for other in (second, shifted):
            found, distance = near_pairs(first, other, guard_m)
            assert len(found) == (gap_m < guard_m)
            if len(found):
                assert distance[0] == pytest.approx(gap_m, rel=0.015)


def test_footprints_next_to_each_other_in_two_zones_are_found():
    one = corners_lonlat(np.array([[10, 0, 690_000, 0, -10, 6_000_000.0]]), 100, 100, "EPSG:32632")
    lon, lat = one[0].mean(axis=0)
    assert 11.8 < lon < 12 and 54 < lat < 54.2
    two = corners_lonlat(np.array([[10, 0, 296_600, 0, -10, 6_000_000.0]]), 100, 100, "EPSG:32633")
    assert len(near_pairs(one, two, 50_000.0)[0]) == 1
    assert np.isnan(corners_lonlat(np.array([[10, 0, 0, 0, -10, 0.0]]), 100, 100, None)).all()
    assert len(near_pairs(one, np.full((1, 4, 2), np.nan), 1e6)[0]) == 0
    engineering = 'LOCAL_CS["site",UNIT["metre",1],AXIS["Easting",EAST],AXIS["Northing",NORTH]]'
    assert np.isnan(corners_lonlat(np.array([[10, 0, 0, 0, -10, 0.0]]), 100, 100, engineering)).all()


def test_a_leak_is_found_behind_any_number_of_other_candidates():
    """2.2 million candidates, for one outline of a whole region makes every centre worth a look."""
    step = np.arange(2000) * 0.05 / 2000
    first = squares(10 + step, np.full(2000, 50.0), 1e-5)
    second = squares(10 + step[:1100], np.full(1100, 51.0), 1e-5)
    region = squares(np.array([60.0]), np.array([50.0]), 10.0)
    second = np.concatenate([second, first[-1:], region])
    pairs, distance = near_pairs(first, second, 0.5)
    assert pairs.tolist() == [[1999, 1100]] and distance.tolist() == [0.0]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), block=st.integers(1, 50), guard_m=st.sampled_from([0.0, 300.0]))
def test_blocks_of_any_size_give_the_same_pairs(seed, block, guard_m):
    rng = np.random.default_rng(seed)
    first, second = (
        np.concatenate([squares(rng.uniform(179.9, 180, 1), rng.uniform(60, 60.1, 1), rng.uniform(0.001, 0.05))
                        for _ in range(n)])
        for n in (12, 9)
    )  # fmt: skip
    first[3] = np.nan
    one_by_one = [
        (i, j, d) for i in range(12) for j in range(9) for d in near_pairs(first[[i]], second[[j]], guard_m)[1]
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(footprints, "BLOCK_PAIRS", block)
        pairs, distance = near_pairs(first, second, guard_m)
    assert [(i, j, d) for (i, j), d in zip(pairs.tolist(), distance, strict=True)] == one_by_one


def grid(east, north=6_000_000, transform=True):
    return Grid(100, 100, (10, 0, east, 0, -10, north) if transform else None, "EPSG:32633" if transform else None)


def test_scenes_hang_together_along_a_chain_and_over_all_dates_of_a_tile(monkeypatch):
    monkeypatch.setattr(footprints, "BLOCK_PAIRS", 2)
    chain = {f"chain-{k}": grid(400_000 + 900 * k) for k in range(9, -1, -1)}
    dates = {f"tile-{k}": grid(500_000) for k in range(5)}
    alone = {"far": grid(600_000), "unknown-0": grid(0, transform=False), "unknown-1": grid(0, transform=False)}
    keys = ground_keys(alone | dates | chain)
    assert {keys[scene] for scene in chain} == {"chain-0"} and {keys[scene] for scene in dates} == {"tile-0"}
    assert all(keys[scene] == scene for scene in alone)
    assert ground_keys(alone) == {scene: scene for scene in alone}
    assert ground_keys({"one": grid(400_000), "two": grid(402_000)}, guard_m=1100) == {"one": "one", "two": "one"}


def degrees(west, north, width, height):
    return Grid(int(height * 100), int(width * 100), (0.01, 0, west, 0, -0.01, north), "EPSG:4326")


def test_the_edge_of_a_wide_tile_is_a_parallel_and_no_straight_line():
    tile, below = degrees(-100, 50, 10, 10), degrees(-100, 40, 10, 10)
    scene = Grid(400, 400, (12.5, 0, 462_000, 0, -12.5, 4_436_000), "EPSG:32615")  # from 40.03 to 40.07 degrees north
    assert overlap(tile, scene) and overlap(scene, tile) and not overlap(below, scene)
    arctic = {"one": degrees(0, 80, 20, 10), "two": degrees(0, 70.1, 20, 10), "far": degrees(0, 59.9, 20, 10)}
    assert ground_keys(arctic) == {"far": "far", "one": "one", "two": "one"}
    overlap(degrees(0, 60, 360, 120), scene)  # around the Earth: no answer is right, but there is one
