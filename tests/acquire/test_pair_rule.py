"""The pair rule: a table of 20 cases made by hand, and its measurement from tiles."""

from __future__ import annotations

import datetime
from contextlib import contextmanager

import numpy as np
import pytest
import rasterio
import shapely
from tidemark.datasets.acquire import dswe
from tidemark.datasets.acquire.pair_rule import Measured, choose
from tidemark.datasets.acquire.stac import Scene
from tidemark.errors import SceneError

SAR = datetime.date(2007, 7, 10)


def day(offset):
    return SAR + datetime.timedelta(days=offset)


def counts(land=0, water=0, moderate=0, partial=0, wetland=0, cloud=0, fill=0):
    found = np.zeros(256, np.int64)
    found[[0, 1, 2, 3, 4, 9, 255]] = land, water, moderate, partial, wetland, cloud, fill
    return found


GOOD = {"land": 80, "water": 20}
# cloud per cent of the tiles, codes in the footprint by days from the SAR image -> the day that is taken, or why not
TABLE = [
    ("same day", {0: (0, GOOD)}, 0),
    ("a day before", {-1: (0, GOOD)}, -1),
    ("a day after", {1: (0, GOOD)}, 1),
    ("two days are too many", {-2: (0, GOOD), 2: (0, GOOD)}, "no DSWE within 1 day"),
    ("no DSWE at all", {}, "no DSWE within 1 day"),
    ("the nearest wins", {-1: (0, GOOD), 0: (0, GOOD), 1: (0, GOOD)}, 0),
    ("of two as near the earlier", {1: (0, GOOD), -1: (0, GOOD)}, -1),
    ("cloud just below 30 %", {0: (29.9, GOOD)}, 0),
    ("cloud of 30 %", {0: (30, GOOD)}, "30% cloud, it must be below 30%"),
    ("half valid", {0: (0, {"land": 45, "water": 5, "cloud": 20, "fill": 30})}, 0),
    ("just less than half valid", {0: (0, {"land": 449, "water": 50, "cloud": 250, "fill": 251})}, "50% of the SAR f"),
    ("partial water is valid", {0: (0, {"land": 10, "water": 5, "partial": 20, "wetland": 15, "fill": 50})}, 0),
    ("5 % water", {0: (0, {"land": 95, "water": 5})}, 0),
    ("5 % of a footprint where 0.05 x 140 is above 7", {0: (0, {"land": 133, "water": 7})}, 0),
    ("just less than 5 % water", {0: (0, {"land": 951, "water": 49})}, "4.9% of the SAR footprint water"),
    ("moderate water counts", {0: (0, {"land": 95, "water": 2, "moderate": 3})}, 0),
    ("partial water is no water", {0: (0, {"land": 50, "water": 4, "partial": 46})}, "4.0% of the SAR footprint water"),
    ("water counts against the whole footprint", {0: (0, {"land": 46, "water": 4, "fill": 50})}, "4.0% of the SAR"),
    ("a cloudy day gives way to the next", {0: (45, GOOD), 1: (10, GOOD)}, 1),
    ("no data in the footprint", {0: (0, {}), 1: (50, GOOD)}, "the SAR image has no data"),
]


@pytest.mark.parametrize("dates, expected", [case[1:] for case in TABLE], ids=[case[0] for case in TABLE])
def test_the_table_of_20_cases(dates, expected):
    shown = {day(d): Measured(cloud / 100, counts(**codes)) for d, (cloud, codes) in dates.items()}
    choice = choose(SAR, {date: [date] for date in shown}, lambda tiles: shown[tiles[0]])
    if isinstance(expected, str):
        assert choice.date is None and expected in choice.reason and choice.tiles == ()
    else:
        assert choice.date == day(expected) and choice.tiles == (day(expected),) and choice.reason == ""


def test_there_are_20_cases():
    assert len(TABLE) == 20


def test_dates_beyond_the_first_that_will_do_are_not_looked_at():
    asked = []
    choose(SAR, {day(1): ["b"], day(0): ["a"]}, lambda t: asked.append(t) or Measured(0, counts(**GOOD)))
    assert asked == [["a"]]


def scene(name, place="018010", date="20070710", processed="20210502"):
    file = f"LE07_CU_{place}_{date}_{processed}_02_INWAM.TIF"
    time = datetime.datetime.strptime(date, "%Y%m%d").replace(tzinfo=datetime.UTC)
    return Scene(name, time, shapely.box(-91, 34, -90, 35), 0.0, None, {}, {"inwam": f"https://x/{file}?a=1"}, {}, {})


