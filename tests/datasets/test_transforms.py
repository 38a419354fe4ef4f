import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tidemark.datasets.augmentation import AugmentOptions, augment
from tidemark.datasets.spec import Band, load_manifest
from tidemark.datasets.transforms import Preprocess
from tidemark.errors import ConfigError, WeightsError

BEFORE_AFTER = (Band(name="before", unit="dB", scale=0.5, offset=-20.0, nodata=0), Band(name="after", unit="dB"))


def batch(*chips, dtype=torch.float32):
    return torch.tensor(chips).to(dtype)


def test_stored_values_become_physical_ones():
    x, valid = Preprocess(BEFORE_AFTER, normalization="none")(batch([[[10, 20]], [[3, 4]]], dtype=torch.uint16))
    assert x.dtype == torch.float32 and valid.dtype == torch.bool
    assert x.tolist() == [[[[-15.0, -10.0]], [[3.0, 4.0]]]]
    assert valid.tolist() == [[[True, True]]]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
def test_every_native_dtype_is_taken(dtype):
    image = torch.from_numpy(np.array([[[[7, 9]]]], dtype))
    x, _ = Preprocess((Band(name="b", scale=2.0),), normalization="none")(image)
    assert x.flatten().tolist() == [14.0, 18.0]


def test_nodata_of_a_32_bit_band_is_told_from_its_neighbours():
    image = torch.from_numpy(np.array([[[[2**32 - 1, 2**32 - 2]]]], np.uint32))
    _, valid = Preprocess((Band(name="b", nodata=float(2**32 - 1)),), normalization="none")(image)
    assert valid.flatten().tolist() == [False, True]


def test_pixels_without_data_are_zero_after_normalisation_and_never_nan():
    image = batch([[[0, 20, 30, 0]], [[float("nan"), 5, float("inf"), 7]]])
    x, valid = Preprocess(BEFORE_AFTER, None, ["after-before"], "manifest", [1, 1, 1], [2, 2, 2])(image)
    assert torch.isfinite(x).all()
    assert x[0, :, 0].tolist() == [[0.0, -5.5, -3.0, 0.0], [0.0, 2.0, 0.0, 3.0], [0.0, 7.0, 0.0, 0.0]]
    assert valid.tolist() == [[[False, True, False, False]]]


def test_only_bands_in_use_decide_validity():
    image = batch([[[0, 20]], [[1, 1]]])
    assert Preprocess(BEFORE_AFTER, ["after"], normalization="none")(image)[1].all()
    assert not Preprocess(BEFORE_AFTER, ["after"], ["after-before"], "none")(image)[1].all()


def test_selection_and_order_of_channels():
    preprocess = Preprocess(BEFORE_AFTER, ["after"], ["after-before", "before-after"], "none")
    x, _ = preprocess(batch([[[10]], [[3]]]))
    assert preprocess.channel_names == ["after", "after-before", "before-after"] and preprocess.channels == 3
    assert x.flatten().tolist() == [3.0, 18.0, -18.0]


def test_band_names_may_contain_the_minus_of_a_difference():
    bands = (Band(name="vv-asc"), Band(name="vv"), Band(name="asc"))
    x, _ = Preprocess(bands, [], ["vv-asc-vv"], "none")(batch([[[5]], [[2]], [[1]]]))
    assert x.item() == 3.0


def test_per_chip_statistics_use_valid_pixels_of_that_chip_only():
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.normal(50, 5, (2, 1, 8, 8)).astype(np.float32))
    image[1] += 1000
    image[:, :, :4] = 0
    x, valid = Preprocess((Band(name="b", nodata=0),), normalization="per_chip")(image)
    assert not valid[:, :4].any() and (x[:, :, :4] == 0).all()
    inside = x[:, :, 4:]
    assert inside.mean((1, 2, 3)).abs().max() < 1e-4
    assert (inside.square().mean((1, 2, 3)) - 1).abs().max() < 1e-4


@pytest.mark.parametrize("value", [0.1, -12.345678, 3e-9, 65535.0])
def test_a_constant_chip_normalises_to_zero(value):
    x, valid = Preprocess((Band(name="b"),), normalization="per_chip")(torch.full((1, 1, 33, 47), value))
    assert (x == 0).all() and valid.all()


@pytest.mark.parametrize("normalization", ["per_chip", "none", "manifest"])
def test_a_chip_of_nan_alone_is_invalid_and_zero(normalization):
    fixed = ([3.0], [2.0]) if normalization == "manifest" else (None, None)
    x, valid = Preprocess((Band(name="b"),), None, (), normalization, *fixed)(torch.full((1, 1, 4, 4), torch.nan))
    assert (x == 0).all() and not valid.any()


