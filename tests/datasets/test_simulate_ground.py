"""The simulated world and how each sensor maps it: known ground in, known image out."""

import numpy as np
import pytest
from tidemark.datasets.simulate import backscatter, dswe, ice, landsat8, optics, radar, sentinel2, world
from tidemark.datasets.simulate.optics import Sky, Sun

SUN = Sun(50.0, 140.0)


@pytest.fixture(scope="module")
def ground():
    return world.make_world(np.random.default_rng(0), 192, 10.0, "hills", 0.1)


def flat_world(size, pixel_m, water):
    """Level bare soil with water where a mask says so."""
    zero = np.zeros((size, size), np.float32)
    cover = np.where(water, world.WATER, world.SOIL).astype(np.uint8)
    return world.World(pixel_m, zero, water, zero, cover, zero, zero.astype(bool), zero + 0.1, zero + 1, zero, zero)


def test_lakes_are_level_and_hand_counts_from_the_drainage(ground):
    assert ground.water.any() and (ground.hand_m[ground.water] == 0).all() and (ground.hand_m >= 0).all()
    assert ((ground.cover == world.WATER) == ground.water).all()
    assert ground.hand_m[~ground.water].max() > 10
    assert not (ground.bare & (ground.cover != world.CROPS)).any()


def test_hand_follows_the_flow_and_not_the_shortest_way():
    # two valleys, the right one deeper; a ridge between them that drains to the left one alone
    heights = np.array([[9.0, 8.0, 7.0, 1.0]] * 3)
    receiver = np.array([0, 0, 1, 3, 4, 4, 5, 7, 8, 8, 9, 11])
    drainage = np.array([[True, False, False, True]] * 3)
    order = np.argsort([0, 1, 2, 0, 0, 1, 2, 0, 0, 1, 2, 0], kind="stable")
    base = world._hand(heights, receiver, order, drainage)
    np.testing.assert_array_equal(base, [[9, 9, 9, 1]] * 3)


def test_flat_ground_shows_its_sigma0_and_gamma0_everywhere():
    view = radar.View(35.0, 37.0, True)
    arguments = (np.full((1, 120, 160), 0.1), np.zeros((120, 160)), view, 10.0)
    for flatten, expected in ((False, 0.1), (True, 0.1 / np.cos(np.deg2rad(36)))):
        shown, layover, shadow = radar.image(*arguments, np.random.default_rng(0), 1e3, -60.0, 10.0, flatten=flatten)
        assert shown[0, :, 5:-5].mean() == pytest.approx(expected, rel=0.01)
        assert not layover.any() and not shadow.any()


@pytest.mark.parametrize("looks_east", [True, False])
def test_layover_lies_before_a_peak_and_shadow_behind_it(looks_east):
    x = np.arange(200)
    peak = np.maximum(0, 600 - 30 * np.abs(x - 100.0))[None].repeat(20, 0)  # slopes of 72 degrees
    view = radar.View(40.0, 40.0, looks_east)
    shown, layover, shadow = radar.image(
        np.full((1, 20, 200), 0.1), peak, view, 10.0, np.random.default_rng(0), 1e3, -40.0, 10.0
    )
    shown, layover, shadow = (a[..., :: 1 if looks_east else -1] for a in (shown[0], layover, shadow))
    assert layover[10, 82:98].all() and not layover[10, :20].any()
    assert shadow[10, 102:149].all() and not shadow[10, :80].any()
    assert not shadow[10, 152:].any()  # 600 m tan 40 degrees = 50 pixels
    # the foot of the peak, its near slope and the ground behind all add up in the same slant range
    assert shown[10, 85:95].mean() > 2 * shown[10, :20].mean()
    assert backscatter.decibel(shown[10, 125:145].mean()) < -35  # noise


def test_the_two_orbits_see_opposite_slopes():
    slope = np.tile(np.maximum(0, 200 - 8 * np.abs(np.arange(101) - 50.0)), (30, 1))
    east, west = (radar.local_geometry(slope, radar.View(38, 38, e), 10.0)[0] for e in (True, False))
    np.testing.assert_allclose(east, west[:, ::-1], atol=1e-4)
    assert east[0, 40] < 38 < east[0, 60] and west[0, 40] > 38 > west[0, 60]


def test_l_band_water_is_dark_and_follows_the_wind():
    hh, hv = radar.water_l(39.0, np.array([1.0, 3.0, 7.0, 20.0]))
    level = backscatter.decibel(hh)
    assert (np.diff(level) > 0).all() and -36 < level[0] and level[-1] < -15 and (hv < hh / 10).all()
    assert backscatter.decibel(radar.water_hh(1.0, 40.0)) == pytest.approx(-4.57, abs=0.01)  # by hand


