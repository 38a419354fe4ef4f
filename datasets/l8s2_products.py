"""Which Landsat scene belongs to which Sentinel-2 product, by the names and headers of their files."""

from __future__ import annotations

import datetime
import re
from dataclasses import replace
from pathlib import Path

import rasterio

from ..errors import SceneError
from . import raster
from .l8s2_header import S2_BANDS
from .mosaic import overlap
from .products import find

L8_BANDS = ("SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B6", "SR_B7")
FORMATS = ("GTiff", "JP2OpenJPEG")
FALSE_NORTHING_M = 10_000_000.0  # of the southern UTM zones; Landsat counts on below zero in the northern ones
PATTERNS = {
    "s2": r"T(?P<tile>\d\d[A-Z]{3})_(?P<time>\d{8}T\d{6})_(?P<band>B0[234]|B8A|B1[12]|SCL)_(?P<step>[12]0)m\.(jp2|tif)",
    "l8": r"LC08_L2S[PR]_(?P<place>\d{6})_(?P<date>\d{8})_\d{8}_02_T[12]_(?P<band>SR_B[2-7]|QA_PIXEL)\.tiff?",
    "pan": r"LC08_L1T[PS]_(?P<place>\d{6})_(?P<date>\d{8})_\d{8}_02_T[12]_(?P<what>B8\.tiff?|MTL\.json|MTL\.txt)",
}
PRODUCT = re.compile(
    r"S2[ABC]_MSIL2A_\d{8}T\d{6}_N(?P<baseline>\d{4})_R\d{3}_T\d{2}[A-Z]{3}_\d{8}T\d{6}", re.IGNORECASE
)
PRODUCT_ID = len("LC08_L2SP_199030_20210705_20210712_02_T1")


def group(folder: Path) -> tuple[dict[str, dict], dict[tuple[str, str], dict]]:
    """Sentinel-2 products by scene id, and Landsat scenes by (path and row, date)."""
    scenes: dict[str, dict] = {}
    landsat: dict[tuple[str, str], dict] = {}
    for kind, path, groups in find(folder, PATTERNS):
        if kind != "s2" and _date(groups["date"]) is None:
            continue
        if kind == "s2":
            product = PRODUCT.search(path)
            scene = product[0].upper() if product else path.rsplit("/", 1)[-1][:22].upper()
            entry = scenes.setdefault(
                scene, {"bands": {}, "tile": groups["tile"].upper(), "time": groups["time"].upper()}
            )
            day = _date(groups["time"][:8])
            entry |= {"baseline": product["baseline"] if product else None, "date": day and day.isoformat()}
            place, key = entry["bands"], groups["band"].upper()
            if place.get(key) and groups["step"] == "20":  # a 20 m copy of a 10 m band
                continue
        else:
            entry = landsat.setdefault((groups["place"], groups["date"]), {"bands": {}, "pan": {}})
            place = entry["bands"] if kind == "l8" else entry["pan"]
            key = groups["band"].upper() if kind == "l8" else groups["what"][:3].upper().rstrip(".")
        place[key] = path
    return scenes, landsat


def partner(folder: Path, scene: str, s2: dict, landsat: dict, max_days: int) -> tuple[raster.Grid, dict]:
    """The grid of a Sentinel-2 product, and its Landsat scene: of the nearest date, the one that shares most ground.

    Raises SceneError where files are missing or wrong, or no complete Landsat scene is near.
    """
    if s2["baseline"] is None:
        raise SceneError("no processing baseline in the product's name", where=scene, hint="keep the .SAFE folder")
    if s2["date"] is None:
        raise SceneError(f"no date: {s2['time']}", where=scene)
    if missing := [b for b in (*S2_BANDS, "SCL") if b not in s2["bands"]]:
        raise SceneError(f"{', '.join(missing)} missing", where=scene)
    grid = _check(folder, s2["bands"]["B02"], "uint16")
    for band, name in s2["bands"].items():
        own = _check(folder, name, "uint8" if band == "SCL" else "uint16")
        step = round(own.transform[0] / grid.transform[0])
        if own.bounds() != grid.bounds() or step not in (1, 2) or (band == "SCL" and step != 2):
            raise SceneError(f"{band} is not on the product's grid", where=folder / name)
    day, near = datetime.date.fromisoformat(s2["date"]), []
    for (place, date), l8 in sorted(landsat.items()):
        days = abs((_date(date) - day).days)
        complete = {*L8_BANDS, "QA_PIXEL"} == set(l8["bands"]) and {"B8", "MTL"} == set(l8["pan"])
        if days > max_days or not complete:
            continue
        own = in_zone(_check(folder, l8["bands"]["QA_PIXEL"], "uint16"), grid.crs)
        if own is not None and overlap(own, grid):
            near.append((days, -_shared(own, grid), place, l8))
    if not near:
        raise SceneError(
            f"no complete Landsat scene (L2SP with its L1TP panchromatic band) within {max_days} days in this zone",
            where=scene,
        )
    l8 = min(near, key=lambda entry: entry[:3])[3]
    for names in (l8["bands"].values(), l8["pan"].values()):
        products = sorted({name.rsplit("/", 1)[-1][:PRODUCT_ID].upper() for name in names})
        if len(products) > 1:
            raise SceneError(
                f"files of two processings of one Landsat scene: {', '.join(products)}", where=scene, hint="keep one"
            )
    first = _check(folder, l8["bands"]["QA_PIXEL"], "uint16")
    for name in l8["bands"].values():
        with raster.open_raster(folder / name) as band:
            raster.check_same_grid(band, first)
            raster.check_bands(band, "uint16", (1,))
    if in_zone(_check(folder, l8["pan"]["B8"], "uint16"), grid.crs) is None:
        raise SceneError("the panchromatic band is in another zone", where=folder / l8["pan"]["B8"])
    return grid, l8


def _date(digits: str) -> datetime.date | None:
    try:
        return datetime.datetime.strptime(digits, "%Y%m%d").date()
    except ValueError:
        return None


def in_zone(grid: raster.Grid, crs: str) -> raster.Grid | None:
    """A Landsat grid as Sentinel-2's zone counts it: from the false northing in the south. None in another zone."""
    if grid.crs == crs:
        return grid
    codes = [rasterio.CRS.from_wkt(wkt).to_epsg() for wkt in (crs, grid.crs)]
    if None in codes or codes[0] == codes[1] or not same_zone(*codes):
        return None
    a, b, c, d, e, f = grid.transform
    return replace(grid, transform=(a, b, c, d, e, f + FALSE_NORTHING_M), crs=crs)


def same_zone(sentinel2: int, landsat: int) -> bool:
    """Whether EPSG codes name one UTM zone: Landsat keeps the northern code south of the equator."""
    return sentinel2 == landsat or (sentinel2 - landsat == 100 and 32601 <= landsat <= 32660)


def _shared(one: raster.Grid, two: raster.Grid) -> float:
    (w1, s1, e1, n1), (w2, s2, e2, n2) = one.bounds(), two.bounds()
    return max(0.0, min(e1, e2) - max(w1, w2)) * max(0.0, min(n1, n2) - max(s1, s2))


def _check(folder: Path, name: str, dtype: str) -> raster.Grid:
    with raster.open_raster(folder / name, FORMATS) as opened:
        raster.check_bands(opened, dtype, (1,))
        return raster.check_georeferenced(opened)
