"""Scenes mapped with context: the ground around each tile, the authors' way to the digit, orbits where they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from scipy import ndimage
from tidemark.benchmark import metrics
from tidemark.datasets.context import context_window, shrink
from tidemark.datasets.spec import Band, ClassDef
from tidemark.datasets.transforms import Preprocess
from tidemark.errors import InputError, WeightsError
from tidemark.models.import_weights import import_weights
from tidemark.models.predict import predict_scene
from tidemark.models.pyramid import PaddedScene, Pyramid
from tidemark.models.registry import ModelSpec
from tidemark.models.weights import Pretrained

DATA = Path(os.environ.get("TIDEMARK_DATA", Path(__file__).parents[3] / "shared" / "data"))
BANDS = (Band(name="a", nodata=-9.0), Band(name="b"))
CLASSES = [ClassDef(id=i, name=f"c{i}", color="#000000").model_dump() for i in (0, 1)]
NAMES = ("image_x2", "image_x8")


class Around(torch.nn.Module):
    """A logit that depends on every input differently, pixel by pixel."""

    def forward(self, image, image_x2, image_x8):
        return image[:, :1] + 2 * image_x2[:, 1:] - 3 * image_x8[:, :1]


def pretrained(model, context="bilinear", bands=BANDS, select=None, inputs=("image", *NAMES)):
    preprocess = Preprocess(bands, select, normalization="none", context=context, partial=True)
    spec = ModelSpec(dict.fromkeys(inputs, preprocess.channels), 1)
    return Pretrained(model.eval(), "toy", spec, {}, preprocess, CLASSES, "segmentation", {}, "0" * 64)


def scene(height, width, seed=0):
    return np.random.default_rng(seed).normal(0, 1, (2, height, width)).astype(np.float32)


def padded(image, by):
    return np.pad(image, ((0, 0), (by, by), (by, by)), constant_values=np.nan)


@pytest.mark.parametrize("method", ["bilinear", "nearest"])
@pytest.mark.parametrize("tile", [(32, 32), (17, 40)])
def test_contexts_are_those_of_a_padded_scene(method, tile):
    image = scene(90, 131)
    image[0, 5:9] = -9
    reader = PaddedScene(lambda first, stop: image[:, first:stop], 90, 131, BANDS)
    pyramid = Pyramid(reader, tile, NAMES, method)
    whole = padded(np.where(image == -9, np.nan, image), 400)
    for top in (0, 8, 24, 24, 90 - tile[0]):
        lefts = [0, 40, 131 - tile[1]]
        found = pyramid(top, lefts)
        for name, scale in (("image_x2", 2), ("image_x8", 8)):
            for got, left in zip(found[name], lefts, strict=True):
                row, column, height, width = context_window((top, left, *tile), scale)
                if method == "bilinear":  # on the pixels of the shrunk scene
                    row, column = scale * round(row / scale), scale * round(column / scale)
                window = whole[:, 400 + row : 400 + row + height, 400 + column : 400 + column + width]
                if method == "bilinear":
                    expected = shrink(window, scale, None)
                else:
                    expected = np.stack([ndimage.zoom(plane, 1 / scale, order=0, mode="nearest") for plane in window])
                np.testing.assert_array_equal(got, expected)


def test_every_row_is_read_once_per_scale():
    image, read = scene(600, 40), []

    def read_rows(first, stop):
        read.extend(range(first, stop))
        return image[:, first:stop]

    pyramid = Pyramid(PaddedScene(read_rows, 600, 40, BANDS), (32, 32), ("image_x8",), "bilinear")
    for top in range(0, 569, 16):
        pyramid(top, [0, 8])
    assert sorted(read) == list(range(600))


def test_tiles_give_what_one_pass_gives_with_context():
    """Tiles at multiples of 8 see the same context pixels as one tile over everything, cut at its place."""
    image = scene(96, 128)
    found = predict_scene(image, pretrained(Around()), tile=32, overlap=0.5, blend="crop", batch_size=3)
    again = predict_scene(image, pretrained(Around()), tile=32, overlap=0.5, blend="crop", batch_size=100)
    np.testing.assert_allclose(found.probability, again.probability, rtol=1e-6)
    around = padded(image, 400)
    for top, left in ((0, 0), (32, 48), (64, 96)):  # pixels in the middle of a tile come from it alone
        wide = [
            shrink(around[:, r : r + h, c : c + w], scale, None)
            for scale in (2, 8)
            for r, c, h, w in [context_window((400 + top, 400 + left, 32, 32), scale)]
        ]
        x2, x8 = (np.nan_to_num(w) for w in wide)
        logit = image[0, top : top + 32, left : left + 32] + 2 * x2[1] - 3 * x8[0]
        expected = 1 / (1 + np.exp(-logit[12:20, 12:20].astype(np.float64)))
        np.testing.assert_allclose(found.probability[top + 12 : top + 20, left + 12 : left + 20], expected, atol=1e-5)


def as_the_authors_do(image, model):
    """Pad, cut 256² windows every 196 px, shrink their context by order 0, cut 30 px off, join (FACTS of GMNet)."""
    bands, height, width = image.shape
    wide = np.pad(image, ((0, 0), (60, 256), (60, 256)))
    rows, columns = (wide.shape[1] - 60) // 196, (wide.shape[2] - 60) // 196
    wider = np.pad(wide, ((0, 0), (896, 896), (896, 896)))
    result = np.zeros((196 * rows, 196 * columns), np.float32)
    for i in range(rows):
        for j in range(columns):
            inputs = []
            for size in (256, 512, 2048):
                at = 896 - (size - 256) // 2
                window = wider[:, at + 196 * i : at + 196 * i + size, at + 196 * j : at + 196 * j + size]
                inputs.append(np.stack([ndimage.zoom(plane, 256 / size, order=0) for plane in window]))
            with torch.no_grad():
                out = model(*(torch.from_numpy(x)[None] for x in inputs)).sigmoid()[0, 0].numpy()
            result[196 * i : 196 * i + 196, 196 * j : 196 * j + 196] = out[30:-30, 30:-30]
    return result[30 : 30 + height, 30 : 30 + width]


@pytest.mark.parametrize("shape", [(300, 470), (196, 100), (40, 197)])
def test_the_published_layout_is_the_authors(shape):
    image = scene(*shape)
    found = predict_scene(image, pretrained(Around(), "nearest"), blend="published", batch_size=2)
    np.testing.assert_allclose(found.probability, as_the_authors_do(image, Around()), atol=1e-6)


def test_tiles_too_small_for_the_published_layout_are_refused():
    with pytest.raises(InputError, match="tiles of 60 px cannot share 60"):
        predict_scene(scene(80, 80), pretrained(Around()), blend="published", tile=60)


@pytest.mark.skipif(
    not (DATA / "gmnet").is_dir() or not (DATA / "sen1floods11").is_dir(),
    reason=f"no released checkpoints and Sen1Floods11 chip in {DATA} (TIDEMARK_DATA names another folder)",
)
@pytest.mark.parametrize(
    ("orbit", "file", "expected"),
    [
        ("ascending", "as.pth", (0.1635, 0.9341, 0.1654)),
        ("descending", "des.pth", (0.1098, 0.9020, 0.1111)),
        ("both", "as_des.pth", (0.3696, 0.4321, 0.7188)),  # the chip as the ascending orbit, the other one missing
    ],
)
def test_released_checkpoints_run_as_published_give_the_known_scores(tmp_path, orbit, file, expected):
    import_weights("gmnet", DATA / "gmnet" / file, tmp_path / "w", orbit=orbit)
    chip = DATA / "sen1floods11" / "Spain_7370579_S1Hand.tif"
    with rasterio.open(chip) as image, rasterio.open(chip.with_name("Spain_7370579_LabelHand.tif")) as label:
        stored, truth = image.read(), label.read(1)
    if orbit == "both":
        stored = np.concatenate([stored, np.full_like(stored, np.nan)])
    found = predict_scene(stored, tmp_path / "w", blend="published").class_map
    counts = metrics.confusion(np.where(truth < 0, 255, truth).astype(np.uint8), found, 2)
    scores = (metrics.water_iou(counts), metrics.class_precision(counts)[1], metrics.class_recall(counts)[1])
    assert tuple(round(float(score), 4) for score in scores) == expected


class Constant(torch.nn.Module):
    def __init__(self, logit):
        super().__init__()
        self.logit = logit

    def forward(self, image):
        return torch.full_like(image[:, :1], self.logit)


def orbits():
    bands = tuple(Band(name=name, nodata=0.0) for name in ("asc", "desc"))
    weights = [
        pretrained(Constant(logit), bands=own, inputs=("image",))
        for logit, own in ((1.0, bands), (2.0, bands[:1]), (3.0, bands[1:]))
    ]
    image = np.ones((2, 32, 128), np.float32)
    image[0, :, :40] = 0  # the first tile has no ascending data, the second a quarter less, the others all
    image[1, :, 96:] = 0
    image[:, :4, 64:96] = 0
    return weights, image


def test_each_tile_goes_to_the_first_model_with_enough_data():
    weights, image = orbits()
    found = predict_scene(image, weights, tile=32, overlap=0.0, blend="crop")
    logits = np.log(found.probability / (1 - found.probability))
    for tile, logit in enumerate((3, 1, 1, 2)):
        known = np.abs(image[:, :, 32 * tile : 32 * tile + 32]).sum(0) > 0
        np.testing.assert_allclose(logits[:, 32 * tile : 32 * tile + 32][known], logit, atol=1e-3)
    np.testing.assert_array_equal(found.class_map == 255, (image == 0).all(0))


def test_weights_that_do_not_go_together_are_refused():
    weights, image = orbits()
    with pytest.raises(WeightsError, match="other inputs"):
        predict_scene(image, [weights[0], pretrained(Around())], tile=32)
    three = Pretrained(**{**weights[1].__dict__, "classes": [*CLASSES, CLASSES[0]]})
    with pytest.raises(WeightsError, match="other classes"):
        predict_scene(image, [weights[0], three], tile=32)


def test_names_replace_the_descriptions_of_a_file(tmp_path):
    image = scene(20, 20)
    with rasterio.open(tmp_path / "s.tif", "w", driver="GTiff", dtype="float32", count=2, height=20, width=20) as file:
        file.write(image)
        file.descriptions = ("VV", "VH")
    weights = pretrained(Constant(1.0), inputs=("image",))
    with pytest.raises(WeightsError, match="expected bands a, b, found VV, VH"):
        predict_scene(tmp_path / "s.tif", weights, tmp_path / "o.tif")
    predict_scene(tmp_path / "s.tif", weights, tmp_path / "o.tif", bands=["b", "a"])
    with pytest.raises(InputError, match="3 names of bands for 2"):
        predict_scene(tmp_path / "s.tif", weights, tmp_path / "o.tif", bands=["a", "b", "c"])


MEMORY = """
import sys, numpy
sys.path.insert(0, {here!r})
from test_pyramid import Around, BANDS, pretrained
from tidemark.models.predict import predict_scene

