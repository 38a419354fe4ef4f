"""A patch classifier as a map: each cell has the answer to the patch around it."""

from __future__ import annotations

import pytest
import torch
from tidemark.errors import WeightsError
from tidemark.models.patch_map import PatchMap


class MeanAndCorner(torch.nn.Module):
    """Logits of a patch: its mean, and its upper left pixel."""

    def forward(self, image):
        return torch.stack([image.mean((1, 2, 3)), image[:, 0, 0, 0]], 1)


@pytest.mark.parametrize("size", [(64, 96), (50, 33), (16, 16), (7, 5)])
def test_every_cell_has_the_answer_to_the_patch_around_it(size):
    image = torch.arange(2 * size[0] * size[1], dtype=torch.float32).reshape(2, 1, *size)
    logits = PatchMap(MeanAndCorner(), patch_px=32, cell_px=16)(image)
    assert logits.shape == (2, 2, *size)
    for row in range(0, size[0], 16):
        for column in range(0, size[1], 16):
            cell = logits[..., row : row + 16, column : column + 16]
            assert (cell == cell[..., :1, :1]).all()
    if size == (64, 96):
        patch = image[0, :, 8:40, 24:56]  # around the cell at 16, 32
        assert logits[0, :, 16, 32].tolist() == [patch.mean().item(), patch[0, 0, 0].item()]
        assert logits[0, 1, 0, 0] == image[0, 0, 8, 8]  # mirrored beyond the edge


def test_patches_smaller_than_a_cell_are_cells_themselves():
    image = torch.rand(1, 1, 8, 8)
    assert torch.equal(PatchMap(MeanAndCorner(), patch_px=4)(image)[0, 1, ::4, ::4], image[0, 0, ::4, ::4])


def test_patches_without_a_middle_are_refused():
    with pytest.raises(WeightsError, match="patches of 63 px have no middle of 16 px"):
        PatchMap(MeanAndCorner(), patch_px=63)
