"""Data sets: building, checking and reading them. Names load on first use; without torch where it is not needed."""

from __future__ import annotations

from .._lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "ChipDataset": ".chips",
        "PublishedDataset": ".published",
        "ALOSDSWE": ".published",
        "HLSDSWx": ".published",
        "L8S2": ".published",
        "OMBRIA": ".published",
        "PolarIce": ".published",
        "PolarPatch": ".published",
        "TibetWater": ".published",
        "ChipLoader": ".loader",
        "ChipDataModule": ".datamodule",
        "AugmentOptions": ".augmentation",
        "PairDataModule": ".pairs",
        "PairLoader": ".pairs",
        "PairOptions": ".pair_geometry",
        "Preprocess": ".transforms",
        "augment": ".augmentation",
        "Shard": ".reader",
        "open_split": ".reader",
        "Manifest": ".spec",
        "load_manifest": ".spec",
    },
)
