"""Landsat-8 folders to Sentinel-2's grid: each value at its place, fill and clouds kept, bad scenes named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import from_origin
from scipy import ndimage
from tidemark.datasets import optical, raster
from tidemark.datasets.grids import grid_between
from tidemark.datasets.l8_scene import OpenScene, find_scenes, sentinel2_grid
from tidemark.datasets.l8s2_products import L8_BANDS
from tidemark.datasets.transforms import Preprocess
from tidemark.errors import DeviceError, InputError, PartialResultError, SceneError, StorageError, WeightsError
from tidemark.models import predict_l8
from tidemark.models.harmonization.harmonizer import Harmonizer
from tidemark.models.harmonization.meaning import Meaning, SigmaScale
from tidemark.models.harmonization.resample import resample
from tidemark.models.l8_blocks import block_errors
from tidemark.models.l8_models import physical_bands
from tidemark.models.predict_l8 import predict_landsat
from tidemark.models.reflectance_cog import NODATA, SCALE, beside
from tidemark.models.registry import ModelSpec, create_model
from tidemark.models.weights import from_pretrained, save_pretrained

DATA = Path(os.environ.get("TIDEMARK_DATA", Path(__file__).parents[3] / "shared" / "data"))
WEST, NORTH = 300_015.0, 4_900_005.0  # edges of Landsat's pixels: odd multiples of 15 m
HEIGHT, WIDTH = 40, 34
CLEAR, CLOUD = 21824, 22280
GAINS = np.array([0.3, 0.4, 0.5, 1.0, 0.8, 0.6])
MTL = {"IMAGE_ATTRIBUTES": {"SUN_ELEVATION": "30.0"},
       "RESCALING": {"REFLECTANCE_MULT_BAND_8": "2.0E-05", "REFLECTANCE_ADD_BAND_8": "-0.1"}}  # fmt: skip


def ramp(west, north, step, height, width):
    """Reflectance that grows to the south and east, at the centres of pixels."""
    x = west + (np.arange(width) + 0.5) * step - 300_000
    y = 4_900_020 - (north - (np.arange(height) + 0.5) * step)
    return 0.1 + 1e-4 * x + 5e-5 * y[:, None]


def texture(west, north, step, height, width):
    rng = np.random.default_rng(3)
    return rng.uniform(0.05, 0.5, (height, width))


def write(path, values, west=WEST, north=NORTH, step=30, crs="EPSG:32631", dtype="uint16", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "count": 1, "height": len(values), "width": values.shape[1], "dtype": dtype,
               "crs": crs, "transform": from_origin(west, north, step, step)} | options  # fmt: skip
    with rasterio.open(path, "w", **profile) as file:
        file.write(values.astype(dtype), 1)
    return path


def add_scene(folder, date="20210705", field=ramp, north=NORTH, crs="EPSG:32631", change=lambda dn, qa: None):
    """A Level-2 and a Level-1 folder; ``change`` may edit the digital numbers (6, h, w) and the quality bits."""
    name = f"LC08_L2SP_199030_{date}_20210801_02_T1"
    seen = field(WEST, NORTH, 30, HEIGHT, WIDTH)
    dn = np.stack([np.rint((seen * gain + 0.2) / 2.75e-5) for gain in GAINS]).astype(np.uint16)
    qa = np.full((HEIGHT, WIDTH), CLEAR, np.uint16)
    change(dn, qa)
    for band, values in zip(L8_BANDS, dn, strict=True):
        write(folder / name / f"{name}_{band}.TIF", values, north=north, crs=crs)
    write(folder / name / f"{name}_QA_PIXEL.TIF", qa, north=north, crs=crs)
    level1 = name.replace("L2SP", "L1TP")
    pan = field(WEST + 7.5, NORTH - 7.5, 15, 2 * HEIGHT - 1, 2 * WIDTH - 1)
    write(folder / level1 / f"{level1}_B8.TIF", np.rint((pan * 0.5 + 0.1) / 2e-5), WEST + 7.5, north - 7.5, 15, crs)
    (folder / level1 / f"{level1}_MTL.json").write_text(json.dumps(MTL))
    return folder / name


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """One scene of a ramp."""
    return add_scene(tmp_path_factory.mktemp("l8"))


@pytest.fixture(scope="module")
def mapped(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "map.tif"
    assert predict_landsat([source], out, method="bicubic", tile=48) == [out]
    return out


def read(path):
    with raster.open_raster(path) as file:
        return file.read(), tuple(file.transform)[:6], file.crs


def grid_ramp(transform, shape):
    return ramp(transform[2], transform[5], 10, *shape) * GAINS[:, None, None]


def test_pixels_lie_on_sentinel_2s_grid_and_inside_the_scene(mapped):
    values, (a, b, west, d, e, north), crs = read(mapped)
    assert (a, b, d, e) == (10, 0, 0, -10) and crs.to_epsg() == 32631
    assert west % 10 == 0 and north % 10 == 0
    assert (west, north) == (300_020, 4_900_000)  # the first whole pixel inside
    assert values.shape == (6, (HEIGHT * 30 - 10) // 10, (WIDTH * 30 - 10) // 10)


def test_each_value_is_that_of_its_place(mapped):
    values, transform, _ = read(mapped)
    inner = np.s_[:, 9:-9, 9:-9]  # a cubic kernel sees no edge there
    expected = grid_ramp(transform, values.shape[1:])
    np.testing.assert_allclose((values * SCALE)[inner], expected[inner], atol=7e-5)


def test_the_file_says_what_it_holds(mapped):
    with rasterio.open(mapped) as file:
        assert file.descriptions == ("blue", "green", "red", "nir", "swir1", "swir2")
        assert set(file.scales) == {1e-4} and set(file.offsets) == {0.0} and set(file.units) == {"reflectance"}
        assert file.dtypes == ("int16",) * 6 and file.nodata == NODATA
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        tags = file.tags()
        assert tags["TIDEMARK_SOURCE"].startswith("LC08_L2SP_199030") and tags["TIDEMARK_DATE"] == "2021-07-05"
        assert file.tags(4)["CENTRAL_WAVELENGTH_UM"] == "0.8647"


def test_tiles_leave_no_trace(source, tmp_path):
    whole, small = tmp_path / "whole.tif", tmp_path / "small.tif"
    predict_landsat([source], whole, method="bilinear")
    predict_landsat([source], small, method="bilinear", tile=40, overlap=0.6, batch_size=3)
    assert np.abs(read(whole)[0].astype(int) - read(small)[0]).max() <= 1


def test_fill_and_clouds_are_kept_and_do_not_spread(tmp_path):
    def change(dn, qa):
        dn[:, 10:20, 10:20], qa[10:20, 10:20] = 0, 1
        dn[:, 25:30, 5:9], qa[25:30, 5:9] = 40_000, CLOUD

    out = tmp_path / "map.tif"
    predict_landsat([add_scene(tmp_path, change=change)], out, method="bicubic", tile=64)
    values, transform, _ = read(out)
    quality = read(beside(out, "qa"))[0][0]
    rows, columns = (np.arange(n) for n in quality.shape)
    own = np.s_[((rows * 10 + 10) // 30)[:, None], (columns * 10 + 10) // 30]  # 5 m on to the first centre, and 5 to it
    qa = np.full((HEIGHT, WIDTH), CLEAR)
    qa[10:20, 10:20], qa[25:30, 5:9] = 1, CLOUD
    np.testing.assert_array_equal(quality, qa[own])
    np.testing.assert_array_equal((values == NODATA).all(0), quality == 1)
    np.testing.assert_array_equal((values == NODATA).any(0), quality == 1)
    beside_fill = (values != NODATA).all(0) & np.roll(quality == 1, 1, 0)  # the nearest to the south of it
    expected = grid_ramp(transform, quality.shape)
    assert beside_fill.any() and np.abs((values * SCALE - expected)[:, beside_fill]).max() < 0.005
    assert (values[0][quality == CLOUD] > 5000).any()
    predict_landsat([tmp_path], out, method="bicubic", mask_clouds=True)
    np.testing.assert_array_equal((read(out)[0] == NODATA).all(0), quality != CLEAR)


def test_a_scene_of_fill_alone_gives_nodata_and_asks_no_network(tmp_path, monkeypatch):
    def change(dn, qa):
        dn[:], qa[:] = 0, 1

    monkeypatch.setattr(predict_l8, "_predict", lambda *_: pytest.fail("asked"))
    out = tmp_path / "map.tif"
    predict_landsat([add_scene(tmp_path, change=change)], out, method="bicubic")
    assert (read(out)[0] == NODATA).all() and (read(beside(out, "qa"))[0] == 1).all()


def test_south_of_the_equator_the_grid_counts_from_the_false_northing(tmp_path):
    folder = add_scene(tmp_path, north=NORTH - 5_000_010 - 4_000_020)  # Landsat counts on below zero
    out = tmp_path / "map.tif"
    predict_landsat([folder], out, method="nearest")
    _, transform, crs = read(out)
    assert crs.to_epsg() == 32731 and transform[5] == 10_000_000 + NORTH - 9_000_030 - 5


def test_a_figure_shows_the_same_crop_of_every_file(mapped, tmp_path):
    from PIL import Image
    from tidemark.models.l8_figure import GAP_PX, TITLE_PX, side_by_side

    out = side_by_side([[mapped, mapped]], ["one", "two"], tmp_path / "figure.png", size=20, zoom=2)
    pixels = np.asarray(Image.open(out).convert("RGB"))
    assert pixels.shape == (TITLE_PX + 40, 2 * 40 + GAP_PX, 3)
    panels = pixels[TITLE_PX:, :40], pixels[TITLE_PX:, 40 + GAP_PX :]
    np.testing.assert_array_equal(*panels)
    assert panels[0][-1].mean() > panels[0][0].mean() + 20  # the ramp grows to the south
    with pytest.raises(InputError, match="1 titles"):
        side_by_side([[mapped, mapped]], ["one"], out)
    with pytest.raises(InputError, match="no data in the crop"):
        side_by_side([[mapped]], ["one"], out, centre=(0, 0))


@pytest.mark.parametrize("west", [300_015.0, 300_000.0, 299_994.9, 300_007.5])
def test_the_grid_holds_only_pixels_that_the_scene_covers(west):
    wkt = rasterio.CRS.from_epsg(32631).to_wkt()
    grid, own = sentinel2_grid(raster.Grid(11, 7, (30.0, 0.0, west, 0.0, -30.0, 4_900_005.0), wkt))
    assert grid.transform == own and own[2] % 10 == 0 and own[5] % 10 == 0
    assert 0 <= own[2] - west < 10 and 0 <= west + 7 * 30 - (own[2] + grid.width * 10) < 10


def test_the_panchromatic_band_is_found_beside_the_product_or_where_it_is_said(source, tmp_path):
    (scene,) = find_scenes(source)  # the folder of the Level-2 product alone
    assert {"B8", "MTL"} == set(scene.pan)
    alone = Path(shutil.copytree(source, tmp_path / source.name))
    assert find_scenes(alone)[0].pan == {}
    assert find_scenes(alone, pan=source.parent)[0].pan == scene.pan
    with pytest.raises(SceneError, match="no panchromatic B8 or MTL.*199030 on 20210705.*--pan"):
        OpenScene(find_scenes(alone)[0]).__enter__()


def test_the_authors_stacks_are_the_same_scene(source, tmp_path):
    files = {band: next(source.glob(f"*_{band}.TIF")) for band in (*L8_BANDS, "QA_PIXEL")}
    stack = np.concatenate([read(path)[0] for path in files.values()]).astype(np.float32)
    path = tmp_path / "L8" / f"{source.name}_SR.tif"
    path.parent.mkdir()
    with rasterio.open(path, "w", driver="GTiff", dtype="float32", count=7, height=HEIGHT, width=WIDTH,
                       crs="EPSG:32631", transform=from_origin(WEST, NORTH, 30, 30)) as file:  # fmt: skip
        file.write(stack)
    level1 = source.name.replace("L2SP", "L1TP")
    for what, suffix in (("B8.TIF", "tif"), ("MTL.json", "json")):
        shutil.copy(source.parent / level1 / f"{level1}_{what}", tmp_path / f"{level1}.{suffix}")
    with OpenScene(*find_scenes(tmp_path)) as one, OpenScene(*find_scenes(source)) as two:
        assert (one.grid, one.pan_grid) == (two.grid, two.pan_grid)
        window = (2, 3, 9, 8)
        np.testing.assert_array_equal(one.bands(window).image, two.bands(window).image)
        np.testing.assert_array_equal(one.pan(window).image, two.pan(window).image)


def broken(folder, kind):
    """One file of a scene spoiled; the message must name what is wrong."""
    red = next(folder.glob("*_SR_B4.TIF"))
    values = np.full((HEIGHT, WIDTH), 9000)
    if kind == "corrupt":
        write(red, np.random.default_rng(0).integers(1, 60_000, (HEIGHT, WIDTH)), compress="deflate")
        data = bytearray(red.read_bytes())
        data[-400:-100] = bytes(300)
        red.write_bytes(data)
        return "cannot be read"
    if kind == "vrt":
        red.write_text('<VRTDataset rasterXSize="34" rasterYSize="40"></VRTDataset>')
        return "not a GTiff file"
    if kind == "no crs":
        for path in folder.iterdir():
            write(path, values, crs=None)
        return "no coordinate reference system"
    if kind == "rotated":
        for path in folder.iterdir():
            write(path, values, transform=rasterio.Affine(30, 1, WEST, 1, -30, NORTH))
        return "rotated"
    if kind == "polar":
        for path in folder.iterdir():
            write(path, values, crs="EPSG:3031")
        return "not in UTM"
    if kind == "dtype":
        write(red, values / 1e4, dtype="int16")
        return "expected digital numbers"
    if kind == "off the grid":
        write(red, values, west=WEST + 30)
        return "not on the image's grid"
    red.unlink()
    return "SR_B4 missing"


@pytest.mark.parametrize("kind", ["corrupt", "vrt", "no crs", "rotated", "polar", "dtype", "off the grid", "missing"])
def test_a_bad_scene_is_named(tmp_path, kind):
    folder = add_scene(tmp_path)
    message = broken(folder, kind)
    out = tmp_path / "map.tif"
    out.write_bytes(b"before")
    with pytest.raises(SceneError, match=message) as caught:
        predict_landsat([folder], out, method="bicubic")
    assert caught.value.exit_code == 2 and out.read_bytes() == b"before"
    assert not list(tmp_path.glob("map*tmp*")) and not list(tmp_path.glob("map*draft*"))


def test_several_folders_give_what_they_can(source, tmp_path):
    bad = add_scene(tmp_path / "bad", date="20210721")
    broken(bad, "missing")
    out = tmp_path / "maps"
    with pytest.raises(PartialResultError, match="1 of 3 scenes mapped.*20210721.*SR_B4 missing.*nowhere") as caught:
        predict_landsat([source, bad, tmp_path / "nowhere"], out, method="nearest")
    assert caught.value.exit_code == 3
    assert sorted(p.name for p in out.iterdir()) == [f"{source.name}_10m.tif", f"{source.name}_10m_qa.tif"]
    with pytest.raises(SceneError, match="SR_B4 missing"):
        predict_landsat([bad, source], out, method="nearest", strict=True)
    with pytest.raises(InputError, match="none of 2 scenes"):
        predict_landsat([bad, tmp_path / "nowhere"], out, method="nearest")
    with pytest.raises(InputError, match="2 scenes for one file"):
        predict_landsat([source, bad], tmp_path / "one.tif", method="nearest")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, InputError, "either weights or a method"),
        ({"method": "cubic"}, InputError, "no method 'cubic'.*bicubic"),
        ({"method": "bicubic", "uncertainty": True}, InputError, "no uncertainty"),
        ({"method": "bicubic", "tile": 0}, InputError, "a tile has"),
        ({"method": "bicubic", "batch_size": 0}, InputError, "batch size"),
        ({"method": "bicubic", "device": "tpu"}, DeviceError, "no device"),
        ({"weights": ["nowhere/at/all"]}, WeightsError, "no such folder"),
    ],
)
def test_wrong_options_end_in_a_line(source, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        predict_landsat([source], tmp_path / "map.tif", **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said(source, tmp_path):
    with pytest.raises(DeviceError, match="a GPU is asked for"):
        predict_landsat([source], tmp_path / "map.tif", method="bicubic", device="cuda")


def test_an_output_that_cannot_be_written_is_said(source, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot write"):
        predict_landsat([source], tmp_path / "file" / "map.tif", method="bicubic")


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Folders of two tiny untrained networks."""
    image, pan, target = physical_bands()
    folders = []
    for seed in range(2):
        torch.manual_seed(seed)
        spec, args = ModelSpec({"image": 6, "pan": 1}, 6), {"depth": 2, "channels": 4, "residual": True}
        net = create_model("srunet", spec, **args)
        torch.nn.init.normal_(net.head.weight, std=0.3)
        configs = [Preprocess(bands, normalization="none").to_config() for bands in (image, pan)]
        meaning = Meaning(pan=configs[1], target=target, loss="l1", residual=True)
        folders.append(tmp_path_factory.mktemp("weights"))
        save_pretrained(net, folders[-1], name="srunet", spec=spec, args=args, preprocess_config=configs[0], classes=[],
                        card={"task_kind": "regression"}, harmonization=meaning)  # fmt: skip
    return folders