@pytest.fixture
def tiles(tmp_path):
    """Tiles of 200 x 200 pixels side by side on one Albers grid; ``put(name, column, pixels)``, then ``open_tile``."""
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "crs": "EPSG:5070", "nodata": 255}
    opened = []

    class Tiles:
        def put(self, item, column, pixels, **changed):
            place = rasterio.Affine(30, 0, 480_000 + 30 * column, 0, -30, 1_330_000)
            path = tmp_path / dswe.file_name(item)[0]
            size = {"height": pixels.shape[0], "width": pixels.shape[1], "transform": place}
            with rasterio.open(path, "w", **profile | size | changed) as dataset:
                dataset.write(pixels, 1)

        @contextmanager
        def open_tile(self, url):
            opened.append(url)
            with rasterio.open(tmp_path / url.split("?")[0].rsplit("/", 1)[-1]) as dataset:
                yield dataset

        def footprint(self, left, top, width, height):
            """A rectangle of pixels of the grid, in degrees."""
            box = (480_000 + 30 * left, 1_330_000 - 30 * (top + height), 480_000 + 30 * (left + width))
            corners = shapely.box(box[0], box[1], box[2], 1_330_000 - 30 * top)
            from rasterio.warp import transform_geom

            there = transform_geom("EPSG:5070", "EPSG:4326", shapely.geometry.mapping(shapely.segmentize(corners, 300)))
            return shapely.geometry.shape(there)

    return Tiles()


def test_tiles_of_one_date_are_put_together_and_ground_without_a_tile_is_fill(tiles):
    a, b = scene("a", "018010"), scene("b", "019010")
    tiles.put(a, 0, np.full((200, 200), 1, np.uint8))
    right = np.zeros((200, 200), np.uint8)
    right[:, 150:] = 9
    tiles.put(b, 200, right)
    shown = dswe.measure([a, b], tiles.footprint(100, -20, 200, 60), tiles.open_tile)
    # 200 x 60 pixels, of which 20 rows lie above both tiles: 100 x 40 of each tile
    np.testing.assert_allclose(shown.counts[[0, 1, 255]], [4000, 4000, 4000], rtol=0.03)
    assert shown.counts[9] == 0
    assert shown.cloud == 10_000 / 80_000  # of the whole tiles, the footprint apart
    assert shown.shares == pytest.approx((0.667, 0.333), abs=0.02)


def test_where_tiles_overlap_the_first_with_data_counts(tiles):
    a, b = scene("a", "018010"), scene("b", "018010", processed="20210503")
    gaps = np.zeros((200, 200), np.uint8)
    gaps[::2] = 255
    tiles.put(a, 0, gaps)
    tiles.put(b, 0, np.full((200, 200), 1, np.uint8))
    shown = dswe.measure([a, b], tiles.footprint(50, 50, 100, 100), tiles.open_tile)
    np.testing.assert_allclose(shown.counts[[0, 1, 255]], [5000, 5000, 0], rtol=0.03)


def test_only_the_last_processing_of_several_is_kept_and_other_names_are_left_out():
    old, new = scene("old", processed="20200101"), scene("new", processed="20210502")
    other = scene("other", date="20070711")
    nameless = Scene("x", old.time, old.footprint, 0.0, None, {}, {"inwam": "https://x/y.TIF"}, {}, {})
    found = dswe.by_date([old, other, nameless, new])
    assert {d: [s.id for s in scenes] for d, scenes in found.items()} == {day(0): ["new"], day(1): ["other"]}
    assert (
        dswe.item_of(new).path
        == "dswe/LE07_CU_018010_20070710_20210502_02_DSWE/LE07_CU_018010_20070710_20210502_02_INWAM.TIF"
    )


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"dtype": "int16"}, "not DSWE"),
        ({"transform": rasterio.Affine(30, 0, 480_010, 0, -30, 1_330_000)}, "different grids"),
        ({"transform": rasterio.Affine(60, 0, 480_000, 0, -60, 1_330_000)}, "different pixels"),
    ],
)
def test_a_tile_that_does_not_fit_the_others_is_refused(tiles, changed, words):
    a, b = scene("a", "018010"), scene("b", "019010")
    tiles.put(a, 0, np.zeros((200, 200), np.uint8))
    tiles.put(b, 200, np.zeros((200, 200), np.uint8), **changed)
    with pytest.raises(SceneError, match=words):
        dswe.measure([a, b], tiles.footprint(100, 50, 150, 50), tiles.open_tile)
