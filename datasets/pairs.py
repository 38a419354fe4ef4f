"""Batches of pairs of images, each on a grid of its own: what a harmonization learns from.

No array is stretched onto another one. Every batch carries the grids that say how: ``scale_x, offset_x, scale_y,
offset_y`` with source pixel edge = scale * target pixel edge + offset (``grids.grid_between``), in float64.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import _compat  # noqa: F401
from ..errors import InputError
from .datamodule import SplitDataModule
from .grids import grid_between
from .loader import ChipLoader
from .pair_geometry import PAN, PairOptions, nearest_pixels, vary
from .spec import Manifest
from .transforms import Preprocess, image_array


class PairLoader(ChipLoader):
    """A ``ChipLoader`` whose batches also hold each chip's grids and its scene.

    Yields, beside the arrays and ``index``, ``grid_image`` and ``grid_pan`` float64 (B,4), and ``unit`` int64 (B,), the
    chips' scenes by number in the manifest.

    Raises:
        InputError: a chip without a georeference, or on a rotated grid.
    """

    def __init__(self, root: str | Path, split: str, batch_size: int, **options: Any) -> None:
        super().__init__(root, split, batch_size, **options)
        names = {"grid_image": image_array(self.manifest).name}
        if any(array.name == PAN for array in self.manifest.arrays):
            names["grid_pan"] = PAN
        try:
            self._chips = {
                key: torch.from_numpy(
                    np.concatenate([grid_between(s.array_transform(name), s.transform) for s in self.shards])
                )
                for key, name in names.items()
            }
        except InputError as error:
            raise InputError(error.what, where=f"{self.manifest.name} {split}", hint=error.hint) from None
        units = np.concatenate([shard.scene_index for shard in self.shards])
        self._chips["unit"] = torch.from_numpy(units.astype(np.int64))

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return map(self.placed, super().__iter__())  # binds no batch to a name: its buffer would count as held

    def placed(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """A batch with the grids and scenes of the chips that its ``index`` (B,) names."""
        return batch | {key: values[batch["index"]] for key, values in self._chips.items()}


class PairDataModule(SplitDataModule):
    """Train, validation and test batches of a data set of the kind ``regression``.

    The task gets ``image`` float32 (B,C,h,w) and, where the data set has one, ``pan`` (B,1,2h,2w): physical units
    (reflectance), 0 where there is no data; ``target`` float32 (B,C',H,W); ``valid`` bool (B,H,W): the data set calls
    the pixel valid and all of the images have data there; ``grid_image`` and ``grid_pan`` float64 (B,4), see
    ``grids.grid_between``; ``unit`` and ``index`` int64 (B,), the chips' scenes and their numbers in the split.
    Training batches are shuffled, cropped and varied; each draw is keyed by seed, epoch and the batch's number over all
    ranks, so that a resumed run goes on as if it had not stopped.

    Args:
        root, batch_size, options: see `SplitDataModule`.
        augment: what to vary in training batches; nothing by default.

    Attributes:
        preprocess, pan_preprocess: from stored values to reflectance; they go with the weights (None: no such array).

    Raises:
        InputError: the data set is no regression, its chips are not square or ``pan`` has not twice the image's side.
    """

    loader_class = PairLoader

    def __init__(self, root: str | Path, batch_size: int, augment: PairOptions | None = None, **options: Any) -> None:
        super().__init__(root, batch_size, **options)
        self.augment = augment or PairOptions()
        self.image, self.target, self.pan = pair_arrays(self.manifest)
        self.preprocess = Preprocess.from_manifest(self.manifest, normalization="none")
        self.target_values = Preprocess(self.target.bands, normalization="none")
        self.pan_preprocess = None if self.pan is None else Preprocess(self.pan.bands, normalization="none")

    @property
    def arrays(self) -> list[str]:
        """Image, panchromatic band, target and masks of validity."""
        wanted = (self.image, self.target, self.pan)
        return [a.name for a in self.manifest.arrays if a in wanted or a.role == "valid"]

    @torch.no_grad()
    def prepare(self, batch: dict[str, Any], training: PairLoader | None = None) -> dict[str, Tensor]:
        """Turn a ``PairLoader`` batch into what the task gets; varied if ``training`` yielded it last."""
        device = batch[self.image.name].device
        found, seen = {}, {}
        found["image"], seen["image"] = self.preprocess.to(device)(batch[self.image.name])
        if self.pan is not None:
            found["pan"], seen["pan"] = self.pan_preprocess.to(device)(batch[PAN])
        found["target"], valid = self.target_values.to(device)(batch[self.target.name])
        for array in self.manifest.arrays:
            if array.role == "valid" and array.shape == self.target.shape[1:]:
                valid = valid & (batch[array.name] != 0)
        grids = {f"grid_{name}": batch[f"grid_{name}"] for name in seen}
        for name, known in seen.items():
            valid = valid & nearest_pixels(known, grids[f"grid_{name}"], tuple(valid.shape[1:]))
        found |= {"valid": valid, **grids}
        if training is not None:
            sampler = training.sampler
            step = (sampler.yielded - 1) * sampler.world_size + sampler.rank
            found = vary(found, self.augment, seed=self.seed, epoch=sampler.epoch, step=step)
        return found | {"unit": batch["unit"], "index": batch["index"]}


def pair_arrays(manifest: Manifest) -> tuple[Any, Any, Any]:
    """The image, the target and, where there is one, the panchromatic array of a data set of pairs.

    Raises:
        InputError: no regression, chips that are not square, or a panchromatic array of another size or band count.
    """
    if manifest.task.kind != "regression":
        raise InputError(f"no pairs of images but a {manifest.task.kind}", where=manifest.name)
    image, target = image_array(manifest), manifest.label_array
    pan = next((array for array in manifest.arrays if array.name == PAN), None)
    for array in (image, target):
        if array.shape[1] != array.shape[2]:
            raise InputError(f"chips of pairs are square, {array.name} has {array.shape}", where=manifest.name)
    side = 2 * image.shape[1]
    if pan is not None and pan.shape != (1, side, side):
        raise InputError(f"{PAN} has the shape {pan.shape}, expected {(1, side, side)}", where=manifest.name)
    return image, target, pan
