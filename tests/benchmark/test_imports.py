"""Foreign predictions are scored like ours: whatever their files, nothing of them is trusted."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from tidemark.benchmark import numpy_files
from tidemark.benchmark.evaluate import evaluate_run
from tidemark.benchmark.foreign_files import chip_places, find_sources
from tidemark.benchmark.imports import import_predictions
from tidemark.benchmark.records import read_result
from tidemark.benchmark.tables import rows, tables
from tidemark.cli import app
from tidemark.datasets import build as engine
from tidemark.datasets.reader import open_split
from tidemark.datasets.simulate import simulate_scenes
from tidemark.datasets.spec import Array, Band
from tidemark.datasets.worker import make_shard
from tidemark.errors import FormatError, InputError, TidemarkError
from tidemark.models.predictions import Predictions
from tidemark.models.runs import read_run
from typer.testing import CliRunner

SIZE = (64, 64)


pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture(scope="module")
def tiny(tiny_dataset):
    return tiny_dataset(name="tiny", chips=3, shape=(2, *SIZE))


@pytest.fixture(scope="module")
def patches(tiny_dataset):
    return tiny_dataset(name="patches", kind="classification", classes=3, shape=(2, 32, 32), dtype="uint8", chips=5)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Two test scenes of 100 x 100 pixels, four chips of 64 each: those at the edges reach beyond the scene."""
    root = tmp_path_factory.mktemp("scenes")
    simulate_scenes(root / "raw", scenes=4, size=100, seed=2, val=1, test=2)
    plan = engine.plan_data_set("custom", root / "raw" / "spec.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "run_task", make_shard)  # without child processes
        return root / "raw", engine.build(plan, engine.builder_module("custom"), root / "data")


def truth(folder, split="test"):
    """Label by chip id; patches as numbers."""
    manifest, shards = open_split(folder, split)
    name = manifest.label_array.name
    return {chip: shard.read(name, i) for shard in shards for i, chip in enumerate(shard.chip_ids)}


def write_npz(path, arrays, **more):
    np.savez_compressed(path, chip_id=np.array(list(arrays)), prediction=np.stack(list(arrays.values())), **more)
    return path


def write_tif(path, array, like=None, **profile):
    """A GeoTIFF; ``like``: a raster whose grid it takes."""
    if like is not None:
        with rasterio.open(like) as dataset:
            profile = {"crs": dataset.crs, "transform": dataset.transform, **profile}
    bands = array[None] if array.ndim == 2 else array
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", driver="GTiff", count=len(bands), height=bands.shape[1], width=bands.shape[2],
                       dtype=bands.dtype, **profile) as file:  # fmt: skip
        file.write(bands)
    return path


def score(run, split="test"):
    return read_result(evaluate_run(run, split))


def test_a_perfect_foreign_model_is_perfect_and_stands_in_the_table_by_its_name(tiny, tmp_path):
    run = import_predictions([write_npz(tmp_path / "all.npz", truth(tiny))], tiny, "test", tmp_path / "run",
                             model="theirs", label="Their net", seed=4, parameters=123)  # fmt: skip
    result = score(run)
    assert result.headline.value == 1 and (result.seed, result.model.parameters) == (4, 123)
    assert result.config_hash is None and result.model.weights_sha256 is None
    (row,) = rows([result])
    assert row.label == "Their net"
    assert read_run(run).model == "theirs"


def test_the_command_says_what_comes_next(tiny, tmp_path):
    write_npz(tmp_path / "all.npz", truth(tiny))
    run = tmp_path / "run"
    given = ["import-predictions", str(tmp_path / "all.npz"), "--dataset", str(tiny), "--out", str(run)]
    done = CliRunner().invoke(app, given + ["--model", "their-net", "--seed", "3", "--parameters", "12"])
    assert done.exit_code == 0 and done.output.strip() == f"{run}; next: tidemark evaluate {run} --split test"
    info = read_run(run)
    assert (info.model, info.seed, info.parameters) == ("their-net", 3, 12)


