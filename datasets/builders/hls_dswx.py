"""HLS with DSWx: one granule of Harmonized Landsat Sentinel-2 and the water map that was computed from it.

Source: github.com/nasa/PROTEUS, test data: ``HLS.S30.T15SXR.2021250T163901.v2.0.B02.tif`` to ``B12`` and
``dswx_hls_v0.1_B01_WTR.tif`` on the same grid. The label is a function of these very bands: good for trying label codes
and masks, circular as a benchmark.

Chips are dealt to the splits by blocks of ground; chips that touch another split are left out.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from ...errors import InputError, SceneError
from .. import raster
from ..dswe import water_labels
from ..labelled import IGNORE
from ..plan import ChipRef, Plan, SceneJob, group_shards
from ..products import find, relative_errors, source_files
from ..spec import WATER_CLASSES, Array, Band, BuilderInfo, Header, Scene, Task
from ..splits import by_spatial_block

NAME, VERSION = "hls-dswx", "1.0.0"
CHIP_SIZE = 96
BLOCK_CHIPS = 2
MIN_LABELLED = 0.1
GUARD_M = 30.0  # one pixel: chips of two splits never touch
SEED = 1  # of the permutation of the blocks
FRACTIONS = {"train": 0.6, "val": 0.2, "test": 0.2}
NODATA = -32768
FILLS = (-32768, -9999)  # of the test data, and of HLS as delivered (HLS v2.0 User Guide)
# Names and centres in micrometres of Sentinel-2's MSI as HLS S30 keeps them
BANDS = {
    "B02": ("blue", 0.4924), "B03": ("green", 0.5598), "B04": ("red", 0.6646),
    "B8A": ("nir", 0.8647), "B11": ("swir1", 1.6137), "B12": ("swir2", 2.2024),
}  # fmt: skip
PATTERNS = {
    "band": r"(?P<id>HLS\.S30\.T\d\d[A-Z]{3}\.\d{7}T\d{6}\.v2\.0)\.(?P<band>B0[234]|B8A|B1[12])\.tif",
    "label": r"dswx_hls_.*B01_WTR\.tif",
}


def plan(source: Path) -> Plan:
    """Plan the data set from the folder that holds the bands and the water map, in folders of any depth."""
    folder = Path(source).absolute()
    granules, labels = {}, []
    for kind, path, groups in find(folder, PATTERNS):
        if kind == "label":
            labels.append(path)
        else:
            granules.setdefault(groups["id"], {})[groups["band"].upper()] = path
    if len(granules) != 1 or len(labels) != 1:
        raise InputError(
            f"expected one HLS granule and one B01_WTR, found {len(granules)} and {len(labels)}", where=folder
        )
    (granule, bands), label = granules.popitem(), labels[0]
    if missing := [b for b in BANDS if b not in bands]:
        raise InputError(f"{granule} lacks {', '.join(missing)}", where=folder)
    with relative_errors(folder):
        grid = _check(folder, bands, label)
    windows = [
        (row, column, CHIP_SIZE, CHIP_SIZE)
        for row in range(0, grid.height - CHIP_SIZE + 1, CHIP_SIZE)
        for column in range(0, grid.width - CHIP_SIZE + 1, CHIP_SIZE)
    ]
    boxes = np.array([grid.bounds(w) for w in windows])
    west, north = grid.transform[2], grid.transform[5]
    size = BLOCK_CHIPS * CHIP_SIZE * grid.transform[0]
    split_of = by_spatial_block(boxes - (west, north, west, north), size, GUARD_M, FRACTIONS, SEED)
    parts: dict[str, list] = {}
    for window, split in zip(windows, split_of, strict=True):
        if split is not None:
            block = "-".join(str(v // (BLOCK_CHIPS * CHIP_SIZE)) for v in window[:2])
            parts.setdefault(f"{granule}/block-{block}", [split]).append(window)
    sources, date = source_files(folder, (*bands.values(), label)), _date(granule)
    scenes, jobs = [], []
    for part, (split, *members) in sorted(parts.items()):
        rows, columns = [w[0] for w in members], [w[1] for w in members]
        around = (
            min(rows), min(columns), max(rows) - min(rows) + CHIP_SIZE, max(columns) - min(columns) + CHIP_SIZE
        )  # fmt: skip
        scenes.append(
            Scene(
                id=part, split=split, date=date, crs=grid.crs, bounds=raster.wgs84_bounds(grid, around), sources=sources
            )
        )
        payload = {"source": str(folder), "bands": bands, "label": label, "windows": [list(w) for w in members]}
        jobs.append(SceneJob(part, split, payload))
    stated = header()
    chip_bytes = sum(a.chip_bytes for a in stated.arrays)
    shards = group_shards(jobs, lambda job: len(job.payload["windows"]) * chip_bytes)
    return Plan(stated, tuple(scenes), tuple(shards))


def index(job: SceneJob) -> list[ChipRef]:
    """The chips of one block of which a tenth has a label and data."""
    refs = []
    with _open(job) as (images, label):
        grid = raster.grid_of(label)
        for window in map(tuple, job.payload["windows"]):
            _, mask = _chip(images, label, window)
            if (mask != IGNORE).mean() >= MIN_LABELLED:
                refs.append(ChipRef(f"{window[0]}_{window[1]}", window, grid.window_transform(window)))
    return refs


def read(job: SceneJob, refs: Sequence[ChipRef]) -> Iterator[dict[str, np.ndarray]]:
    """``image`` int16 (6, 96, 96) reflectance * 10 000 and ``mask`` uint8 (96, 96)."""
    with _open(job) as (images, label):
        for ref in refs:
            image, mask = _chip(images, label, ref.window)
            yield {"image": image, "mask": mask}


class _open:
    """The bands in order and the water map, open while used as a context manager."""

    def __init__(self, job: SceneJob) -> None:
        self.folder, self.payload, self._stack = Path(job.payload["source"]), job.payload, ExitStack()

    def __enter__(self):
        with self._stack as stack:
            stack.enter_context(relative_errors(self.folder))
            images = [stack.enter_context(raster.open_raster(self.folder / self.payload["bands"][b])) for b in BANDS]
            label = stack.enter_context(raster.open_raster(self.folder / self.payload["label"]))
            self._stack = stack.pop_all()
        return images, label

    def __exit__(self, *details) -> bool | None:
        return self._stack.__exit__(*details)


def _chip(images, label, window: raster.PixelWindow) -> tuple[np.ndarray, np.ndarray]:
    image = np.concatenate([raster.read_window(band, window, (1,), NODATA) for band in images])
    image[np.isin(image, FILLS)] = NODATA
    mask = water_labels(raster.read_window(label, window, (1,), IGNORE)[0])
    mask[(image == NODATA).any(0)] = IGNORE
    return image, mask


def _check(folder: Path, bands: dict[str, str], label: str) -> raster.Grid:
    """The grid that all files share."""
    with raster.open_raster(folder / label) as opened:
        raster.check_bands(opened, "uint8", (1,))
        grid = raster.check_georeferenced(opened)
    for name in bands.values():
        with raster.open_raster(folder / name) as opened:
            raster.check_bands(opened, "int16", (1,))
            raster.check_same_grid(opened, grid)
    return grid


def _date(granule: str) -> str:
    stamp = granule.split(".")[3]
    try:
        return datetime.datetime.strptime(stamp, "%Y%jT%H%M%S").strftime("%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        raise SceneError(f"{stamp} is no date", where=granule) from None


def header() -> Header:
    """What the manifest states before any pixel is read."""
    bands = tuple(
        Band(
            name=name,
            sensor="Sentinel-2 MSI (HLS S30)",
            unit="reflectance",
            scale=1e-4,
            nodata=NODATA,
            wavelength_um=um,
        )
        for name, um in BANDS.values()
    )
    shape = (CHIP_SIZE, CHIP_SIZE)
    return Header(
        name=NAME,
        version="1.0.0",
        title="HLS-DSWx: water computed from the image itself (circular)",
        description=(
            f"Chips of {CHIP_SIZE} x {CHIP_SIZE} pixels of 30 m of one HLS granule, with the water map that DSWx-HLS "
            f"computed from the same bands. Blocks of {BLOCK_CHIPS} x {BLOCK_CHIPS} chips are dealt 60 : 20 : 20 to "
            "train, val and test; chips that touch another split are left out. A data set for trying out, not for "
            "comparing models."
        ),
        licence="Apache-2.0",
        citation="HLS: Claverie et al. 2018, doi 10.1016/j.rse.2018.09.002. DSWx-HLS: NASA/JPL OPERA, PROTEUS.",
        homepage="https://github.com/nasa/PROTEUS",
        provenance="Test data of github.com/nasa/PROTEUS at commit 7943a98.",
        known_label_defects=(
            "Circular: the label is a set of thresholds on these very bands, so a model that finds them is perfect. "
            "Partial water (codes 3, 4) and cloud are ignored. 0.2 % of the granule is water."
        ),
        guard_distance_m=GUARD_M,
        task=Task(
            kind="segmentation",
            classes=WATER_CLASSES,
        ),
        arrays=(
            Array(name="image", dtype="int16", shape=(len(bands), *shape), role="image", bands=bands),
            Array(name="mask", dtype="uint8", shape=shape, role="mask"),
        ),
        builder=BuilderInfo(name=NAME, version=VERSION, parameters={"seed": SEED}),
    )
