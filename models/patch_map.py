"""A patch classifier as a map: a grid of patches over the chip, put together again to a class for every pixel."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from ..errors import WeightsError

CELL_PX = 16  # a patch's class is that of its middle: it goes to so many pixels around that
PATCHES_AT_ONCE = 1024


class PatchMap(nn.Module):
    """Logits of every pixel from a network that classifies patches.

    The image is cut into square cells; the patch around each cell, mirrored where it leaves the image, decides on it.

    Args:
        classifier: takes ``image`` (B,C,S,S), gives logits (B,K).
        patch_px: S, the side of the patches that it has learned from.
        cell_px: side of a cell, at most ``patch_px`` and of the same parity.

    Raises:
        WeightsError: patches without a middle cell of that side.
    """

    def __init__(self, classifier: nn.Module, patch_px: int, cell_px: int = CELL_PX) -> None:
        super().__init__()
        cell_px = min(cell_px, patch_px)
        if (patch_px - cell_px) % 2:
            raise WeightsError(f"patches of {patch_px} px have no middle of {cell_px} px")
        self.classifier, self.patch_px, self.cell_px = classifier, patch_px, cell_px

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Float (B,C,H,W) of any size to logits (B,K,H,W), constant within a cell."""
        batch, channels, height, width = image.shape
        margin, side = (self.patch_px - self.cell_px) // 2, self.patch_px
        below, beside = (margin + -length % self.cell_px for length in (height, width))
        mirrored = max(below, beside) < min(height, width)
        padded = functional.pad(image, (margin, beside, margin, below), "reflect" if mirrored else "replicate")
        grid = padded.unfold(2, side, self.cell_px).unfold(3, side, self.cell_px)
        rows, columns = grid.shape[2:4]
        patches = grid.permute(0, 2, 3, 1, 4, 5).reshape(-1, channels, side, side)
        logits = torch.cat([self.classifier(image=part) for part in patches.split(PATCHES_AT_ONCE)])
        cells = logits.reshape(batch, rows, columns, -1).permute(0, 3, 1, 2)
        pixels = cells.repeat_interleave(self.cell_px, 2).repeat_interleave(self.cell_px, 3)
        return pixels[..., :height, :width]
