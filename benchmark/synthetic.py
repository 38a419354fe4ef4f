"""Builder of synthetic chips for the throughput benchmarks: smooth ground, sensor noise, a water mask.

The pixels follow Landsat-like digital numbers so that codecs face realistic entropy: a field with a 1/f spectrum of
some 1 500 counts plus noise of 12 counts. The codec ``blosc`` shrinks them to 0.677 of their size. Real 16-bit chips
shrink to 0.43 (Sentinel-2 L1C, 13 bands, the Spain_7370579 chip of Sen1Floods11), 0.40 to 0.51 (Sentinel-2 L2A, 12
bands, five TerraMesh samples), 0.71 (HLS S30, 6 bands), 0.76 to 0.77 (Landsat 8 SR, 7 bands, three dates) and 0.86 to
0.88 (its panchromatic band): the median of these thirteen is 0.705. Noise of 2 to 16 counts gives 0.676 to 0.678.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..datasets.plan import ChipRef, Plan, SceneJob, ShardJob
from ..datasets.spec import WATER_CLASSES, Array, Band, BuilderInfo, Header, Scene, Task

NAME, VERSION = "synthetic", "1.0.0"
NOISE_COUNTS = 12
MEAN_COUNTS, STD_COUNTS = 2500.0, 750.0
CONTEXT_SEED = 1 << 20


def declared_bands(count: int) -> tuple[Band, ...]:
    """The bands b1, b2, … of the chips."""
    return tuple(Band(name=f"b{i + 1}", sensor="synthetic", unit="counts") for i in range(count))


def plan(
    source: Path | None = None, *, chips: int = 64, bands: int = 8, size: int = 512, contexts: Sequence[str] = ()
) -> Plan:
    """``chips`` chips of ``bands`` × ``size`` × ``size`` uint16 with masks, in one training shard.

    ``contexts`` names further arrays like the image, for models that take context. ``source`` is not used: everything
    is drawn from the chip's number.
    """
    declared, shape = declared_bands(bands), (bands, size, size)
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
            classes=WATER_CLASSES,
        ),
        arrays=(
            Array(name="image", dtype="uint16", shape=shape, role="image", bands=declared),
            *(
                Array(name=c, dtype="uint16", shape=(bands, size, size), role="context", bands=declared)
                for c in contexts
            ),
            Array(name="mask", dtype="uint8", shape=(size, size), role="mask"),
        ),
        builder=BuilderInfo(name=NAME, version=VERSION, parameters={"chips": chips, "bands": bands, "size": size}),
    )
    job = SceneJob("scene", "train", {"chips": chips, "bands": bands, "size": size, "contexts": list(contexts)})
    return Plan(header, (Scene(id="scene", split="train"),), (ShardJob("scene", "train", (job,)),))


def index(job: SceneJob) -> list[ChipRef]:
    """The chips by number."""
    size = job.payload["size"]
    return [ChipRef(f"chip-{i:05d}", (0, i * size, size, size)) for i in range(job.payload["chips"])]


def read(job: SceneJob, refs: Sequence[ChipRef]) -> Iterator[dict[str, np.ndarray]]:
    """``image`` and contexts uint16 (bands, size, size), ``mask`` uint8 (size, size)."""
    shape = job.payload["bands"], job.payload["size"]
    for i in range(len(refs)):
        contexts = {
            name: synthetic_chip(CONTEXT_SEED * (k + 1) + i, *shape)["image"]
            for k, name in enumerate(job.payload["contexts"])
        }
        yield synthetic_chip(i, *shape) | contexts


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
