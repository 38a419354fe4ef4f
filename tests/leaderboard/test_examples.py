"""Example maps: what they show, and which chips are chosen."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tidemark.cli import app
from tidemark.datasets.reader import open_split
from tidemark.datasets.spec import Array, Band, ClassDef
from tidemark.errors import FormatError, InputError
from tidemark.leaderboard.examples import write_examples
from tidemark.leaderboard.panels import RIGHT, WRONG, error_map, example_map, reflectance_map, stretch
from tidemark.models.predictions import write_predictions
from tidemark.models.runs import RunInfo, dataset_of, provenance, write_run
from typer.testing import CliRunner

WATER = (ClassDef(id=0, name="dry $x$", color="#d9cfa6"), ClassDef(id=1, name="water", color="#1f6fb4"))


def make_run(folder: Path, dataset: Path, predict) -> Path:
    """A run whose prediction for chip ``i`` is ``predict(i, label)``: class ids and probability or None."""
    manifest, shards = open_split(dataset, "test")
    write_run(
        folder,
        RunInfo(
            dataset=dataset_of(manifest, dataset.parents[1]),
            model="toy",
            trained=False,
            seed=None,
            train_seconds=0,
            provenance=provenance(),
        ),
        "MODEL: {}\n",
    )
    labels = [shard.read(manifest.label_array.name, i) for shard in shards for i in range(shard.n)]
    write_predictions(
        folder / "test" / "predictions.h5",
        dataset=manifest.model_dump(),
        split="test",
        model="toy",
        chip_ids=[chip for shard in shards for chip in shard.chip_ids],
        chunks=(predict(i, label) for i, label in enumerate(labels)),
    )
    return folder


def wrong_rows(number: int, label: np.ndarray) -> tuple[np.ndarray, None]:
    """Chip ``number`` is wrong in its last ``number`` rows."""
    prediction = np.where(label == 255, 0, label).astype(np.uint8)
    if number:
        prediction[-number:] = 1 - prediction[-number:]
    return prediction, None


def test_errors_tell_missed_from_invented_water_and_leave_out_what_is_not_scored():
    truth = np.array([[1, 1, 0, 0, 255]], np.uint8)
    prediction = np.array([[1, 0, 1, 0, 1]], np.uint8)
    colours, legend = error_map(truth, prediction, WATER)
    hexes = ["#" + bytes((c * 255).round().astype(np.uint8).tolist()).hex() for c in colours[0]]
    named = dict(legend)
    assert hexes[:3] == [named["water found"], named["water missed"], named["water invented"]]
    assert len(set(hexes)) == 5


def test_an_unanswered_pixel_is_an_error():
    three = (*WATER, ClassDef(id=2, name="ice", color="#ffffff"))
    colours, legend = error_map(np.array([[2]], np.uint8), np.array([[255]], np.uint8), three)
    assert "#" + bytes((colours[0, 0] * 255).round().astype(np.uint8).tolist()).hex() == dict(legend)["wrong"]


def test_a_map_is_a_small_png_with_a_panel_each_and_always_the_same():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (256, 256)).astype(np.uint8)
    band = stretch(rng.normal(-12, 3, (256, 256)))
    inputs = [("VV (dB)", band), ("VH (dB)", band)]
    pngs = [example_map(inputs, truth, 1 - truth, WATER, title="U-Net $x$") for _ in range(2)]
    assert pngs[0] == pngs[1] and len(pngs[0]) < 250_000
    wide, tall = Image.open(io.BytesIO(pngs[0])).size
    assert wide > 3 * tall
    assert Image.open(io.BytesIO(example_map([("HH", band)], np.uint8(1), np.uint8(0), WATER))).size[0] < wide / 2


def test_a_stretch_ignores_missing_pixels_and_outliers():
    band = np.linspace(0, 1, 10_000).reshape(100, 100)
    band[0, 0], band[0, 1] = np.nan, 1e9
    out = stretch(band)
    assert np.isnan(out[0, 0]) and out[0, 1] == 1
    assert np.isclose(out[50, 0], 0.5, atol=0.01)
    assert np.isnan(stretch(np.full((4, 4), np.nan))).all()


def test_of_the_worst_scenes_the_worst_chips_are_drawn(tiny_dataset, tmp_path):
    run = make_run(
        tmp_path / "run", tiny_dataset(chips=5), wrong_rows
    )  # ten chips of two scenes, the last is the worst
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "example-test-9-worst-old.png").touch()
    (tmp_path / "out" / "example-val-1-worst-kept.png").touch()
    paths = write_examples(run, "test", tmp_path / "out")
    assert [p.name for p in paths] == [
        "example-test-1-worst-test-1~test-1-004.png",
        "example-test-2-poor-test-0~test-0-004.png",
    ]
    assert {p.name for p in (tmp_path / "out").iterdir()} == {*(p.name for p in paths), "example-val-1-worst-kept.png"}
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in paths)
    again = [p.read_bytes() for p in write_examples(run, "test", tmp_path / "again")]
    assert again == [p.read_bytes() for p in paths]
    assert [p.name.split("-")[3] for p in write_examples(run, "test", tmp_path / "again", 2)] == ["worst", "median"]


def test_patches_are_ordered_by_the_probability_of_the_truth(tiny_dataset, tmp_path):
    def unsure(number: int, label: np.ndarray):
        certainty = np.full(3, 10, np.uint8)
        certainty[int(label)] = 255 - 20 * number
        return label.astype(np.uint8), certainty

    data = tiny_dataset(kind="classification", classes=3, shape=(2, 16, 16), chips=3)
    run = make_run(tmp_path / "run", data, unsure)
    assert [p.name for p in write_examples(run, "test", tmp_path, 1)] == ["example-test-1-worst-test-0~test-0-002.png"]


def test_predictions_of_other_data_and_silly_numbers_are_refused(tiny_dataset, tmp_path):
    run = make_run(tmp_path / "run", tiny_dataset(chips=5), wrong_rows)
    with pytest.raises(InputError, match="0 example maps"):
        write_examples(run, "test", tmp_path, 0)
    other = tiny_dataset(chips=4)
    with pytest.raises(FormatError, match="on-tiny-1.0.0/test/predictions.h5: no predictions here"):
        write_examples(run, "test", tmp_path, 3, dataset=other)
    place = run / "on-tiny-1.0.0" / "test"
    place.mkdir(parents=True)
    shutil.copy(run / "test" / "predictions.h5", place)
    with pytest.raises(FormatError, match="content_sha256"):
        write_examples(run, "test", tmp_path, 3, dataset=other)


def test_examples_of_another_data_set_show_its_chips(tiny_dataset, tmp_path):
    run = make_run(tmp_path / "run", tiny_dataset(chips=5), wrong_rows)
    other = tiny_dataset(name="other", chips=2)
    there = make_run(tmp_path / "there", other, wrong_rows)
    shutil.copytree(there / "test", run / "on-other-1.0.0" / "test")
    drawn = CliRunner().invoke(app, ["evaluate", str(run), "--dataset", str(other), "--examples", "1"])
    assert drawn.exit_code == 0, drawn.output
    (png,) = (run / "on-other-1.0.0" / "test").glob("*.png")
    (expected,) = write_examples(there, "test", tmp_path / "expected", 1)
    assert png.read_bytes() == expected.read_bytes() and not list((run / "test").glob("*.png"))


BANDS = ("blue", "green", "red", "nir", "swir1", "swir2")
PAIR = (
    Array(
        name="image",
        dtype="uint16",
        shape=(6, 11, 11),
        role="image",
        bands=tuple(Band(name=name, scale=2.75e-5, offset=-0.2, nodata=0) for name in BANDS),
    ),
    Array(
        name="target",
        dtype="uint16",
        shape=(6, 32, 32),
        role="target",
        bands=tuple(Band(name=name, scale=1e-4, nodata=65535) for name in BANDS),
    ),
)


def pair(rng: np.random.Generator, header) -> dict[str, np.ndarray]:
    """A smooth target with a cloud in a corner, and its input at a third of the resolution."""
    slope = np.add.outer(np.linspace(500, 3000, 32), np.linspace(0, 2000, 32)) * rng.uniform(0.5, 1, (6, 1, 1))
    target = slope.astype(np.uint16)
    target[:, :6, :6] = 65535
    low = (slope[:, ::3, ::3] * 1e-4 + 0.2) / 2.75e-5
    return {"image": low.astype(np.uint16), "target": target}


def test_reflectance_is_drawn_with_its_error_in_one_scale(tiny_dataset, tmp_path):
    data = tiny_dataset(name="pairs", kind="regression", chips=2, arrays=PAIR, make=pair)

    def answer(number: int, target: np.ndarray):
        return (np.where(target == 65535, 0, target) * 1e-4 + 0.02 * number).astype(np.float16), None

    run = make_run(tmp_path / "run", data, answer)
    paths = write_examples(run, "test", tmp_path / "out", 2)
    assert [p.name for p in paths] == [
        "example-test-1-worst-test-1~test-1-001.png",
        "example-test-2-median-test-0~test-0-001.png",
    ]
    wide, tall = Image.open(paths[0]).size
    assert wide > 2.5 * tall  # input, target, prediction, error


def test_errors_of_reflectance_keep_their_colour_whatever_the_chip():
    truth, valid = np.full((6, 32, 32), 0.2), np.ones((32, 32), bool)
    drawn = []
    for error in (0.0, 0.1):
        png = reflectance_map([], truth, truth + error, valid, BANDS)
        image = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
        drawn.append(tuple(image[image.shape[0] // 2, -100]))
    assert drawn == [tuple(bytes.fromhex(c[1:])) for c in (RIGHT, WRONG)]