def test_manifest_statistics_normalise_the_training_split(tiny_dataset):
    manifest = load_manifest(tiny_dataset())
    preprocess = Preprocess.from_manifest(manifest, ["b1"], ["b0-b1"])
    numbers = {s.band: s for s in manifest.statistics}
    b0, b1 = numbers["b0"], numbers["b1"]
    assert preprocess.mean.flatten().tolist() == pytest.approx([b1.mean, b0.mean - b1.mean], rel=1e-6)
    assert preprocess.std.flatten().tolist() == pytest.approx([b1.std, np.hypot(b0.std, b1.std)], rel=1e-6)


@pytest.mark.parametrize("normalization", ["manifest", "per_chip", "none"])
def test_configuration_survives_json(tiny_dataset, normalization):
    manifest = load_manifest(tiny_dataset())
    preprocess = Preprocess.from_manifest(manifest, ["b1"], ["b1-b0"], normalization)
    again = Preprocess.from_config(json.loads(json.dumps(preprocess.to_config())))
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 200, (3, 2, 9, 9), np.uint16))
    for one, other in zip(preprocess(image), again(image), strict=True):
        assert torch.equal(one, other)
    assert again.to_config() == preprocess.to_config()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"select": ["no"]}, "before, after"),
        ({"derived": ["after/before"]}, "difference"),
        ({"select": []}, "at least one"),
        ({"select": ["after", "after"]}, "all different"),
        ({"normalization": "minmax"}, "per_chip"),
        ({"mean": None}, "mean/std"),
        ({"mean": [1.0]}, "1 means"),
        ({"std": [1.0, 0.0]}, "above 0"),
        ({"std": [1.0, float("nan")]}, "finite"),
        ({"std": ["a", "b"]}, "numbers"),
        ({"bands": [{"name": "x", "evil": 1}]}, "evil"),
        ({"bands": "before"}, "list"),
        ({"extra": 1}, "keys"),
    ],
)
def test_a_wrong_configuration_is_refused_in_words(change, message):
    config = Preprocess(BEFORE_AFTER, None, (), "manifest", [0, 0], [1, 1]).to_config()
    with pytest.raises(ConfigError, match=message):
        Preprocess.from_config({**config, **change})


def test_missing_statistics_are_an_error_not_a_default(tiny_dataset):
    manifest = load_manifest(tiny_dataset()).model_copy(update={"statistics": ()})
    with pytest.raises(ConfigError, match="b0.*per_chip"):
        Preprocess.from_manifest(manifest)


def test_weights_meet_an_input_that_stores_its_bands_otherwise():
    preprocess = Preprocess(BEFORE_AFTER, ["before"], (), "manifest", [-15.0], [5.0])
    others = (Band(name="after", unit="dB"), Band(name="before", unit="dB", nodata=-9999))
    x, valid = preprocess.for_bands(others)(batch([[[0, 0]], [[-10, -9999]]]))
    assert x.flatten().tolist() == [1.0, 0.0] and valid.flatten().tolist() == [True, False]
    with pytest.raises(WeightsError, match="'before'.*has after"):
        preprocess.for_bands(others[:1])
    with pytest.raises(WeightsError, match="'dB' expected, the input has '1'"):
        preprocess.for_bands((Band(name="before"),))


def test_the_number_of_bands_is_checked():
    with pytest.raises(ConfigError, match=r"\(B, 2, H, W\)"):
        Preprocess(BEFORE_AFTER, normalization="none")(torch.zeros(1, 3, 4, 4))


EVERYTHING = AugmentOptions(flip=True, rotate90=True, crop=5, gain=0.2, bias=0.3, gamma=0.2, noise=0.1)
TURNS = AugmentOptions(flip=True, rotate90=True)
GEOMETRY = AugmentOptions(flip=True, rotate90=True, crop=6)


def augmented(options, seed=1, epoch=2, step=3, b=6, size=(8, 8)):
    x = torch.randn((b, 2, *size), generator=torch.Generator().manual_seed(0))
    mask, valid = (x[:, 0] * 100).long(), x[:, 1] > -1
    images, known, after = augment(
        {"image": x}, {"image": valid}, mask, options=options, seed=seed, epoch=epoch, step=step
    )
    return (x, mask, valid), (images["image"], after, known["image"])


def test_draws_depend_on_seed_epoch_and_step_alone():
    torch.manual_seed(5)
    _, once = augmented(EVERYTHING)
    torch.manual_seed(6)
    _, again = augmented(EVERYTHING)
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    for other in ({"seed": 9}, {"epoch": 9}, {"step": 9}):
        assert not torch.equal(augmented(EVERYTHING, **other)[1][0], once[0])


