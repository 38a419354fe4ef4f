"""The other side of the loader benchmark: the same chips as GeoTIFF files behind a torch ``DataLoader``."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.errors import NotGeoreferencedWarning
from torch.utils.data import DataLoader, Dataset


@dataclass(frozen=True)
class Variant:
    """How a chip is stored as GeoTIFF, and how its loader reads it."""

    codec: str  # none, lzw, deflate, zstd
    predictor: int = 1  # 1 none, 2 horizontal differences
    tile: int = 0  # tile size in pixels; 0: strips of whole rows
    workers: int = 2
    as_float: bool = False  # float32 and int64, as torchgeo's data sets give them
    interleave: str = "pixel"

    @property
    def folder(self) -> str:
        """Name of the folder that holds its files."""
        return f"{self.codec}-p{self.predictor}-t{self.tile}-{self.interleave}"

    def __str__(self) -> str:
        layout = f"{self.tile}² tiles" if self.tile else "strips"
        return f"{self.codec}, predictor {self.predictor}, {layout}, {self.interleave}, {self.workers} workers"


def write_variant(root: Path, variant: Variant, chips: Iterator[dict[str, np.ndarray]]) -> int:
    """Write every chip as ``<number>_image.tif`` and ``<number>_mask.tif``; return the bytes on disk."""
    folder = root / variant.folder
    folder.mkdir(parents=True, exist_ok=True)
    options = {"compress": variant.codec, "interleave": variant.interleave, "driver": "GTiff"}
    if variant.codec in ("lzw", "deflate", "zstd"):
        options["predictor"] = variant.predictor
    if variant.tile:
        options |= {"tiled": True, "blockxsize": variant.tile, "blockysize": variant.tile}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        for number, chip in enumerate(chips):
            for name, array in (("image", chip["image"]), ("mask", chip["mask"][None])):
                shape = dict(zip(("count", "height", "width"), array.shape, strict=True))
                with rasterio.open(folder / f"{number}_{name}.tif", "w", dtype=array.dtype, **shape, **options) as file:
                    file.write(array)
    return sum(p.stat().st_size for p in folder.iterdir())


class GeoTiffChips(Dataset):
    """One chip per item, opened with rasterio, as the data sets of torchgeo do it."""

    def __init__(self, folder: Path, n: int, as_float: bool) -> None:
        self.folder, self.n, self.as_float = folder, n, as_float

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(self.folder / f"{i}_image.tif") as file:
                image = file.read()
            with rasterio.open(self.folder / f"{i}_mask.tif") as file:
                mask = file.read(1)
        sample = {"image": torch.from_numpy(image), "mask": torch.from_numpy(mask)}
        return {"image": sample["image"].float(), "mask": sample["mask"].long()} if self.as_float else sample


def loader(root: Path, variant: Variant, n: int, batch_size: int) -> DataLoader:
    """The variant's ``DataLoader``; its worker processes stay alive between passes."""
    return DataLoader(
        GeoTiffChips(root / variant.folder, n, variant.as_float),
        batch_size,
        num_workers=variant.workers,
        persistent_workers=variant.workers > 0,
        prefetch_factor=2 if variant.workers else None,
    )


SWEEP = tuple(
    Variant(codec, predictor, tile, 0, interleave=interleave)
    for codec, predictor in (
        ("none", 1),
        ("lzw", 1),
        ("lzw", 2),
        ("deflate", 1),
        ("deflate", 2),
        ("zstd", 1),
        ("zstd", 2),
    )
    for tile in (0, 256, 512)
    for interleave in ("pixel", "band")
)
WORKERS = (0, 1, 2)
TORCHGEO_STYLE = Variant("deflate", 1, 0, 2, as_float=True)
