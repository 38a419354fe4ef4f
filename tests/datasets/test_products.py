"""Simulated products have the folders, names, types and values of the archives', and show one ground to all sensors."""

import json
import re
import shutil
import subprocess
import sys

import geopandas
import numpy as np
import pytest
import rasterio
from rasterio import features
from rasterio.vrt import WarpedVRT
from scipy import ndimage
from tidemark.datasets import raster
from tidemark.datasets.products import is_simulated
from tidemark.datasets.simulate import alos_dswe, ancillary, dswe, l8s2, sentinel2
from tidemark.datasets.simulate.l8s2 import simulate_l8s2
from tidemark.datasets.simulate.products import MAX_SCENES, PRODUCTS, refuse_options, simulate_product
from tidemark.datasets.simulate.tibet import scene_numbers
from tidemark.datasets.simulate.world import SAND, make_world
from tidemark.errors import InputError, StorageError

SIZES = {"alos-dswe": 160, "tibet-water": 160, "polar-ice": 192, "l8s2": 128}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One folder for each product, two scenes each (tibet: the numbers 1 and 8)."""
    root = tmp_path_factory.mktemp("products")
    for name, size in SIZES.items():
        simulate_product(name, root / name, seed=3, scenes=2, size=size)
    return root


def read(path, *bands):
    with raster.open_raster(path, ("GTiff", "JP2OpenJPEG")) as dataset:
        return dataset.read(list(bands) or None).squeeze()


def files_of(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", list(PRODUCTS))
def test_the_same_seed_gives_the_same_files_and_scenes_do_not_depend_on_each_other(folders, tmp_path, name):
    shutil.copytree(folders / name, tmp_path / "two")
    simulate_product(name, tmp_path / "one", seed=3, scenes=1, size=SIZES[name])
    alone = [file for file in files_of(tmp_path / "one") if file.name != "simulation.json"]
    alone = [file for file in alone if "gfc" not in file.parts and "hand" not in file.parts]  # tiles of many scenes
    assert len(alone) > 1
    for file in alone:
        assert (tmp_path / "one" / file).read_bytes() == (folders / name / file).read_bytes(), file


@pytest.mark.parametrize("name", list(PRODUCTS))
def test_every_folder_says_that_it_is_simulated(folders, name):
    facts = json.loads((folders / name / "simulation.json").read_text())
    assert "SIMULATED" in facts["notice"] and facts["product"] == name and facts["seed"] == 3
    for path in folders.joinpath(name).rglob("*.[tT][iI][fF]"):
        with raster.open_raster(path) as dataset:
            assert dataset.tags()["SIMULATED"] == "YES" and dataset.crs is not None


def test_simulated_products_beside_others_stay_simulated(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "LC08.TIF").write_bytes(b"")
    assert not is_simulated(tmp_path)
    (tmp_path / "drawn" / "60").mkdir(parents=True)
    (tmp_path / "drawn" / "60" / "simulation.json").write_text("{}")
    assert is_simulated(tmp_path) and is_simulated(tmp_path / "drawn") and not is_simulated(tmp_path / "real")


@pytest.mark.parametrize(
    "wrong", [dict(product="s3"), dict(scenes=0), dict(scenes=121), dict(size=64), dict(size=10**5), dict(seed=-1)]
)
def test_numbers_out_of_range_are_refused(tmp_path, wrong):
    with pytest.raises(InputError):
        simulate_product(**({"product": "l8s2", "out": tmp_path, "scenes": 1, "size": 128} | wrong))
    assert not list(tmp_path.iterdir())


def test_a_folder_with_something_in_it_is_refused(tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(InputError, match="not an empty folder"):
        simulate_product("l8s2", tmp_path, size=128)


def test_options_that_do_not_apply_are_refused():
    refuse_options(name=False, val=None, test=None, looks=False)
    with pytest.raises(InputError, match="--val, --looks"):
        refuse_options(name=False, val=3, test=None, looks=True)


def test_tiles_of_many_scenes_are_the_same_every_time(tmp_path):
    for name in ("one", "two"):
        tiles = {}
        for index in range(2):
            _, world = alos_dswe.ground_of(3, index, 128)
            ancillary.add_hand(tiles, world, alos_dswe._place(index, world.size)[0])
        ancillary.write_tiles(tmp_path / name, tiles, ancillary.HAND_PX, ancillary.HAND_TILE_PX, float("nan"))
    files = files_of(tmp_path / "one")
    assert len(files) >= 2 and files == files_of(tmp_path / "two")
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_what_cannot_be_written_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        simulate_product("polar-ice", tmp_path / "file" / "below", scenes=1, size=128)


def test_scenes_share_no_ground_and_no_names():
    from rasterio.warp import transform

    size = PRODUCTS["alos-dswe"][3] + 2 * alos_dswe.MARGIN_PX
    places = [alos_dswe._place(index, size)[0] for index in range(MAX_SCENES["alos-dswe"])]
    middle = size * alos_dswe.PIXEL_M / 2
    at = [transform(f"EPSG:{p.epsg}", dswe.CRS, [p.west + middle], [p.north - middle]) for p in places]
    x, y = np.array(at)[:, :, 0].T
    apart = np.maximum(np.abs(x[:, None] - x), np.abs(y[:, None] - y)) + 1e9 * np.eye(len(places))
    assert apart.min() > 1.2 * size * alos_dswe.PIXEL_M  # a tenth for the turned grids
    tiles = {sentinel2.tile_name(*l8s2.corner_of(i)) for i in range(MAX_SCENES["l8s2"])}
    assert len(tiles) == MAX_SCENES["l8s2"]


def test_wide_ground_has_a_lake_and_dark_sand_broader_than_a_chip():
    def widest(mask):
        parts = ndimage.find_objects(ndimage.label(mask)[0])
        return max((max(rows.stop - rows.start, columns.stop - columns.start) for rows, columns in parts), default=0)

    worlds = [
        make_world(np.random.default_rng(seed), 512, 10.0, "hills", 0.25, farmed=False, wide=wide)
        for wide in (False, True)
        for seed in (1, 2)
    ]
    water, sand = ([widest(layer) for layer in layers] for layers in zip(
        *((world.water, world.cover == SAND) for world in worlds), strict=True))  # fmt: skip
    assert min(water[2:]) > 256 and min(sand[2:]) > 256 > max(sand[:2])
    with pytest.raises(InputError, match="wide ground is there for tibet-water alone"):
        simulate_product("polar-ice", "never", scenes=1, size=128, wide=True)


def test_the_command_names_the_next_one(tmp_path):
    arguments = ["--product", "polar-ice", "--size", "128", "--scenes", "1", "--out", str(tmp_path / "p")]
    done = subprocess.run(
        [sys.executable, "-m", "tidemark", "simulate", *arguments], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "tidemark build polar-ice --source" in done.stdout


# alos-dswe


def alos(folders):
    folder = sorted((folders / "alos-dswe" / "alos").iterdir())[0]
    return folder, folder.name


def test_palsar_folders_look_like_asfs(folders):
    folder, name = alos(folders)
    assert re.fullmatch(r"AP_\d{5}_FBD_F\d{4}_RT1", name)
    expected = {"_HH.tif": "float32", "_HV.tif": "float32", ".dem.tif": "int16", ".inc_map.tif": "float32",
                ".ls_map.tif": "uint8"}  # fmt: skip
    for suffix, dtype in expected.items():
        with raster.open_raster(folder / f"{name}{suffix}") as dataset:
            assert dataset.dtypes == (dtype,) and dataset.res == (12.5, 12.5) and dataset.nodata is None
            assert 32600 < dataset.crs.to_epsg() < 32661 and dataset.shape == (160, 160)
    hh, hv = (read(folder / f"{name}_{channel}.tif") for channel in ("HH", "HV"))
    assert ((hh == 0) == (hv == 0)).all() and 0.1 < (hh == 0).mean() < 0.25  # the swath leans over the image
    seen = hh > 0
    assert -20 < 10 * np.log10(np.median(hh[seen])) < -8 and np.median(hv[seen]) < np.median(hh[seen]) / 3
    assert re.search(r"<gml:beginPosition>20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ</gml:beginPosition>",
                     (folder / f"{name}.iso.xml").read_text())  # fmt: skip


def test_dswe_tiles_are_those_of_the_us_grid(folders):
    tiles = sorted((folders / "alos-dswe" / "dswe").glob("*_DSWE/*_INWAM.TIF"))
    assert len(tiles) == 3  # the second scene lies across the border of two tiles
    for path in tiles:
        found = re.fullmatch(r"(L[ET]0[57])_CU_(\d{3})(\d{3})_(\d{8})_\d{8}_02_INWAM\.TIF", path.name)
        assert path.parent.name == path.name.replace("INWAM.TIF", "DSWE")
        with raster.open_raster(path) as dataset:
            assert dataset.shape == (5000, 5000) and dataset.dtypes == ("uint8",) and dataset.nodata == 255
            assert dataset.res == (30, 30) and dataset.crs == rasterio.CRS.from_string(dswe.CRS)
            west, north = dataset.transform[2], dataset.transform[5]
            codes = dataset.read(1)
        assert west == -2565585 + 150_000 * int(found[2]) and north == 3314805 - 150_000 * int(found[3])
        assert set(np.unique(codes)) <= {0, 1, 2, 3, 4, 9, 255} and (codes == 255).mean() > 0.9
    neighbours = [re.search(r"CU_(\d{3})", path.name)[1] for path in tiles if path.name.startswith("LE07")]
    assert len(neighbours) == 2 and int(neighbours[1]) == int(neighbours[0]) + 1


def test_landsat_7_has_its_gaps_and_landsat_5_none(folders):
    def filled(path):
        codes = read(path)
        rows, columns = (np.flatnonzero((codes != 255).any(axis)) for axis in (1, 0))
        inside = codes[rows[5] : rows[-5], columns[10] : columns[-10]]
        return (inside == 255).mean()

    tiles = sorted((folders / "alos-dswe" / "dswe").glob("*_DSWE/*_INWAM.TIF"))
    gaps = {path.name[:4]: filled(path) for path in tiles}
    assert gaps["LT05"] < 0.05 < 0.15 < gaps["LE07"] < 0.75


def test_global_layers_are_whole_tiles_that_hold_little(folders):
    (forest,) = (folders / "alos-dswe" / "gfc").iterdir()
    assert forest.name == "Hansen_GFC-2020-v1.8_first_40N_100W.tif"
    with raster.open_raster(forest) as dataset:
        assert dataset.shape == (40_000, 40_000) and dataset.count == 4 and dataset.dtypes[0] == "uint8"
        assert dataset.transform[:6] == (0.00025, 0, -100, 0, -0.00025, 40)
    assert forest.stat().st_size < 20e6
    for path in (folders / "alos-dswe" / "hand").iterdir():
        south, west = re.fullmatch(r"Copernicus_DSM_COG_10_N(\d\d)_00_W(\d{3})_00_HAND\.tif", path.name).groups()
        with raster.open_raster(path) as dataset:
            assert dataset.shape == (3600, 3600) and dataset.dtypes == ("float32",) and np.isnan(dataset.nodata)
            # pixel centres on whole arc seconds: edges half a pixel off the degree
            assert dataset.transform[2] == pytest.approx(-int(west) - 0.5 / 3600)
            assert dataset.transform[5] == pytest.approx(int(south) + 1 + 0.5 / 3600)
            assert np.isnan(dataset.read(1, window=((0, 2), (0, 2)))).all()


def test_all_layers_show_the_same_ground(folders):
    folder, name = alos(folders)
    with raster.open_raster(folder / f"{name}_HV.tif") as dataset:
        hv, grid = dataset.read(1), {"crs": dataset.crs, "transform": dataset.transform, "width": 160, "height": 160}

    def on_sar(paths, fill):
        out = np.full((160, 160), fill, np.float32)
        for path in paths:
            with rasterio.open(path) as dataset, WarpedVRT(dataset, **grid, nodata=dataset.nodata or 0) as view:
                band = view.read(min(2, view.count)).astype(np.float32)
            out = np.where((out == fill) | np.isnan(out), band, out)
        return out

    codes = on_sar(sorted((folders / "alos-dswe" / "dswe").glob("*/*.TIF")), 255)
    nir = on_sar((folders / "alos-dswe" / "gfc").iterdir(), 0)
    hand = on_sar((folders / "alos-dswe" / "hand").iterdir(), np.nan)
    seen = (hv > 0) & (nir > 0) & np.isfinite(hand)
    water, land = seen & np.isin(codes, (1, 2)), seen & (codes == 0)
    assert seen.sum() > 0.7 * hv.size and water.sum() > 100 and land.sum() > 1000
    assert np.median(hv[water]) < np.median(hv[land]) / 3
    assert np.median(nir[water]) < 30 < np.median(nir[land])
    assert np.median(hand[water]) == 0 < np.median(hand[land])


# tibet-water


def test_tibet_scenes_come_in_both_orbits_with_the_published_numbers(folders):
    names = [str(path) for path in files_of(folders / "tibet-water")]
    assert names == ["s1_ascend/scene01_s1_as.tif", "s1_ascend/scene08_s1_as.tif", "s1_descend/scene01_s1_des.tif",
                     "s1_descend/scene08_s1_des.tif", "s1_truth/scene01_truth.gpkg", "s1_truth/scene08_truth.gpkg",
                     "simulation.json"]  # fmt: skip
    assert scene_numbers(39) == list(range(1, 40)) and scene_numbers(6) == [1, 8, 9, 10, 11, 12]
    for number in ("01", "08"):
        grids, images = [], []
        for path in sorted((folders / "tibet-water").glob(f"*/scene{number}_*.tif")):
            with raster.open_raster(path) as dataset:
                assert dataset.dtypes == ("float32",) * 2 and dataset.nodata is None and dataset.res == (10, 10)
                grids.append((dataset.crs, dataset.transform))
                images.append(dataset.read())
        assert grids[0] == grids[1] and not np.array_equal(*images)
        truth = geopandas.read_file(folders / "tibet-water" / "s1_truth" / f"scene{number}_truth.gpkg")
        assert truth.crs == grids[0][0]
        water = features.rasterize(truth.geometry, (160, 160), transform=grids[0][1]) == 1
        for image in images:
            data = (image != 0).all(0)
            # wind may make water as bright as land in VV
            assert np.median(image[1][water & data]) < np.median(image[1][~water & data]) - 1
            assert np.isfinite(image).all() and -40 < image.min() and image.max() < 30


def test_a_scene_may_miss_one_orbit(tmp_path):
    from tidemark.datasets.simulate.tibet import _scene

    paths = _scene(tmp_path, 0, 13, 128, False)
    assert len(paths) == 2 and paths[-1].name == "scene13_truth.gpkg"


# polar-ice


def test_sea_ice_scenes_come_with_their_charts(folders):
    images = sorted((folders / "polar-ice").glob("*.tif"))
    charts = sorted((folders / "polar-ice").glob("*.shp"))
    assert len(images) == len(charts) == 2
    kinds = set()
    for image, path in zip(images, charts, strict=True):
        assert re.fullmatch(r"S1B_EW_GRDM_1SDH_\d{8}T\d{6}_\d{8}T\d{6}_\d{6}_[0-9A-F]{6}_[0-9A-F]{4}\.tif", image.name)
        assert path.stem.rsplit("_", 1)[-1] in image.name.lower()
        assert {path.with_suffix(s).is_file() for s in (".shx", ".dbf", ".prj")} == {True}
        frame = geopandas.read_file(path)
        assert frame.crs.to_epsg() == 4326 and set(frame.poly_type) <= {"L", "W", "I"} and frame.is_valid.all()
        with raster.open_raster(image) as dataset:
            assert dataset.dtypes == ("uint8",) * 3 and dataset.res == (40, 40) and dataset.crs.to_epsg() == 3413
            hh, hv, third = dataset.read()
            frame = frame.to_crs(dataset.crs)
            within = frame.geometry.buffer(-500).intersects(rasterio_box(dataset.bounds))
            assert within.any()
        data = (hh > 0) & (hh < 255) & (hv < 255)
        np.testing.assert_allclose(third[data], np.minimum(85.0 * hv[data] / hh[data], 255), atol=0.5)
        kinds |= set(frame.poly_type)
    assert kinds == {"L", "W", "I"}


def rasterio_box(bounds):
    from shapely import box

    return box(*bounds)


# l8s2


def pair(folders, index=0):
    root = folders / "l8s2"
    safe, level2, level1 = (sorted(root.glob(p))[index] for p in ("S2A_*.SAFE", "LC08_L2SP_*", "LC08_L1TP_*"))
    return safe, level2, level1


def band_file(safe, band):
    (path,) = safe.glob(f"GRANULE/*/IMG_DATA/R*m/*_{band}_*.jp2")
    return path


def test_sentinel_2_bands_lie_in_their_safe_folder(folders):
    for index, offset in ((0, "0301"), (1, "0400")):
        matching = [p for p in (folders / "l8s2").glob("*.SAFE") if f"_N{offset}_" in p.name]
        (safe,) = matching
        tile = re.fullmatch(r"S2A_MSIL2A_\d{8}T\d{6}_N\d{4}_R\d{3}_T(\d\d[A-Z]{3})_\d{8}T\d{6}\.SAFE", safe.name)[1]
        metadata = (safe / "MTD_MSIL2A.xml").read_text()
        assert f"<PROCESSING_BASELINE>{offset[:2]}.{offset[2:]}<" in metadata
        assert ("BOA_ADD_OFFSET" in metadata) == (index == 1)
        for band, pixel in (("B02", 10), ("B04", 10), ("B8A", 20), ("B12", 20), ("SCL", 20)):
            path = band_file(safe, band)
            assert path.name.startswith(f"T{tile}_") and path.name.endswith(f"_{band}_{pixel}m.jp2")
            with raster.open_raster(path, ("JP2OpenJPEG",)) as dataset:
                assert dataset.dtypes == ("uint8" if band == "SCL" else "uint16",)
                assert dataset.res == (pixel, pixel) and dataset.shape == (1280 // pixel,) * 2
                assert dataset.crs.to_epsg() == 32600 + int(tile[:2]) and dataset.transform[2] % 60 == 0
        assert set(np.unique(read(band_file(safe, "SCL")))) <= {3, 4, 5, 6, 8, 9}
        # dark water and vegetation: without the offset the digital numbers start near 0, with it near 1000
        assert (np.percentile(read(band_file(safe, "B04")), 2) > 1000) == (index == 1)


def test_sentinel_2_bands_are_lossless_and_may_be_geotiffs(folders, tmp_path):
    simulate_l8s2(tmp_path, seed=3, scenes=1, size=128, driver="GTiff")
    written = sorted(tmp_path.glob("*.SAFE/GRANULE/*/IMG_DATA/*/*.tif"))
    assert len(written) == 7
    for path in written:
        other = folders / "l8s2" / path.relative_to(tmp_path).with_suffix(".jp2")
        np.testing.assert_array_equal(read(path), read(other))


def test_landsat_8_folders_look_like_usgs(folders):
    _, level2, level1 = pair(folders)
    assert re.fullmatch(r"LC08_L2SP_\d{6}_\d{8}_\d{8}_02_T1", level2.name)
    assert level1.name == level2.name.replace("L2SP", "L1TP")
    names = {path.name.removeprefix(level2.name) for path in level2.iterdir()}
    assert names == {f"_SR_B{b}.TIF" for b in range(2, 8)} | {"_QA_PIXEL.TIF", "_MTL.json", "_MTL.txt"}
    assert {p.name.removeprefix(level1.name) for p in level1.iterdir()} == {"_B8.TIF", "_MTL.json", "_MTL.txt"}
    with raster.open_raster(level2 / f"{level2.name}_SR_B4.TIF") as dataset:
        assert dataset.dtypes == ("uint16",) and dataset.res == (30, 30) and dataset.nodata == 0
        coarse, shape = dataset.transform, dataset.shape
    with raster.open_raster(level1 / f"{level1.name}_B8.TIF") as dataset:
        assert dataset.dtypes == ("uint16",) and dataset.res == (15, 15)
        fine = dataset.transform
        assert dataset.shape == (2 * shape[0] - 1, 2 * shape[1] - 1)
    # the first pixels of both grids share their centre, at whole multiples of 30 m
    assert coarse @ (0.5, 0.5) == fine @ (0.5, 0.5) and (coarse @ (0.5, 0.5))[0] % 30 == 0
    facts = json.loads((level1 / f"{level1.name}_MTL.json").read_text())["LANDSAT_METADATA_FILE"]
    assert float(facts["LEVEL1_RADIOMETRIC_RESCALING"]["REFLECTANCE_MULT_BAND_8"]) == 2e-5
    text = (level1 / f"{level1.name}_MTL.txt").read_text()
    assert f"SUN_ELEVATION = {facts['IMAGE_ATTRIBUTES']['SUN_ELEVATION']}" in text and text.endswith("END\n")


def test_both_sensors_see_the_same_ground_but_not_the_same_numbers(folders):
    safe, level2, level1 = pair(folders, 1)
    offset = 1000 if "_N0301_" not in safe.name else 0
    with raster.open_raster(level2 / f"{level2.name}_SR_B5.TIF") as dataset:
        landsat = dataset.read(1) * 2.75e-5 - 0.2
        grid = {"crs": dataset.crs, "transform": dataset.transform, "width": dataset.width, "height": dataset.height}
    qa = read(level2 / f"{level2.name}_QA_PIXEL.TIF")
    with rasterio.open(band_file(safe, "B8A")) as dataset, WarpedVRT(dataset, **grid, resampling=5, nodata=0) as view:
        sentinel = view.read(1)
    clear = (sentinel > 0) & (qa & 0b111111 == 0)
    sentinel = (sentinel[clear].astype(float) - offset) / 1e4
    assert clear.sum() > 500
    assert np.corrcoef(landsat[clear], sentinel)[0, 1] > 0.9
    assert 0.003 < np.sqrt(np.mean((landsat[clear] - sentinel) ** 2)) < 0.06
