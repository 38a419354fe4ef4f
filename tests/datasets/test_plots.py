import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image
from tidemark.datasets.plots import (
    IGNORED_COLOR,
    NO_DATA_COLOR,
    chip_of,
    class_colors,
    contact_sheet,
    physical,
    plot_sample,
    stretch,
)
from tidemark.datasets.reader import open_split
from tidemark.datasets.spec import Array, Band
from tidemark.errors import FormatError, InputError


def texts(figure):
    found = [t.get_text() for t in figure.texts]
    found += [t.get_text() for axes in figure.axes for t in axes.texts]
    return found + [t.get_text() for legend in figure.legends for t in legend.get_texts()]


def sample_of(folder, **more):
    manifest, shards = open_split(folder, "train")
    label = manifest.label_array
    image = physical(shards[0].read("image", 0), manifest.arrays[0].bands)
    return manifest, {"image": image, label.role: shards[0].read(label.name, 0), "chip_id": "train-0-000", **more}


def test_a_sample_shows_bands_label_prediction_legend_and_id(tiny_dataset):
    folder = tiny_dataset(kind="segmentation")
    manifest, sample = sample_of(folder)
    sample["prediction"] = np.zeros_like(sample["mask"])
    figure = plot_sample(sample, manifest, suptitle="train")
    assert len(figure.axes) == 4
    shown = texts(figure)
    for expected in ("b0", "b1", "label", "prediction", "train-0-000", "class 0", "class 1", "ignored"):
        assert expected in shown
    assert "tiny 1.0.0 · train" in shown


def test_simulated_data_are_stamped_on_every_input(tiny_dataset):
    manifest, sample = sample_of(tiny_dataset(kind="segmentation"))
    shown = texts(plot_sample(sample, manifest))
    assert shown.count("SIMULATED") == 2 and any("SIMULATED data" in text for text in shown)
    observed = manifest.model_copy(update={"simulated": False})
    assert not any("SIMULATED" in text for text in texts(plot_sample(sample, observed)))


def test_masks_have_the_colours_of_the_classes(tiny_dataset):
    manifest, sample = sample_of(tiny_dataset(kind="segmentation"))
    colors = class_colors(np.array([[0, 1], [255, 1]]), manifest)
    expected = [manifest.task.classes[0].color, manifest.task.classes[1].color, IGNORED_COLOR]
    assert [tuple(colors[0, 0]), tuple(colors[0, 1]), tuple(colors[1, 0])] == [to_rgb(c) for c in expected]


def test_invalid_pixels_are_shown_as_no_data(tiny_dataset):
    manifest, sample = sample_of(tiny_dataset(kind="segmentation"))
    sample["valid"] = np.ones(sample["mask"].shape, bool)
    sample["valid"][:5] = False
    chip = chip_of(sample, manifest)
    assert (chip.panels[0].rgb[:5] == to_rgb(NO_DATA_COLOR)).all()
    assert not (chip.panels[0].rgb[5:] == to_rgb(NO_DATA_COLOR)).all(axis=-1).any()
    assert "no data" in texts(plot_sample(sample, manifest))


def test_patches_carry_label_and_prediction_as_words(tiny_dataset):
    manifest, sample = sample_of(tiny_dataset(kind="classification", shape=(2, 32, 32), classes=3))
    sample["label"], sample["prediction"] = np.array(2), np.array(0)
    assert "train-0-000 · class 2, predicted class 0" in texts(plot_sample(sample, manifest))


def test_bands_are_stretched_by_the_manifest_and_linear_power_is_shown_in_db(tiny_dataset):
    manifest = open_split(tiny_dataset(kind="segmentation"), "train")[0]
    known = next(s for s in manifest.statistics if s.band == "b0")
    values = np.array([[1.0, 100.0]], np.float32)
    shown, low, high, note = stretch(values, Band(name="b0", unit="dB"), manifest)
    assert (shown == values).all() and (low, high) == (known.p02, known.p98) and "2–98 % of train" in note
    shown, low, high, note = stretch(values, Band(name="b0", unit="linear power"), manifest)
    assert shown[0] == pytest.approx([0.0, 20.0]) and low == pytest.approx(10 * np.log10(known.p02)) and "dB" in note
    assert stretch(values, Band(name="b0", unit="8-bit stretched"), manifest)[1:3] == (0.0, 255.0)


def test_red_green_and_blue_make_one_picture(tiny_dataset):
    bands = tuple(Band(name=name) for name in ("blue", "green", "red", "nir"))
    folder = tiny_dataset(kind="segmentation", shape=(4, 64, 64), bands=bands)
    manifest, sample = sample_of(folder)
    chip = chip_of(sample, manifest)
    assert [panel.title for panel in chip.panels] == ["red, green, blue", "nir", "label"]
    red = next(s for s in manifest.statistics if s.band == "red")
    expected = np.clip((sample["image"][2] - red.p02) / (red.p98 - red.p02), 0, 1)
    assert np.allclose(chip.panels[0].rgb[..., 0], expected, atol=1e-5)


