"""Builder of synthetic pairs for the throughput benchmarks: the arrays and grids of the data set l8s2, `synthetic`'s
pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..datasets.l8s2_header import header as l8s2_header
from ..datasets.plan import ChipRef, Plan, SceneJob, ShardJob
from ..datasets.spec import Array, BuilderInfo, Header, Scene
from ..models.harmonization.harmonizer import PAN_SCALE
from .pair_inputs import TARGET_M, low_size, transforms
from .synthetic import synthetic_chip

NAME, VERSION = "synthetic-pairs", "1.0.0"


def plan(source: Path | None = None, *, chips: int = 16, size: int = 256) -> Plan:
    """``chips`` pairs whose target has ``size`` × ``size`` pixels, in one training shard; ``source`` is not used."""
    builder = BuilderInfo(name=NAME, version=VERSION, parameters={"chips": chips, "size": size})
    job = SceneJob("scene", "train", {"chips": chips, "size": size})
    header = _header(size).model_copy(update={"builder": builder})
    return Plan(header, (Scene(id="scene", split="train"),), (ShardJob("scene", "train", (job,)),))


def _header(size: int) -> Header:
    """That of l8s2 for targets of this size."""
    low = low_size(size)
    sides = {"image": low, "pan": PAN_SCALE * low, "target": size, "valid": size}
    stated = l8s2_header({}, "by-tile", simulated=True)
    return stated.model_copy(
        update={
            "name": NAME,
            "title": "Synthetic pairs for benchmarks",
            "description": "Smooth ground and sensor noise on the grids of l8s2, for measuring throughput only.",
            "licence": "CC0-1.0",
            "provenance": "drawn from the chip number",
            "known_label_defects": "image and target do not show the same ground",
            "arrays": tuple(
                a.model_copy(update={"shape": (*a.shape[:-2], sides[a.name], sides[a.name])}) for a in stated.arrays
            ),
        }
    )


def index(job: SceneJob) -> list[ChipRef]:
    """The chips by number, side by side from west to east."""
    size, refs = job.payload["size"], []
    for i in range(job.payload["chips"]):
        own = transforms(x=500_000.0 + i * size * TARGET_M)
        refs.append(ChipRef(f"chip-{i:05d}", (0, i * size, size, size), own.pop("target"), own))
    return refs


def read(job: SceneJob, refs: Sequence[ChipRef]) -> Iterator[dict[str, np.ndarray]]:
    """``image`` uint16 (6, h, h), ``pan`` (1, 2h, 2h), ``target`` (6, H, H), ``valid`` uint8 (H, H), 1 everywhere."""
    *images, valid = _header(job.payload["size"]).arrays
    for i in range(len(refs)):
        yield {a.name: _stored(i, a) for a in images} | {valid.name: np.ones(valid.shape, np.uint8)}


def _stored(number: int, array: Array) -> np.ndarray:
    """Synthetic counts as reflectance, 10 000 for 1, in the storage of an array."""
    band = array.bands[0]
    reflectance = synthetic_chip(number, *array.shape[:2])["image"] / 1e4
    return np.clip(np.rint((reflectance - band.offset) / band.scale), 1, 65534).astype(array.dtype)