@pytest.mark.parametrize("form", ["npy", "npz-by-chip", "tif", "bool"])
def test_every_form_gives_the_same_bytes(tiny, tmp_path, form):
    arrays = {chip: np.where(label == 255, 0, label) for chip, label in truth(tiny).items()}
    reference = import_predictions([write_npz(tmp_path / "all.npz", arrays)], tiny, "test", tmp_path / "reference")
    folder = tmp_path / "files"
    folder.mkdir()
    if form == "npz-by-chip":
        np.savez(folder / "any.npz", **arrays)
    for chip, array in arrays.items():
        if form == "tif":
            write_tif(folder / f"{chip}.tif", array.astype(np.int16))
        elif form in ("npy", "bool"):
            np.save(folder / f"{chip}.npy", array.astype(bool) if form == "bool" else array.astype(np.float32))
    run = import_predictions([folder], tiny, "test", tmp_path / "run")
    expected, found = ((r / "test" / "predictions.h5").read_bytes() for r in (reference, run))
    assert expected == found


def test_patches_with_probabilities(patches, tmp_path):
    labels = truth(patches)
    chances = np.full((len(labels), 3), 0.1)
    chances[np.arange(len(labels)), [int(v) for v in labels.values()]] = 0.8
    file = write_npz(tmp_path / "all.npz", labels, probability=chances)
    result = score(import_predictions([file], patches, "test", tmp_path / "run"))
    assert result.headline.value == 1 and result.metrics["ece"].value == pytest.approx(0.2, abs=0.01)
    for chip, label in labels.items():
        (tmp_path / "one by one").mkdir(exist_ok=True)
        np.save(tmp_path / "one by one" / f"{chip}.npy", label)
    run = import_predictions([tmp_path / "one by one"], patches, "test", tmp_path / "single")
    assert score(run).headline.value == 1
    separate = tmp_path / "p.npz"
    np.savez(separate, **{chip: row for chip, row in zip(labels, chances, strict=True)})
    run = import_predictions([write_npz(tmp_path / "b.npz", labels)], patches, "test", tmp_path / "other",
                             probabilities=[separate])  # fmt: skip
    assert score(run).metrics["ece"] == result.metrics["ece"]


def test_an_abstention_keeps_the_probabilities_given_with_it(patches, tmp_path):
    labels = truth(patches)
    wrong = {chip: np.uint8((int(label) + 1) % 3) for chip, label in labels.items()}
    silent = dict.fromkeys(labels, np.uint8(255))
    chances = np.full((len(labels), 3), 0.05)
    chances[np.arange(len(labels)), list(wrong.values())] = 0.9
    answers, abstains = (
        score(import_predictions([write_npz(tmp_path / f"{name}.npz", classes, probability=chances)],
                                 patches, "test", tmp_path / name)).metrics
        for name, classes in (("answers", wrong), ("abstains", silent))
    )  # fmt: skip
    assert abstains["ece"] == answers["ece"] and abstains["ece"].value == pytest.approx(0.9, abs=0.01)
    nothing = write_npz(tmp_path / "nothing.npz", silent, probability=chances * np.nan)
    run = import_predictions([nothing], patches, "test", tmp_path / "nothing")
    assert not Predictions(run / "test" / "predictions.h5").read(next(iter(labels)))[1].any()


def test_whole_scene_maps_are_cut_by_where_they_lie_or_by_their_names(scenes, tmp_path):
    raw, folder = scenes
    images = sorted(raw.glob("S1SIM_*.tif"))[2:]
    manifest, shards = open_split(folder, "test")
    places, labels = chip_places(manifest, shards), truth(folder)
    assert len(images) == 2 and len(places) > 4
    for name, georeferenced in (("ground", True), ("names", False)):
        for image, scene in zip(images, manifest.scenes[2:], strict=True):
            whole = np.full((100, 100), 7, np.uint8)
            for chip, place in places.items():
                if place.scene == scene.id:
                    row, column = place.window[:2]
                    part = labels[chip][: 100 - row, : 100 - column]
                    whole[row : row + 64, column : column + 64] = np.where(part == 255, 0, part)
            whole[whole == 7] = 0  # chips without enough labels are in no data set
            stem = f"map of {image.stem}" if georeferenced else scene.id
            write_tif(tmp_path / name / f"{stem}.tif", whole, like=image if georeferenced else None)
        run = import_predictions([tmp_path / name], folder, "test", tmp_path / f"run-{name}")
        assert score(run).headline.value == 1, name


