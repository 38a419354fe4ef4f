"""Whole scenes and whole splits: the same map whatever the tiles, nodata stays nodata, wrong bands are refused."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import from_origin
from rasterio.windows import Window
from tidemark.configs import dump, make_config
from tidemark.datasets.spec import Band, ClassDef, load_manifest
from tidemark.datasets.transforms import Preprocess
from tidemark.errors import DeviceError, FormatError, InputError, SceneError, StorageError, WeightsError
from tidemark.models import registry
from tidemark.models.chip_arrays import ChipArrays
from tidemark.models.device import find_device
from tidemark.models.inference import Inference, decide, predict_split
from tidemark.models.predict import predict_scene, probability_path
from tidemark.models.predictions import Predictions
from tidemark.models.registry import ModelSpec
from tidemark.models.runs import RunInfo, dataset_of, provenance, write_run
from tidemark.models.weights import Pretrained, save_pretrained

CLASSES = [ClassDef(id=0, name="dry", color="#d9cfa6"), ClassDef(id=1, name="water", color="#1f6fb4")]
BANDS = (
    Band(name="VV", unit="dB", sensor="Sentinel-1", nodata=-9999.0),
    Band(name="VH", unit="dB", sensor="Sentinel-1"),
)
GRID = {"crs": "EPSG:32622", "transform": from_origin(500000, 7200000, 10, 10)}


class Dark(torch.nn.Module):
    """Logit = -(first channel) - threshold: dark is water."""

    def __init__(self, spec=None, *, threshold=0.0):
        super().__init__()
        self.threshold = torch.nn.Parameter(torch.tensor(float(threshold)))

    def forward(self, image):
        return -image[:, :1] - self.threshold


class Blur(torch.nn.Module):
    """Two 3x3 convolutions: each output pixel sees two pixels around it."""

    def __init__(self, classes=1):
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3, padding=1), torch.nn.ReLU(),
                                       torch.nn.Conv2d(4, classes, 3, padding=1))  # fmt: skip

    def forward(self, image):
        return self.net(image)


def pretrained(model, bands=BANDS, classes=CLASSES, out_channels=1, kind="segmentation") -> Pretrained:
    spec, preprocess = ModelSpec({"image": len(bands)}, out_channels), Preprocess(bands, normalization="none")
    return Pretrained(model.eval(), "toy", spec, {}, preprocess, [c.model_dump() for c in classes], kind, {}, "0" * 64)


def image(height=70, width=90, seed=0):
    return np.random.default_rng(seed).normal(0, 3, (2, height, width)).astype(np.float32)


def write_scene(path: Path, array: np.ndarray, names=("VV", "VH"), units=None, nodata=-9999.0, **profile) -> Path:
    options = GRID | {"driver": "GTiff", "dtype": array.dtype, "count": len(array), "height": array.shape[1],
                      "width": array.shape[2], "nodata": nodata} | profile  # fmt: skip
    with rasterio.open(path, "w", **options) as file:
        file.write(array)
        if names:
            file.descriptions = names
        if units:
            file.units = units
    return path


def read(path):
    with rasterio.open(path) as file:
        return file.read(1)


# --- arrays


@pytest.mark.parametrize("shape", [(70, 90), (16, 16), (9, 40), (5, 7)])
@pytest.mark.parametrize("blend", ["hann", "crop"])
def test_tiles_give_what_one_pass_gives(shape, blend):
    array = image(*shape)
    found = predict_scene(array, pretrained(Dark()), tile=16, blend=blend, batch_size=3)
    np.testing.assert_allclose(found.probability, torch.sigmoid(torch.from_numpy(-array[0])), atol=1e-6)
    np.testing.assert_array_equal(found.class_map, found.probability >= 0.5)
    assert found.class_map.dtype == np.uint8 and found.probability.dtype == np.float32


@pytest.mark.parametrize("classes", [1, 3])
def test_cropped_tiles_equal_one_pass_of_a_convolutional_model_everywhere_inside(classes):
    array, model = image(), Blur(classes)
    names = [ClassDef(id=i, name=f"c{i}", color="#000000") for i in range(max(2, classes))]
    weights = pretrained(model, classes=names, out_channels=classes)
    found = predict_scene(array, weights, tile=24, overlap=0.5, blend="crop")
    whole = predict_scene(array, weights, tile=200)
    # Receptive field: 2 px, overlap 12 px: only the scene's own border sees padding, and there both do.
    np.testing.assert_allclose(found.probability, whole.probability, atol=1e-6)
    np.testing.assert_array_equal(found.class_map, whole.class_map)


def test_hann_blending_leaves_no_seam():
    array, model = image(), Blur()
    found = predict_scene(array, pretrained(model), tile=24).probability
    whole = predict_scene(array, pretrained(model), tile=200).probability
    inner = (slice(4, -4), slice(4, -4))
    assert np.abs(found - whole)[inner].max() < 0.02  # tile borders see zero padding, but with hardly any weight
    flat = predict_scene(np.full((2, 70, 90), 3, np.float32), pretrained(Dark(threshold=1.0)), tile=24).probability
    np.testing.assert_allclose(flat, flat[0, 0], rtol=1e-6)


def test_three_classes_take_the_most_probable_one_of_the_blended_probabilities():
    weights = pretrained(Blur(3), classes=[ClassDef(id=i, name=f"c{i}", color="#000000") for i in range(3)],
                         out_channels=3)  # fmt: skip
    found = predict_scene(image(), weights, tile=24)
    assert set(np.unique(found.class_map)) == {0, 1, 2}
    assert found.probability.min() >= 1 / 3 - 1e-6


def test_nodata_stays_nodata_and_does_not_touch_its_surroundings():
    array = image(64, 64)
    array[0, 10:20, 10:20], array[1, 40, 40], array[:, 32:, :32] = -9999, np.nan, np.nan
    found = predict_scene(array, pretrained(Dark()), tile=16)
    empty = (array[0] == -9999) | np.isnan(array).any(0)
    np.testing.assert_array_equal(found.class_map == 255, empty)
    np.testing.assert_array_equal(np.isnan(found.probability), empty)
    np.testing.assert_allclose(found.probability[~empty], 1 / (1 + np.exp(array[0][~empty])), atol=1e-5)


def test_a_scene_without_data_is_nodata_not_water():
    found = predict_scene(np.full((2, 40, 40), np.nan, np.float32), pretrained(Dark(threshold=-50)), tile=16)
    assert (found.class_map == 255).all() and np.isnan(found.probability).all()


def test_a_patch_classifier_maps_patch_by_patch():
    class Mean(torch.nn.Module):
        def forward(self, image):
            return torch.stack([image[:, 0].mean((1, 2)), -image[:, 0].mean((1, 2))], 1)

    array = np.ones((2, 16, 16), np.float32)
    array[:, :, 8:] = -1
    weights = pretrained(Mean(), out_channels=2, kind="classification")
    found = predict_scene(array, weights, tile=8, overlap=0)
    assert (found.class_map[:, :8] == 0).all() and (found.class_map[:, 8:] == 1).all()


@pytest.mark.parametrize("array", [np.zeros((3, 8, 8)), np.zeros((8, 8)), np.zeros((2, 0, 8)), np.full((2, 8, 8), "x")])
def test_arrays_of_another_shape_are_refused(array):
    with pytest.raises(WeightsError, match="expected numbers .* VV, VH, found"):
        predict_scene(array, pretrained(Dark()))


def test_big_endian_and_integer_arrays_work():
    array = np.round(image(20, 20)).astype(">i2")
    bands = (Band(name="VV", scale=0.5, nodata=0), Band(name="VH"))
    found = predict_scene(array, pretrained(Dark(), bands), tile=16)
    np.testing.assert_array_equal(found.class_map == 255, array[0] == 0)


# --- files


@pytest.fixture
def scene(tmp_path):
    array = image(300, 530)
    array[:, :40, :60] = -9999
    return write_scene(tmp_path / "scene.tif", array), array


def test_a_geotiff_gets_class_map_and_probability_on_its_grid(scene, tmp_path):
    source, array = scene
    out = predict_scene(source, pretrained(Dark()), tmp_path / "maps" / "water.tif", tile=64)
    expected = predict_scene(array, pretrained(Dark()), tile=64)
    np.testing.assert_array_equal(read(out), expected.class_map)
    percent = read(probability_path(out))
    valid = expected.class_map != 255
    np.testing.assert_array_equal(percent == 255, ~valid)
    np.testing.assert_allclose(percent[valid], 100 * expected.probability[valid], atol=0.51)
    for path in (out, probability_path(out)):
        with rasterio.open(path) as file:
            assert (file.crs, file.transform, file.shape) == (GRID["crs"], GRID["transform"], (300, 530))
            assert (file.nodata, file.dtypes, file.profile["compress"]) == (255, ("uint8",), "deflate")
            assert file.block_shapes == [(256, 256)] and file.overviews(1) == [2, 4]
    with rasterio.open(out) as file:
        assert file.colormap(1)[1] == (0x1F, 0x6F, 0xB4, 255) and file.colormap(1)[0] == (0xD9, 0xCF, 0xA6, 255)
        assert file.tags()["TIDEMARK_WEIGHTS_SHA256"] == "0" * 64 and "1 = water" in file.descriptions[0]
    assert sorted(p.name for p in out.parent.iterdir()) == ["water.tif", "water_probability.tif"]


def test_probability_can_be_left_out(scene, tmp_path):
    out = predict_scene(scene[0], pretrained(Dark()), tmp_path / "m" / "w.tif", probability=False)
    assert [p.name for p in out.parent.iterdir()] == ["w.tif"]


def test_bands_are_found_by_name_whatever_their_order(tmp_path):
    array = image(40, 40)
    swapped = write_scene(tmp_path / "s.tif", np.stack([array[1], array[1] * 0, array[0]]), ("vh", "angle", "vv"))
    out = predict_scene(swapped, pretrained(Dark()), tmp_path / "o.tif")
    np.testing.assert_array_equal(read(out), (array[0] <= 0).astype(np.uint8))


@pytest.mark.parametrize(
    ("count", "names", "units", "message"),
    [
        (2, ("HH", "HV"), None, "expected bands VV, VH, found HH, HV"),
        (1, ("VV",), None, "expected bands VV, VH, found VV"),
        (3, None, None, r"expected 2 bands \(VV, VH\), found 3 without descriptions"),
        (2, ("VV", "VH"), ("1", "1"), "band 'VV': expected unit 'dB', found '1'"),
    ],
)
def test_other_bands_or_units_are_refused_with_expected_and_found(tmp_path, count, names, units, message):
    source = write_scene(tmp_path / "s.tif", np.zeros((count, 20, 20), np.float32), names, units)
    with pytest.raises(WeightsError, match=message) as refused:
        predict_scene(source, pretrained(Dark()), tmp_path / "o.tif")
    assert str(source) in str(refused.value) and not (tmp_path / "o.tif").exists()


def test_scale_and_nodata_of_the_file_count(tmp_path):
    """Training data: int16, scale 0.01. The same physical scene comes as stored, with another scale, and as floats."""
    bands = (Band(name="VV", unit="dB", scale=0.01, nodata=0), Band(name="VH", unit="dB", scale=0.01, nodata=0))
    weights = pretrained(Dark(threshold=-5), bands)
    physical = np.random.default_rng(0).integers(100, 900, (2, 30, 30)) / 100
    physical[:, :3] = np.nan
    maps = []
    for name, dtype, factor, nodata, scales in (
        ("stored", "int16", 100, None, None),
        ("other", "int32", 1000, -1, 0.001),
        ("physical", "float32", 1, None, None),
    ):
        missing = {"stored": 0, "other": -1, "physical": np.nan}[name]
        array = np.where(np.isnan(physical), missing, np.round(physical * factor, 2)).astype(dtype)
        path = write_scene(tmp_path / f"{name}.tif", array, nodata=nodata)
        if scales:
            with rasterio.open(path, "r+") as file:
                file.scales = (scales, scales)
        maps.append(read(predict_scene(path, weights, tmp_path / f"{name}-map.tif", probability=False)))
    np.testing.assert_array_equal(maps[0], maps[1])
    np.testing.assert_array_equal(maps[0], maps[2])
    assert (maps[0][:3] == 255).all() and set(np.unique(maps[0][3:])) == {0, 1}


def test_a_scene_without_georeference_gets_a_map_without_one(tmp_path):
    source = write_scene(tmp_path / "s.tif", image(30, 20), crs=None, transform=None)
    with rasterio.open(predict_scene(source, pretrained(Dark()), tmp_path / "o.tif")) as file:
        assert file.crs is None and file.shape == (30, 20) and file.overviews(1) == []


def test_water_becomes_polygons_of_the_same_area(scene, tmp_path):
    gpkg = tmp_path / "water.gpkg"
    out = predict_scene(scene[0], pretrained(Dark()), tmp_path / "o.tif", polygons=gpkg)
    frame = geopandas.read_file(gpkg)
    assert frame.crs == GRID["crs"] and set(frame["class"]) == {1} and set(frame["name"]) == {"water"}
    assert frame.area.sum() == pytest.approx(100 * (read(out) == 1).sum())
    dry = write_scene(tmp_path / "dry.tif", np.full((2, 9, 9), 5, np.float32))
    predict_scene(dry, pretrained(Dark()), tmp_path / "d.tif", polygons=gpkg)
    assert len(geopandas.read_file(gpkg)) == 0


def test_a_failure_leaves_the_old_files_and_no_temporary_ones(scene, tmp_path):
    class Fails(torch.nn.Module):
        def forward(self, image):
            return image[:, :1] / 0 * 0

    folder = tmp_path / "maps"
    out = predict_scene(scene[0], pretrained(Dark()), folder / "o.tif", polygons=folder / "o.gpkg")
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(WeightsError, match="not finite"):
        predict_scene(scene[0], pretrained(Fails()), out, polygons=folder / "o.gpkg")
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_files_that_are_no_local_geotiff_and_lonely_arguments_are_refused(tmp_path):
    weights, fake = pretrained(Dark()), tmp_path / "fake.tif"
    fake.write_text("<VRTDataset rasterXSize='2' rasterYSize='2'></VRTDataset>")
    for source, error in ((fake, SceneError), (tmp_path / "none", InputError), ("http://localhost/a.tif", InputError)):
        with pytest.raises(error):
            predict_scene(source, weights, tmp_path / "o.tif")
    with pytest.raises(InputError, match="no file to write to"):
        predict_scene(fake, weights)
    with pytest.raises(InputError, match="an array has no grid"):
        predict_scene(image(), weights, tmp_path / "o.tif")
    with pytest.raises(InputError, match="batch size"):
        predict_scene(image(), weights, batch_size=0)


def test_a_place_that_cannot_be_written_is_named(scene, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        predict_scene(scene[0], pretrained(Dark()), tmp_path / "file" / "o.tif")


def test_a_gpu_that_is_not_there_is_named():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert find_device("auto") == torch.device("cpu")
    with pytest.raises(DeviceError, match="a GPU is asked for"):
        predict_scene(image(), pretrained(Dark()), device="cuda")
    with pytest.raises(DeviceError, match="no device 'tpu'"):
        find_device("tpu")


def test_out_of_memory_says_what_to_make_smaller():
    class Greedy(torch.nn.Module):
        def forward(self, image):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    with pytest.raises(DeviceError, match="out of GPU memory.*smaller batch size"):
        predict_scene(image(), pretrained(Greedy()))


# --- splits


def make_run(monkeypatch, folder: Path, run: Path, kind="segmentation") -> Path:
    """A run as training leaves it, with a model that needs no training."""

    class PatchMean(torch.nn.Module):
        def __init__(self, spec):
            super().__init__()
            self.bias = torch.nn.Parameter(torch.zeros(spec.out_channels))

        def forward(self, image):
            return image.mean((2, 3)).repeat(1, len(self.bias))[:, : len(self.bias)] + self.bias

    entry = registry.Entry("toy", Dark if kind == "segmentation" else PatchMean, "toy", ("image",), (kind,), True)
    monkeypatch.setitem(registry._ENTRIES, "toy", entry)
    manifest = load_manifest(folder)
    cfg = make_config({"DATA": {"ROOT": str(folder.parents[1]), "NAME": manifest.name, "BANDS": []},
                       "MODEL": {"NAME": "toy"}, "TRAIN": {"BATCH_SIZE": 4, "DEVICE": "cpu"}})  # fmt: skip
    preprocess = Preprocess.from_manifest(manifest)
    spec = ModelSpec({"image": preprocess.channels}, 1 if manifest.task.binary else len(manifest.task.classes))
    digest = save_pretrained(entry.build(spec), run / "weights", name="toy", spec=spec, args={},
                             preprocess_config=preprocess.to_config(), classes=manifest.task.classes,
                             card={"task_kind": kind})  # fmt: skip
    info = RunInfo(dataset=dataset_of(manifest, cfg.DATA.ROOT), model="toy", trained=True, seed=0, train_seconds=1,
                   weights_sha256=digest, provenance=provenance())  # fmt: skip
    write_run(run, info, dump(cfg))
    return run


def half_empty(rng, header):
    image = rng.integers(40, 90, (2, 32, 32)).astype(np.uint16)
    image[1, :16] = 0
    if rng.random() < 0.4:
        image[:] = 0
    return {"image": image, "mask": (image[0] < 60).astype(np.uint8)}


def test_a_split_is_predicted_in_its_order_with_nodata_as_255(tiny_dataset, tmp_path, monkeypatch):
    folder = tiny_dataset(name="holes", shape=(2, 32, 32), chips=6, make=half_empty)
    run = make_run(monkeypatch, folder, tmp_path / "run")
    path = predict_split(run, "test")
    assert path == run / "test" / "predictions.h5"
    predictions = Predictions.open(path, folder, "test")
    statistics = {s.band: s for s in load_manifest(folder).statistics}
    empty = 0
    for chip in ChipArrays(folder, "test"):
        class_map, probability = predictions.read(chip.id)
        expected = 1 / (1 + np.exp((chip.image[0] - statistics["b0"].mean) / statistics["b0"].std))
        np.testing.assert_array_equal(class_map == 255, ~chip.valid)
        np.testing.assert_array_equal(class_map[chip.valid], expected[chip.valid] >= 0.5)
        np.testing.assert_allclose(probability[chip.valid], 255 * expected[chip.valid], atol=0.51)
        empty += not chip.valid.any()
    assert empty, "no chip without data in the test"
    assert predictions.chip_ids == ChipArrays(folder, "test").chip_ids


def test_patches_get_one_class_and_all_probabilities(tiny_dataset, tmp_path, monkeypatch):
    folder = tiny_dataset(name="pat", kind="classification", classes=3, chips=5, shape=(2, 16, 16))
    predictions = Predictions.open(predict_split(make_run(monkeypatch, folder, tmp_path, "classification"), "val"),
                                   folder, "val")  # fmt: skip
    for chip in predictions.chip_ids:
        class_id, probability = predictions.read(chip)
        assert probability.shape == (3,) and abs(int(probability.sum(dtype=int)) - 255) <= 2
        assert probability[class_id] == probability.max()


def test_swapped_weights_and_swapped_data_are_refused(tiny_dataset, tmp_path, monkeypatch):
    folder = tiny_dataset(name="holes", shape=(2, 32, 32), chips=6, make=half_empty)
    run = make_run(monkeypatch, folder, tmp_path / "run")
    config = (run / "run.json").read_text()
    (run / "run.json").write_text(re.sub(r'"weights_sha256": "\w+"', f'"weights_sha256": "{"f" * 64}"', config))
    with pytest.raises(WeightsError, match="run.json says ffff"):
        predict_split(run, "test")
    (run / "run.json").write_text(re.sub(r'"content_sha256": "\w+"', f'"content_sha256": "{"f" * 64}"', config))
    with pytest.raises(FormatError, match="the run has seen the content ffff"):
        predict_split(run, "test")
    (run / "run.json").write_text(config)
    with pytest.raises(FormatError, match="no split 'none'"):
        predict_split(run, "none")


def test_other_data_with_the_same_bands_can_be_predicted_but_not_with_others(tiny_dataset, tmp_path, monkeypatch):
    folder = tiny_dataset(name="holes", shape=(2, 32, 32), chips=6, make=half_empty)
    run = make_run(monkeypatch, folder, tmp_path / "run")
    other = tiny_dataset(name="other", shape=(2, 64, 64), chips=2)
    path = predict_split(run, "val", folder=other, out=tmp_path / "p.h5", batch_size=1, device="cpu")
    assert Predictions.open(path, other, "val").dataset == "other"
    bands = (Band(name="b0", sensor="test", unit="dB"), Band(name="b1", sensor="test"))
    stranger = tiny_dataset(name="strange", shape=(2, 32, 32), chips=2, bands=bands)
    with pytest.raises(WeightsError, match="band 'b0': unit '1' expected, the input has 'dB'"):
        predict_split(run, "val", folder=stranger, out=tmp_path / "q.h5")


def test_a_half_is_water_and_255_is_nodata():
    probabilities = torch.tensor([0.5, 0.499, 1.0, 1.0]).view(1, 1, 2, 2)
    valid = torch.tensor([[[True, True], [True, False]]])
    [(class_map, probability)] = decide(probabilities, valid)
    assert class_map.tolist() == [[1, 0], [1, 255]] and probability[0].tolist() == [128, 127]


def test_a_mask_of_validity_hides_pixels_from_the_model():
    infer = Inference(pretrained(Dark()), Preprocess(BANDS, normalization="none"), "cpu")
    mask = torch.tensor([[[1, 0]]], dtype=torch.uint8)
    probabilities, valid = infer(torch.full((1, 2, 1, 2), -7.0), mask)
    assert valid.tolist() == [[[True, False]]] and probabilities[0, 0, 0, 1] == 0.5


# --- memory


MEMORY = """
import sys, numpy
sys.path.insert(0, {here!r})
from test_predict import BANDS, Dark, pretrained
from tidemark.models.predict import predict_scene