def test_draws_are_the_same_on_every_machine():
    draws = augmented(AugmentOptions(bias=1.0))
    shift = (draws[1][0] - draws[0][0])[0, :, draws[0][2][0]][:, 0]
    assert shift.tolist() == pytest.approx([0.2308996, 0.7003857], abs=1e-5)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**63), square=st.booleans())
def test_image_mask_and_validity_stay_together(seed, square):
    size = (8, 8) if square else (6, 9)
    options = AugmentOptions(flip=True, rotate90=True, crop=6 if square else None)
    _, (x, mask, valid) = augmented(options, seed=seed, size=size)
    assert torch.equal(mask, (x[:, 0] * 100).long())
    assert torch.equal(valid, x[:, 1] > -1)
    assert x.shape[2:] == ((6, 6) if square else size)


def test_all_eight_positions_of_a_square_occur():
    x = torch.arange(4.0).view(1, 1, 2, 2)
    seen = {
        tuple(
            augment({"image": x}, {"image": x[:, 0] >= 0}, None, options=TURNS, seed=0, epoch=0, step=k)[0]["image"]
            .flatten()
            .tolist()
        )
        for k in range(100)
    }
    assert len(seen) == 8


def test_intensity_changes_valid_pixels_of_the_image_alone():
    (x, mask, valid), (y, mask_after, valid_after) = augmented(AugmentOptions(gain=0.5, bias=0.5, gamma=0.5, noise=0.5))
    assert torch.equal(mask, mask_after) and torch.equal(valid, valid_after)
    invalid = ~valid[:, None].expand_as(x)
    assert torch.equal(x[invalid], y[invalid]) and (x[~invalid] != y[~invalid]).float().mean() > 0.99
    assert torch.isfinite(y).all()


@pytest.mark.parametrize("name", ["gain", "bias", "gamma", "noise"])
def test_switching_a_step_off_leaves_the_draws_of_the_others(name):
    _, with_it = augmented(GEOMETRY)
    _, (_, mask, _) = augmented(AugmentOptions(flip=True, rotate90=True, crop=6, **{name: 0.1}))
    assert torch.equal(with_it[1], mask)


def test_gain_stays_in_its_range():
    (x, _, valid), (y, _, _) = augmented(AugmentOptions(gain=0.25), b=64)
    ratio = (y / x)[valid[:, None].expand_as(x)]
    assert ratio.min() >= 0.7499 and ratio.max() <= 1.2501 and ratio.std() > 0.05


def test_no_options_change_nothing():
    (x, mask, valid), after = augmented(AugmentOptions())
    assert all(torch.equal(a, b) for a, b in zip((x, mask, valid), after, strict=True))


@pytest.mark.parametrize("options", [{"gain": -0.1}, {"noise": float("nan")}, {"crop": 0}])
def test_wrong_options_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        AugmentOptions(**options)


def test_a_crop_larger_than_the_chip_is_refused():
    with pytest.raises(ConfigError, match="crop"):
        augmented(AugmentOptions(crop=9))


def test_range_normalisation_clips_to_0_and_1_and_optional_keys_survive_the_configuration():
    band = Band(name="vv", unit="dB", nodata=0.0)
    x = torch.tensor([[[[-30.0, -10.0, 10.0, 0.0]]]])
    scaled = Preprocess([band], mean=[-20.0], std=[20.0], clip=(0, 1), context="nearest", partial=True)
    found, valid = Preprocess.from_config(scaled.to_config())(x)
    torch.testing.assert_close(found.flatten(), torch.tensor([0.0, 0.5, 1.0, 0.0]))
    assert valid.flatten().tolist() == [True, True, True, False]
    assert Preprocess.from_config(scaled.to_config()).to_config() == scaled.to_config()
    plain = Preprocess([band], mean=[-20.0], std=[20.0]).to_config()
    assert not {"clip", "context", "partial"} & set(plain)
    for key, value in (("clip", [1, 0]), ("clip", "ab"), ("context", "cubic")):
        with pytest.raises(ConfigError, match=key):
            Preprocess.from_config(plain | {key: value})


def test_partial_counts_pixels_where_any_band_has_data():
    bands = [Band(name="a", nodata=0), Band(name="b", nodata=0)]
    x = torch.tensor([[[[1.0, 0.0, 2.0, 0.0]], [[3.0, 3.0, 0.0, 0.0]]]])
    assert Preprocess(bands, normalization="none")(x)[1].flatten().tolist() == [True, False, False, False]
    partial = Preprocess(bands, normalization="none", partial=True)
    assert partial(x)[1].flatten().tolist() == [True, True, True, False]
    assert partial.missing_share(x).tolist() == [0.5]