def test_maps_of_the_predict_command_come_with_their_probabilities(scenes, tmp_path):
    raw, folder = scenes
    for image in sorted(raw.glob("S1SIM_*.tif"))[2:]:
        wet = np.ones((100, 100), np.uint8)
        write_tif(tmp_path / "maps" / f"{image.stem}.tif", wet, like=image, nodata=255)
        path = write_tif(tmp_path / "maps" / f"{image.stem}_probability.tif", wet * 75, like=image, nodata=255)
        with rasterio.open(path, "r+") as file:
            file.set_band_unit(1, "%")
    run = import_predictions([tmp_path / "maps"], folder, "test", tmp_path / "run")
    predictions = Predictions(run / "test" / "predictions.h5")
    classes, chance = predictions.read(predictions.chip_ids[0])
    assert set(np.unique(chance[classes == 1])) == {round(0.75 * 255)}
    assert score(run).metrics["recall"].value == 1


def test_a_map_that_ends_inside_a_scene_or_lies_between_its_pixels_is_refused(scenes, tmp_path):
    raw, folder = scenes
    images = sorted(raw.glob("S1SIM_*.tif"))[2:]
    for image in images:
        write_tif(tmp_path / "short" / image.name, np.zeros((90, 100), np.uint8), like=image)
    with pytest.raises(FormatError, match=r"the map ends inside chip .*: \d+ labelled pixels are not in it"):
        import_predictions([tmp_path / "short"], folder, "test", tmp_path / "run")
    with rasterio.open(images[0]) as dataset:
        shifted = dataset.transform @ rasterio.Affine.translation(0.5, 0)
    write_tif(tmp_path / "002.tif", np.zeros((100, 100), np.uint8), like=images[0], transform=shifted)
    with pytest.raises(FormatError, match="its pixels lie between those of chip"):
        import_predictions([tmp_path / "002.tif"], folder, "test", tmp_path / "run")
    write_tif(tmp_path / "002.tif", np.zeros((100, 100), np.uint8), like=images[0], crs="EPSG:3413")
    with pytest.raises(FormatError, match="another CRS than chip"):
        import_predictions([tmp_path / "002.tif"], folder, "test", tmp_path / "run")
    write_tif(tmp_path / "elsewhere.tif", np.zeros((9, 9), np.uint8))
    with pytest.raises(FormatError, match="1 files belong to no chip and no scene of this split: elsewhere.tif"):
        import_predictions([tmp_path / "elsewhere.tif"], folder, "test", tmp_path / "run")
    assert not list(tmp_path.glob("run/**/*.*"))


def test_a_crs_that_the_data_set_states_as_a_code_is_compared_with_a_rasters(tiny, tmp_path):
    places = chip_places(*open_split(tiny, "test"))
    labels = truth(tiny)
    for name, crs in (("here", "EPSG:32622"), ("polar", "EPSG:3413")):
        for chip, place in places.items():
            array = np.where(labels[chip] == 255, 0, labels[chip])
            write_tif(tmp_path / name / f"{chip}.tif", array, crs=crs, transform=rasterio.Affine(*place.transform))
    assert score(import_predictions([tmp_path / "here"], tiny, "test", tmp_path / "run")).headline.value == 1
    with pytest.raises(FormatError, match="another CRS than chip"):
        import_predictions([tmp_path / "polar"], tiny, "test", tmp_path / "other")
    chip, place = next(iter(places.items()))
    with pytest.raises(FormatError, match="the data set states a CRS that is none"):
        files = [tmp_path / "here" / f"{chip}.tif"]
        find_sources(files, {chip: replace(place, crs="EPSG:none")}, SIZE, "prediction", tmp_path)


