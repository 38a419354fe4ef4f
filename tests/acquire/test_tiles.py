"""Tiles of the global layers, worked out by hand."""

from __future__ import annotations

import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from tidemark.datasets.acquire.tiles import bounds, gfc_tiles, hand_tiles, tiles_of
from tidemark.errors import InputError


def corners(names):
    return [name.removeprefix("Hansen_GFC-2020-v1.8_first_").removesuffix(".tif") for name in names]


def degrees(names):
    short = [name.removeprefix("Copernicus_DSM_COG_10_").removesuffix("_00_HAND.tif") for name in names]
    return [name.replace("_00_", " ") for name in short]


@pytest.mark.parametrize(
    "box, expected",
    [
        ((-90.5, 35.2, -90.1, 35.6), ["40N_100W"]),  # north-west
        ((12.1, 41.2, 12.9, 41.9), ["50N_010E"]),  # north-east
        ((-60.4, -3.4, -60.1, -3.1), ["00N_070W"]),  # south-west: the top of 0…-10 is 00N
        ((151.0, -33.9, 151.2, -33.7), ["30S_150E"]),  # south-east
        ((-0.5, 5.0, 0.5, 6.0), ["10N_000E", "10N_010W"]),  # Greenwich
        ((20.5, -0.5, 21.5, 0.5), ["00N_020E", "10N_020E"]),  # equator
        ((-90.0, 30.0, -80.0, 40.0), ["40N_090W"]),  # a whole tile touches its neighbours and needs none of them
        ((-90.001, 30.0, -80.0, 40.001), ["40N_090W", "40N_100W", "50N_090W", "50N_100W"]),
        ((179.5, -17.5, -179.5, -16.5), ["10S_170E", "10S_180W"]),  # Fiji: across the antimeridian
        ((-180.0, 51.0, -179.0, 52.0), ["60N_180W"]),
        ((179.0, 51.0, 180.0, 52.0), ["60N_170E"]),
        ((10.0, 50.0, 10.0, 50.0), ["60N_010E"]),  # a point on a corner belongs to one tile
        ((10.0, 79.0, 11.0, 81.0), ["80N_010E"]),  # nothing north of 80 N
        ((10.0, -62.0, 11.0, -58.0), ["50S_010E"]),  # nothing south of 60 S
        ((10.0, -70.0, 11.0, -61.0), []),
    ],
)
def test_forest_change_tiles_by_their_top_left_corner(box, expected):
    assert corners(gfc_tiles(box)) == expected


@pytest.mark.parametrize(
    "box, expected",
    [
        ((-90.5, 35.2, -90.1, 35.6), ["N35 W091"]),
        ((12.1, 41.2, 12.9, 41.9), ["N41 E012"]),
        ((-60.4, -3.4, -60.1, -3.1), ["S04 W061"]),
        ((151.3, -33.9, 151.6, -33.7), ["S34 E151"]),
        ((-0.5, 5.2, 0.5, 5.8), ["N05 E000", "N05 W001"]),
        ((20.2, -0.5, 20.8, 0.5), ["N00 E020", "S01 E020"]),
        # tiles lie half a pixel (0.5") north and west of their degrees
        ((10.0, 50.0, 10.9, 50.9), ["N49 E010", "N50 E010"]),
        ((10.0, 50.001, 11.0, 51.0), ["N50 E010", "N50 E011"]),
        ((10.0, 50.001, 10.9998, 51.0001), ["N50 E010"]),
        ((179.5, -17.5, -179.5, -17.2), ["S18 E179", "S18 W180"]),
        ((179.99, 51.2, 180.0, 51.8), ["N51 E179", "N51 W180"]),  # the last half pixel is in the next tile
        ((10.2, 89.5, 10.8, 90.0), ["N89 E010"]),
        ((10.2, -90.0, 10.8, -89.5), ["S90 E010"]),
    ],
)
def test_hand_tiles_by_their_south_west_corner(box, expected):
    assert degrees(hand_tiles(box)) == expected


SHARE, EXTENT = st.floats(0, 1), st.floats(0.001, 3)


@given(st.floats(-179.9, 179.9), st.floats(-59, 79), EXTENT, EXTENT, SHARE, SHARE)
def test_every_point_of_a_box_lies_in_one_of_its_tiles(west, south, width, height, x, y):
    east, north = (west + width + 180) % 360 - 180, min(south + height, 79.9)
    longitude, latitude = (west + x * width + 180) % 360 - 180, south + y * (north - south)
    point = (longitude, latitude, longitude, latitude)
    for names in (gfc_tiles, hand_tiles):
        if names(point):
            # a point on an edge belongs to the tile beyond it, which a box that ends there does not need
            edge = min(abs(v - round(v)) for v in (longitude, latitude)) < 2e-4
            assert set(names(point)) & set(names((west, south, east, north))) or edge


def test_bounds_of_a_footprint_across_the_antimeridian():
    # as CMR writes such a granule: longitudes of both signs
    ring = [(179.6, -17.0), (-179.7, -17.2), (-179.9, -17.9), (179.4, -17.7), (179.6, -17.0)]
    west, south, east, north = bounds(shapely.Polygon(ring))
    assert (west, east) == pytest.approx((179.4, -179.7)) and (south, north) == (-17.9, -17.0)
    assert corners(gfc_tiles((west, south, east, north))) == ["10S_170E", "10S_180W"]
    assert bounds(shapely.box(179, 0, 181, 1)) == (179.0, 0.0, -179.0, 1.0)
    assert bounds(shapely.box(170, 0, 180, 1)) == (170.0, 0.0, 180.0, 1.0)
    assert bounds(shapely.box(-180, 0, -170, 1)) == (-180.0, 0.0, -170.0, 1.0)


def test_tiles_of_several_footprints_come_once():
    assert corners(tiles_of([(1, 1, 2, 2), (3, 1, 4, 2), (11, 1, 12, 2)], gfc_tiles)) == ["10N_000E", "10N_010E"]


@pytest.mark.parametrize("box", [(0, 2, 1, 1), (0, -95, 1, 0), (-200, 0, 1, 1), (0, 0, float("nan"), 1)])
def test_what_is_no_box_is_refused(box):
    with pytest.raises(InputError):
        gfc_tiles(box)
