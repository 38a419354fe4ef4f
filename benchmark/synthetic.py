"""Builder of synthetic chips for the throughput benchmarks: smooth ground, sensor noise, a water mask.

The pixels follow Landsat-like digital numbers so that codecs face realistic entropy: a field with a 1/f spectrum of
some 1 500 counts plus noise of 12 counts, which lossless codecs shrink to 60 to 75 %.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..datasets.plan import ChipRef, Plan, SceneJob, ShardJob
from ..datasets.spec import Array, Band, BuilderInfo, ClassDef, Header, Scene, Task

NAME, VERSION = "synthetic", "1.0.0"
NOISE_COUNTS = 12


def plan(source: Path | None = None, *, chips: int = 64, bands: int = 8, size: int = 512) -> Plan:
    """``chips`` chips of ``bands`` × ``size`` × ``size`` uint16 with masks, in one training shard.

    ``source`` is not used: everything is drawn from the chip's number.
    """
    declared = tuple(Band(name=f"b{i + 1}", sensor="synthetic", unit="counts") for i in range(bands))
    header = Header(
        name="synthetic",
        version="1.0.0",
        title="Synthetic chips for benchmarks",
        description="Smooth ground, sensor noise and a mask, for measuring throughput only.",
        licence="CC0-1.0",
        provenance="drawn from the chip number",
        known_label_defects="none",
        simulated=True,
        task=Task(
            kind="segmentation",
            classes=(
                ClassDef(id=0, name="not water", color="#d9cfa6"),
                ClassDef(id=1, name="water", color="#1f6fb4"),
            ),
        ),
        arrays=(
            Array(name="image", dtype="uint16", shape=(bands, size, size), role="image", bands=declared),
            Array(name="mask", dtype="uint8", shape=(size, size), role="mask"),
        ),
        builder=BuilderInfo(name=NAME, version=VERSION, parameters={"chips": chips, "bands": bands, "size": size}),
    )
    job = SceneJob("scene", "train", {"chips": chips, "bands": bands, "size": size})
    return Plan(header, (Scene(id="scene", split="train"),), (ShardJob("scene", "train", (job,)),))


def index(job: SceneJob) -> list[ChipRef]:
    """The chips by number."""
    size = job.payload["size"]
    return [ChipRef(f"chip-{i:05d}", (0, i * size, size, size)) for i in range(job.payload["chips"])]


def read(job: SceneJob, refs: Sequence[ChipRef]) -> Iterator[dict[str, np.ndarray]]:
    """``image`` uint16 (bands, size, size) and ``mask`` uint8 (size, size)."""
    for i in range(len(refs)):
        yield synthetic_chip(i, job.payload["bands"], job.payload["size"])


def synthetic_chip(number: int, bands: int, size: int) -> dict[str, np.ndarray]:
    """One chip, always the same for the same number."""
    rng = np.random.default_rng(number)
    ground = fractal(rng, size)
    image = np.empty((bands, size, size), np.uint16)
    for b in range(bands):
        signal = 2500 + 1500 * (ground * rng.uniform(0.6, 1.0) + 0.3 * fractal(rng, size))
        image[b] = np.clip(signal + rng.normal(0, NOISE_COUNTS, (size, size)), 1, 65535)
    return {"image": image, "mask": (ground < -0.3).astype(np.uint8)}


def fractal(rng: np.random.Generator, size: int) -> np.ndarray:
    """float64 (size, size) with an amplitude spectrum of 1/f^1.5, mean 0 and standard deviation 0.5."""
    fy, fx = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)
    amplitude = np.maximum(np.hypot(fy, fx), 1 / size) ** -1.5
    field = np.fft.irfft2(amplitude * np.exp(2j * np.pi * rng.random(amplitude.shape)), s=(size, size))
    return (field - field.mean()) / (2 * field.std())
