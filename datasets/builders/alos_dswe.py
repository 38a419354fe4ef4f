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
from ..alos_dswe_header import CHIP_SIZE, MIN_LABELLED, NAME, NODATA, header
from ..alos_dswe_header import VERSION as VERSION
from ..dswe import FILL, MAX_DAYS, cloud_fault, code_counts, cover_fault, nearest_first, share_of_cloud, water_labels
from ..labelled import IGNORE, relative_error
from ..mosaic import Mosaic, overlap
from ..plan import ChipRef, Plan, SceneJob
from ..products import (
    find,
    fractions,
    ground_keys,
    is_simulated,
    make_plan,
    read_text,
    reasons,
    relative_errors,
    source_files,
)
from ..spec import SkippedScene
from ..splits import by_group

FLOOR_DB = -50.0  # 1e-5 in power, in place of missing pixels while the image is smoothed
MARGIN = 32  # pixels around a strip that the smoothing sees
PATTERNS = {
    "sar": r"(?P<granule>AP_\d{5}_FBD_F\d{4}_RT1)(?P<layer>_HH|_HV|\.dem)\.tiff?",
    "metadata": r"(?P<granule>AP_\d{5}_FBD_F\d{4}_RT1)\.iso\.xml",
    "dswe": r"L[TEC]0[45789]_CU_\d{6}_(?P<date>\d{8})_\d{8}_\d{2}_INWAM\.tiff?",
    "gfc": r"Hansen_GFC-\d{4}-v[\d.]+_first_\d{2}[NS]_\d{3}[EW]\.tiff?",
    "hand": r"Copernicus_DSM_COG_10_[NS]\d{2}_00_[EW]\d{3}_00_HAND\.tiff?",
}
LAYERS = {"_HH": "hh", "_HV": "hv", ".DEM": "dem"}


def plan(source: Path, *, despeckle: float | None = None, held_out: float = 0.15) -> Plan:
    """Plan the data set from a folder of products.

    Args:
        source: folder with the products, in folders of any depth.
        despeckle: weight of the total-variation smoothing of HH and HV in dB (lower is smoother, the authors trained
            with 0.35); none by default.
        held_out: share of the scenes for validation, and for the test.
    """
    shares = fractions(held_out, NAME)
    if despeckle is not None and not (isinstance(despeckle, int | float) and 0 < despeckle <= 100):
        raise InputError(f"despeckle must be above 0 and at most 100, found {despeckle!r}", where=NAME)
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
    for kind, path in ((kind, path) for kind, paths in tiles.items() for path in paths):
        try:
            with raster.open_raster(folder / path) as opened:
                if kind == "dswe":
                    raster.check_bands(opened, "uint8", (1,))
                covers[path] = raster.check_georeferenced(opened)
        except InputError as error:
            skipped.append(SkippedScene(id=Path(path).name, reason=str(relative_error(error, folder))))
    parts, grids, days = [], {}, {path: _day(text) for path, text in tiles["dswe"].items()}
    for granule, layers in sorted(granules.items()):
        try:
            grid = _check_sar(folder, granule, layers)
            date = acquisition_date(folder / layers["metadata"])
            wanted = nearest_first(filter(None, days.values()), date)
            near = {
                kind: [
                    path
                    for path in paths
                    if path in covers and (kind != "dswe" or days[path] in wanted) and overlap(covers[path], grid)
                ]
                for kind, paths in tiles.items()
            }
            for kind, words in (("dswe", f"DSWE within {MAX_DAYS} day"), ("gfc", "forest-change"), ("hand", "HAND")):
                if not near[kind]:
                    raise SceneError(f"no {words} tile reaches it", where=granule)
            grids[granule] = grid
            dates = [d for d in wanted if any(days[p] == d for p in near["dswe"])]
            payload = {
                "layers": {k: v for k, v in layers.items() if k != "metadata"},
                "dswe": [[p for p in near["dswe"] if days[p] == d] for d in dates],
                "gfc": near["gfc"],
                "hand": near["hand"],
                "despeckle": despeckle,
            }
            names = (*layers.values(), *near["dswe"], *near["gfc"], *near["hand"])
            parts.append((granule, grid, date.isoformat(), names, payload))
        except InputError as error:
            skipped.append(SkippedScene(id=granule, reason=str(relative_error(error, folder))))
    with reasons(skipped):
        split_of = by_group(ground_keys(grids), shares) if grids else {}
    return make_plan(
        header(despeckle, is_simulated(folder), held_out),
        folder,
        ((g, split_of[g], grid, date, source_files(folder, names), rest) for g, grid, date, names, rest in parts),
        lambda grid: len(raster.tiles(grid.height, grid.width, CHIP_SIZE)),
        skipped,
    )