def status(key):  # ru_maxrss would still hold the peak of the process that started this one
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key))

bands = [BANDS[0].model_copy(update={{"name": name, "nodata": 0.0}}) for name in ("b0", "b1", "b2", "b3")]
weights = pretrained(Dark(), bands)
predict_scene(numpy.full((4, 64, 64), -1, "int16"), weights)  # everything is loaded
before = status("VmRSS")
predict_scene({source!r}, weights, {out!r}, overlap=0.25)
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from /proc")
@pytest.mark.slow
def test_a_scene_larger_than_its_memory_budget_is_mapped_strip_by_strip(tmp_path):
    """20 000 x 20 000 px of four bands (3.2 GB as int16) within 1 GiB above the model."""
    side, block = 20_000, 512
    source, rng = tmp_path / "big.tif", np.random.default_rng(0)
    profile = GRID | {"driver": "GTiff", "dtype": "int16", "count": 4, "height": side, "width": side, "tiled": True,
                      "blockxsize": block, "blockysize": block, "sparse_ok": True, "compress": "deflate"}  # fmt: skip
    water = rng.integers(-900, -100, (4, block, block)).astype(np.int16)
    with rasterio.open(source, "w", **profile) as file:
        file.descriptions = ("b0", "b1", "b2", "b3")
        for row in range(0, side - block, 4 * block):
            for column in range(0, side - block, 4 * block):
                file.write(water, window=Window(column, row, block, block))
    script = MEMORY.format(here=str(Path(__file__).parent), source=str(source), out=str(tmp_path / "o.tif"))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    assert int(done.stdout.split()[-1]) * 1024 < 1 << 30
    with rasterio.open(tmp_path / "o.tif") as file:
        assert file.shape == (side, side) and file.overviews(1)
        assert (file.read(1, window=Window(0, 0, block, block)) == 1).all()
        assert (file.read(1, window=Window(block, 0, block, block)) == 255).all()
