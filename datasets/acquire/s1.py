"""Sentinel-1 of both orbits over one area, on one grid, in the layout of Tibet-Water.

Source: the Planetary Computer's ``sentinel-1-rtc``, gamma0 with radiometric terrain correction, linear power, 10 m,
each scene in its own UTM zone, no data -32768 (github.com/microsoft/planetary-computer-tasks, datasets/sentinel-1-rtc):
ready 10 m scenes of all continents behind plain HTTP. Ground-range products (GRD) would need calibration and a terrain
correction of their own and are not fetched. gamma0 is sigma0 / cos(incidence): on flat ground 0.6 dB above it at 30
degrees and 1.5 dB at 45 degrees, which matters to networks that learned from sigma0.

Slices of one pass are put together, both orbits brought to one UTM grid (bilinear, in power), then turned to decibels.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from shapely import union_all
from shapely.geometry.base import BaseGeometry

from ...errors import SceneError
from ..files import atomic_path
from .crop import Crop, projected, utm_epsg
from .items import Item
from .report import Decision
from .stac import Scene

PIXEL_M = 10.0
NODATA = -32768.0
STRIP_ROWS = 1024
MARGIN_M = 60.0  # around the area, for the resampling
POLARIZATIONS = ("vv", "vh")
ORBITS = {"ascending": ("s1_ascend", "as"), "descending": ("s1_descend", "des")}
FIRST_NUMBER = 40  # the authors' scenes are 01 to 39


@dataclass(frozen=True)
class Pass:
    """The slices of one flight over the area."""

    orbit: str
    day: datetime.date
    slices: tuple[Scene, ...]

    @property
    def id(self) -> str:
        """Of its first slice."""
        return self.slices[0].id

    @property
    def footprint(self) -> BaseGeometry:
        """All slices together, in degrees."""
        return union_all([s.footprint for s in self.slices])


def passes(scenes: Sequence[Scene]) -> tuple[list[Pass], list[Decision]]:
    """Slices by flight (orbit, track, day), and a decision for each scene that cannot be used."""
    groups: dict[tuple, dict[str, Scene]] = {}
    refused = []
    for scene in scenes:
        properties = scene.properties
        orbit, track = str(properties.get("sat:orbit_state")), properties.get("sat:relative_orbit")
        mode = properties.get("sar:instrument_mode")
        if orbit not in ORBITS or mode != "IW":
            refused.append(_decision(Pass(orbit, scene.day, (scene,)), None, f"not an IW scene: {mode}, {orbit}"))
        elif missing := [p for p in POLARIZATIONS if p not in scene.assets]:
            refused.append(
                _decision(Pass(orbit, scene.day, (scene,)), None, f"polarization missing: {', '.join(missing)}")
            )
        else:
            groups.setdefault((orbit, str(track), scene.day), {})[_slice(scene)] = scene  # of two processings the later
    found = [Pass(orbit, day, tuple(group.values())) for (orbit, _, day), group in groups.items()]
    return sorted(found, key=lambda p: (p.day, p.id)), refused


def _slice(scene: Scene) -> str:
    """Satellite, mode and start of a scene's identifier: the same whatever the processing."""
    return "_".join(scene.id.split("_")[:6])


def decide(
    found: Sequence[Pass], area: BaseGeometry, orbits: str, max_days: int, min_share: float
) -> tuple[list[dict[str, Pass]], list[Decision]]:
    """Which passes become scenes.

    Args:
        found: by day.
        area: in degrees.
        orbits: ``both`` (an ascending and the nearest descending pass, each used once), or one orbit alone.
        max_days: between the two orbits.
        min_share: of the area that a pass must see.

    Returns:
        For every scene its passes by orbit, and a decision for every pass.
    """
    scenes, decisions, usable = [], [], []
    for p in found:
        share = p.footprint.intersection(area).area / area.area
        if orbits not in ("both", p.orbit):
            decisions.append(_decision(p, None, "another orbit than asked for"))
        elif share < min_share:
            decisions.append(_decision(p, None, f"sees too little of the area: {share:.0%}"))
        else:
            usable.append(p)
    if orbits != "both":
        return [{p.orbit: p} for p in usable], decisions + [_decision(p, None, "") for p in usable]
    down = [p for p in usable if p.orbit == "descending"]
    for up in (p for p in usable if p.orbit == "ascending"):
        near = [d for d in down if abs((d.day - up.day).days) <= max_days]
        if not near:
            decisions.append(_decision(up, None, f"no descending pass within {max_days} days that is not taken"))
            continue
        other = min(near, key=lambda d: (abs((d.day - up.day).days), d.day, d.id))
        down.remove(other)
        scenes.append({"ascending": up, "descending": other})
        decisions += [_decision(up, other, ""), _decision(other, up, "")]
    lonely = f"no ascending pass within {max_days} days that is not taken"
    return scenes, decisions + [_decision(d, None, lonely) for d in down]


def _decision(p: Pass, partner: Pass | None, reason: str) -> Decision:
    names = {
        "pass": p.id, "orbit": p.orbit, "date": p.day.isoformat(), "slices": len(p.slices),
        "partner": partner.id if partner else None, "days": (partner.day - p.day).days if partner else None,
    }  # fmt: skip
    return Decision(names, not reason, reason, p.footprint)