def test_mixed_pixels_hold_the_share_of_each_cover():
    water = np.zeros((240, 240), bool)
    water[:, :120] = True
    here = flat_world(240, 5.0, water)
    whole = optics.reflectance(here, SUN)[3]
    mixed = optics.resample(whole, 5.0, (0.0, 15.0), 30.0, (39, 39), 1e-3)
    assert mixed[5, 2] == pytest.approx(whole[0, 0]) and mixed[5, 35] == pytest.approx(whole[0, -1])
    blurred = optics.resample(whole, 5.0, (0.0, 0.0), 30.0, (40, 40), 14.8)
    # the edge lies between columns 19 and 20: both sides mix alike
    assert blurred[5, 19] + blurred[5, 20] == pytest.approx(whole[0, 0] + whole[0, -1], rel=1e-3)
    assert whole[0, 0] < blurred[5, 19] < blurred[5, 20] < whole[0, -1]


def test_a_clouds_shadow_falls_away_from_the_sun():
    sky = optics.clouds(np.random.default_rng(3), 300, 10.0, 0.1, Sun(45.0, 180.0))  # sun in the south
    assert 0.03 < (sky.opacity > 0.1).mean() < 0.15
    length = round(optics.CLOUD_HEIGHT_M / 10.0)
    np.testing.assert_array_equal(sky.shadow[:-length] > 0.06, sky.opacity[length:] > 0.06)
    assert (optics.clouds(np.random.default_rng(3), 64, 10.0, 0.0, SUN).opacity == 0).all()


def test_scan_line_gaps_lose_what_landsat_7_lost():
    lost = [dswe.scan_line_gaps((640, 200), share, 10.0, 0.3).mean() for share in np.linspace(0, 1, 41)]
    assert np.mean(lost) == pytest.approx(0.22, abs=0.04)  # 22 % of a scene
    assert lost[0] == 0 and max(lost) == pytest.approx(450 / 960, abs=0.05)


def test_dswe_codes_of_pure_and_mixed_pixels():
    lake, forest, soil = (np.array(optics.SPECTRA[name], np.float32) for name in ("clear water", "forest", "dry soil"))
    mixes = np.stack([lake, 0.5 * lake + 0.5 * forest, forest, soil], 1)[:, None]
    codes = dswe.INTERPRETATION[dswe.diagnostic_tests(mixes)][0]
    assert codes[0] == 1 and codes[1] in (3, 4) and codes[2] == codes[3] == 0
    assert sorted(set(dswe.INTERPRETATION.tolist())) == [0, 1, 2, 3, 4]


def test_landsat_differs_from_sentinel_by_the_published_band_passes():
    slope, offset = landsat8.BANDPASS[0]
    assert (slope, offset) == (0.9778, -0.0040) and len(landsat8.BANDPASS) == 6
    assert -2 * np.log(sentinel2.MTF_AT_NYQUIST) == pytest.approx((np.pi * sentinel2.SIGMA_PX) ** 2)


@pytest.mark.parametrize(
    ("zone", "column", "row", "name", "corner"),
    [(31, 3, 49, "31TCJ", (300_000, 4_900_020)), (43, 7, 10, "43PGK", (699_960, 1_000_020)),
     (32, 5, 52, "32TNS", (499_980, 5_200_020)), (15, 6, 36, "15SXR", (600_000, 3_600_000))],
)  # fmt: skip
def test_sentinel_2_tiles_have_their_real_names_and_corners(zone, column, row, name, corner):
    found = sentinel2.tile_corner(column, row)
    assert found == corner and sentinel2.tile_name(zone, *found) == name


def test_ice_covers_one_side_of_its_edge_and_floes_have_all_sizes():
    from scipy import ndimage

    scene = ice.make_ice(np.random.default_rng(4), 256, 40.0)
    sea = scene.kind < ice.SNOW
    frozen = sea & (scene.kind != ice.WATER)
    assert frozen[sea & (scene.share > 0.9)].mean() > 0.8 and frozen[sea & (scene.share < 0.02)].mean() < 0.15
    assert (scene.height_m[sea] == 0).all() and scene.height_m.max() > 100
    sizes = np.bincount(ndimage.label(frozen)[0].ravel())[1:]
    assert sizes.max() > 20 * np.median(sizes)


def test_skies_darken_and_brighten_what_lies_below():
    surface = np.full((6, 4, 4), 0.1, np.float32)
    full, none = np.ones((4, 4), np.float32), np.zeros((4, 4), np.float32)
    assert (optics.through_sky(surface, Sky(full, none)) > 0.3).all()
    assert (optics.through_sky(surface, Sky(none, full)) < 0.05).all()
    np.testing.assert_array_equal(optics.through_sky(surface, Sky(none, none)), surface)
