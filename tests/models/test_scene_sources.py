"""What can be mapped: pairs of orbits, ALOS folders, EW scenes, many scenes at once; layers as the data sets have."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import from_origin
from tidemark import cli
from tidemark.datasets.builders import alos_dswe, polar_ice
from tidemark.datasets.simulate.alos_dswe import simulate_alos_dswe
from tidemark.datasets.simulate.polar import simulate_polar_ice
from tidemark.datasets.spec import ICE_CLASSES, WATER_CLASSES, Band
from tidemark.datasets.transforms import Preprocess
from tidemark.errors import DeviceError, InputError, PartialResultError, SceneError, WeightsError
from tidemark.models import registry
from tidemark.models.predict import predict_scene, probability_path
from tidemark.models.predict_command import predict_command
from tidemark.models.registry import ModelSpec
from tidemark.models.scene_batch import predict_scenes
from tidemark.models.scene_sources import find_scenes, open_scene
from tidemark.models.weights import Pretrained, save_pretrained

NAMES = ("vv_asc", "vh_asc", "vv_desc", "vh_desc")
ORBITS = tuple(Band(name=name, sensor="Sentinel-1", unit="dB", nodata=0.0) for name in NAMES)
UTM = {"crs": "EPSG:32645", "transform": from_origin(500000, 3900000, 10, 10)}


class Sum(torch.nn.Module):
    """Logit = sum of all channels + bias; with several classes every class its own multiple."""

    def __init__(self, spec=None, bias=0.0):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.tensor(float(bias)))

    def forward(self, image):
        return image.sum(1, keepdim=True) + self.bias


class PatchMean(torch.nn.Module):
    """Three classes by the mean of the first channel: below 60, from 60 to 120, above."""

    def forward(self, image):
        mean = image[:, 0].mean((1, 2))
        return torch.stack([60 - mean, torch.zeros_like(mean), mean - 120], 1)


def weights(bands=ORBITS, model=None, classes=WATER_CLASSES, kind="segmentation", select=None, partial=False, **rest):
    preprocess = Preprocess(bands, select, normalization="none", partial=partial)
    spec = ModelSpec({"image": preprocess.channels}, 1 if len(classes) == 2 else len(classes))
    named = [c.model_dump() for c in classes]
    dataset = rest.pop("dataset", {})
    return Pretrained((model or Sum()).eval(), "toy", spec, {}, preprocess, named, kind, dataset, "0" * 64)


def write(path, array, names=(), **profile):
    path.parent.mkdir(parents=True, exist_ok=True)
    options = UTM | {"driver": "GTiff", "dtype": array.dtype, "count": len(array), "height": array.shape[1],
                     "width": array.shape[2]} | profile  # fmt: skip
    tags = options.pop("tags", {})
    with rasterio.open(path, "w", **options) as file:
        file.write(array)
        file.update_tags(**tags)
        if names:
            file.descriptions = names
    return path


def read(path):
    with rasterio.open(path) as file:
        return file.read(1)


def passes(seed=0, height=40, width=50):
    return np.random.default_rng(seed).normal(0.2, 1, (4, height, width)).astype(np.float32)


@pytest.fixture
def pair(tmp_path):
    array = passes()
    array[0, :5], array[3, 10:12] = 0, np.nan
    files = (write(tmp_path / "s1_as" / "scene07_s1_as.tif", array[:2]),
             write(tmp_path / "s1_des" / "scene07_s1_des.tif", array[2:], ("VV", "VH")))  # fmt: skip
    return *files, array


# --- two orbits


@pytest.mark.parametrize("swapped", [False, True])
def test_files_of_two_orbits_are_stacked_whatever_their_order(pair, tmp_path, swapped):
    ascending, descending, array = pair
    files = (descending, ascending) if swapped else (ascending, descending)
    out = predict_scene(files, weights(), tmp_path / "o.tif", tile=16)
    expected = predict_scene(array, weights(), tile=16).class_map
    np.testing.assert_array_equal(read(out), expected)
    assert (expected[:5] == 255).all() and (expected[10:12] == 255).all() and set(np.unique(expected)) == {0, 1, 255}


def test_the_tag_says_the_orbit_before_the_name(tmp_path):
    array = passes()
    first = write(tmp_path / "a.tif", array[2:], tags={"ORBIT_PASS": "DESCENDING"})
    second = write(tmp_path / "b.tif", array[:2], tags={"ORBIT_PASS": "ASCENDING"})
    with open_scene((first, second), [weights()]) as scene:
        np.testing.assert_array_equal(scene.read_rows(0, 40), array)
    with pytest.raises(SceneError, match="two files of the ascending orbit"):
        predict_scene((second, write(tmp_path / "c_as.tif", array[:2])), weights(), tmp_path / "o.tif")


def test_a_second_orbit_on_another_grid_is_brought_to_the_first_ones(tmp_path):
    """A plane in map coordinates is the same plane on any grid, where bilinear resampling is exact."""

    def plane(transform, height, width):
        a, _, c, _, e, f = transform[:6]
        x, y = np.meshgrid(c + a * (np.arange(width) + 0.5), f + e * (np.arange(height) + 0.5))
        return (((x - 500000) + 2 * (3900000 - y)) / 1000 + 1).astype(np.float32)[None].repeat(2, 0)

    apart = from_origin(499963, 3900047, 13, 13)
    first = write(tmp_path / "x_as.tif", plane(UTM["transform"], 40, 50))
    second = write(tmp_path / "x_des.tif", plane(apart, 45, 50), transform=apart)
    with open_scene((first, second), [weights()]) as scene:
        rows = np.concatenate([scene.read_rows(0, 7), scene.read_rows(7, 40)], 1)
        assert rows.shape == (4, 40, 50) and [b.name for b in scene.bands] == [b.name for b in ORBITS]
        np.testing.assert_allclose(rows[2:], rows[:2], atol=2e-4)
    beyond = write(tmp_path / "y_des.tif", plane(apart, 45, 50), transform=from_origin(700000, 3900000, 10, 10))
    with pytest.raises(SceneError, match="y_des.tif: shares no ground"):
        predict_scene((first, beyond), weights(), tmp_path / "o.tif")
    nowhere = write(tmp_path / "z_des.tif", plane(apart, 45, 50), crs=None)
    with pytest.raises(SceneError, match="z_des.tif: .*coordinate reference system"):
        predict_scene((first, nowhere), weights(), tmp_path / "o.tif")


@pytest.mark.parametrize(("missing", "taken"), [("des", 1.0), ("as", 2.0)])
def test_where_an_orbit_is_missing_the_weights_of_the_other_one_map(pair, tmp_path, missing, taken):
    *files, array = pair
    array = np.where(np.isfinite(array), array, 0)
    both, up, down = weights(), weights(ORBITS[:2], Sum(bias=1)), weights(ORBITS[2:], Sum(bias=2))
    there = files[0] if missing == "des" else files[1]
    out = predict_scene(there, [both, up, down], tmp_path / "o.tif", tile=16)
    own = array[:2] if missing == "des" else array[2:]
    expected = np.where((own == 0).any(0), 255, own.sum(0) + taken >= 0)
    np.testing.assert_array_equal(read(out), expected)
    with pytest.raises(WeightsError, match="orbit alone, the weights need v._.*give --weights of the"):
        predict_scene(there, both, tmp_path / "p.tif")
    partial = predict_scene(there, weights(partial=True), tmp_path / "q.tif", tile=16)
    np.testing.assert_array_equal(read(partial) == 255, (own == 0).all(0))


def test_a_file_of_the_other_orbit_is_not_taken_for_the_weights_own(pair, tmp_path):
    with pytest.raises(WeightsError, match="descending orbit alone"):
        predict_scene(pair[1], weights(ORBITS[:2]), tmp_path / "o.tif")
    undescribed = write(tmp_path / "a_des.tif", pair[2][2:])
    with pytest.raises(WeightsError, match="descending orbit alone"):
        predict_scene(undescribed, weights(ORBITS[:2]), tmp_path / "o.tif")


def test_two_files_are_refused_where_they_mean_nothing(pair, tmp_path):
    other = weights((Band(name="a"), Band(name="b")))
    with pytest.raises(WeightsError, match="two files are for weights with bands of two orbits"):
        predict_scene(pair[:2], other, tmp_path / "o.tif")
    with pytest.raises(InputError, match="3 files for one scene"):
        predict_scene([*pair[:2], pair[0]], weights(), tmp_path / "o.tif")
    hh = write(tmp_path / "h_as.tif", pair[2][:2], ("HH", "HV"))
    with pytest.raises(WeightsError, match="expected bands VV, VH, found HH, HV"):
        predict_scene((hh, pair[1]), weights(), tmp_path / "o.tif")


# --- ALOS


@pytest.fixture(scope="module")
def alos(tmp_path_factory):
    """Two granules with all their layers, and one of them with SAR alone."""
    folder = tmp_path_factory.mktemp("alos")
    simulate_alos_dswe(folder / "full", 5, 1, 520)
    shutil.copytree(folder / "full" / "alos", folder / "sar" / "alos")
    return folder


def alos_weights(names, model=None, **rest):
    return weights(alos_dswe.header(None, False).arrays[0].bands, model, select=names, **rest)


ALL = ("hh", "hv", "red", "nir", "swir1", "swir2", "dem", "hand")


@pytest.mark.parametrize("despeckle", [None, pytest.param(0.35, marks=pytest.mark.slow)])
def test_an_alos_folder_gives_the_very_pixels_of_the_data_set(alos, despeckle, monkeypatch):
    monkeypatch.setattr(alos_dswe, "by_group", lambda keys, *_: dict.fromkeys(keys, "train"))  # one fills no more
    plan = alos_dswe.plan(alos / "full", despeckle=despeckle)
    job = plan.shards[0].scenes[0]
    refs = alos_dswe.index(job)
    chips = [chip for chip in alos_dswe.read(job, refs)]
    with open_scene(alos / "full", [alos_weights(ALL)], despeckle=despeckle) as scene:
        assert tuple(b.name for b in scene.bands) == ALL
        rows = np.concatenate([scene.read_rows(*r) for r in ((0, 100), (100, 513), (513, 520))], 1)
    compared = 0
    for ref, chip in zip(refs, chips, strict=True):
        if chip is not None:
            row, column, height, width = ref.window
            own = rows[:, row : row + height, column : column + width]
            np.testing.assert_array_equal(own, chip["image"][:, : own.shape[1], : own.shape[2]])
            compared += 1
    assert compared, "no chip to compare with"


def test_weights_of_sar_alone_need_no_other_layer(alos, tmp_path):
    sar = alos_weights(("hh", "hv"), Sum(bias=30))
    maps = [read(predict_scene(alos / f, sar, tmp_path / f"{f}.tif", overlap=0.0)) for f in ("sar", "full")]
    np.testing.assert_array_equal(*maps)
    assert {0, 1} <= set(np.unique(maps[0]))
    for names, what in ((("hh", "nir"), "no forest-change tile"), (("hv", "hand"), "no HAND tile")):
        with pytest.raises(SceneError, match=f"AP_.*: {what} reaches it"):
            predict_scene(alos / "sar", alos_weights(names), tmp_path / "o.tif")
    with pytest.raises(WeightsError, match="the weights need thermal; ALOS products have hh, hv"):
        predict_scene(alos / "sar", weights((Band(name="thermal"),)), tmp_path / "o.tif")


def test_smoothed_weights_ask_for_the_smoothing(alos, tmp_path):
    smoothed = alos_weights(("hh",), dataset={"name": "alos-dswe-smoothed-sim"})
    with pytest.raises(WeightsError, match="learned from smoothed backscatter; give --despeckle"):
        predict_scene(alos / "sar", smoothed, tmp_path / "o.tif")


def granule(folder, name, hh=None, hv=None, **profile):
    power = np.random.default_rng(0).random((1, 40, 50)).astype(np.float32) + 0.01
    own = folder / f"{name}_RT1"
    write(own / f"{name}_RT1_HH.tif", power if hh is None else hh, **profile)
    write(own / f"{name}_RT1_HV.tif", power if hv is None else hv, **(profile if hv is None else {}))
    return own


def test_granules_that_cannot_be_used_are_named_and_the_others_mapped(tmp_path, capsys):
    """Row 15: no CRS, a rotated grid, HV on another grid, integers for floats, a truncated file, HV missing."""
    source, sar = tmp_path / "alos", alos_weights(("hh", "hv"))
    granule(source, "AP_00001_FBD_F0001")
    granule(source, "AP_00002_FBD_F0001", crs=None)
    granule(source, "AP_00003_FBD_F0001", transform=rasterio.Affine(9, 4, 5e5, 4, -9, 3.9e6))
    granule(source, "AP_00004_FBD_F0001", hv=np.ones((1, 40, 51), np.float32))
    granule(source, "AP_00005_FBD_F0001", hh=np.ones((1, 40, 50), np.uint16))
    cut = granule(source, "AP_00006_FBD_F0001") / "AP_00006_FBD_F0001_RT1_HV.tif"
    cut.write_bytes(cut.read_bytes()[:2000])
    (granule(source, "AP_00007_FBD_F0001") / "AP_00007_FBD_F0001_RT1_HV.tif").unlink()
    with pytest.raises(PartialResultError, match="1 of 7 scenes mapped"):
        predict_scenes([source], sar, tmp_path / "maps")
    lines = capsys.readouterr().err.splitlines()
    faults = ("no coordinate reference system", "rotated or flipped", "expected 40x50 pixels",
              "expected dtype float32, found uint16", "HV.tif", "_HV.tif is missing")  # fmt: skip
    for number, what in enumerate(faults, 2):
        assert f"AP_0000{number}_FBD" in lines[number - 2] and what in lines[number - 2], lines[number - 2]
    assert len(lines) == 6
    names = [p.name for p in sorted((tmp_path / "maps").iterdir())]
    assert names == ["AP_00001_FBD_F0001_RT1.tif", "AP_00001_FBD_F0001_RT1_probability.tif"]


# --- EW


@pytest.fixture(scope="module")
def ew(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ew")
    simulate_polar_ice(folder, 4, 1, 256)
    return next(folder.glob("*.tif"))


def ice(model, kind):
    bands = polar_ice.header({"form": "maps", "split": "by-ground"}, "uint8", False).arrays[0].bands
    return weights(bands, model, ICE_CLASSES, kind)


def test_an_ew_scene_has_no_data_where_all_bands_are_zero(ew, tmp_path):
    class Bright(torch.nn.Module):
        def forward(self, image):
            return torch.stack([60.5 - image[:, 0], 0 * image[:, 0], image[:, 0] - 120.5], 1)

    with rasterio.open(ew) as file:
        stored = file.read([1, 2])
    found = read(predict_scene(ew, ice(Bright(), "segmentation"), tmp_path / "o.tif", tile=64, blend="crop"))
    np.testing.assert_array_equal(found == 255, (stored == 0).all(0))
    known = found != 255
    np.testing.assert_array_equal(found[known], np.digitize(stored[0][known], (60.5, 120.5)))
    assert known.any() and not known.all()


def test_a_patch_classifier_maps_an_ew_scene_patch_by_patch(ew, tmp_path):
    with rasterio.open(ew) as file:
        stored = file.read([1, 2]).astype(float)
    found = read(predict_scene(ew, ice(PatchMean(), "classification"), tmp_path / "o.tif"))
    for row in range(0, 256, 64):
        for column in range(0, 256, 64):
            patch, own = stored[:, row : row + 64, column : column + 64], found[row : row + 64, column : column + 64]
            valid = (patch != 0).any(0)
            np.testing.assert_array_equal(own == 255, ~valid)
            if valid.any():
                expected = np.argmax([60 - patch[0].mean(), 0, patch[0].mean() - 120])
                assert (own[valid] == expected).all()


def test_hh_and_hv_come_first_in_an_ew_scene_without_descriptions(ew, tmp_path):
    with rasterio.open(ew) as file:
        stored = file.read(window=((0, 64), (128, 192)))
    plain = write(tmp_path / "S1B_EW.tif", stored)
    with open_scene(plain, [ice(PatchMean(), "classification")]) as scene:
        np.testing.assert_array_equal(np.nan_to_num(scene.read_rows(0, 64)), stored[:2])


def test_decibels_are_not_taken_for_stretched_bytes(tmp_path):
    scene = write(tmp_path / "S1B_EW.tif", np.full((2, 8, 8), -20, np.float32), ("HH", "HV"))
    with pytest.raises(WeightsError, match="band 'HH': expected unit '8-bit stretched', found 'dB'"):
        predict_scene(scene, ice(PatchMean(), "classification"), tmp_path / "o.tif")


# --- many scenes


@pytest.fixture
def several(tmp_path):
    folder = tmp_path / "in"
    for number in (1, 2):
        array = passes(number)
        write(folder / "s1_as" / f"scene0{number}_s1_as.tif", array[:2])
        write(folder / "s1_des" / f"scene0{number}_s1_des.tif", array[2:], compress="deflate")
    return folder


def test_a_folder_of_orbits_gives_a_map_of_every_scene(several, tmp_path):
    found = predict_scenes([several], weights(), tmp_path / "maps", polygons=tmp_path / "shapes", tile=16)
    assert [p.name for p in found] == ["scene01_s1.tif", "scene02_s1.tif"]
    for number, path in enumerate(found, 1):
        np.testing.assert_array_equal(read(path), predict_scene(passes(number), weights(), tile=16).class_map)
        assert probability_path(path).is_file() and (tmp_path / "shapes" / f"{path.stem}.gpkg").is_file()


def test_scenes_that_fail_are_named_and_the_others_are_kept(several, tmp_path, capsys):
    """Rows 14 and 15: a VRT, a truncated tile, complex numbers, another number of bands."""
    out = tmp_path / "maps"
    predict_scenes([several], weights(), out, tile=16)
    before = (out / "scene02_s1.tif").read_bytes()
    broken = several / "s1_des" / "scene02_s1_des.tif"
    data = bytearray(broken.read_bytes())
    data[600:1600] = bytes(range(200)) * 5  # in the middle of the first deflated tile
    broken.write_bytes(data)
    (several / "fake.tif").write_text("<VRTDataset rasterXSize='2' rasterYSize='2'></VRTDataset>")
    write(several / "odd.tif", np.zeros((4, 9, 9), np.complex64))
    write(several / "three.tif", np.zeros((3, 9, 9), np.float32))
    with pytest.raises(PartialResultError, match="1 of 5 scenes mapped; not ") as partial:
        predict_scenes([several], weights(), out, tile=16)
    assert partial.value.exit_code == 3
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4 and all(line.startswith("tidemark: ") for line in lines)
    text = "\n".join(lines)
    for part in ("fake: ", "not a GTiff file", "scene02_s1: ", "scene02_s1_des.tif: corrupt", "odd: ",
                 "expected real numbers, found complex64", "three: ", "expected 4 bands"):  # fmt: skip
        assert part in text, part
    assert (out / "scene02_s1.tif").read_bytes() == before
    assert sorted(p.name for p in out.iterdir() if "scene" not in p.name) == []
    with pytest.raises(SceneError):
        predict_scenes([several], weights(), out, tile=16, strict=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_ends_all_scenes_at_once(several, tmp_path, capsys):
    with pytest.raises(DeviceError, match="a GPU is asked for"):
        predict_scenes([several], weights(), tmp_path / "maps", device="cuda")
    assert not capsys.readouterr().err and not (tmp_path / "maps").exists()


def test_without_any_map_the_end_is_bad_input(several, tmp_path):
    with pytest.raises(InputError, match="none of 4 scenes could be mapped") as refused:
        predict_scenes([several], weights((Band(name="x"), Band(name="y"), Band(name="z"))), tmp_path / "m")
    assert refused.value.exit_code == 2 and not (tmp_path / "m").exists()


def test_what_would_replace_or_repeat_a_scene_is_refused_before_any_work(several, tmp_path):
    file = several / "s1_as" / "scene01_s1_as.tif"
    before = file.read_bytes()
    (tmp_path / "link").symlink_to(several / "s1_as")
    for out in (file, file.parent / ".." / "s1_as" / file.name, tmp_path / "link" / file.name):
        with pytest.raises(InputError, match="would replace its own scene"):
            predict_scene(file, weights(ORBITS[:2]), out)
    for polygons in ("o.tif", "o_probability.tif"):
        with pytest.raises(InputError, match="two results would be this file"):
            predict_scene(file, weights(ORBITS[:2]), tmp_path / "o.tif", polygons=tmp_path / polygons)
    with pytest.raises(InputError, match="o.shp: polygons are written as GeoPackage"):
        predict_scene(file, weights(ORBITS[:2]), tmp_path / "o.tif", polygons=tmp_path / "o.shp")
    with pytest.raises(InputError, match="o.png: maps are GeoTIFF"):
        predict_command([file], [weights(ORBITS[:2])], tmp_path / "o.png", {}, {}, {"method": None})
    assert not (tmp_path / "o.png").exists()
    with pytest.raises(InputError, match="a_probability.tif: two results would be this file"):
        names = ("a.tif", "a_probability.tif")
        predict_scenes([tmp_path / name for name in names], weights((Band(name="x"),)), tmp_path / "maps")
    with pytest.raises(InputError, match="1 names belong to several scenes: a"):
        find_scenes([tmp_path / "x" / "a.tif", tmp_path / "y" / "a.tif"], [weights((Band(name="x"),))])
    with pytest.raises(InputError, match="2 scenes where one is expected"):
        predict_scene(several, weights(), tmp_path / "o.tif")
    with pytest.raises(InputError, match="no scene to map"):
        find_scenes([], [weights()])
    assert file.read_bytes() == before


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["tidemark", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as end:
        return end.code or 0


def test_the_command_ends_with_0_3_or_2(several, tmp_path, monkeypatch, capsys):
    entry = registry.Entry("toy", Sum, "toy", ("image",), ("segmentation",), True)
    monkeypatch.setitem(registry._ENTRIES, "toy", entry)
    own = weights()
    save_pretrained(Sum(), tmp_path / "w", name="toy", spec=own.spec, args={}, classes=WATER_CLASSES,
                    preprocess_config=own.preprocess.to_config(), card={"task_kind": "segmentation"})  # fmt: skip
    pair = [several / f"s1_{o}" / f"scene01_s1_{o}.tif" for o in ("as", "des")]
    common = ("--weights", tmp_path / "w", "--tile", 16)
    assert not run(monkeypatch, "predict", *pair, *common, "--out", tmp_path / "water.tif")
    expected = predict_scene(pair, own, tmp_path / "x.tif", tile=16)
    np.testing.assert_array_equal(read(tmp_path / "water.tif"), read(expected))
    pair[1].unlink()
    assert run(monkeypatch, "predict", several, *common, "--out", tmp_path / "maps") == 3
    assert "scene01_s1_as: " in capsys.readouterr().err
    for file in several.rglob("scene02*"):
        file.unlink()
    assert run(monkeypatch, "predict", several, *common, "--out", tmp_path / "maps") == 2
    assert run(monkeypatch, "predict", *pair, several, *common, "--out", tmp_path / "w.tif") == 2
    assert run(monkeypatch, "predict", pair[0], *common, "--pan", several, "--out", tmp_path / "w.tif") == 2
    assert "--pan is not for class maps" in capsys.readouterr().err
    assert run(monkeypatch, "predict", pair[0], "--out", tmp_path / "w.tif") == 2
    assert Path(tmp_path / "maps" / "scene02_s1.tif").is_file()
