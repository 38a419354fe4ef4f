"""ALOS-1 PALSAR with optical and terrain layers, labelled by Landsat's Dynamic Surface Water Extent (DSWE).

The rules are those of github.com/nasa/dl-with-alos-dswe (IGARSS 2023). A folder holds the archives' own products:
ASF's radiometrically terrain-corrected PALSAR (``AP_15742_FBD_F0290_RT1_HH.tif``, ``_HV.tif``, ``.dem.tif``,
``.iso.xml``), DSWE of Landsat Collection 2 (``LE07_CU_018010_20070710_20210502_02_INWAM.TIF``), Global Forest Change
composites (``Hansen_GFC-2020-v1.8_first_40N_090W.tif``) and GLO-30 HAND
(``Copernicus_DSM_COG_10_N35_00_W091_00_HAND.tif``).

The SAR image is the grid: continuous layers are brought to it bilinearly, the labels by their nearest pixel.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from ...errors import InputError, SceneError
from .. import raster
from ..dswe import FILL, MAX_CLOUD, MIN_VALID, MIN_WATER, code_counts, pair_fault, share_of_cloud, water_labels
from ..labelled import IGNORE, relative_error
from ..mosaic import Mosaic, overlap
from ..plan import ChipRef, Plan, SceneJob
from ..products import FRACTIONS, find, ground_keys, is_simulated, make_plan, read_text, relative_errors, source_files
from ..spec import WATER_CLASSES, Array, Band, BuilderInfo, Header, SkippedScene, Task
from ..splits import by_group

NAME, VERSION = "alos-dswe", "1.0.0"
CHIP_SIZE = 512
NODATA = -9999.0
MIN_LABELLED = 0.1  # share of a chip's pixels
MAX_DAYS = 1
FLOOR_DB = -50.0  # 1e-5 in power, in place of missing pixels while the image is smoothed
MARGIN = 32  # pixels around a strip that the smoothing sees
# "first" composites: DN = reflectance * gain + 1, earthenginepartners.appspot.com (Hansen et al. 2013, data download)
GFC_GAINS = {"red": 508, "nir": 254, "swir1": 363, "swir2": 423}
PATTERNS = {
    "sar": r"(?P<granule>AP_\d{5}_FBD_F\d{4}_RT1)(?P<layer>_HH|_HV|\.dem)\.tiff?",
    "metadata": r"(?P<granule>AP_\d{5}_FBD_F\d{4}_RT1)\.iso\.xml",
    "dswe": r"L[TEC]0[45789]_CU_\d{6}_(?P<date>\d{8})_\d{8}_\d{2}_INWAM\.tiff?",
    "gfc": r"Hansen_GFC-\d{4}-v[\d.]+_first_\d{2}[NS]_\d{3}[EW]\.tiff?",
    "hand": r"Copernicus_DSM_COG_10_[NS]\d{2}_00_[EW]\d{3}_00_HAND\.tiff?",
}
LAYERS = {"_HH": "hh", "_HV": "hv", ".DEM": "dem"}


def plan(source: Path, *, despeckle: float | None = None) -> Plan:
    """Plan the data set from a folder of products.

    Args:
        source: folder with the products, in folders of any depth.
        despeckle: weight of the total-variation smoothing of HH and HV in dB (lower is smoother, the authors trained
            with 0.35); none by default.
    """
    if despeckle is not None and not 0 < despeckle <= 100:
        raise InputError(f"despeckle must be above 0 and at most 100, found {despeckle}", where=NAME)
    folder = Path(source).absolute()
    granules: dict[str, dict[str, str]] = {}
    tiles: dict[str, dict[str, str | None]] = {"dswe": {}, "gfc": {}, "hand": {}}
    for kind, path, groups in find(folder, PATTERNS):
        if kind in tiles:
            tiles[kind][path] = groups.get("date")
        else:
            layer = LAYERS[groups["layer"].upper()] if kind == "sar" else kind
            granules.setdefault(groups["granule"], {})[layer] = path
    if not granules:
        raise InputError("no PALSAR granule (AP_…_FBD_F…_RT1_HH.tif) here", where=folder)
    covers, skipped = {}, []
    for path in (path for paths in tiles.values() for path in paths):
        try:
            with raster.open_raster(folder / path) as opened:
                covers[path] = raster.check_georeferenced(opened)
        except InputError as error:
            skipped.append(SkippedScene(id=Path(path).name, reason=str(relative_error(error, folder))))
    parts, grids = [], {}
    for granule, layers in sorted(granules.items()):
        try:
            grid = _check_sar(folder, granule, layers)
            date = acquisition_date(folder / layers["metadata"])
            near = {
                kind: [p for p in paths if p in covers and _near(paths[p], date) and overlap(covers[p], grid)]
                for kind, paths in tiles.items()
            }
            for kind, words in (("dswe", f"DSWE within {MAX_DAYS} day"), ("gfc", "forest-change"), ("hand", "HAND")):
                if not near[kind]:
                    raise SceneError(f"no {words} tile reaches it", where=granule)
            grids[granule] = grid
            dates = sorted({tiles["dswe"][p] for p in near["dswe"]}, key=lambda d: (abs(_days(d, date)), d))
            payload = {
                "layers": {k: v for k, v in layers.items() if k != "metadata"},
                "dswe": [[p for p in near["dswe"] if tiles["dswe"][p] == d] for d in dates],
                "gfc": near["gfc"],
                "hand": near["hand"],
                "despeckle": despeckle,
            }
            names = (*layers.values(), *near["dswe"], *near["gfc"], *near["hand"])
            parts.append((granule, grid, date.isoformat(), names, payload))
        except InputError as error:
            skipped.append(SkippedScene(id=granule, reason=str(relative_error(error, folder))))
    split_of = by_group(ground_keys(grids), FRACTIONS) if grids else {}
    return make_plan(
        header(despeckle, is_simulated(folder)),
        folder,
        ((g, split_of[g], grid, date, source_files(folder, names), rest) for g, grid, date, names, rest in parts),
        lambda grid: len(raster.tiles(grid.height, grid.width, CHIP_SIZE)),
        skipped,
    )


def index(job: SceneJob) -> list[ChipRef]:
    """The chips of the scene whose label is known for a tenth, with the DSWE tiles of the nearest date that will do."""
    with AlosScene(job) as scene:
        footprint, usable = scene.coverage()
        faults = []
        for tiles in job.payload["dswe"]:
            codes = scene.codes(tiles)
            fault = pair_fault(share_of_cloud([scene.folder / t for t in tiles]), code_counts(codes, footprint))
            if fault is None:
                return scene.chips(codes, usable, tiles)
            faults.append(f"{Path(tiles[0]).name[:23]}: {fault}")
    raise SceneError(f"no DSWE within {MAX_DAYS} day will do ({'; '.join(faults)})", where=job.id)


def read(job: SceneJob, refs: Sequence[ChipRef]) -> Iterator[dict[str, np.ndarray]]:
    """``image`` float32 (8, 512, 512) and ``mask`` uint8 (512, 512), 255 = ignore."""
    with AlosScene(job) as scene, ExitStack() as stack:
        tiles = [scene.folder / t for t in refs[0].payload["dswe"]] if refs else []
        dswe = stack.enter_context(Mosaic(tiles, scene.grid, nodata=FILL))
        hand = stack.enter_context(scene.continuous("hand", (1,), np.nan))
        dem = stack.enter_context(Mosaic([scene.folder / job.payload["layers"]["dem"]], scene.grid, **BILINEAR))
        for row in dict.fromkeys(ref.window[0] for ref in refs):
            window = (row, 0, CHIP_SIZE, scene.width)
            image = np.concatenate([scene.sar(window), scene.gfc.read(window), dem.read(window), hand.read(window)])
            image[~np.isfinite(image)] = NODATA
            mask = water_labels(dswe.read(window)[0])
            mask[(image[:6] == NODATA).any(0)] = IGNORE
            if job.payload["despeckle"] is not None:
                image[:2] = scene.smooth(window, image[:2], job.payload["despeckle"])
            for ref in (r for r in refs if r.window[0] == row):
                columns = slice(ref.window[1], ref.window[1] + CHIP_SIZE)
                yield {"image": image[:, :, columns], "mask": mask[:, columns]}


BILINEAR = {"resampling": "bilinear", "dtype": "float32", "nodata": NODATA, "source_nodata": -32768}


class AlosScene:
    """The SAR image and the composite of one scene, open while used as a context manager."""

    def __init__(self, job: SceneJob) -> None:
        self.folder, self.id, self.payload = Path(job.payload["source"]), job.id, job.payload
        self._stack = ExitStack()

    def __enter__(self) -> AlosScene:
        with self._stack as stack, relative_errors(self.folder):
            self._sar = [
                stack.enter_context(raster.open_raster(self.folder / self.payload["layers"][p], num_threads=2))
                for p in ("hh", "hv")
            ]
            self.grid = raster.grid_of(self._sar[0])
            self.gfc = stack.enter_context(self.continuous("gfc", (1, 2, 3, 4), 0))
            self._stack = stack.pop_all()
        self.width = -(-self.grid.width // CHIP_SIZE) * CHIP_SIZE
        self.rows = range(0, self.grid.height, CHIP_SIZE)
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self._stack.close()
        if isinstance(error, SceneError):
            raise relative_error(error, self.folder) from None

    def continuous(self, kind: str, bands: Sequence[int], source_nodata: float) -> Mosaic:
        """The tiles of one kind as float32 on the SAR grid."""
        options = BILINEAR | {"bands": bands, "source_nodata": source_nodata}
        return Mosaic([self.folder / name for name in self.payload[kind]], self.grid, **options)

    def sar(self, window: raster.PixelWindow) -> np.ndarray:
        """HH and HV in dB, float32 (2, h, w); nodata where the power is not above 0."""
        power = np.concatenate([raster.read_window(band, window, (1,), 0) for band in self._sar])
        return power_to_db(power)

    def coverage(self) -> tuple[np.ndarray, np.ndarray]:
        """bool (rows, width) twice: where SAR has data, and where the composite has data too."""
        footprint = np.zeros((len(self.rows) * CHIP_SIZE, self.width), bool)
        usable = np.zeros_like(footprint)
        for row in self.rows:
            window, rows = (row, 0, CHIP_SIZE, self.width), slice(row, row + CHIP_SIZE)
            footprint[rows] = (self.sar(window) != NODATA).all(0)
            usable[rows] = footprint[rows] & (self.gfc.read(window) != NODATA).all(0)
        return footprint, usable

    def codes(self, tiles: Sequence[str]) -> np.ndarray:
        """uint8 (rows, width): DSWE of one date on the SAR grid."""
        with Mosaic([self.folder / t for t in tiles], self.grid, nodata=FILL) as dswe:
            return np.concatenate([dswe.read((row, 0, CHIP_SIZE, self.width))[0] for row in self.rows])

    def chips(self, codes: np.ndarray, usable: np.ndarray, tiles: list[str]) -> list[ChipRef]:
        """The chips of which a tenth has a label and data, row by row."""
        refs = []
        for row in self.rows:
            rows = slice(row, row + CHIP_SIZE)
            known = (water_labels(codes[rows]) != IGNORE) & usable[rows]
            for column in range(0, self.width, CHIP_SIZE):
                if known[:, column : column + CHIP_SIZE].mean() >= MIN_LABELLED:
                    window = (row, column, CHIP_SIZE, CHIP_SIZE)
                    transform = self.grid.window_transform(window)
                    refs.append(ChipRef(f"{self.id}_{row}_{column}", window, transform, payload={"dswe": tiles}))
        return refs

    def smooth(self, window: raster.PixelWindow, image: np.ndarray, weight: float) -> np.ndarray:
        """HH and HV in dB after total-variation smoothing, seen with a margin so that strips meet without a seam."""
        from skimage.restoration import denoise_tv_bregman

        row, column, height, width = window
        around = self.sar((row - MARGIN, column - MARGIN, height + 2 * MARGIN, width + 2 * MARGIN))
        around[around == NODATA] = FLOOR_DB
        inner = slice(MARGIN, MARGIN + height), slice(MARGIN, MARGIN + width)
        smoothed = np.stack([denoise_tv_bregman(band, weight=weight)[inner] for band in around]).astype(np.float32)
        return np.where(image == NODATA, np.float32(NODATA), smoothed)


def power_to_db(power: np.ndarray) -> np.ndarray:
    """float32 10 log10(power); nodata where it is 0, negative or not finite."""
    known = np.isfinite(power) & (power > 0)
    return np.where(known, 10 * np.log10(np.where(known, power, 1)), NODATA).astype(np.float32)


def acquisition_date(metadata: Path) -> datetime.date:
    """Date of the first ``gml:beginPosition`` in ASF's ISO 19115 metadata. Raises SceneError where there is none."""
    found = re.search(r"<gml:beginPosition[^>]*>\s*(\d{4}-\d{2}-\d{2})", read_text(metadata))
    try:
        return datetime.date.fromisoformat(found[1])
    except (TypeError, ValueError):
        raise SceneError("no acquisition date (gml:beginPosition)", where=metadata) from None


