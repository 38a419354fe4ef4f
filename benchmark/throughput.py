"""``tidemark bench loader``: shards to host memory against GeoTIFF, plain h5py and memcpy, in one run.

Every contender delivers the same chips (compared byte by byte before any timing) in batches, from a warm page cache,
in sequence; ours once more with the cache emptied before each pass, which measures the disk. Ours verify every chip's
checksum. The GeoTIFF side is once what torchgeo's data sets do (deflate, float32 samples, two worker processes) and
once the fastest of a sweep over codec, predictor, tiling, interleaving and workers that takes no more room than ours.
"""

from __future__ import annotations

import json
import mmap
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import get_args

import h5py
import hdf5plugin  # noqa: F401  registers the filters with h5py
import numpy as np
import torch

from .. import __version__, _compat  # noqa: F401
from ..datasets.build import build
from ..datasets.codecs import BLOSC_CODECS
from ..datasets.files import write_atomic
from ..datasets.loader import ChipLoader
from ..datasets.spec import Codec
from . import synthetic
from .cold import cold_rates
from .geotiff import SWEEP, TORCHGEO_STYLE, WORKERS, Variant, loader, write_variant
from .timing import MIN_SAMPLES, MIN_SECONDS, Timing, cpu_in_words, interleaved, ratio

THREADS = 2
COLD_PASSES = 3


@dataclass(frozen=True)
class Setting:
    """What is read, and how long it is timed."""

    chips: int
    bands: int
    size: int
    batch: int
    rounds: int = MIN_SAMPLES
    seconds: float = MIN_SECONDS


FULL = Setting(chips=64, bands=8, size=512, batch=16)
FULL_PATCHES = Setting(chips=4096, bands=2, size=64, batch=256)
QUICK = Setting(chips=8, bands=8, size=256, batch=4, rounds=1, seconds=0.05)
QUICK_PATCHES = Setting(chips=128, bands=2, size=64, batch=64, rounds=1, seconds=0.05)

# Goals of the format on two cores: ours over theirs.
GOALS = {
    **{
        f"{codec} / {theirs}": goal
        for codec in BLOSC_CODECS
        for theirs, goal in (("torchgeo-style GeoTIFF", 20.0), ("best GeoTIFF", 8.0), ("memcpy", 0.28))
    },
    "none / torchgeo-style GeoTIFF": 20.0,
    "none / memcpy": 0.6,
    "patches / GeoTIFF": 250.0,
}


def bench_loader(quick: bool = False, out: Path | None = None, workdir: Path | None = None) -> dict:
    """Run the benchmark, print its table and return (and write) the record.

    Args:
        quick: tiny data and one short sample: shows that it runs, measures nothing.
        out: JSON file for the record.
        workdir: where the chips are written; by default a temporary folder (about 3 GB, 0.1 GB when quick).
    """
    from ..datasets.command import progress_bar

    with tempfile.TemporaryDirectory(dir=workdir) as folder, progress_bar("bench loader") as progress:
        large, sizes, best, cold = _chips(Path(folder), QUICK if quick else FULL, quick, progress)
        small = _patches(Path(folder), QUICK_PATCHES if quick else FULL_PATCHES, progress)
    timings = large | small
    theirs = ("torchgeo-style GeoTIFF", "best GeoTIFF", "h5py gzip", "memcpy")
    pairs = {f"{ours} / {it}": (ours, it) for ours in (*BLOSC_CODECS, "none") for it in theirs}
    pairs["patches / GeoTIFF"] = ("patches", "patches as GeoTIFF")
    ratios = {
        name: dict(zip(("median", "min", "max"), ratio(timings, *pair), strict=True)) for name, pair in pairs.items()
    }
    record = {
        "harness": __version__,
        "quick": quick,
        "device": cpu_in_words(),
        "threads": THREADS,
        "torch": torch.__version__,
        "cache": "warm",
        "checksums": True,
        "setting": vars(QUICK if quick else FULL),
        "setting_patches": vars(QUICK_PATCHES if quick else FULL_PATCHES),
        "best_geotiff": str(best),
        "bytes": sizes,
        "chips_per_s": {name: {"median": t.median, "samples": t.rates} for name, t in timings.items()},
        "chips_per_s_cold": {
            name: rates and {"median": median(rates), "samples": rates} for name, rates in cold.items()
        },
        "ratios": ratios,
        "goals": GOALS,
    }
    _print(record)
    if out is not None:
        write_atomic(out, json.dumps(record, indent=1) + "\n")
    return record


