"""The one caller of every harmonization network: from images on their own grids to reflectance on the target's."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ... import _compat  # noqa: F401
from ...errors import InputError
from .parts import GaussianOutput, GuidedOutput
from .resample import resample

NATIVE_SCALE = 3  # a network on the image's own grid answers at a third of its pixels: 10 m for 30 m
PAN_SCALE = 2  # and takes the pan at half of them: 15 m
STRETCH_LIMIT = 0.02  # the released chips were stretched by 0.8 %


class Harmonizer(nn.Module):
    """A network with its resampling; it adds no parameters of its own.

    Args:
        network: has ``grid`` (``target``: both inputs are resampled to the target before it; ``native``: it works on
            the image's own grid, and its answer is resampled) and ``residual``.
        residual: whether the network's answer is added to the bicubic image; by default as the network was made.
        stretch: resize image and pan to the target's size without regard to their transforms, with Torch's bicubic
            kernel. The released weights learned so; stretching 86 pixels of 30 m over 256 of 10 m costs 0.3 to 1 dB,
            and it is refused for anything but a whole chip. By default as the network was made.
    """

    def __init__(self, network: nn.Module, residual: bool | None = None, stretch: bool | None = None) -> None:
        super().__init__()
        self.network = network
        self.residual = network.residual if residual is None else residual
        self.stretch = getattr(network, "stretch", False) if stretch is None else stretch

    def forward(
        self, image: Tensor, pan: Tensor, grid_image: Tensor, grid_pan: Tensor, size: tuple[int, int]
    ) -> Tensor | GaussianOutput | GuidedOutput:
        """Reflectance on the target's grid.

        Args:
            image: float32 reflectance (B,6,h,w), 30 m.
            pan: float32 reflectance (B,1,h',w'), 15 m, on whatever grid it has.
            grid_image, grid_pan: (B,4), see ``datasets.grids.grid_between`` from each to the target.
            size: (H,W) of the target.

        Returns:
            (B,6,H,W); of a Gaussian network mean and variance, of a guided one in training mean and pan detail.

        Raises:
            InputError: ``stretch`` for images that do not cover about the target's extent.
        """
        grid_image, grid_pan = (torch.as_tensor(g, device=image.device).double() for g in (grid_image, grid_pan))
        if self.network.grid == "native":
            base = resample(image, grid_image, size) if self.residual else None
            grid = _pan_beside_image(grid_image, grid_pan)
            beside = resample(pan, grid, (PAN_SCALE * image.shape[-2], PAN_SCALE * image.shape[-1]))
            found = resample(self.network(image, beside), NATIVE_SCALE * grid_image, size)
        else:
            base, pan = self._on_target(image, grid_image, size), self._on_target(pan, grid_pan, size)
            found = self.network(base, pan)
        if not self.residual:
            return found
        return found + base if isinstance(found, Tensor) else found._replace(mean=found.mean + base)

    def _on_target(self, x: Tensor, grid: Tensor, size: tuple[int, int]) -> Tensor:
        if not self.stretch:
            return resample(x, grid, size)
        scales = grid.reshape(-1, 4)[:, [2, 0]].cpu()
        covered = scales * torch.tensor(size)
        if ((covered / torch.tensor(x.shape[-2:]) - 1).abs() > STRETCH_LIMIT).any():
            raise InputError(
                f"{x.shape[-2]} × {x.shape[-1]} pixels cannot be stretched to a target that covers "
                f"{covered[0, 0]:.1f} × {covered[0, 1]:.1f} of them",
                hint="stretching is for whole chips; give Harmonizer(network, stretch=False) for parts of scenes",
            )
        return functional.interpolate(x, size=size, mode="bicubic")


def _pan_beside_image(grid_image: Tensor, grid_pan: Tensor) -> Tensor:
    """(B,4): where the pixels of half the image's size lie in the pan, whose grid Landsat shifts by half a pixel."""
    grid_image, grid_pan = grid_image.reshape(-1, 2, 2), grid_pan.reshape(-1, 2, 2)  # (B, axis, scale and offset)
    per_image = grid_pan[..., 0] / grid_image[..., 0]
    offset = grid_pan[..., 1] - per_image * grid_image[..., 1]
    return torch.stack([per_image / PAN_SCALE, offset], -1).reshape(-1, 4)
