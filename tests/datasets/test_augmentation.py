"""Missing data drawn on the device: the same ground in image and context, as often as asked, keyed by the step."""

from __future__ import annotations

import pytest
import torch
from tidemark.datasets.augmentation import AugmentOptions, augment
from tidemark.errors import ConfigError

ORBITS = [[0, 1], [2, 3]]


def augmented(options, b=64, size=128, step=0, names=("image", "image_x2", "image_x8"), bands=4):
    images = {name: torch.ones((b, bands, size, size)) for name in names}
    known = {name: torch.ones((b, size, size), dtype=torch.bool) for name in names}
    mask = torch.ones((b, size, size), dtype=torch.long)
    return augment(images, known, mask, options=options, seed=1, epoch=2, step=step, orbits=ORBITS)


def on_the_chip(context, scale):
    """A context's pixels that show the chip's own ground."""
    middle, reach = context.shape[-1] // 2, context.shape[-1] // (2 * scale)
    return context[..., middle - reach : middle + reach, middle - reach : middle + reach]


@pytest.mark.parametrize("name", ["band_drop", "lines", "regions", "orbits"])
def test_as_many_chips_lack_data_as_asked_and_labels_stay(name):
    images, known, mask = augmented(AugmentOptions(**{name: 0.5}), b=100, size=64)
    touched = (images["image"] == 0).flatten(1).any(1).float().mean()
    assert 0.35 < touched < (0.99 if name == "band_drop" else 0.65)
    assert ((images["image"] == 0) | (images["image"] == 1)).all()
    assert (mask == 1).all() and known["image"].all()
    again = augmented(AugmentOptions(**{name: 0.5}), b=100, size=64)[0]
    other = augmented(AugmentOptions(**{name: 0.5}), b=100, size=64, step=1)[0]
    assert all(torch.equal(images[key], again[key]) for key in images)
    assert not torch.equal(images["image"], other["image"])


def test_dropped_bands_are_the_same_at_every_scale_and_one_stays():
    images, _, _ = augmented(AugmentOptions(band_drop=0.9), size=8)
    assert torch.equal(images["image"], images["image_x8"])
    left = (images["image"] == 1).all(3).all(2).sum(1)
    assert left.min() == 1 and left.float().mean() < 2
    assert (images["image"].amin((2, 3)) == images["image"].amax((2, 3))).all()  # a channel goes as a whole


def test_an_orbits_gap_covers_the_same_ground_at_every_scale():
    images, _, _ = augmented(AugmentOptions(orbits=1.0))
    gone = {name: x == 0 for name, x in images.items()}
    asc, desc = gone["image"][:, :2].flatten(1).any(1), gone["image"][:, 2:].flatten(1).any(1)
    assert (asc ^ desc).all() and 0.2 < asc.float().mean() < 0.8
    assert torch.equal(gone["image"][:, 0], gone["image"][:, 1])
    assert gone["image"].flatten(1).sum(1).min() >= 2 * 99 * 99
    for name, scale in (("image_x2", 2), ("image_x8", 8)):
        share = torch.nn.functional.avg_pool2d(gone["image"].float(), scale)
        found = on_the_chip(gone[name], scale)
        assert found[share == 1].all() and not found[share == 0].any()
        assert not gone[name][..., 0, 0].any()  # beyond the chip nothing is dropped


def test_a_line_is_thin_long_and_the_same_ground():
    images, _, _ = augmented(AugmentOptions(lines=1.0))
    pixels = (images["image"][:, 0] == 0).flatten(1).sum(1)
    assert pixels.max() <= 128 * 1.5 * 5 and pixels.float().mean() > 40
    assert torch.equal(images["image"][:, 0], images["image"][:, 3])
    for name, scale in (("image_x2", 2), ("image_x8", 8)):
        coarse = torch.nn.functional.max_pool2d((images["image"] == 0).float(), scale).bool()
        found = on_the_chip(images[name] == 0, scale)
        near = torch.nn.functional.max_pool2d(found.float(), 3, 1, 1).bool()
        assert near[coarse].float().mean() > 0.99  # a missing pixel of the chip is missing around there too


def test_regions_are_at_most_a_quarter_of_the_side_and_each_inputs_own():
    images, _, _ = augmented(AugmentOptions(regions=1.0), size=64)
    gone = images["image"][:, 0] == 0
    assert gone.any(1).sum(1).max() <= 17 and gone.any(2).sum(1).max() <= 17
    assert not torch.equal(images["image"], images["image_x2"])


def test_probability_leaves_chips_as_they_are():
    images, _, _ = augmented(AugmentOptions(bias=0.5, probability=0.25), b=200, size=4)
    touched = (images["image"] != 1).flatten(1).any(1)
    assert 0.15 < touched.float().mean() < 0.35
    assert torch.equal(images["image"], images["image_x8"])
    every, _, _ = augmented(AugmentOptions(bias=0.5), b=200, size=4)
    assert torch.equal(images["image"][touched], every["image"][touched])  # the same draws, for fewer chips


def test_noise_is_drawn_for_each_scale():
    images, _, _ = augmented(AugmentOptions(noise=0.1), size=8)
    assert not torch.equal(images["image"], images["image_x2"])
    assert 0.02 < (images["image_x8"] - 1).std() < 0.1


def test_turns_are_the_same_at_every_scale():
    x = torch.randn((16, 2, 8, 8), generator=torch.Generator().manual_seed(0))
    positive = x[:, 0] > 0
    images, known, mask = augment(
        {"image": x, "image_x2": 2 * x},
        {"image": positive, "image_x2": positive},
        positive.long(),
        options=AugmentOptions(flip=True, rotate90=True),
        seed=0,
        epoch=0,
        step=0,
    )
    assert torch.equal(images["image_x2"], 2 * images["image"]) and not torch.equal(images["image"], x)
    assert torch.equal(mask.bool(), images["image"][:, 0] > 0) and torch.equal(known["image_x2"], mask.bool())


def test_what_cannot_be_done_is_refused():
    with pytest.raises(ConfigError, match="crop would leave its context's centre"):
        augmented(AugmentOptions(crop=4), size=8)
    images = {"image": torch.ones(1, 2, 8, 8)}
    known = {"image": torch.ones(1, 8, 8, dtype=torch.bool)}
    with pytest.raises(ConfigError, match="no bands of two orbits"):
        augment(images, known, None, options=AugmentOptions(orbits=0.5), seed=0, epoch=0, step=0)
    for name in ("probability", "lines", "orbits"):
        with pytest.raises(ConfigError, match=f"augment {name}.*share of 0 to 1, found 1.5"):
            AugmentOptions(**{name: 1.5})
