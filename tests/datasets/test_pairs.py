"""Pairs on grids of their own: crops, turns, mirrors and shifts by hand, batches that repeat, data that do not fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tidemark.datasets.grids import grid_between
from tidemark.datasets.pair_geometry import PairOptions, crop, mirror, nearest_pixels, transpose, vary
from tidemark.datasets.pairs import PairDataModule, PairLoader
from tidemark.datasets.spec import Array, Band
from tidemark.errors import ConfigError, InputError

SIZE, LOW = 48, 20
# 10 m target at (0, 0); the image starts 40 m west and 50 m north of it, the pan 32.5 m west and 42.5 m north.
TARGET = (10.0, 0.0, 0.0, 0.0, -10.0, 0.0)
IMAGE = (30.0, 0.0, -40.0, 0.0, -30.0, 50.0)
PAN = (15.0, 0.0, -32.5, 0.0, -15.0, 42.5)


def ground(transform, side):
    """(1,side,side): a plane, 3 x - 2 y in km at the pixels' centres: what any resampling must give back."""
    a, _, c, _, e, f = transform
    x, y = c + a * (np.arange(side) + 0.5), f + e * (np.arange(side) + 0.5)
    return torch.from_numpy(3 * x[None, :] - 2 * y[:, None])[None] / 1000


def batch_of(count=1):
    grids = [torch.from_numpy(grid_between(t, TARGET))[None].repeat(count, 1) for t in (IMAGE, PAN)]
    planes = [ground(*g)[None].repeat(count, 1, 1, 1) for g in ((IMAGE, LOW), (PAN, 2 * LOW), (TARGET, SIZE))]
    valid = torch.ones(count, SIZE, SIZE, dtype=torch.bool)
    names = ("image", "pan", "target", "grid_image", "grid_pan")
    return dict(zip(names, (*planes, *grids), strict=True)) | {"valid": valid}


def bilinear(batch, name):
    """The input on the target's grid, written out; exact for a plane away from the edges."""
    grid, out = batch[f"grid_{name}"], []
    for values, (sx, ox, sy, oy) in zip(batch[name][:, 0], grid.tolist(), strict=True):
        side = batch["target"].shape[-1]
        x, y = (s * (np.arange(side) + 0.5) + o - 0.5 for s, o in ((sx, ox), (sy, oy)))
        i, j = np.floor(y).astype(int), np.floor(x).astype(int)
        dy, dx = torch.from_numpy(y - i)[:, None], torch.from_numpy(x - j)[None]
        rows = values[i] * (1 - dy) + values[i + 1] * dy
        out.append(rows[:, j] * (1 - dx) + rows[:, j + 1] * dx)
    return torch.stack(out)


def agree(batch, shift=(0.0, 0.0)):
    """The resampled inputs show the target's ground, moved by ``shift`` metres east and north."""
    for name in ("image", "pan"):
        expected = batch["target"][:, 0] + (3 * shift[0] - 2 * shift[1]) / 1000
        torch.testing.assert_close(bilinear(batch, name), expected, rtol=0, atol=1e-12)


def test_a_crop_takes_whole_pixels_around_the_window_and_moves_the_grids():
    batch = batch_of(2)
    cut = crop(batch, torch.tensor([[15, 0], [30, 0]]), 12)  # rows, then columns
    # 12 px of 10 m are 4 of 30 m; one more for any phase, three beyond on each side: 11, made even
    assert cut["image"].shape == (2, 1, 12, 12) and cut["pan"].shape == (2, 1, 24, 24)
    # column 30 lies at (300 + 40) / 30 = 11.33 image pixels: 3 before its whole pixel is column 8, as far as 20 reach
    assert cut["grid_image"][0].tolist() == pytest.approx([1 / 3, 340 / 30 - 8, 1 / 3, 200 / 30 - 3], abs=1e-12)
    assert cut["grid_pan"][0].tolist() == pytest.approx([2 / 3, 332.5 / 15 - 16, 2 / 3, 192.5 / 15 - 6], abs=1e-12)
    assert torch.equal(cut["image"][0], batch["image"][0][:, 3:15, 8:20])
    assert torch.equal(cut["pan"][0], batch["pan"][0][:, 6:30, 16:40])
    assert torch.equal(cut["target"][0], batch["target"][0][:, 15:27, 30:42])
    # the north-western corner: the image reaches no further than its own edge
    assert cut["grid_image"][1].tolist() == pytest.approx([1 / 3, 40 / 30, 1 / 3, 50 / 30], abs=1e-12)
    agree(cut)


