"""Landsat-8 and Sentinel-2 of the same ground within days: which products make pairs, and which files they need.

Landsat Collection 2 comes from the USGS catalogue (Level-2 surface reflectance, Level-1 panchromatic band with MTL),
Sentinel-2 L2A from Earth Search's ``sentinel-2-c1-l2a``. That collection holds the digital numbers as ESA delivers
them; its older ``sentinel-2-l2a`` has the offset of baseline 04.00 taken off in part of the scenes, and says wrongly
in which (github.com/Element84/earth-search, issues 41, 66 and 71), so items of that kind are refused.

Names of folders and files are ours, built from identifiers of the archives' known form; none comes from a URL.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass

from shapely.geometry.base import BaseGeometry

from ..l8s2_products import PRODUCT, same_zone
from .crop import Crop, most_bytes
from .items import Item, from_multihash
from .report import Decision
from .stac import Scene

# asset -> name in the file, dtype; of the catalogues named above
L8_BANDS = {
    "blue": "SR_B2", "green": "SR_B3", "red": "SR_B4", "nir08": "SR_B5", "swir16": "SR_B6", "swir22": "SR_B7",
    "qa_pixel": "QA_PIXEL",
}  # fmt: skip
S2_BANDS = {
    "blue": ("B02", 10), "green": ("B03", 10), "red": ("B04", 10), "nir08": ("B8A", 20), "swir16": ("B11", 20),
    "swir22": ("B12", 20), "scl": ("SCL", 20),
}  # fmt: skip
LANDSAT = re.compile(
    r"(?P<name>LC08_L(?P<level>[12])(?P<kind>[A-Z]{2})_(?P<place>\d{6})_(?P<date>\d{8})_\d{8}_02_T[12])(_SR)?"
)
L8_MARGIN_M = 300.0  # chips are cut on Sentinel-2's grid; Landsat's windows reach 25 m further on every side


@dataclass(frozen=True)
class Limits:
    """What a pair must keep.

    Attributes:
        max_days: between the acquisitions.
        s2_cloud_percent, l8_cloud_percent: of the whole scene, at most.
        min_share: of the area that both see.
    """

    max_days: int = 1
    s2_cloud_percent: float = 10.0
    l8_cloud_percent: float = 10.0
    min_share: float = 0.5


@dataclass(frozen=True)
class Pair:
    """A Sentinel-2 product with its Landsat scene in both levels."""

    s2: Scene
    l8: Scene
    pan: Scene


def product_name(scene: Scene) -> str | None:
    """``S2A_MSIL2A_…`` of a Sentinel-2 item, None where it is of another form."""
    name = str(scene.properties.get("s2:product_uri") or "").removesuffix(".SAFE")
    return name if PRODUCT.fullmatch(name) and name == name.upper() else None


def landsat_name(scene: Scene) -> re.Match | None:
    """The parts of a Landsat-8 identifier, None where it is another satellite, tier or processing."""
    return LANDSAT.fullmatch(scene.id)


def decide(
    s2: Sequence[Scene], level2: Sequence[Scene], level1: Sequence[Scene], area: BaseGeometry, limits: Limits
) -> tuple[list[Pair], list[Decision]]:
    """Give each Sentinel-2 product the Landsat scene of the nearest date; of equal ones that with most ground.

    Args:
        s2, level2, level1: everything found over the area; Landsat also ``max_days`` before and after.
        area: in degrees.
        limits: see ``Limits``.

    Returns:
        The pairs, and a decision for every Sentinel-2 product and every Landsat scene near it.
    """
    pans = {(m["place"], m["date"]): s for s in level1 if (m := landsat_name(s)) and m["level"] == "1"}
    newest = _newest(s2)
    pairs, decisions = [], []
    for scene in s2:
        fault = _s2_fault(scene, newest, area, limits)
        near = [] if fault else _near(scene, level2, limits)
        if fault or not near:
            decisions.append(_decision(scene, None, area, fault or f"no Landsat-8 within {limits.max_days} days"))
            continue
        faults = {l8.id: _l8_fault(scene, l8, pans, area, limits) for l8 in near}
        fit = sorted((l8 for l8 in near if not faults[l8.id]), key=lambda l8: _rank(scene, l8, area))
        for l8 in near:
            reason = faults[l8.id] or ("" if l8 is fit[0] else f"{fit[0].id} is nearer")
            decisions.append(_decision(scene, l8, area, reason))
        if fit:
            pairs.append(Pair(scene, fit[0], pans[_key(fit[0])]))
    return pairs, decisions


def _newest(scenes: Sequence[Scene]) -> dict[tuple[str, str], str]:
    """Product names by sensing time and tile: of several processings the one with the latest baseline and time."""
    newest: dict[tuple[str, str], str] = {}
    for name in filter(None, map(product_name, scenes)):
        parts = name.split("_")
        key = (parts[2], parts[5])
        newest[key] = max(newest.get(key, name), name, key=lambda n: (n.split("_")[3], n.split("_")[6]))
    return newest


def _s2_fault(scene: Scene, newest: dict[tuple[str, str], str], area: BaseGeometry, limits: Limits) -> str:
    name = product_name(scene)
    if name is None:
        return "not a Sentinel-2 L2A product name"
    if scene.properties.get("earthsearch:boa_offset_applied"):
        return "its numbers are shifted: the host took the offset off"
    if missing := [asset for asset in S2_BANDS if asset not in scene.assets]:
        return f"assets missing: {', '.join(missing)}"
    parts = name.split("_")
    if newest[parts[2], parts[5]] != name:
        return f"processed again: {newest[parts[2], parts[5]]}"
    return _cloud_fault(scene, limits.s2_cloud_percent, "Sentinel-2") or _share_fault(scene.share_of(area), limits)


def _cloud_fault(scene: Scene, limit: float, sensor: str) -> str:
    if scene.cloud_percent is None:
        return f"{sensor} cloud cover is not told"
    return f"{sensor} too cloudy: {scene.cloud_percent:.1f} %" if scene.cloud_percent > limit else ""


def _share_fault(share: float, limits: Limits) -> str:
    return f"sees too little of the area: {share:.0%}" if share < limits.min_share else ""


def _near(scene: Scene, level2: Sequence[Scene], limits: Limits) -> list[Scene]:
    return [
        l8
        for l8 in level2
        if abs((l8.day - scene.day).days) <= limits.max_days and l8.footprint.intersects(scene.footprint)
    ]


def _key(l8: Scene) -> tuple[str, str]:
    parts = landsat_name(l8)
    return parts["place"], parts["date"]


def _l8_fault(scene: Scene, l8: Scene, pans: dict, area: BaseGeometry, limits: Limits) -> str:
    parts = landsat_name(l8)
    if parts is None or parts["level"] != "2":
        return "not Landsat-8 Level-2 of tier 1 or 2"
    if missing := [asset for asset in L8_BANDS if asset not in l8.assets]:
        return f"Landsat assets missing: {', '.join(missing)}"
    if fault := _cloud_fault(l8, limits.l8_cloud_percent, "Landsat"):
        return fault
    if scene.epsg and l8.epsg and not same_zone(scene.epsg, l8.epsg):
        return f"another UTM zone: EPSG:{scene.epsg} and EPSG:{l8.epsg}"
    if fault := _share_fault(_both(scene, l8, area), limits):
        return f"both {fault}".replace("sees", "see")
    pan = pans.get(_key(l8))
    if pan is None or landsat_name(pan)["kind"] == "GT":
        return "no Level-1 of precision terrain correction with its panchromatic band"
    missing = [asset for asset in ("pan", "MTL.json") if asset not in pan.assets]
    return f"Level-1 assets missing: {', '.join(missing)}" if missing else ""


def _both(scene: Scene, l8: Scene, area: BaseGeometry) -> float:
    return scene.footprint.intersection(l8.footprint).intersection(area).area / area.area


def _rank(scene: Scene, l8: Scene, area: BaseGeometry) -> tuple:
    return abs((l8.day - scene.day).days), -_both(scene, l8, area), l8.id


def _decision(scene: Scene, l8: Scene | None, area: BaseGeometry, reason: str) -> Decision:
    names = {
        "sentinel2": product_name(scene) or scene.id,
        "landsat": l8.id if l8 else None,
        "days": (l8.day - scene.day).days if l8 else None,
        "sentinel2_cloud_percent": scene.cloud_percent,
        "landsat_cloud_percent": l8.cloud_percent if l8 else None,
        "shared_share": _both(scene, l8, area) if l8 else scene.share_of(area),
    }
    seen = scene.footprint.intersection(l8.footprint) if l8 else scene.footprint
    return Decision(names, not reason, reason, seen)


def wanted_days(days: tuple[datetime.date, datetime.date], limits: Limits) -> tuple[datetime.date, datetime.date]:
    """The days in which Landsat is looked for."""
    around = datetime.timedelta(days=limits.max_days)
    return days[0] - around, days[1] + around


def files_of(pair: Pair, area: BaseGeometry, whole: bool) -> tuple[list[Crop], list[Item]]:
    """The files that a pair needs: parts of rasters (or, with ``whole``, the archives' own files), and metadata.

    Sentinel-2 goes into ``S2….SAFE/GRANULE/L2A_T…/IMG_DATA/R10m``, Landsat into ``LC08_L2SP_…`` and ``LC08_L1TP_…``, in
    the archives' names. Parts of Sentinel-2 begin and end at multiples of 20 m, so that all its bands agree.
    """
    sources = [*_s2_files(pair.s2), *_l8_files(pair.l8, pair.pan)]
    metadata = _item(pair.pan, "MTL.json", f"{_folder(pair.pan)}/{_folder(pair.pan)}_MTL.json", "usgs")
    if whole:
        return [], [*(_item(scene, asset, path, service) for scene, asset, path, service, _ in sources), metadata]
    crops = [
        Crop(scene.assets[asset], path, area.bounds, product=scene.id, archive=service, **options)
        for scene, asset, path, service, options in sources
    ]
    return crops, [metadata]


def _folder(scene: Scene) -> str:
    return landsat_name(scene)["name"]


def _s2_files(scene: Scene) -> list[tuple[Scene, str, str, str, dict]]:
    product = product_name(scene)
    time, tile = product.split("_")[2], product.split("_")[5]
    files = []
    for asset, (band, step) in S2_BANDS.items():
        path = f"{product}.SAFE/GRANULE/L2A_{tile}_{time}/IMG_DATA/R{step}m/{tile}_{time}_{band}_{step}m.tif"
        options = {"snap_px": 20 // step, "dtype": "uint8" if band == "SCL" else "uint16"}
        files.append((scene, asset, path, "earth-search", options))
    return files


def _l8_files(l8: Scene, pan: Scene) -> list[tuple[Scene, str, str, str, dict]]:
    options = {"margin_m": L8_MARGIN_M}
    bands = [
        (l8, asset, f"{_folder(l8)}/{_folder(l8)}_{band}.TIF", "usgs", options) for asset, band in L8_BANDS.items()
    ]
    return [*bands, (pan, "pan", f"{_folder(pan)}/{_folder(pan)}_B8.TIF", "usgs", options)]


def _item(scene: Scene, asset: str, path: str, service: str) -> Item:
    checksum = from_multihash(scene.checksums.get(asset))
    return Item(scene.assets[asset], path, scene.sizes.get(asset), checksum, scene.id, service)


def crop_bytes(crop: Crop) -> int:
    """Bytes of the pixels of a part at most, by the pixel size that its name tells."""
    steps = {"B8": 15.0, "10m": 10.0, "20m": 20.0}
    return most_bytes(crop, steps.get(crop.path.rsplit("_", 1)[-1].split(".")[0], 30.0))