def test_a_network_sees_image_and_pan_on_their_own_grids(source, networks, tmp_path):
    out = predict_landsat([source], tmp_path / "net.tif", weights=networks[:1])[0]
    values, transform, _ = read(out)
    with OpenScene(*find_scenes(source)) as scene:
        parts = (scene.bands((0, 0, HEIGHT, WIDTH)), scene.grid), (scene.pan((0, 0, 79, 67)), scene.pan_grid)
    images = [torch.from_numpy(part.image)[None] for part, _ in parts]
    grids = [torch.from_numpy(grid_between(own.transform, transform))[None] for _, own in parts]
    pretrained = from_pretrained(networks[0])
    with torch.inference_mode():
        whole = Harmonizer(pretrained.model)(*images, *grids, values.shape[1:])[0].clamp_min(0).numpy()
    np.testing.assert_allclose(values * SCALE, whole, atol=6e-5)
    bicubic = read(predict_landsat([source], tmp_path / "bicubic.tif", method="bicubic")[0])[0]
    assert np.abs(values - bicubic.astype(int)).mean() > 50  # the network says something of its own
    with rasterio.open(out) as file:
        assert file.tags()["TIDEMARK_MODEL"] == "srunet"
        assert file.tags()["TIDEMARK_WEIGHTS_SHA256"] == pretrained.weights_sha256