def test_a_mirror_image_and_an_exchange_of_axes_by_hand():
    batch = batch_of(2)
    chosen = torch.tensor([True, False])
    turned = mirror(batch, chosen, "x")
    # column 0 of the target was column 47, whose left edge lies at 470 m: (470 + 40) / 30 = 17 from the west, so the
    # new right edge of pixel 0 (old left) lies 20 - 17 = 3 pixels from the new left edge, and pixel 0 begins at 8/3
    assert turned["grid_image"][0].tolist() == pytest.approx([1 / 3, 8 / 3, 1 / 3, 50 / 30], abs=1e-12)
    assert torch.equal(turned["grid_image"][1], batch["grid_image"][1])
    assert torch.equal(turned["image"][0], batch["image"][0].flip(-1))
    agree(turned)
    agree(mirror(turned, chosen, "y"))
    swapped = transpose(batch, chosen)
    assert swapped["grid_pan"][0].tolist() == batch["grid_pan"][0, [2, 3, 0, 1]].tolist()
    agree(swapped)


def test_every_variation_keeps_the_ground_together_and_repeats_by_its_key():
    options = PairOptions(flip=True, rotate90=True, crop=15)
    seen = set()
    for step in range(6):
        found = vary(batch_of(8), options, seed=3, epoch=1, step=step)
        agree(found)
        again = vary(batch_of(8), options, seed=3, epoch=1, step=step)
        assert all(torch.equal(found[key], again[key]) for key in found)
        seen |= {tuple(np.sign(np.gradient(t[0].numpy(), axis=(0, 1))).mean((1, 2))) for t in found["target"]}
        seen |= {("transposed", bool(abs(t[0, 0, 1] - t[0, 0, 0]) < 0.025)) for t in found["target"]}
    assert len(seen) == 6  # four mirror images, axes exchanged or not


def test_a_quarter_turn_is_torchs():
    options = PairOptions(rotate90=True)
    batch = batch_of(16)
    found = vary(batch, options, seed=0, epoch=0, step=0)
    turns = [{k for k in range(4) if torch.equal(t, torch.rot90(b, k, (-2, -1)))}
             for t, b in zip(found["target"], batch["target"], strict=True)]  # fmt: skip
    assert all(len(k) == 1 for k in turns) and set.union(*turns) == {0, 1, 2, 3}
    for i, (k,) in enumerate(turns):
        assert torch.equal(found["image"][i], torch.rot90(batch["image"][i], k, (-2, -1)))


def test_a_shift_moves_both_registrations_alike_and_a_gain_scales_both_inputs_alike():
    batch = batch_of(64)
    moved = vary(batch, PairOptions(shift=0.5), seed=0, epoch=0, step=0)
    image, pan = (moved[k][:, [1, 3]] - batch[k][:, [1, 3]] for k in ("grid_image", "grid_pan"))
    torch.testing.assert_close(3 * image, 1.5 * pan)  # the same metres
    assert 0.4 < (3 * image).abs().max() <= 0.5 and (3 * image[:, 0]).min() < -0.4
    assert torch.equal(moved["target"], batch["target"]) and torch.equal(moved["image"], batch["image"])
    first = {k: v[:1] for k, v in moved.items()}
    agree(first, shift=(10 * 3 * float(image[0, 0]), -10 * 3 * float(image[0, 1])))
    louder = vary(batch, PairOptions(gain=0.03), seed=0, epoch=0, step=0)
    factors = [(louder[k] / batch[k]).mean((1, 2, 3)) for k in ("image", "pan")]
    torch.testing.assert_close(*factors)
    assert 0.02 < (factors[0] - 1).abs().max() <= 0.03 and factors[0].std() > 0.01
    assert torch.equal(louder["target"], batch["target"])


def test_the_nearest_pixel_holds_the_centre():
    known = torch.ones(1, LOW, LOW, dtype=torch.bool)
    known[0, 3, 5] = False  # from 110 to 140 m east, from -40 to -70 m: target columns 11 to 13, rows 4 to 6
    seen = nearest_pixels(known, torch.from_numpy(grid_between(IMAGE, TARGET))[None], (SIZE, SIZE))
    assert {tuple(p) for p in (~seen[0]).nonzero().tolist()} == {(r, c) for r in (4, 5, 6) for c in (11, 12, 13)}


