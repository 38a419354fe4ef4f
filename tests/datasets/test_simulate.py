import json
import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from tidemark.datasets import polygons, raster
from tidemark.datasets.build_spec import load_spec
from tidemark.datasets.simulate import backscatter, scenes, simulate_scenes, terrain
from tidemark.errors import InputError

SIZE = 128
DATA = Path(os.environ.get("TIDEMARK_DATA", Path(__file__).resolve().parents[2] / ".." / "shared" / "data"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("scenes")
    simulate_scenes(out, scenes=4, size=SIZE, seed=3)
    return out


@pytest.fixture(scope="module")
def several():
    """A dozen scenes with what they show."""
    return [scenes.simulate_scene(5, index, 256, 4.4) for index in range(12)]


def test_the_same_seed_gives_the_same_files(folder, tmp_path):
    simulate_scenes(tmp_path, scenes=4, size=SIZE, seed=3)
    names = sorted(p.name for p in folder.iterdir())
    assert names == sorted(p.name for p in tmp_path.iterdir()) and len(names) == 2 * 4 + 2
    for name in names:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


def test_a_scene_does_not_depend_on_how_many_there_are(folder, tmp_path):
    simulate_scenes(tmp_path, scenes=2, size=SIZE, seed=3)
    for path in [*tmp_path.glob("*.tif"), *tmp_path.glob("*.gpkg")]:
        assert path.read_bytes() == (folder / path.name).read_bytes(), path.name


def test_another_seed_gives_another_scene():
    one, two = (scenes.simulate_scene(seed, 0, 64, 4.4)[0] for seed in (1, 2))
    assert not np.array_equal(one, two)


def test_files_say_what_they_are(folder):
    listing = json.loads((folder / "scenes.json").read_text())
    assert "SIMULATED" in listing["notice"]
    for info in listing["scenes"]:
        with raster.open_raster(folder / f"S1SIM_{info['id']}_{info['date']}.tif") as dataset:
            assert dataset.descriptions == ("VV", "VH") and dataset.nodata == 0 and dataset.block_shapes[0][1] == 256
            assert dataset.dtypes == ("float32", "float32") and dataset.res == (10, 10)
            assert dataset.crs.to_epsg() == info["epsg"] and dataset.tags()["SIMULATED"] == "YES"
            assert "SIMULATED" in dataset.tags()["TIFFTAG_IMAGEDESCRIPTION"]
            assert np.isfinite(dataset.read()).all()


def test_polygons_rasterise_to_the_truth(folder):
    _, water, info = scenes.simulate_scene(3, 1, SIZE, 4.4)
    grid = raster.Grid(SIZE, SIZE, info.transform, rasterio.CRS.from_epsg(info.epsg).to_wkt())
    found = polygons.read_polygons(folder / "001_water.gpkg", grid, value=1).rasterise(grid, (0, 0, SIZE, SIZE))
    assert water.any()
    np.testing.assert_array_equal(found == 1, water)


def test_scenes_share_no_ground():
    infos = [scenes.simulate_scene(9, index, 64, 4.4)[2] for index in (0, 1, 19, 20, 21)]
    side = scenes.MAX_SIZE_PX * scenes.PIXEL_M
    for i, a in enumerate(infos):
        for b in infos[:i]:
            assert a.epsg != b.epsg or abs(a.origin[1] - b.origin[1]) > side
        assert 166_000 < a.origin[0] and a.origin[0] + side < 834_000  # inside the zone: other zones cannot overlap


def test_the_specification_beside_the_scenes_is_valid(folder):
    spec = load_spec(folder / "spec.yaml")
    assert spec.simulated and spec.splits.scenes == {"train": ("000", "001"), "val": ("002",), "test": ("003",)}


@pytest.mark.parametrize("given", [(1, None, None), (2, None, None), (3, None, None), (7, None, None), (6, 0, 4),
                                   (7, 2, None), (6, None, 4)])  # fmt: skip
def test_every_scene_is_in_one_split_and_some_are_for_training(tmp_path, given):
    number, val, test = given
    simulate_scenes(tmp_path, scenes=number, size=64, seed=1, val=val, test=test, name="chosen-name")
    spec = load_spec(tmp_path / "spec.yaml")
    lists = spec.splits.scenes
    assert spec.name == "chosen-name" and spec.title == "Simulated Sentinel-1 water" and list(lists["train"])
    assert [i for ids in lists.values() for i in ids] == [f"{i:03d}" for i in range(number)]
    assert number < 3 or val == 0 or set(lists) == {"train", "val", "test"}
    for split, count in (("val", val), ("test", test)):
        assert count is None or len(lists.get(split, ())) == count


@pytest.mark.parametrize(
    "wrong", [dict(scenes=0), dict(size=66), dict(size=32), dict(size=10**6), dict(seed=-1), dict(looks=0),
              dict(scenes=4, val=1, test=3), dict(scenes=4, val=-1), dict(name="A b"), dict(name="../x")]
)  # fmt: skip
def test_numbers_out_of_range_are_refused(tmp_path, wrong):
    with pytest.raises(InputError):
        simulate_scenes(tmp_path, **({"scenes": 1, "size": 64, "seed": 0} | wrong))
    assert not list(tmp_path.iterdir())


def test_speckle_has_the_stated_looks_and_is_correlated():
    field = backscatter.speckle(np.random.default_rng(0), (600, 600), 4.4)
    assert field.min() > 0 and field.mean() == pytest.approx(1, abs=0.01)
    assert 1 / field.var() == pytest.approx(4.4, rel=0.03)
    assert 0.3 < np.corrcoef(field[:, 1:].ravel(), field[:, :-1].ravel())[0, 1] < 0.6
    assert abs(np.corrcoef(field[:, 3:].ravel(), field[:, :-3].ravel())[0, 1]) < 0.02


def test_homogeneous_ground_shows_its_sigma0_plus_noise():
    shown = backscatter.observe(np.full((400, 400), 0.1), np.random.default_rng(0), 4.4, noise_floor_db=-20)
    assert backscatter.linear(shown).mean() == pytest.approx(0.11, rel=0.01)


@pytest.mark.parametrize(
    ("wind", "direction", "incidence", "sigma0"),
    [(5, 0, 30, 0.0499061097), (10, 0, 40, 0.0507391245), (10, 90, 40, 0.0160263845), (3, 45, 45, 0.0032868403),
     (15, 180, 35, 0.1353652778)],
)  # fmt: skip
def test_cmod5n_gives_the_figures_of_the_reference_code(wind, direction, incidence, sigma0):
    """Figures of a port of KNMI's Fortran code."""
    assert backscatter.cmod5n(incidence, wind, direction) == pytest.approx(sigma0, rel=1e-8)


def test_water_brightens_with_wind_and_darkens_with_incidence():
    assert (np.diff(backscatter.cmod5n(35.0, np.array([2, 5, 10, 20.0]), 0.0)) > 0).all()
    assert np.diff(backscatter.cmod5n(np.array([25, 35, 45.0]), 8.0, 45.0)).max() < 0
    up, cross, down = (backscatter.cmod5n(40.0, 10.0, phi) for phi in (0, 90, 180))
    assert up > down > cross


def test_soil_follows_oh_1992():
    vv, vh = backscatter.bare_soil(40.0, np.array([0.2, 0.5, 1.0, 2.0]), 0.2)
    assert (np.diff(vv) > 0).all() and (vh < vv / 3).all()
    assert backscatter.bare_soil(40.0, 1.0, 0.3)[0] > backscatter.bare_soil(40.0, 1.0, 0.1)[0]
    dry_sand = backscatter.decibel(backscatter.bare_soil(38.0, 0.25, 0.02)[0])
    calm_water = backscatter.decibel(backscatter.cmod5n(38.0, 2.5, 45.0))
    assert abs(dry_sand - calm_water) < 5  # the look-alike
    assert backscatter.soil_permittivity(0) == pytest.approx(3.03)


def test_slopes_change_incidence_and_cast_shadow():
    ridge = np.zeros((3, 60))
    ridge[:, 20:30], ridge[:, 30:35] = np.linspace(0, 100, 10), np.linspace(100, 0, 5)
    local, shadow = backscatter.local_incidence(ridge, np.full((3, 60), 45.0), 10.0)
    assert (local[:, 22:28] < 10).all() and (local[:, 31:34] > 89 - 1e-6).all() and (local[:, 50] == 45).all()
    assert shadow[:, 31:36].all() and not shadow[:, :30].any() and not shadow[:, 45:].any()


def test_lakes_fill_depressions_to_a_level():
    height = np.full((40, 40), 10.0, np.float32)
    height[10:20, 10:20] = 2.0
    height[5, 30] = 3.0
    filled, receiver, order = terrain.drain(height)
    assert (filled[10:20, 10:20] == 10).all() and (filled >= height).all() and len(set(order.tolist())) == 1600
    assert (np.flatnonzero(receiver == np.arange(1600)) >= 39 * 40).all()  # water leaves over the last row alone
    flow = terrain.accumulate(receiver, order, np.ones((40, 40)))
    assert flow[39 * 40 :].sum() == 1600
    lakes = terrain.lakes(height, height, filled, share=0.0625, least_px=12)
    assert lakes[10:20, 10:20].all() and lakes.sum() == 100  # the single deep pixel is too small a lake


def test_rivers_run_without_gaps_to_the_outlet():
    from scipy.ndimage import label

    valley = np.abs(np.arange(32) - 16)[None] + np.linspace(20, 0, 32)[:, None]
    _, receiver, order = terrain.drain(valley)
    supply = np.zeros((32, 32))
    supply[0, 16] = 5000
    flow = terrain.accumulate(receiver, order, supply)
    river = terrain.rivers(receiver, flow, (32, 32), 4, np.random.default_rng(0), 10.0, 200)
    parts, n = label(river, np.ones((3, 3)))
    assert n == 1 and river[:8].any() and river[-8:].any()
    width_m = 7.2 * np.sqrt(0.01 * 5000)
    assert river.sum() * 100 == pytest.approx(width_m * 1280, rel=0.35)  # area = width x length, meanders aside


def test_scenes_are_hard_in_the_ways_they_claim(several):
    """Look-alikes as dark as water, water as bright as land, shadow and wedges, all somewhere in a dozen scenes."""
    infos = [info for _, _, info in several]
    assert {i.relief for i in infos} == set(scenes.RELIEF_M) and {i.orbit for i in infos} == {"ascending", "descending"}
    assert all(0.005 < (water := i.shares["water"]) < 0.45 for i in infos), water
    assert max(i.shares["dark sand"] for i in infos) > 0.05
    assert max(i.shares["radar shadow"] for i in infos) > 0.001
    assert sum(i.shares["no data"] > 0 for i in infos) >= 2
    medians = []
    for image, water, _ in several:
        valid = image[0] != 0
        assert ((image[0] == 0) == (image[1] == 0)).all()
        lake = image[0][water & valid]
        medians.append(np.median(lake))
        dark_land = (image[0] < medians[-1]) & ~water & valid
        assert dark_land.sum() > 0.001 * valid.sum()
    assert max(medians) - min(medians) > 5  # dB, by wind and incidence


def _real_backscatter():
    """(name, VV and VH of water, VV and VH of land) of real Sentinel-1 chips with labels."""
    chips = []
    with raster.open_raster(DATA / "sen1floods11" / "Spain_7370579_S1Hand.tif") as dataset:
        image = dataset.read()
    with raster.open_raster(DATA / "sen1floods11" / "Spain_7370579_LabelHand.tif") as dataset:
        label = dataset.read(1)
    chips.append((image, label == 1, label == 0))
    for path in sorted((DATA / "terramesh" / "S1RTC").glob("*.tif")):
        with raster.open_raster(path) as dataset:
            image = dataset.read()
        with raster.open_raster(DATA / "terramesh" / "LULC" / path.name) as dataset:
            cover = dataset.read(1)
        water = (cover == 1) if path.stem == "282D_485L_3_3" else np.zeros(cover.shape, bool)
        chips.append((image, water, np.isin(cover, (2, 3, 4, 5))))
    return chips


@pytest.mark.skipif(not DATA.is_dir(), reason=f"real data not found in {DATA} (TIDEMARK_DATA names another folder)")
def test_simulated_backscatter_lies_where_real_sentinel_1_does(several):
    """Medians of simulated water and land fall into the range of the real chips, widened by 3 dB."""
    for band, name in enumerate(("VV", "VH")):
        for what in (1, 2):
            real = [np.nanmedian(chip[0][band][chip[what]]) for chip in _real_backscatter() if chip[what].sum() > 2000]
            simulated = []
            for image, water, _ in several:
                valid = image[0] != 0
                simulated.append(np.median(image[band][(water if what == 1 else ~water) & valid]))
            label = (
                f"{name} {('water', 'land')[what - 1]}: simulated {np.round(simulated, 1)}, real {np.round(real, 1)}"
            )
            assert np.median(simulated) > min(real) - 3, label
            assert np.median(simulated) < max(real) + 3, label
    # the spread within land: speckle and cover together
    spread = [np.nanstd(chip[0][0][chip[2]]) for chip in _real_backscatter() if chip[2].sum() > 2000]
    found = [np.std(image[0][~water & (image[0] != 0)]) for image, water, _ in several]
    assert min(spread) - 1 < np.median(found) < max(spread) + 2