def test_several_networks_are_averaged_and_their_spread_is_written(source, networks, tmp_path):
    both = [from_pretrained(folder) for folder in networks]
    singles = [read(predict_landsat([source], tmp_path / "one.tif", weights=[one])[0])[0] * SCALE for one in both]
    out = predict_landsat([source], tmp_path / "both.tif", weights=networks)[0]
    seen = (singles[0] > 0) & (singles[1] > 0)  # elsewhere an answer was below 0
    np.testing.assert_allclose((read(out)[0] * SCALE)[seen], np.mean(singles, 0)[seen], atol=2e-4)
    with pytest.raises(WeightsError, match="not calibrated.*tidemark uncertainty"):
        predict_landsat([source], tmp_path / "no.tif", weights=both, uncertainty=True)
    scale = SigmaScale(
        method="ensemble", passes=1, members=[one.weights_sha256 for one in both], levels=(0.68, 0.95),
        factors=[(2.0, 4.0)] * 6, split="val", content_sha256="0" * 64,
    )  # fmt: skip
    first = replace(both[0], harmonization=both[0].harmonization.model_copy(update={"sigma": scale}))
    predict_landsat([source], out, weights=[first, both[1]], uncertainty=True, tile=48)
    with rasterio.open(beside(out, "sigma")) as file:
        assert file.descriptions[0] == "blue" and file.nodata == NODATA and file.dtypes[0] == "int16"
        spread = np.abs(singles[0] - singles[1]) / np.sqrt(2)  # unbiased, of two
        inner = np.s_[:, 30:-30, 30:-30]
        assert np.median(np.abs(file.read() * SCALE - 2 * spread)[inner]) < 2e-3