def index(job: SceneJob) -> list[ChipRef]:
    """The windows of the scene, with the DSWE tiles of the nearest date that will do.

    A single date that is clear enough is taken unread: whether it will do in the SAR footprint shows when it is read.
    """
    faults = []
    with AlosScene(job) as scene:
        footprint = scene.footprint() if len(job.payload["dswe"]) > 1 else None
        for tiles in job.payload["dswe"]:
            fault = cloud_fault(share_of_cloud([scene.folder / t for t in tiles]))
            if fault is None and footprint is not None:
                fault = cover_fault(code_counts(scene.codes(tiles), footprint))
            if fault is None:
                return [scene.chip(window, tiles) for window in scene.windows]
            faults.append((tiles, fault))
    raise _no_pair(job, faults)


def read(job: SceneJob, refs: Sequence[ChipRef]) -> Iterator[dict[str, np.ndarray] | None]:
    """``image`` float32 (8, 512, 512) and ``mask`` uint8 (512, 512), 255 = ignore.

    None where less than a tenth has a label and data. Raises SceneError when DSWE does not fit the SAR footprint.
    """
    tiles, counts = refs[0].payload["dswe"], np.zeros(256, np.int64)
    with AlosScene(job) as scene, ExitStack() as stack:
        dswe = stack.enter_context(Mosaic([scene.folder / t for t in tiles], scene.grid, nodata=FILL))
        gfc = stack.enter_context(scene.continuous("gfc", (1, 2, 3, 4), 0))
        hand = stack.enter_context(scene.continuous("hand", (1,), np.nan))
        dem = stack.enter_context(Mosaic([scene.folder / job.payload["layers"]["dem"]], scene.grid, **BILINEAR))
        image = np.empty((8, CHIP_SIZE, scene.width), np.float32)
        for row in dict.fromkeys(ref.window[0] for ref in refs):
            window = (row, 0, CHIP_SIZE, scene.width)
            scene.sar(window, image[:2])
            for layer, bands in ((gfc, image[2:6]), (dem, image[6:7]), (hand, image[7:])):
                layer.read(window, bands)
            codes = dswe.read(window)[0]
            counts += code_counts(codes, (image[0] != NODATA) & (image[1] != NODATA))
            if job.payload["despeckle"] is not None:
                image[:2] = scene.smooth(window, image[:2], job.payload["despeckle"])
            for ref in (r for r in refs if r.window[0] == row):
                columns = slice(ref.window[1], ref.window[1] + CHIP_SIZE)
                chip, mask = image[:, :, columns].copy(), water_labels(codes[:, columns])
                if not (finite := np.isfinite(chip[2:])).all():
                    chip[2:][~finite] = NODATA
                mask[(chip[:6] == NODATA).any(0)] = IGNORE
                yield {"image": chip, "mask": mask} if (mask != IGNORE).mean() >= MIN_LABELLED else None
    if fault := cover_fault(counts):
        raise _no_pair(job, [(tiles, fault)])


def _no_pair(job: SceneJob, faults: list[tuple[list[str], str]]) -> SceneError:
    words = "; ".join(f"{Path(tiles[0]).name[:23]}: {fault}" for tiles, fault in faults)
    return SceneError(f"no DSWE within {MAX_DAYS} day will do ({words})", where=job.id)


BILINEAR = {"resampling": "bilinear", "dtype": "float32", "nodata": NODATA, "source_nodata": -32768}