def decibels(power: np.ndarray) -> np.ndarray:
    """float32 dB of linear power; no data (not positive, not finite) is 0, and a power of 1 is next to it."""
    with np.errstate(divide="ignore", invalid="ignore"):
        db = (10 * np.log10(power)).astype(np.float32)
    db[db == 0] = np.nextafter(np.float32(0), np.float32(1))
    return np.where(np.isfinite(power) & (power > 0), db, np.float32(0))


def grid_of_area(area: BaseGeometry):
    """The 10 m grid of an area: its middle's UTM zone, edges at multiples of 10 m."""
    from affine import Affine
    from odc.geo.geobox import GeoBox

    epsg = utm_epsg(area.bounds)
    west, south, east, north = projected(area.bounds, f"EPSG:{epsg}")
    left, bottom = (np.floor(v / PIXEL_M) * PIXEL_M for v in (west, south))
    right, top = (np.ceil(v / PIXEL_M) * PIXEL_M for v in (east, north))
    shape = (round((top - bottom) / PIXEL_M), round((right - left) / PIXEL_M))
    return GeoBox(shape, Affine(PIXEL_M, 0, left, 0, -PIXEL_M, top), f"EPSG:{epsg}")


def final_item(number: int, p: Pass, area: BaseGeometry) -> Item:
    """How the ledger knows one orbit of a scene: made of these slices, over this area."""
    folder, code = ORBITS[p.orbit]
    made_of = f"{' '.join(s.id for s in p.slices)} in {','.join(f'{v:.6f}' for v in area.bounds)}"
    path = f"{folder}/scene{number:02d}_s1_{code}.tif"
    return Item(p.slices[0].assets["vv"], path, product=made_of, archive="planetary-computer")


def parts_of(p: Pass, area: BaseGeometry, folder: str) -> dict[str, dict[str, Crop]]:
    """The parts of a pass's slices around an area: slice id -> polarization -> part in ``folder/<area>/<slice>``."""
    place = hashlib.sha256(",".join(f"{v:.6f}" for v in area.bounds).encode()).hexdigest()[:12]
    return {
        s.id: {
            band: Crop(
                s.assets[band], f"{folder}/{place}/{s.id}/{band}.tif", area.bounds, MARGIN_M, dtype="float32",
                product=s.id, archive="planetary-computer",
            )
            for band in POLARIZATIONS
        }
        for s in p.slices
    }  # fmt: skip


def write_pass(p: Pass, parts: dict[str, dict[str, Path]], area: BaseGeometry, path: Path) -> None:
    """Write one orbit of a scene: VV and VH in dB, float32, no data 0.

    Args:
        p: the pass.
        parts: slice id -> polarization -> local GeoTIFF of linear power around the area.
        area: in degrees.
        path: GeoTIFF to write, atomically.

    Raises:
        SceneError: no pixel of the area has data.
    """
    import odc.stac
    import rasterio

    grid = grid_of_area(area)
    items = [_local_item(s, parts[s.id]) for s in p.slices if s.id in parts]
    bands = {"*": {"assets": {"*": {"data_type": "float32", "nodata": NODATA}}}}
    height, width = grid.shape
    profile = {
        "driver": "GTiff", "count": 2, "height": height, "width": width, "dtype": "float32", "crs": str(grid.crs),
        "transform": grid.affine, "tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate",
        "predictor": 3,
    }  # fmt: skip
    seen = False
    with atomic_path(path) as temporary, rasterio.open(temporary, "w", **profile) as written:
        for top in range(0, height, STRIP_ROWS):
            strip = grid[top : min(top + STRIP_ROWS, height), :]
            loaded = odc.stac.load(
                items, bands=list(POLARIZATIONS), geobox=strip, resampling="bilinear", stac_cfg=bands,
                groupby=lambda item, parsed, index: p.id,
            )  # fmt: skip
            pixels = np.stack([decibels(loaded[band].values[0]) for band in POLARIZATIONS])
            seen = seen or bool(pixels.any())
            written.write(pixels, window=((top, top + pixels.shape[1]), (0, width)))
        if not seen:
            raise SceneError("no pixel of the area has data", where=p.id)
        written.descriptions = tuple(band.upper() for band in POLARIZATIONS)
        written.update_tags(
            ORBIT_PASS=p.orbit.upper(), ACQUISITION_DATE=p.day.isoformat(), UNIT="dB", QUANTITY="gamma0 RTC",
            SOURCES=" ".join(s.id for s in p.slices),
        )  # fmt: skip


def _local_item(scene: Scene, files: dict[str, Path]):
    """A STAC item whose assets are the local parts: odc-stac reads no URL."""
    import pystac
    from shapely.geometry import mapping

    item = pystac.Item(scene.id, mapping(scene.footprint), list(scene.footprint.bounds), scene.time, {})
    for band, path in files.items():
        item.add_asset(band, pystac.Asset(str(path.absolute()), media_type=pystac.MediaType.COG, roles=["data"]))
    return item
