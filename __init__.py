"""Tidemark: an HDF5 dataset-and-benchmark suite for water, ice and reflectance from satellites."""

from __future__ import annotations

from ._lazy import lazy_exports

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "ChipDataset": ".datasets",
        "ChipLoader": ".datasets",
        "ChipDataModule": ".datasets",
        "create_model": ".models",
        "list_models": ".models",
        "from_pretrained": ".models",
    },
)
