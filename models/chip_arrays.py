"""The chips of one split as NumPy arrays in physical units, for the rows that need no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..datasets.reader import open_split
from ..datasets.spec import Band
from ..datasets.statistics import valid_pixels
from ..errors import ConfigError


@dataclass(frozen=True)
class Chip:
    """``image`` float32 (C,H,W) in physical units, 0 without data; ``valid`` bool (H,W): every band, or of partial data
    any band, has data; ``label`` uint8 (H,W) or ()."""

    id: str
    image: np.ndarray
    valid: np.ndarray
    label: np.ndarray


def to_physical(stored: np.ndarray, bands: Sequence[Band], partial: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """float32 (C,H,W) = stored * scale + offset, 0 where invalid, and bool (H,W): every band is finite, none nodata.

    ``partial``: a pixel is valid where any band is, and 0 in the others.
    """
    valid = np.stack([valid_pixels(plane, band) for plane, band in zip(stored, bands, strict=True)])
    valid = valid if partial else valid.all(0)
    scale, offset = (np.array([getattr(b, name) for b in bands])[:, None, None] for name in ("scale", "offset"))
    physical = np.where(valid, np.where(valid, stored, 0) * scale + offset, 0).astype(np.float32)
    return physical, valid.any(0) if partial else valid


class ChipArrays:
    """Iterates the chips of one split in its order, one at a time; a second pass reads again.

    Args:
        folder: the data set's folder, ``<root>/<name>/<version>``.
        split: name of the split.
        bands: names of the bands to take, in this order; all when empty.
        partial: a pixel counts where any band has data, not only where all have.
    """

    def __init__(self, folder: str | Path, split: str, bands: Sequence[str] = (), partial: bool = False) -> None:
        self.split, self.partial = split, partial
        self.manifest, self.shards = open_split(folder, split)
        self._image = next(a for a in self.manifest.arrays if a.role == "image")
        names = [band.name for band in self._image.bands]
        for name in bands:
            if name not in names:
                raise ConfigError(f"no band {name!r}, there is {', '.join(names)}", where="DATA.BANDS")
        self._select = [names.index(name) for name in bands or names]
        self.bands = tuple(self._image.bands[i] for i in self._select)
        # The first mask of validity on the image's own grid.
        masks = [a.name for a in self.manifest.arrays if a.role == "valid" and a.shape == self._image.shape[1:]]
        self._valid = masks[0] if masks else None

    def __len__(self) -> int:
        return sum(shard.n for shard in self.shards)

    @property
    def chip_ids(self) -> list[str]:
        """The split's chip ids, in its order."""
        return [chip_id for shard in self.shards for chip_id in shard.chip_ids]

    @property
    def image_name(self) -> str:
        """Name of the image array."""
        return self._image.name

    def __iter__(self) -> Iterator[Chip]:
        for shard in self.shards:
            for i, chip_id in enumerate(shard.chip_ids):
                image, valid = to_physical(shard.read(self._image.name, i)[self._select], self.bands, self.partial)
                if self._valid is not None:
                    valid &= shard.read(self._valid, i) != 0
                label = shard.read_many(self.manifest.label_array.name, (i,))[0]
                yield Chip(chip_id, np.where(valid, image, np.float32(0)), valid, label)