@pytest.mark.parametrize(
    ("augment", "where"),
    [
        ({"GAIN": 0.1}, "AUGMENT.GAIN"),
        ({"GAMMA": 0.1}, "AUGMENT.GAMMA"),
        ({"BAND_DROP": 0.1, "FLIP": True}, "AUGMENT.BAND_DROP"),
        ({"PROBABILITY": 0.5}, "AUGMENT.PROBABILITY"),
    ],
)
def test_what_would_change_the_meaning_of_reflectance_is_refused(augment, where):
    with pytest.raises(ConfigError, match=where):
        PairOptions.from_config({"PROBABILITY": 1.0, "CROP": 0} | augment)


BANDS = tuple(Band(name=n, sensor="OLI", unit="reflectance", scale=2.75e-5, offset=-0.2, nodata=0) for n in "ab")
TARGETS = tuple(Band(name=n, sensor="MSI", unit="reflectance", scale=1e-4, nodata=65535) for n in "ab")
ARRAYS = (
    Array(name="image", dtype="uint16", shape=(2, 12, 12), role="image", bands=BANDS),
    Array(name="pan", dtype="uint16", shape=(1, 24, 24), role="context",
          bands=(Band(name="pan", sensor="OLI", unit="reflectance", scale=2.5e-5, nodata=0),)),
    Array(name="target", dtype="uint16", shape=(2, 32, 32), role="target", bands=TARGETS),
    Array(name="valid", dtype="uint8", shape=(32, 32), role="valid"),
)  # fmt: skip


def chip(rng, header):
    values = {a.name: rng.integers(8000, 20000, a.shape).astype(a.dtype) for a in header.arrays}
    values["valid"] = np.ones((32, 32), np.uint8)
    values["valid"][0, 0], values["target"][1, 2, 2], values["image"][0, 11, 11] = 0, 65535, 0
    return values


@pytest.fixture(scope="module")
def folder(tiny_dataset):
    return tiny_dataset(name="pairs", kind="regression", chips=3, arrays=ARRAYS, make=chip)


def test_batches_are_reflectance_with_grids_units_and_what_is_valid(folder):
    data = PairDataModule(folder, 4)
    loader = data.loader("val")
    first, second = (data.prepare(batch) for batch in loader)
    assert first["image"].dtype == torch.float32 and first["grid_image"].dtype == torch.float64
    raw = next(iter(PairLoader(folder, "val", 4)))
    expected = raw["image"][1, 1].float() * 2.75e-5 - 0.2
    torch.testing.assert_close(first["image"][1, 1], expected)
    assert first["image"][0, 0, 11, 11] == 0 and first["target"][0, 1, 2, 2] == 0
    # without georeference of their own the arrays lie on the target's grid: pixel (11, 11) of the image is (11, 11)
    gone = {(0, 0), (2, 2), (11, 11)}
    assert {tuple(p) for p in (~first["valid"][0]).nonzero().tolist()} >= gone
    assert first["unit"].tolist() == [2, 2, 2, 3] and second["unit"].tolist() == [3, 3]
    assert first["index"].tolist() == [0, 1, 2, 3]


def test_data_that_are_no_pairs_are_refused(tiny_dataset, folder):
    with pytest.raises(InputError, match="no pairs of images but a segmentation"):
        PairDataModule(tiny_dataset(shape=(2, 32, 32)), 2)
    wrong = (ARRAYS[0], Array(**{**ARRAYS[1].model_dump(), "shape": (1, 20, 20)}), *ARRAYS[2:])
    with pytest.raises(InputError, match=r"pan has the shape \(1, 20, 20\), expected \(1, 24, 24\)"):
        PairDataModule(tiny_dataset(name="odd", kind="regression", chips=1, arrays=wrong, make=chip), 2)
    with pytest.raises(InputError, match=r"nowhere train: .*not finite.*georeference"):
        nowhere = tiny_dataset(name="nowhere", kind="regression", chips=1, arrays=ARRAYS, make=chip, placed=False)
        PairDataModule(nowhere, 2).loader("train")
    data = PairDataModule(folder, 2, PairOptions(crop=64))
    loader = data.loader("train", train=True)
    with pytest.raises(ConfigError, match=r"AUGMENT.CROP: 64 is more than the chip's 32"):
        data.prepare(next(iter(loader)), loader)