def _chips(
    root: Path, setting: Setting, quick: bool, progress
) -> tuple[dict[str, Timing], dict[str, int], Variant, dict[str, list[float] | None]]:
    shape = {"chips": setting.chips, "bands": setting.bands, "size": setting.size}
    folders = {}
    for codec in get_args(Codec):
        progress(0, 1, f"writing {codec}")
        folders[codec] = build(synthetic.plan(**shape), synthetic.__name__, root / codec, codec=codec)
    sizes = {codec: shard_of(folder).stat().st_size for codec, folder in folders.items()}
    chips = [synthetic.synthetic_chip(i, setting.bands, setting.size) for i in range(setting.chips)]
    sizes["torchgeo-style GeoTIFF"] = write_variant(root, TORCHGEO_STYLE, iter(chips))
    best, sizes["best GeoTIFF"] = _best_variant(root, chips, setting, sizes["blosc"], quick, progress)

    progress(0, 1, "cold cache")
    cold = {
        codec: cold_rates([shard_of(folders[codec])], partial(_first_pass, folders[codec], setting), COLD_PASSES)
        for codec in (*BLOSC_CODECS, "none")
    }
    passes: dict[str, Callable[[], float]] = {
        codec: drain(ChipLoader(folders[codec], "train", setting.batch, threads=THREADS, pin_memory=False))
        for codec in folders
    }
    passes["torchgeo-style GeoTIFF"] = drain(loader(root, TORCHGEO_STYLE, setting.chips, setting.batch))
    passes["best GeoTIFF"] = drain(loader(root, best, setting.chips, setting.batch))
    passes["h5py gzip"] = h5py_pass(shard_of(folders["gzip"]), setting)
    passes["memcpy"] = memcpy_pass(root / "raw", chips, setting)

    for codec, folder in folders.items():
        _compare(ChipLoader(folder, "train", setting.batch, pin_memory=False), chips, codec)
    for variant in (TORCHGEO_STYLE, best):
        _compare(loader(root, replace(variant, workers=0), setting.chips, setting.batch), chips, str(variant))
    return interleaved(passes, setting.rounds, setting.seconds, progress), sizes, best, cold


def _first_pass(folder: Path, setting: Setting) -> float:
    return drain(ChipLoader(folder, "train", setting.batch, threads=THREADS, pin_memory=False))()


def _best_variant(root: Path, chips: list, setting: Setting, limit: int, quick: bool, progress) -> tuple[Variant, int]:
    """The GeoTIFF loader with the highest rate among those that take no more room than ``limit`` bytes."""
    sizes, rates = {}, {}
    sweep = SWEEP[12:24:5] if quick else SWEEP
    some = setting if quick else replace(setting, chips=min(16, setting.chips), rounds=3, seconds=0.3)
    for place, variant in enumerate(sweep):
        progress(place, len(sweep), f"sweep: {variant}")
        sizes[variant] = write_variant(root / "sweep", variant, iter(chips[: some.chips])) * setting.chips // some.chips
        work = drain(loader(root / "sweep", variant, some.chips, some.batch))
        rates[variant] = interleaved({"it": work}, some.rounds, some.seconds)["it"].median
    fitting = [v for v in sweep if sizes[v] <= limit] or list(sweep)
    finalists = sorted(fitting, key=lambda v: -rates[v])[:2]
    for variant in finalists:
        write_variant(root, variant, iter(chips))
    contenders = {
        variant: drain(loader(root, variant, setting.chips, setting.batch))
        for base in finalists
        for variant in (replace(base, workers=w) for w in WORKERS)
    }
    timings = interleaved(contenders, 1 if quick else 3, some.seconds)
    best = max(contenders, key=lambda v: timings[v].median)
    return best, sum(p.stat().st_size for p in (root / best.folder).iterdir())