def _days(tile_date: str, date: datetime.date) -> int:
    return (datetime.datetime.strptime(tile_date, "%Y%m%d").date() - date).days


def _near(tile_date: str | None, date: datetime.date) -> bool:
    try:
        return tile_date is None or abs(_days(tile_date, date)) <= MAX_DAYS
    except ValueError:  # a name with digits that are no date
        return False


def _check_sar(folder: Path, granule: str, layers: dict[str, str]) -> raster.Grid:
    """The grid of a granule whose files are there and agree."""
    for layer, suffix in (("hh", "_HH.tif"), ("hv", "_HV.tif"), ("dem", ".dem.tif"), ("metadata", ".iso.xml")):
        if layer not in layers:
            raise SceneError(f"{granule}{suffix} is missing", where=granule)
    with raster.open_raster(folder / layers["hh"]) as hh, raster.open_raster(folder / layers["hv"]) as hv:
        grid = raster.check_georeferenced(hh)
        raster.check_bands(hh, "float32", (1,))
        raster.check_bands(hv, "float32", (1,))
        raster.check_same_grid(hv, grid)
    return grid


def header(despeckle: float | None, simulated: bool) -> Header:
    """What the manifest states before any pixel is read."""
    sar = tuple(Band(name=n, sensor="ALOS PALSAR", unit="dB", nodata=NODATA) for n in ("hh", "hv"))
    optical = tuple(
        Band(
            name=name,
            sensor="Landsat, Global Forest Change 2020",
            unit="reflectance",
            scale=1 / gain,
            offset=-1 / gain,
            nodata=NODATA,
        )
        for name, gain in GFC_GAINS.items()
    )
    terrain = (
        Band(name="dem", sensor="ASF terrain model", unit="m", nodata=NODATA),
        Band(name="hand", sensor="GLO-30 HAND", unit="m", nodata=NODATA),
    )
    smoothed = f" HH and HV are smoothed by total variation, weight {despeckle:g}." if despeckle is not None else ""
    return Header(
        name=NAME + ("" if despeckle is None else "-smoothed") + ("-sim" if simulated else ""),
        version="1.0.0",
        title="ALOS-DSWE: surface water from L-band SAR" + (" (simulated)" if simulated else ""),
        description=(
            f"Chips of {CHIP_SIZE} x {CHIP_SIZE} pixels of 12.5 m on the grid of ALOS PALSAR scenes: HH and HV, a "
            "cloud-free optical composite, elevation and height above the nearest drainage, with water as Landsat saw "
            f"it within {MAX_DAYS} day. Bands hh, hv, dem, hand are the SAR variant, all eight the SAR and optical "
            f"one.{smoothed} DSWE of the nearest date counts that has less than {MAX_CLOUD:.0%} cloud and, in the SAR "
            f"footprint, at least {MIN_VALID:.0%} valid pixels and {MIN_WATER:.0%} water. Chips do not overlap; those "
            f"with less than {MIN_LABELLED:.0%} known labels are left out. Scenes that share ground stay together; the "
            "groups are dealt 70 : 15 : 15 to train, val and test."
        ),
        licence=None,
        citation=(
            "PALSAR: ASF DAAC, doi 10.5067/Z97HFCNKR6VA, includes material (c) JAXA/METI. DSWE: USGS, Landsat "
            "Collection 2 Level-3. Composite: Hansen et al. 2013, doi 10.1126/science.1244693. HAND: ASF from "
            "Copernicus GLO-30."
        ),
        homepage="https://github.com/nasa/dl-with-alos-dswe",
        provenance=(
            "Simulated products in the layouts of the archives; no satellite measured them."
            if simulated
            else "ASF DAAC RTC_HIGH_RES, USGS landsat-c2l3-dswe (INWAM), GFC-2020-v1.8 first, GLO-30 HAND."
        ),
        known_label_defects=(
            "The label is another sensor's classification, not ground truth: DSWE misses water under trees and narrow "
            "rivers (30 m against 12.5 m), and confuses shadow with water. SAR and Landsat are up to a day apart. "
            "Partial water (codes 3, 4), cloud and the scan-line gaps of Landsat 7 are ignored. The composite is of "
            "another year. Zero in DEM beyond its coverage is not told from sea level."
        ),
        simulated=simulated,
        task=Task(
            kind="segmentation",
            classes=WATER_CLASSES,
        ),
        arrays=(
            Array(
                name="image",
                dtype="float32",
                shape=(8, CHIP_SIZE, CHIP_SIZE),
                role="image",
                bands=(*sar, *optical, *terrain),
            ),
            Array(name="mask", dtype="uint8", shape=(CHIP_SIZE, CHIP_SIZE), role="mask"),
        ),
        builder=BuilderInfo(name=NAME, version=VERSION, parameters={"despeckle": despeckle}),
    )