def test_nodata_becomes_nan_and_values_physical():
    stored = np.array([[[0, 3]], [[0, 5]]], np.uint16)
    values = physical(stored, [Band(name="a", nodata=0), Band(name="b", scale=2, offset=1)])
    assert np.isnan(values[0, 0, 0]) and values[0, 0, 1] == 3 and values[1, 0].tolist() == [1, 11]


def test_a_contact_sheet_is_the_same_png_for_the_same_seed(tiny_dataset, tmp_path):
    folder = tiny_dataset(kind="segmentation")
    one, two, other = (
        contact_sheet(folder, "train", tmp_path / f"{k}.png", n=4, seed=s) for k, s in enumerate((0, 0, 1))
    )
    assert one.read_bytes() == two.read_bytes() != other.read_bytes()
    picture = Image.open(one)
    assert picture.format == "PNG" and picture.width > 600 and len(picture.convert("RGB").getcolors(1 << 20)) > 50


def test_a_contact_sheet_of_patches_shows_every_class(tiny_dataset, tmp_path, monkeypatch):
    folder = tiny_dataset(kind="classification", shape=(2, 32, 32), classes=3, chips=20)
    seen = []
    monkeypatch.setattr(
        "tidemark.datasets.plots.chip_of",
        lambda sample, manifest: seen.append(int(sample["label"])) or chip_of(sample, manifest),
    )
    contact_sheet(folder, "train", tmp_path / "a.png", n=6)
    assert sorted(seen) == [0, 0, 1, 1, 2, 2]


def test_named_chips_are_drawn_and_unknown_ones_refused(tiny_dataset, tmp_path):
    folder = tiny_dataset(kind="segmentation")
    ids = [chip for shard in open_split(folder, "val")[1] for chip in shard.chip_ids][:2]
    assert contact_sheet(folder, "val", tmp_path / "a.png", ids=ids).exists()
    with pytest.raises(InputError, match="no chip nowhere in split val"):
        contact_sheet(folder, "val", tmp_path / "b.png", ids=["nowhere"])
    with pytest.raises(InputError, match="0 chips"):
        contact_sheet(folder, "val", tmp_path / "b.png", n=0)
    with pytest.raises(FormatError, match="no split 'x'"):
        contact_sheet(folder, "x", tmp_path / "b.png")
    assert not (tmp_path / "b.png").exists()


def test_target_and_prediction_of_a_regression_are_drawn_though_the_image_has_another_grid(tiny_dataset, tmp_path):
    bands = tuple(Band(name=name, scale=1e-4) for name in ("red", "nir"))
    shapes = {"image": (2, 16, 16), "target": (2, 48, 48)}
    arrays = (
        *(Array(name=k, dtype="uint16", shape=v, role=k, bands=bands) for k, v in shapes.items()),
        Array(name="valid", dtype="uint8", shape=(48, 48), role="valid"),
    )

    def make(rng, header):
        return {a.name: rng.integers(1, 3000, a.shape).astype(a.dtype) for a in header.arrays}

    folder = tiny_dataset(name="pairs", kind="regression", arrays=arrays, make=make)
    manifest, sample = sample_of(folder)
    sample["target"] = physical(sample["target"], bands)
    sample |= {"prediction": sample["target"] * 0.9, "valid": np.arange(48 * 48).reshape(48, 48) > 9}
    assert (chip_of(sample, manifest).panels[-2].rgb[0, :10] == to_rgb(NO_DATA_COLOR)).all()
    titles = [panel.title for panel in chip_of(sample, manifest).panels]
    assert [title.split(":")[0] for title in titles[-2:]] == ["target", "prediction"]
    assert contact_sheet(folder, "train", tmp_path / "sheet.png").exists()


def test_heading_and_notes_stay_within_the_picture(tiny_dataset):
    manifest, sample = sample_of(tiny_dataset(kind="segmentation"))
    figure = plot_sample(sample, manifest, suptitle="a long title " * 12)
    renderer, (width, height) = figure.canvas.get_renderer(), figure.get_size_inches() * figure.dpi
    for text in figure.texts:
        box = text.get_window_extent(renderer)
        assert 0 <= box.x0 and box.x1 <= width and 0 <= box.y0 and box.y1 <= height, text.get_text()


def test_bands_that_do_not_fit_the_sample_are_refused(tiny_dataset):
    manifest, sample = sample_of(tiny_dataset(kind="segmentation"))
    with pytest.raises(InputError, match="2 bands, 1 are named: b0"):
        plot_sample(sample, manifest, bands=["b0"])


def test_drawing_uses_no_global_state_of_matplotlib():
    code = "import sys, tidemark.datasets.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
