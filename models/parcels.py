"""A small U-Net that finds the insides of field parcels: the downstream task that harmonization is judged by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from .. import _compat  # noqa: F401
from .harmonization.unet import UNet, side_multiple

DEPTH, CHANNELS = 3, 8
CROP_PX, BATCH = 64, 8
LEARNING_RATE = 3e-3


class ParcelNet(nn.Module):
    """Six bands of reflectance (B,6,H,W) to one logit (B,1,H,W); the bands are standardised by fixed numbers."""

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.reshape(1, -1, 1, 1))
        self.register_buffer("std", std.reshape(1, -1, 1, 1))
        self.unet = UNet(mean.numel(), DEPTH, CHANNELS, "upsample")
        self.head = nn.Conv2d(CHANNELS, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        multiple = side_multiple(DEPTH)
        x = functional.pad((image - self.mean) / self.std, (0, -width % multiple, 0, -height % multiple), "replicate")
        return self.head(self.unet(x))[..., :height, :width]


def empty_parcel_net() -> ParcelNet:
    """One whose weights and numbers are to be loaded."""
    return ParcelNet(torch.zeros(6), torch.ones(6)).eval()


def train_parcels(images: Sequence[np.ndarray], masks: Sequence[np.ndarray], seed: int, steps: int) -> ParcelNet:
    """Train on random crops, flipped and turned; the same seed gives the same network.

    Args:
        images: float32 (6,H,W) reflectance, at least ``CROP_PX`` a side.
        masks: (H,W), 1 inside parcels.
        seed: of the starting weights and every draw.
        steps: of Adam, batches of ``BATCH`` crops; the rate falls to zero along a cosine.
    """
    pixels = torch.from_numpy(np.concatenate([image.reshape(len(image), -1) for image in images], 1))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = ParcelNet(pixels.mean(1), pixels.std(1))
    rng = np.random.Generator(np.random.PCG64(seed))
    optimiser = torch.optim.Adam(net.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps)
    for _ in range(steps):
        crops = [_crop(rng, images, masks) for _ in range(BATCH)]
        image, mask = (torch.from_numpy(np.stack(part)) for part in zip(*crops, strict=True))
        loss = functional.binary_cross_entropy_with_logits(net(image)[:, 0], mask)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return net.eval()


def _crop(rng: np.random.Generator, images, masks) -> tuple[np.ndarray, np.ndarray]:
    which = rng.integers(len(images))
    height, width = masks[which].shape
    row, column = rng.integers(height - CROP_PX + 1), rng.integers(width - CROP_PX + 1)
    part = np.s_[..., row : row + CROP_PX, column : column + CROP_PX]
    turns, flip = int(rng.integers(4)), bool(rng.integers(2))
    image, mask = (np.rot90(a[part], turns, (-2, -1)) for a in (images[which], masks[which]))
    image, mask = (a[..., ::-1] if flip else a for a in (image, mask))
    return np.ascontiguousarray(image), np.ascontiguousarray(mask, np.float32)


@torch.inference_mode()
def find_parcels(net: ParcelNet, image: np.ndarray) -> np.ndarray:
    """uint8 (H,W), 1 inside parcels, of float32 (6,H,W) reflectance."""
    return (net(torch.from_numpy(np.ascontiguousarray(image))[None])[0, 0] > 0).numpy().astype(np.uint8)
