"""What a harmonization network is timed on without a data set, and the reference model that takes the same inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _compat  # noqa: F401
from ..datasets.grids import grid_between
from ..models.harmonization.harmonizer import NATIVE_SCALE, PAN_SCALE
from ..models.harmonization.parts import TargetGridNetwork
from ..models.registry import ModelSpec, create_model

REFERENCE = ("unet", {"encoder": "resnet18"})
TARGET_M, IMAGE_M, PAN_M = 10.0, 30.0, 15.0
# The image's first pixel begins this far north-west of the target's; Landsat's pan lies half its pixel further in.
IMAGE_START_M = 10.0
PAN_START_M = IMAGE_START_M - PAN_M / 2


def low_size(size: int) -> int:
    """Side in 30 m pixels that covers a target of ``size`` pixels of 10 m: 86 for 256, as the data set l8s2 has it."""
    return -(-size // NATIVE_SCALE)


def transforms(x: float = 500_000.0, y: float = 4_900_020.0) -> dict[str, tuple[float, ...]]:
    """Affine a … f of ``target``, ``image`` and ``pan`` for a target whose north-western corner lies at (x, y)."""
    grids = {"target": (TARGET_M, 0.0), "image": (IMAGE_M, IMAGE_START_M), "pan": (PAN_M, PAN_START_M)}
    return {name: (pixel, 0.0, x - start, 0.0, -pixel, y + start) for name, (pixel, start) in grids.items()}


def random_pairs(batch: int, channels: int, size: int, device: torch.device) -> dict[str, Tensor | tuple[int, int]]:
    """Arguments of a ``Harmonizer``: reflectance as the data set l8s2 lays it out, drawn from 0 to 1.

    Args:
        batch: chips.
        channels: bands of the image.
        size: side of the target in pixels.
        device: where the tensors lie.

    Returns:
        ``image`` float32 (B,C,h,h) with h = ``low_size``, ``pan`` (B,1,2h,2h), ``grid_image`` and ``grid_pan`` float64
        (B,4), ``size`` (H,W).
    """
    generator, low, placed = torch.Generator().manual_seed(0), low_size(size), transforms()
    shapes = {"image": (batch, channels, low, low), "pan": (batch, 1, PAN_SCALE * low, PAN_SCALE * low)}
    images = {
        name: torch.rand(shape, generator=generator).to(device, memory_format=torch.channels_last)
        for name, shape in shapes.items()
    }
    grids = {
        f"grid_{name}": torch.from_numpy(grid_between(placed[name], placed["target"])).expand(batch, 4).to(device)
        for name in shapes
    }
    return {**images, **grids, "size": (size, size)}


class ReferenceOnPairs(TargetGridNetwork):
    """The reference U-Net as a regression: image and pan, both resampled to the target, are the bands of its image.

    Args:
        spec: of the network that it is set beside.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec, residual=False)
        name, arguments = REFERENCE
        bands = ModelSpec({"image": sum(self.in_channels.values())}, spec.out_channels)
        self.unet = create_model(name, bands, **arguments)

    def compute(self, image: Tensor, pan: Tensor) -> Tensor:
        return self.unet(image=torch.cat([image, pan], 1))