def _patches(root: Path, setting: Setting, progress) -> dict[str, Timing]:
    shape = {"chips": setting.chips, "bands": setting.bands, "size": setting.size}
    folder = build(synthetic.plan(**shape), synthetic.__name__, root / "patches")
    chips = [synthetic.synthetic_chip(i, setting.bands, setting.size) for i in range(setting.chips)]
    variant = replace(TORCHGEO_STYLE, as_float=False)
    write_variant(root / "patches-tif", variant, iter(chips))
    ours = ChipLoader(folder, "train", setting.batch, threads=THREADS, pin_memory=False)
    theirs = loader(root / "patches-tif", variant, setting.chips, setting.batch)
    _compare(ours, chips, "patches")
    passes = {"patches": drain(ours), "patches as GeoTIFF": drain(theirs)}
    return interleaved(passes, setting.rounds, setting.seconds, progress)


def drain(batches) -> Callable[[], float]:
    return lambda: float(sum(len(batch["image"]) for batch in batches))


def shard_of(folder: Path) -> Path:
    return next((folder / "train").glob("*.h5"))


def h5py_pass(path: Path, setting: Setting) -> Callable[[], float]:
    def work() -> float:
        image = np.empty((setting.batch, setting.bands, setting.size, setting.size), np.uint16)
        mask = np.empty((setting.batch, setting.size, setting.size), np.uint8)
        with h5py.File(path) as file:
            for first in range(0, setting.chips, setting.batch):
                rows = np.s_[first : first + setting.batch]
                file["image"].read_direct(image, rows)
                file["mask"].read_direct(mask, rows)
        return float(setting.chips)

    return work


def memcpy_pass(path: Path, chips: list[dict[str, np.ndarray]], setting: Setting) -> Callable[[], float]:
    """The limit: all bytes of a batch copied from the mapped, cached file to a buffer by as many threads."""
    with open(path, "wb") as file:
        for chip in chips:
            file.write(chip["image"].tobytes() + chip["mask"].tobytes())
    with open(path, "rb") as file:
        stored = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8).reshape(len(chips), -1)
    buffer = np.empty((setting.batch, stored.shape[1]), np.uint8)
    pool = ThreadPoolExecutor(THREADS)

    def work() -> float:
        for first in range(0, len(chips), setting.batch):
            rows = range(first, min(first + setting.batch, len(chips)))
            list(pool.map(lambda i, first=first: np.copyto(buffer[i - first], stored[i]), rows))
        return float(len(chips))

    return work


def _compare(batches, chips: list[dict[str, np.ndarray]], what: str) -> None:
    done = 0
    for batch in batches:
        for image, mask in zip(batch["image"].numpy(), batch["mask"].numpy(), strict=True):
            if not (np.array_equal(image, chips[done]["image"]) and np.array_equal(mask, chips[done]["mask"])):
                raise RuntimeError(f"{what}: chip {done} differs from what was written")
            done += 1
    if done != len(chips):
        raise RuntimeError(f"{what}: {done} chips of {len(chips)}")


def _print(record: dict) -> None:
    setting, patches = record["setting"], record["setting_patches"]
    print(f"loader, {record['device']}, {record['threads']} threads, warm cache, checksums on")
    print(f"{setting['bands']}×{setting['size']}² uint16 with masks, batch {setting['batch']};", end=" ")
    print(f"patches {patches['bands']}×{patches['size']}², batch {patches['batch']}")
    fits = record["bytes"]["best GeoTIFF"] <= record["bytes"]["blosc"]
    print(f"best GeoTIFF of the sweep, {'' if fits else 'none was '}no larger than ours: {record['best_geotiff']}")
    for name, rate in record["chips_per_s"].items():
        room = record["bytes"].get(name)
        print(f"  {name:<26}{rate['median']:>12.1f} chips/s{f'  {room / 1e6:.1f} MB' if room else ''}")
    for name, cold in record["chips_per_s_cold"].items():
        figure = f"{cold['median']:.1f}" if cold else "not measured: the page cache keeps the file"
        print(f"  {name + ', cold cache':<26}{figure:>12} chips/s (opening included)")
    for name, value in record["ratios"].items():
        goal = f"  (goal {record['goals'][name]:g})" if name in record["goals"] else ""
        print(f"  {name:<32}{value['median']:>8.2f}  [{value['min']:.2f}, {value['max']:.2f}]{goal}")
    if record["quick"]:
        print("quick: shows that it runs, measures nothing")
