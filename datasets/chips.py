"""Data sets of chips in the manner of TorchGeo: one sample at a time, in physical units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .. import _compat  # noqa: F401

# isort: split
from torchgeo.datasets import DatasetNotFoundError, NonGeoDataset

from ..errors import InputError
from .reader import is_remote, open_split, pulled_shards
from .spec import MANIFEST_NAME, Array, load_manifest
from .transforms import Preprocess, image_array

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ChipDataset(NonGeoDataset):
    """One split of any Tidemark data set.

    A sample is a dict of

    * ``image`` (and every further input array under its name): float32 (C, H, W) in physical units; pixels without
      data are 0, never NaN
    * ``mask``: int64 (H, W) as stored, 255 = ignore; or ``label``: int64 (); or ``target``: float32 (C, H, W)
    * ``valid``: bool (H, W), where all selected bands of ``image`` have data; a stored ``valid`` array decides alone
    * ``crs``: str, WKT or "" where unknown
    * ``transform``: float64 (6,), affine a, b, c, d, e, f from pixel to CRS; NaN where unknown
    * ``bounds``: float64 (4,), left, bottom, right, top in the CRS; NaN where unknown
    * ``chip_id``: str

    Files open lazily in every process, so a ``DataLoader`` may use any number of workers. ``ChipLoader`` is faster.

    Args:
        root: the data set's folder, ``<root>/<name>/<version>``, where ``dataset.json`` lies.
        split: name of the split, as the manifest has it.
        bands: names of the image's bands, in the order wanted; all by default.
        transforms: takes a sample and returns the changed sample.
        download: pull the split from the Hugging Face Hub where it is not in ``root``; needs ``repo``.
        repo: ``ORG/NAME`` on the Hub.
        stream: read the chips over HTTP as they are asked for; ``root`` is ``hf://ORG/NAME@1.0.0`` then.
        checksum: compare every chip with its stored checksum.

    Raises:
        DatasetNotFoundError: there is no data set in ``root``.
        InputError: ``download`` without a ``repo``, ``stream`` without ``hf://``, or a band does not exist.
        HubError: the Hub cannot be reached, or refuses.
        FormatError: the manifest or a shard is not as declared.
        ChecksumError: (at a sample) its bytes are not those that were published.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        bands: Sequence[str] | None = None,
        transforms: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        download: bool = False,
        checksum: bool = True,
        repo: str | None = None,
        stream: bool = False,
    ) -> None:
        self.root, self.split, self.transforms = root, split, transforms
        self.download, self.checksum, self.repo = download, checksum, repo
        if is_remote(root) != stream:
            raise InputError(
                "is streamed from the Hub with stream=True, and only an address hf://ORG/NAME@1.0.0 is", where=root
            )
        if not stream:
            self.root = Path(root)
            self._find(split)
        self.manifest, self.shards = open_split(self.root, split, checksum, partial=True)
        self.image = image_array(self.manifest)
        inputs = [a for a in self.manifest.arrays if a.role in ("image", "context", "target")]
        self._physical = {
            a.name: Preprocess(a.bands, bands if a is self.image else None, normalization="none") for a in inputs
        }
        self.bands = list(self._physical[self.image.name].select)
        self._starts = np.cumsum([0, *(shard.n for shard in self.shards)])

    def _find(self, split: str) -> None:
        """Pull what is not there, where that was asked for; what is there is not asked for again."""
        if self.download and not self._is_here(split):
            from .hub import pull

            version, name = self.root.name, self.root.parent.name
            if self.repo is None:
                raise InputError(
                    "not known where to download it from",
                    where=self.root,
                    hint=f"repo='ORG/{name}', or build it from its source: tidemark build {name}",
                )
            found = pull(f"{self.repo}@{version}", self.root.parent.parent, splits=[split])
            if found.resolve() != self.root.resolve():
                raise InputError(f"{self.repo} holds {found.parent.name} {found.name}", where=self.root)
        if not (self.root / MANIFEST_NAME).exists():
            raise DatasetNotFoundError(self)

    def _is_here(self, split: str) -> bool:
        if not (self.root / MANIFEST_NAME).exists():
            return False
        pulled = pulled_shards(self.root)
        return pulled is None or all(e.path in pulled for e in load_manifest(self.root).split_shards(split))

    def __len__(self) -> int:
        """Number of chips of the split."""
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The sample of chip ``index`` (in shard order, as ``ChipLoader`` numbers them).

        Raises:
            IndexError: there is no such chip.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"chip {index} of {len(self)}")
        index = index % len(self)
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        shard, i = self.shards[number], index - int(self._starts[number])
        sample: dict[str, Any] = {}
        shard.prepare([array.name for array in self.manifest.arrays], [i])
        for array in self.manifest.arrays:
            stored = torch.from_numpy(shard.read(array.name, i))
            if array.name in self._physical:
                values, valid = self._physical[array.name](stored[None])
                sample[array.name] = values[0]
                if array is self.image:
                    sample.setdefault("valid", valid[0])
            elif array.role == "valid":
                sample["valid"] = stored != 0
            else:
                sample[array.role] = stored.to(torch.int64)
        transform = shard.transform[i].copy()
        sample["crs"] = self.manifest.scenes[int(shard.scene_index[i])].crs or ""
        sample["transform"] = torch.from_numpy(transform)
        sample["bounds"] = chip_bounds(transform, self._grid())
        sample["chip_id"] = shard.open().rows["chip_id"][i].decode("ascii")
        return sample if self.transforms is None else self.transforms(sample)

    def _grid(self) -> Array:
        """The array whose grid the stored transform describes: the target, or the image under a label per chip."""
        label = self.manifest.label_array
        return label if label.shape else self.image

    def plot(self, sample: dict[str, Any], suptitle: str | None = None) -> Figure:
        """Draw a sample: inputs, label and, where the sample has one, ``prediction``.

        Args:
            sample: a sample of this data set.
            suptitle: title of the whole figure.
        """
        from .plots import plot_sample

        return plot_sample(sample, self.manifest, bands=self.bands, suptitle=suptitle)


def chip_bounds(transform: np.ndarray, grid: Array) -> Tensor:
    """float64 (4,): left, bottom, right, top of a chip in its CRS (of its enclosing box, if the grid is rotated)."""
    height, width = grid.shape[-2:]
    a, b, c, d, e, f = transform
    x = [c + a * column + b * row for row in (0, height) for column in (0, width)]
    y = [f + d * column + e * row for row in (0, height) for column in (0, width)]
    return torch.tensor([min(x), min(y), max(x), max(y)], dtype=torch.float64)