def test_missing_and_repeated_chips_are_counted_and_named(tiny, tmp_path):
    arrays = truth(tiny)
    (first, array), *others = arrays.items()
    write_npz(tmp_path / "some.npz", dict(others[1:]))
    np.save(tmp_path / f"{others[2][0]}.npy", array)
    with pytest.raises(
        FormatError, match="of 6 chips 2 missing .*test-0-000, test-0-001.* and 1 repeated .test-1-000."
    ):
        import_predictions([tmp_path], tiny, "test", tmp_path / "run")
    with pytest.raises(FormatError, match="1 chip ids are not of this split: nobody"):
        import_predictions([write_npz(tmp_path / "x.npz", arrays | {"nobody": array})], tiny, "test", tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a[:-1], r"expected shape \(64, 64\), found \(63, 64\)"),
        (lambda a: a * 0 + 2, "expected classes 0 to 1 or 255, found 2"),
        (lambda a: np.full(SIZE, np.nan), "NaN is no class"),
        (lambda a: a * 0 + 0.5, "expected classes 0 to 1 or 255, found 0.5"),
        (lambda a: a.astype(np.int16) * 0 - 1, "found -1"),
        (lambda a: a.astype(complex), "expected numbers, found complex128"),
        (lambda a: a.astype("S4"), r"expected numbers, found \|S4"),
        (lambda a: np.zeros(SIZE, [("x", "u1")]), "expected numbers"),
    ],
)
def test_arrays_that_are_no_class_maps_are_refused_by_chip(tiny, tmp_path, change, message):
    for chip, array in truth(tiny).items():
        np.save(tmp_path / f"{chip}.npy", change(np.where(array == 255, 0, array)))
    with pytest.raises(FormatError, match=message) as error:
        import_predictions([tmp_path], tiny, "test", tmp_path / "run")
    assert "test-0-000" in str(error.value) and not (tmp_path / "run" / "run.json").exists()


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".npz-member", ".object"])
def test_a_pickle_is_refused_and_never_loaded(tiny, tmp_path, suffix):
    chip, canary = next(iter(truth(tiny))), tmp_path / "canary"
    path = tmp_path / (f"{chip}.npy" if suffix in (".npy", ".object") else "all.npz")
    if suffix == ".object":
        np.save(path, np.array([Canary(canary)], object), allow_pickle=True)
    elif suffix == ".npz-member":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{chip}.npy", pickle.dumps(Canary(canary)))
    else:
        path.write_bytes(pickle.dumps(Canary(canary)))
    canary.unlink(missing_ok=True)
    with pytest.raises(FormatError, match="no NumPy array of numbers|no .npz file|found object"):
        import_predictions([path], tiny, "test", tmp_path / "run")
    assert not canary.exists()
    (tmp_path / "weights.pkl").write_bytes(b"")
    with pytest.raises(InputError, match="neither a GeoTIFF nor a NumPy file"):
        import_predictions([tmp_path / "weights.pkl"], tiny, "test", tmp_path / "run")


