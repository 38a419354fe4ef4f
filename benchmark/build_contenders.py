"""What ``tidemark bench build`` times, each in a process of its own: ``python -m tidemark.benchmark.build_contenders``.

``ours`` makes the shard as a build's worker does. ``read`` reads and warps the same layers once and keeps nothing.
``naive`` goes chip by chip: every layer through rasterio, then ``ds[i] =`` with gzip, where h5py chooses the chunks;
``naive-chunked`` does so with one chunk a chip. ``copy`` copies as many raw bytes as the chips have.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path

import h5py
import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from ..datasets import optical, raster
from ..datasets.build import builder_module, plan_data_set, shard_requests
from ..datasets.builders import alos_dswe, l8s2
from ..datasets.dswe import water_labels
from ..datasets.l8s2_header import MIN_PSNR_DB, MIN_SSIM, MIN_VALID
from ..datasets.l8s2_products import FALSE_NORTHING_M
from ..datasets.l8s2_products import L8_BANDS as LANDSAT
from ..datasets.mosaic import Mosaic
from ..datasets.plan import ChipRef, SceneJob
from ..datasets.spec import Header
from ..datasets.statistics import TRAIN
from ..datasets.worker import make_shard

COPY_BYTES = 8 << 20
JP2_BLOCK = 1024
SHARP = ("B02", "B03", "B04")  # at 10 m
Chips = Iterator[dict[str, np.ndarray] | None]


def request_of(kind: str, source: Path, out: Path, scene: str) -> dict:
    """The build's request for the shard of one scene, as one of the training split: its bands are counted too."""
    requests = shard_requests(plan_data_set(kind, source), builder_module(kind), out)
    request = next(request for request in requests if any(job["id"] == scene for _, job in request["scenes"]))
    return request | {"split": TRAIN}


def ours(request: dict) -> int:
    """Make the shard; returns the number of its chips."""
    return make_shard(request)["chips"]


def read(kind: str, job: SceneJob) -> None:
    """Read and warp every layer of the scene once, row of blocks by row of blocks."""
    (_read_alos if kind == "alos-dswe" else _read_l8s2)(job)


def naive(kind: str, request: dict, job: SceneJob, path: Path, first: int, chunked: bool) -> int:
    """Write the first chips of the scene one by one; returns how many of them the rules keep."""
    header, number = Header.model_validate(request["header"]), len(_windows(kind, job))
    chips = islice(naive_alos(job) if kind == "alos-dswe" else naive_l8s2(job), first)
    done = 0
    with h5py.File(path, "w") as file:
        datasets = {
            a.name: file.create_dataset(
                a.name, (number, *a.shape), a.dtype, compression="gzip",
                chunks=(1, *a.shape) if chunked else None,
            )
            for a in header.arrays
        }  # fmt: skip
        for chip in filter(None, chips):
            for name, dataset in datasets.items():
                dataset[done] = chip[name]
            done += 1
    return done


def _windows(kind: str, job: SceneJob) -> list:
    if kind == "l8s2":
        return l8s2.index(job)
    with alos_dswe.AlosScene(job) as scene:
        return raster.tiles(scene.grid.height, scene.grid.width, alos_dswe.CHIP_SIZE)


def copy(folder: Path) -> None:
    """Copy the file ``raw``, which lies in the page cache, and bring the copy to the disk."""
    with open(folder / "raw", "rb") as source, open(folder / "copied", "wb") as target:
        shutil.copyfileobj(source, target, COPY_BYTES)
        target.flush()
        os.fsync(target.fileno())


def _read_alos(job: SceneJob) -> None:
    size = alos_dswe.CHIP_SIZE
    with alos_dswe.AlosScene(job) as scene, ExitStack() as stack:
        tiles = [scene.folder / name for name in job.payload["dswe"][0]]
        dem = [scene.folder / job.payload["layers"]["dem"]]
        layers = [
            stack.enter_context(scene.continuous("gfc", (1, 2, 3, 4), 0)),
            stack.enter_context(scene.continuous("hand", (1,), np.nan)),
            stack.enter_context(Mosaic(dem, scene.grid, **alos_dswe.BILINEAR)),
            stack.enter_context(Mosaic(tiles, scene.grid)),
        ]
        for row in scene.rows:
            window = (row, 0, size, scene.width)
            scene.power(window)
            for layer in layers:
                layer.read(window)


