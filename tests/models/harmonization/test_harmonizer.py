"""The grids of image, pan and target are brought together by their transforms, or stretched where that is asked for."""

from __future__ import annotations

import pytest
import torch
from tidemark.datasets.grids import grid_between
from tidemark.errors import InputError
from tidemark.models.harmonization.harmonizer import Harmonizer
from torch import nn
from torch.nn.functional import interpolate

# The pan's corner lies half a pan pixel inside the image's, as in Landsat products.
IMAGE = (30.0, 0, 600_000, 0, -30.0, 5_000_010)
PAN = (15.0, 0, 600_007.5, 0, -15.0, 5_000_002.5)
TARGET = (10.0, 0, 600_080, 0, -10.0, 4_999_930)


def ramp(transform, rows, columns, bands):
    """x + 2y in km from (600 km, 5000 km), once more in every further band."""
    x = transform[2] + transform[0] * (torch.arange(columns, dtype=torch.float64) + 0.5) - 600_000
    y = transform[5] + transform[4] * (torch.arange(rows, dtype=torch.float64) + 0.5) - 5_000_000
    one = ((x[None, :] + 2 * y[:, None]) / 1000).float()
    return torch.stack([band * one for band in range(1, bands + 1)])[None]


class Joined(nn.Module):
    """Answers, on the grid it works on, the sum of image and pan."""

    residual, grid, stretch = False, "target", False

    def forward(self, image, pan):
        return image + pan


class NativeJoined(Joined):
    grid = "native"

    def forward(self, image, pan):
        assert pan.shape[-1] == 2 * image.shape[-1]
        wide = interpolate(image, scale_factor=3, mode="bilinear")
        return wide + interpolate(pan, size=wide.shape[-2:], mode="bilinear")


def inputs():
    grids = [torch.from_numpy(grid_between(source, TARGET))[None] for source in (IMAGE, PAN)]
    return ramp(IMAGE, 24, 20, 6), ramp(PAN, 47, 39, 1), *grids


@pytest.mark.parametrize("network", [Joined(), NativeJoined()])
@pytest.mark.parametrize("residual", [False, True])
def test_image_and_pan_meet_on_the_targets_ground(network, residual):
    found = Harmonizer(network, residual=residual)(*inputs(), (36, 30))
    expected = ramp(TARGET, 36, 30, 6) * (2 if residual else 1) + ramp(TARGET, 36, 30, 1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_stretching_ignores_the_grids_as_the_released_training_did():
    image, pan = torch.rand(1, 6, 86, 86), torch.rand(1, 1, 172, 172)
    grids = torch.tensor([[1 / 3, 0.5, 1 / 3, 0.2]]), torch.tensor([[2 / 3, 1, 2 / 3, 0.4]])
    found = Harmonizer(Joined(), stretch=True)(image, pan, *grids, (256, 256))
    torch.testing.assert_close(found, sum(interpolate(x, (256, 256), mode="bicubic") for x in (image, pan)))


def test_stretching_a_part_of_a_scene_is_refused():
    with pytest.raises(InputError, match="24 × 20 pixels cannot be stretched.*12.0 × 10.0.*stretch=False"):
        Harmonizer(Joined(), stretch=True)(*inputs(), (36, 30))


def test_the_network_says_itself_whether_it_is_residual_and_stretched():
    network = Joined()
    network.residual = network.stretch = True
    harmonizer = Harmonizer(network)
    assert harmonizer.residual
    assert harmonizer.stretch
    assert list(harmonizer.state_dict()) == []