def declared(shape, dtype="|u1"):
    """A .npy that declares more than it holds."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue() + bytes(100)


def test_a_damaged_header_is_refused_however_python_fails_on_it(tiny, tmp_path, monkeypatch):
    path = tmp_path / f"{next(iter(truth(tiny)))}.npy"
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (64, 64, ".ljust(117) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(64 * 64))
    with pytest.raises(FormatError, match="no NumPy array of numbers"):
        import_predictions([path], tiny, "test", tmp_path / "run")

    def fail(file):
        raise SystemError("error return without exception set")

    monkeypatch.setitem(numpy_files.HEADERS, (1, 0), fail)
    with pytest.raises(FormatError, match="no NumPy array of numbers .error return"):
        import_predictions([path], tiny, "test", tmp_path / "run")


def test_sizes_that_are_not_the_files_are_refused_without_the_memory(tiny, tmp_path):
    chip = next(iter(truth(tiny)))
    for shape in ((1 << 40,), (1 << 62, 1 << 62), (1 << 32, 1 << 32), (64, 64), (-1, -100), (0,)):
        (tmp_path / f"{chip}.npy").write_bytes(declared(shape))
        with pytest.raises(FormatError, match="no NumPy array of numbers"):
            import_predictions([tmp_path / f"{chip}.npy"], tiny, "test", tmp_path / "run")
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(3):
            archive.writestr(f"{i}.npy", bytes(1 << 20))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tidemark.benchmark.numpy_files.MAX_MEMBER_BYTES", 1 << 20)
        with pytest.raises(FormatError, match="3 arrays of 3145728 bytes, over 1048576"):
            import_predictions([tmp_path / "bomb.npz"], tiny, "test", tmp_path / "run")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "bomb.npz").read_bytes()[:200])
    with pytest.raises(FormatError, match="no .npz file"):
        import_predictions([tmp_path / "cut.npz"], tiny, "test", tmp_path / "run")


def test_a_vrt_a_url_and_a_virtual_path_open_nothing(tiny, tmp_path, monkeypatch):
    import socket

    monkeypatch.setattr(socket, "socket", lambda *_, **__: pytest.fail("a socket was opened"))
    chip = next(iter(truth(tiny)))
    source = "<SimpleSource><SourceFilename>/vsicurl/http://example.org/x.tif</SourceFilename></SimpleSource>"
    band = f'<VRTRasterBand dataType="Byte" band="1">{source}</VRTRasterBand>'
    vrt = f'<VRTDataset rasterXSize="64" rasterYSize="64">{band}</VRTDataset>'
    (tmp_path / f"{chip}.tif").write_text(vrt)
    with pytest.raises(TidemarkError, match="not a GTiff file, whatever its name says"):
        import_predictions([tmp_path / f"{chip}.tif"], tiny, "test", tmp_path / "run")
    for path, message in (("https://example.org/x.tif", "a URL"), ("/vsizip/a.zip/x.tif", "virtual file")):
        with pytest.raises(InputError, match=message):
            import_predictions([path], tiny, "test", tmp_path / "run")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no GeoTIFF and no NumPy file"):
        import_predictions([tmp_path / "empty"], tiny, "test", tmp_path / "run")


@pytest.mark.parametrize(
    ("values", "message"),
    [(np.full(SIZE, 1.5), "expected probabilities 0 to 1, found 1.5"), (np.full(SIZE, np.nan), "found nan"),
     (np.full(SIZE, 300, np.int32), "as floats or uint8, found int32"), (np.ones((2, *SIZE)), "expected shape")],
)  # fmt: skip
def test_probabilities_that_are_none_are_refused(tiny, tmp_path, values, message):
    labels = truth(tiny)
    np.savez(tmp_path / "p.npz", **dict.fromkeys(labels, values))
    with pytest.raises(FormatError, match=message):
        import_predictions([write_npz(tmp_path / "all.npz", labels)], tiny, "test", tmp_path / "run",
                           probabilities=[tmp_path / "p.npz"])  # fmt: skip


def test_splits_of_one_model_share_a_folder_and_another_model_does_not(tiny, tmp_path):
    run = tmp_path / "run"
    for split in ("val", "test"):
        import_predictions([write_npz(tmp_path / f"{split}.npz", truth(tiny, split))], tiny, split, run, model="a")
    assert score(run, "val").headline.value == score(run, "test").headline.value == 1
    with pytest.raises(InputError, match="there are predictions for test already"):
        import_predictions([tmp_path / "test.npz"], tiny, "test", run, model="a")
    (run / "test" / "predictions.h5").unlink()
    with pytest.raises(InputError, match="the run there has another model: expected b, found a"):
        import_predictions([tmp_path / "test.npz"], tiny, "test", run, model="b")
    with pytest.raises(InputError, match="/model: "):
        import_predictions([tmp_path / "test.npz"], tiny, "test", tmp_path / "other", model="../x")


@pytest.mark.parametrize(
    ("given", "message"), [({"label": "x" * 101}, "/label: "), ({"seed": -1}, "/seed: "), ({"seed": 2**33}, "/seed: ")]
)
def test_what_no_record_can_hold_is_refused_before_anything_is_written(tiny, tmp_path, given, message):
    with pytest.raises(InputError, match=message):
        import_predictions([write_npz(tmp_path / "a.npz", truth(tiny))], tiny, "test", tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


def test_a_long_command_with_a_name_that_is_no_utf8_is_kept_as_far_as_a_record_can_hold_it(tiny, tmp_path, monkeypatch):
    words = [os.fsdecode(b"m\xff.npy"), *(f"maps/test-0-{i:04d}.npy" for i in range(400))]
    monkeypatch.setattr("sys.argv", ["tidemark", "import-predictions", *words])
    result = score(import_predictions([write_npz(tmp_path / "a.npz", truth(tiny))], tiny, "test", tmp_path / "run"))
    assert result.command.startswith(r"tidemark import-predictions 'm\udcff.npy' maps/test-0-0000.npy")
    assert len(result.command) == 4000 and result.command.endswith(" …")


@pytest.fixture(scope="module")
def pairs(tiny_dataset):
    """Two bands of reflectance on a 32 x 32 grid, to be predicted from coarser ones."""
    bands = tuple(Band(name=name, scale=1e-4, nodata=65535) for name in ("red", "nir"))
    arrays = (Array(name="image", dtype="uint16", shape=(2, 11, 11), role="image", bands=bands),
              Array(name="target", dtype="uint16", shape=(2, 32, 32), role="target", bands=bands))  # fmt: skip

    def make(rng, header):
        return {a.name: rng.integers(500, 5000, a.shape).astype(np.uint16) for a in header.arrays}

    return tiny_dataset(name="pairs", kind="regression", chips=2, arrays=arrays, make=make)


@pytest.mark.parametrize("form", ["npz", "tif"])
def test_reflectance_is_scored_from_arrays_and_from_rasters(pairs, tmp_path, form):
    answer = {chip: (target * 1e-4 + 0.01).astype(np.float32) for chip, target in truth(pairs).items()}
    if form == "npz":
        np.savez(tmp_path / "all.npz", chip_id=list(answer), reflectance=np.stack(list(answer.values())))
    else:
        for chip, array in answer.items():
            write_tif(tmp_path / f"{chip}.tif", array)
    result = score(import_predictions([tmp_path], pairs, "test", tmp_path / "run"))
    assert result.task == "harmonization"
    assert result.headline.value == pytest.approx(40, abs=0.3)  # 20 log10 of 1 / 0.01; float16 rounds
    (made,) = tables(rows([result]))
    assert made.headings[2] == "PSNR (dB)" and made.cells[0][2].startswith(f"{result.headline.value:.2f}")
    assert "NRMSE" in made.headings and not any("nir" in heading for heading in made.headings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: (a * 10_000).astype(np.uint16), "as floats, found uint16; divide by its scale"),
        (lambda a: a * 10_000, "expected reflectance 0 to 1, found 4"),
        (lambda a: a * np.inf, "expected reflectance 0 to 1, found inf"),
        (lambda a: a[:1], r"expected shape \(2, 32, 32\), found \(1, 32, 32\)"),
    ],
)
def test_what_is_no_reflectance_is_refused(pairs, tmp_path, change, message):
    np.savez(tmp_path / "a.npz", **{chip: change(target * 1e-4) for chip, target in truth(pairs).items()})
    with pytest.raises(FormatError, match=message):
        import_predictions([tmp_path / "a.npz"], pairs, "test", tmp_path / "run")
    with pytest.raises(InputError, match="probabilities are kept for patches and binary maps only"):
        import_predictions([tmp_path / "a.npz"], pairs, "test", tmp_path / "run", probabilities=[tmp_path / "a.npz"])