def status(key):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key))

bands = [BANDS[0].model_copy(update={{"name": name, "nodata": 0.0}}) for name in ("b0", "b1", "b2", "b3")]
weights = pretrained(Around(), {context!r}, bands)
predict_scene(numpy.full((4, 64, 64), -1, "int16"), weights)  # everything is loaded
before = status("VmRSS")
predict_scene({source!r}, weights, {out!r}, overlap=0.25, blend={blend!r})
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from /proc")
@pytest.mark.slow
@pytest.mark.parametrize(("context", "blend"), [("bilinear", "hann"), ("nearest", "published")])
def test_context_takes_a_bounded_amount_of_memory(tmp_path, context, blend):
    """Four bands, 20 000 columns: memory grows with the width alone, and stays within 1 GiB above the model."""
    source, profile = tmp_path / "wide.tif", {"driver": "GTiff", "dtype": "int16", "count": 4}
    profile |= {"height": 1_500, "width": 20_000, "tiled": True, "sparse_ok": True, "compress": "deflate"}
    with rasterio.open(source, "w", **profile) as file:
        file.descriptions = ("b0", "b1", "b2", "b3")
        file.write(np.full((4, 512, 512), -500, np.int16), window=rasterio.windows.Window(512, 512, 512, 512))
    values = {"here": str(Path(__file__).parent), "source": str(source), "out": str(tmp_path / "o.tif")}
    script = MEMORY.format(**values, context=context, blend=blend)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    assert int(done.stdout.split()[-1]) * 1024 < 1 << 30