class AlosScene:
    """The SAR image of one scene, open while used as a context manager."""

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
            self._stack = stack.pop_all()
        self.width = -(-self.grid.width // CHIP_SIZE) * CHIP_SIZE
        self.rows = range(0, self.grid.height, CHIP_SIZE)
        self.windows = raster.tiles(self.grid.height, self.grid.width, CHIP_SIZE)
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self._stack.close()
        if isinstance(error, SceneError):
            raise relative_error(error, self.folder) from None

    def continuous(self, kind: str, bands: Sequence[int], source_nodata: float) -> Mosaic:
        """The tiles of one kind as float32 on the SAR grid."""
        options = BILINEAR | {"bands": bands, "source_nodata": source_nodata}
        return Mosaic([self.folder / name for name in self.payload[kind]], self.grid, **options)

    def power(self, window: raster.PixelWindow, out: np.ndarray | None = None) -> np.ndarray:
        """HH and HV, float32 (2, h, w), in ``out`` where given; 0 beyond the image."""
        out = np.empty((2, *window[2:]), np.float32) if out is None else out
        for number, band in enumerate(self._sar):
            raster.read_window(band, window, (1,), 0, out[number : number + 1])
        return out

    def sar(self, window: raster.PixelWindow, out: np.ndarray | None = None) -> np.ndarray:
        """HH and HV in dB, float32 (2, h, w), in ``out`` where given; nodata where the power is not above 0."""
        power = self.power(window, out)
        return power_to_db(power, power)

    def footprint(self) -> np.ndarray:
        """bool (rows, width): where HH and HV have data."""
        strips = ((row, 0, CHIP_SIZE, self.width) for row in self.rows)
        return np.concatenate([has_power(self.power(window)).all(0) for window in strips])

    def codes(self, tiles: Sequence[str]) -> np.ndarray:
        """uint8 (rows, width): DSWE of one date on the SAR grid."""
        with Mosaic([self.folder / t for t in tiles], self.grid, nodata=FILL) as dswe:
            return np.concatenate([dswe.read((row, 0, CHIP_SIZE, self.width))[0] for row in self.rows])

    def chip(self, window: raster.PixelWindow, tiles: list[str]) -> ChipRef:
        """The chip of a window with the DSWE tiles that label it."""
        name = f"{self.id}_{window[0]}_{window[1]}"
        return ChipRef(name, window, self.grid.window_transform(window), payload={"dswe": tiles})

    def smooth(self, window: raster.PixelWindow, image: np.ndarray, weight: float) -> np.ndarray:
        """HH and HV in dB after total-variation smoothing, seen with a margin so that strips meet without a seam."""
        from skimage.restoration import denoise_tv_bregman

        row, column, height, width = window
        around = self.sar((row - MARGIN, column - MARGIN, height + 2 * MARGIN, width + 2 * MARGIN))
        around[around == NODATA] = FLOOR_DB
        inner = slice(MARGIN, MARGIN + height), slice(MARGIN, MARGIN + width)
        smoothed = np.stack([denoise_tv_bregman(band, weight=weight)[inner] for band in around]).astype(np.float32)
        return np.where(image == NODATA, np.float32(NODATA), smoothed)


def has_power(power: np.ndarray) -> np.ndarray:
    """bool: finite and above 0."""
    return (power > 0) & (power < np.inf)


def power_to_db(power: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """float32 10 log10(power), in ``out`` where given; nodata where it is 0, negative or not finite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        decibels = np.log10(power, out=out)
    decibels *= 10
    if not (known := np.isfinite(decibels)).all():
        decibels[~known] = NODATA
    return decibels


def acquisition_date(metadata: Path) -> datetime.date:
    """Date of the first ``gml:beginPosition`` in ASF's ISO 19115 metadata. Raises SceneError where there is none."""
    found = re.search(r"<gml:beginPosition[^>]*>\s*(\d{4}-\d{2}-\d{2})", read_text(metadata))
    try:
        return datetime.date.fromisoformat(found[1])
    except (TypeError, ValueError):
        raise SceneError("no acquisition date (gml:beginPosition)", where=metadata) from None


def _day(digits: str) -> datetime.date | None:
    try:
        return datetime.datetime.strptime(digits, "%Y%m%d").date()
    except ValueError:  # a name with digits that are no date
        return None


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