def test_weights_that_do_not_harmonize_are_refused(source, networks, tmp_path):
    water = replace(from_pretrained(networks[0]), task_kind="segmentation", harmonization=None)
    with pytest.raises(WeightsError, match="for segmentation, not for harmonization"):
        predict_landsat([source], tmp_path / "map.tif", weights=[water])


def test_numbers_that_are_not_finite_are_refused(source, networks, tmp_path):
    broken_network = from_pretrained(networks[0])
    with torch.no_grad():
        broken_network.model.head.bias.fill_(float("inf"))
    with pytest.raises(WeightsError, match="not finite"):
        predict_landsat([source], tmp_path / "map.tif", weights=[broken_network])
    assert not (tmp_path / "map.tif").exists()


def test_the_command_maps_a_folder(source, networks, tmp_path, monkeypatch):
    from tidemark.cli import app
    from typer.testing import CliRunner

    monkeypatch.chdir(tmp_path)
    by_default = CliRunner().invoke(app, ["predict", str(source), "--method", "nearest"])
    assert by_default.output.strip() == "reflectance.tif" and Path("reflectance.tif").is_file()
    arguments = ["predict", str(source), "--weights", str(networks[0]), "--consistent", "--out", str(tmp_path / "maps")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    path = Path(result.output.strip())
    assert path == tmp_path / "maps" / f"{source.name}_10m.tif"
    assert block_errors(find_scenes(source)[0], path).max() < 0.01


class Brighter(torch.nn.Module):
    """A network's worst habit: every band too bright, by a tenth and by an offset, with stripes."""

    with_pan, with_sigma, device, tags = True, False, torch.device("cpu"), {"TIDEMARK_MODEL": "brighter"}

    def forward(self, image, pan, grid_image, grid_pan, size):
        found = predict_l8.open_model([], "bicubic", device="cpu")(image, pan, grid_image, grid_pan, size)[0]
        return found * 1.1 + 0.02 + 0.05 * torch.sin(torch.arange(size[1]) * 2.1), None


@pytest.mark.parametrize("north", [NORTH, NORTH - 9_000_030])
def test_block_means_are_held_where_consistency_is_asked_for(tmp_path, north):
    scene = find_scenes(add_scene(tmp_path, field=texture, north=north))[0]
    for consistent in (False, True):
        predict_l8.map_scene(scene, tmp_path / "map.tif", Brighter(), (64, 0.25, "hann"), consistent=consistent)
        worst = block_errors(scene, tmp_path / "map.tif").max()
        assert worst < 0.01 if consistent else worst > 0.1


needs_real = pytest.mark.skipif(not (DATA / "landsat8-pan").exists(), reason=f"no landsat8-pan in {DATA}")


@needs_real
def test_bands_and_pan_of_the_authors_scenes_lie_on_each_other():
    target = (10.0, 0.0, 839_250.0, 0.0, -10.0, 978_900.0)
    for scene in find_scenes(DATA / "landsat8-pan"):
        with OpenScene(scene) as opened:
            assert [value % 30 for value in opened.grid.transform[2::3]] == [15, 15]  # as in the archive
            parts = (
                (opened.bands((0, 0, 177, 174)), opened.grid),
                (opened.pan((0, 0, 352, 347)), opened.pan_grid),
            )
            layers = [
                resample(torch.from_numpy(part.image)[None], grid_between(own.transform, target), (480, 480))[0].numpy()
                for part, own in parts
            ]
        green_and_red, sharp = 0.6 * layers[0][1] + 0.4 * layers[0][2], ndimage.gaussian_filter(layers[1][0], 1.5)
        assert np.abs(optical.registration_shift(sharp, green_and_red)).max() < 0.2  # of 10 m


@needs_real
def test_block_means_of_real_scenes_are_held(tmp_path):
    scene = find_scenes(DATA / "landsat8-pan")[2]  # that with clouds
    predict_l8.map_scene(scene, tmp_path / "map.tif", Brighter(), (256, 0.25, "hann"), consistent=True)
    assert block_errors(scene, tmp_path / "map.tif").max() < 0.01


MEMORY = """
import sys
sys.path.insert(0, {here!r})
from pathlib import Path
from test_predict_l8 import add_scene
from tidemark.models.predict_l8 import predict_landsat

def status(key):  # ru_maxrss would still hold the peak of the process that started this one
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key))

here = Path({out!r})
predict_landsat([add_scene(here / "small")], here / "small.tif", method="bicubic")  # everything is loaded
before = status("VmRSS")
predict_landsat([{source!r}], here / "big.tif", method="bicubic", consistent=True)
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from /proc")
@pytest.mark.slow
def test_a_whole_landsat_scene_s_width_is_mapped_strip_by_strip(tmp_path):
    """23 100 px across, as a full scene, within 1 GiB above the model; 600 rows are several strips."""
    folder = add_scene(tmp_path / "scene")
    for path in folder.iterdir():
        values = np.full((200, 7_700), CLEAR if "QA" in path.name else 9_000)
        write(path, values, tiled=True, blockxsize=512, blockysize=256, compress="deflate")
    script = MEMORY.format(here=str(Path(__file__).parent), out=str(tmp_path), source=str(folder))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) * 1024 < 1 << 30
    with rasterio.open(tmp_path / "big.tif") as file:
        assert file.shape == (599, 23_099) and file.overviews(1)
        assert file.read(1, window=((400, 401), (23_000, 23_001))) == round((9_000 * 2.75e-5 - 0.2) * 1e4)


def test_a_result_never_replaces_a_file_of_its_scene(tmp_path):
    scene = add_scene(tmp_path)
    band, quality = (next(scene.glob(f"*_{name}.TIF")) for name in ("SR_B2", "QA_PIXEL"))
    (tmp_path / "link").symlink_to(scene)
    before = band.read_bytes(), quality.read_bytes()
    (tmp_path / "o_qa.tif").symlink_to(quality)
    for out in (band, tmp_path / "link" / band.name, tmp_path / "o.tif"):
        with pytest.raises(InputError, match="would replace its own scene"):
            predict_landsat([scene], out, method="nearest")
    assert (band.read_bytes(), quality.read_bytes()) == before


def test_the_published_tiles_are_refused_before_any_work(source, tmp_path):
    with pytest.raises(InputError, match="published tiles are for class maps.*take hann or crop"):
        predict_landsat([source], tmp_path / "o.tif", method="nearest", blend="published")