def _read_l8s2(job: SceneJob) -> None:
    refs = l8s2.index(job)
    with _l8s2_files(job) as (s2, l8):
        *_, (_, column, _, _) = l8s2.windows(s2["B02"].height, s2["B02"].width)
        width, half = column + l8s2.CHIP_SIZE, (column + l8s2.CHIP_SIZE) // 2
        for row in dict.fromkeys(ref.window[0] for ref in refs):
            for band in l8s2.S2_BANDS:
                if band in SHARP:
                    raster.read_window(s2[band], (row, 0, l8s2.CHIP_SIZE, width), (1,))
                else:
                    around = (row // 2 - 1, -1, l8s2.CHIP_SIZE // 2 + 2, half + 2)
                    optical.double(raster.read_window(s2[band], around, (1,)), optical.S2_FILL)
            raster.read_window(s2["SCL"], (row // 2, 0, l8s2.CHIP_SIZE // 2, half), (1,))
            for ref in (r for r in refs if r.window[0] == row):
                bands = np.concatenate([l8[b].read(window=_window(l8[b], ref, "image")) for b in LANDSAT])
                pan = l8["B8"].read(window=_window(l8["B8"], ref, "pan"))
                optical.resample(bands, ref.transforms["image"], ref.transform, l8s2.CHIP_SIZE)
                optical.resample(pan, ref.transforms["pan"], ref.transform, l8s2.CHIP_SIZE)
                l8["QA_PIXEL"].read(window=_window(l8["QA_PIXEL"], ref, "image"))


@contextmanager
def _l8s2_files(job: SceneJob) -> Iterator[tuple[dict, dict]]:
    folder, s2, l8 = Path(job.payload["source"]), job.payload["s2"]["bands"], job.payload["l8"]
    with ExitStack() as stack:
        yield (
            {band: stack.enter_context(rasterio.open(folder / name)) for band, name in s2.items()},
            {
                band: stack.enter_context(rasterio.open(folder / name))
                for band, name in (*l8["bands"].items(), ("B8", l8["pan"]["B8"]))
            },
        )


def _window(dataset, ref: ChipRef, array: str) -> Window:
    """The pixels of a Landsat raster that the chip's array holds."""
    x, y, size = ref.transforms[array][2], ref.transforms[array][5], {"image": 86, "pan": 172}[array]
    north = dataset.transform.f
    north += round((y - north) / FALSE_NORTHING_M) * FALSE_NORTHING_M  # Landsat counts below zero in the south
    row, column = (y - north) / dataset.transform.e, (x - dataset.transform.c) / dataset.transform.a
    return Window(round(column), round(row), size, size)


def naive_alos(job: SceneJob) -> Chips:
    """The chips of a scene, each cut out of every layer by itself; the DSWE tiles of the first date."""
    folder, size, nodata = Path(job.payload["source"]), alos_dswe.CHIP_SIZE, alos_dswe.NODATA
    names, layers = job.payload["layers"], []
    with ExitStack() as stack:
        hh, hv, dem = (stack.enter_context(rasterio.open(folder / names[n])) for n in ("hh", "hv", "dem"))
        grid = {"crs": hh.crs, "transform": hh.transform, "height": hh.height, "width": hh.width}
        for kind, fill in (("gfc", 0), ("hand", np.nan)):
            source = stack.enter_context(rasterio.open(folder / job.payload[kind][0]))
            options = {"resampling": Resampling.bilinear, "src_nodata": fill, "nodata": nodata, "dtype": "float32"}
            layers.append(stack.enter_context(WarpedVRT(source, **grid, **options)))
        source = stack.enter_context(rasterio.open(folder / job.payload["dswe"][0][0]))
        codes = stack.enter_context(WarpedVRT(source, **grid, resampling=Resampling.nearest, nodata=255))
        for row, column, *_ in raster.tiles(hh.height, hh.width, size):
            window = Window(column, row, size, size)
            cut = {"window": window, "boundless": True}
            power = np.concatenate([hh.read(fill_value=0, **cut), hv.read(fill_value=0, **cut)])
            with np.errstate(divide="ignore", invalid="ignore"):
                decibels = np.where(power > 0, 10 * np.log10(power), nodata)
            inside = _inside(window, hh.height, hh.width)
            rest = [*(_padded(layer, inside, size, nodata) for layer in layers), dem.read(fill_value=nodata, **cut)]
            image = np.concatenate([decibels, rest[0], rest[2], rest[1]]).astype(np.float32)
            image[~np.isfinite(image)] = nodata
            mask = water_labels(_padded(codes, inside, size, 255)[0])
            mask[(image[:6] == nodata).any(0)] = 255
            yield {"image": image, "mask": mask} if (mask != 255).mean() >= 0.1 else None


def naive_l8s2(job: SceneJob) -> Chips:
    """The chips of a pair, each cut out of every band by itself, with scikit-image's similarity.

    Block by block of JPEG 2000, so that GDAL's cache decodes each block once.
    """
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    refs, size = l8s2.index(job), l8s2.CHIP_SIZE
    folder, baseline = Path(job.payload["source"]), int(job.payload["s2"]["baseline"])
    metadata = folder / job.payload["l8"]["pan"]["MTL"]
    gains = optical.pan_gains(metadata.read_text(), metadata)
    blocks = sorted(refs, key=lambda ref: (ref.window[0] // JP2_BLOCK, ref.window[1] // JP2_BLOCK))
    with _l8s2_files(job) as (s2, l8):
        for ref in blocks:
            row, column = ref.window[:2]
            half = Window(column // 2, row // 2, size // 2, size // 2)
            bands = []
            for band in l8s2.S2_BANDS:
                window = Window(column, row, size, size) if band in SHARP else half
                bands.append(s2[band].read(1, window=window, out_shape=(size, size), resampling=Resampling.bilinear))
            target = optical.s2_surface(np.stack(bands), baseline)
            usable = optical.s2_usable(s2["SCL"].read(1, window=half)).repeat(2, 0).repeat(2, 1)
            image = np.concatenate([l8[band].read(window=_window(l8[band], ref, "image")) for band in LANDSAT])
            clear = optical.l8_usable(l8["QA_PIXEL"].read(1, window=_window(l8["QA_PIXEL"], ref, "image")))
            clear &= (image != optical.L8_FILL).all(0)
            valid = usable & l8s2.nearest(clear, ref.transforms["image"], ref.transform, size)
            if valid.mean() < MIN_VALID:
                yield None
                continue
            chip = {
                "image": optical.l8_not_negative(image).astype(np.uint16),
                "pan": optical.pan_reflectance(l8["B8"].read(window=_window(l8["B8"], ref, "pan")), gains),
                "target": target,
                "valid": valid.astype(np.uint8),
            }
            one, two = l8s2.reflectances(chip, ref.transforms, ref.transform)
            options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1}
            alike = np.mean([structural_similarity(a, b, **options) for a, b in zip(one, two, strict=True)])
            ratio = peak_signal_noise_ratio(two, one, data_range=1)
            yield chip if alike >= MIN_SSIM and ratio > MIN_PSNR_DB else None


def _inside(window: Window, height: int, width: int) -> Window:
    rows, columns = min(window.height, height - window.row_off), min(window.width, width - window.col_off)
    return Window(window.col_off, window.row_off, columns, rows)


def _padded(layer: WarpedVRT, inside: Window, size: int, fill: float) -> np.ndarray:
    out = np.full((layer.count, size, size), fill, layer.dtypes[0])
    out[:, : inside.height, : inside.width] = layer.read(window=inside)
    return out


def _peak_bytes() -> int:
    """Largest resident set of this process; getrusage would count what the parent held when it was forked."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Run one contender on one core and print seconds, processor seconds, bytes and peak memory as JSON.

    Arguments: contender, kind, source, scratch folder, scene id, and number of chips (naive) or bytes (copy).
    """
    contender, kind, source, scratch, scene, number = sys.argv[1:]
    folder = Path(scratch)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    request = request_of(kind, Path(source), folder, scene)
    job = next(SceneJob(**job) for _, job in request["scenes"])
    wall, processor, chips = time.perf_counter(), time.process_time(), 0
    if contender == "ours":
        chips = ours(request)
    elif contender == "read":
        read(kind, job)
    elif contender == "copy":
        copy(folder)
    else:
        chips = naive(kind, request, job, folder / "naive.h5", int(number), contender == "naive-chunked")
    figures = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - processor, "chips": chips}
    chip_bytes = sum(array.chip_bytes for array in Header.model_validate(request["header"]).arrays)
    figures["bytes"] = int(number) if contender == "copy" else chips * chip_bytes
    if contender == "ours":
        figures["stored_bytes"] = sum(Path(request["path"]).with_suffix(s).stat().st_size for s in (".h5", ".idx"))
    figures["peak_bytes"] = _peak_bytes()
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
