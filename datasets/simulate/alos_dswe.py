"""Simulated ALOS PALSAR RTC scenes with the Landsat DSWE, Global Forest Change and HAND tiles over the same ground.

ASF's RTC_HIGH_RES products (https://docs.asf.alaska.edu/datasets/palsar, product guide of the ASF RTC project): folder
``AP_<orbit>_FBD_F<frame>_RT1`` with gamma0 power in float32 at 12.5 m in UTM, 0 where there is no data, the DEM in
int16 metres, the incidence angle in radians and the layover/shadow map. Frames are a twentieth of a degree of latitude.

Sources:
    FBD at 34.3 degrees off nadir: 70 km swath, incidence 36.6 to 40.9 degrees, 20 m x 10 m resolution, four looks in
        azimuth: M. Shimada et al., "PALSAR Radiometric and Geometric Calibration", IEEE TGRS 47(12), 2009, doi
        10.1109/TGRS.2009.2023909.
    NOISE_DB: chosen; the specification asks for less than -23 dB (ALOS Data Users Handbook), and the sensor did better.
    ALOS: launched 24 January 2006, 671 orbits in 46 days.
"""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np

from ..files import write_atomic
from . import ancillary, dswe, optics, radar
from .optics import Sun
from .rasters import NOTICE, Place, write_geotiff
from .world import World, make_world

PIXEL_M = 12.5
MARGIN_PX = 48  # ground beyond the SAR scene that the other layers cover
INCIDENCE_DEG, SWATH_M = (36.6, 40.9), 70_000.0
LOOKS, NOISE_DB, RESOLUTION_M = 4.0, -34.0, 17.0
TRACK_TILT_DEG = 9.7  # of an orbit inclined by 98.2 degrees at 36 N
LAUNCH, ORBITS_PER_DAY = datetime.date(2006, 1, 24), 671 / 46
RELIEFS = ("plain", "hills", "plain", "mountains")
SITES_PER_ROW = 9  # 2 degrees apart from 98 W on, rows 1.5 degrees apart from 31.6 N on


def simulate_alos_dswe(out: Path, seed: int, scenes: int, size: int) -> list[Path]:
    """Write so many SAR scenes of ``size`` pixels a side with all layers of their ground.

    Scenes 1, 5, 9… lie across the border of two DSWE tiles; scenes 1, 4, 7… come with Landsat-7 and its gaps; scenes 2,
    6, 10… have DSWE of a second, cloudier date; scenes 5, 11, 17… are too cloudy for the pair rule.
    """
    written: list[Path] = []
    forest_change: ancillary.Tiles = {}
    hand: ancillary.Tiles = {}
    for index in range(scenes):
        written += _scene(Path(out), seed, index, size, forest_change, hand)
    written += ancillary.write_tiles(out / "gfc", forest_change, ancillary.GFC_PX, ancillary.GFC_TILE_PX, None)
    written += ancillary.write_tiles(out / "hand", hand, ancillary.HAND_PX, ancillary.HAND_TILE_PX, float("nan"))
    return written


def ground_of(seed: int, index: int, size: int) -> tuple[np.random.Generator, World]:
    """The ground of a scene, ``MARGIN_PX`` larger on every side, and the source of all further draws."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1, index)))
    share = rng.uniform(0.07, 0.16)
    return rng, make_world(rng, size + 2 * MARGIN_PX, PIXEL_M, RELIEFS[index % 4], lake_share=share)


def _scene(
    out: Path, seed: int, index: int, size: int, forest_change: ancillary.Tiles, hand: ancillary.Tiles
) -> list[Path]:
    rng, world = ground_of(seed, index, size)
    ground = world.size
    place, latitude = _place(index, ground)
    # neighbours never share a day, so no two scenes write the same DSWE tile; orbits differ by scene
    year, day_of_year = 2007 + index % 4, 120 + int(rng.integers(160))
    day = datetime.date(year, 1, 1) + datetime.timedelta(days=day_of_year)
    orbit, frame = int((day - LAUNCH).days * ORBITS_PER_DAY) + index % 14, round(latitude * 2) * 10
    written = [_write_sar(out / "alos", world, place, day, orbit, frame, size, rng)]

    sun = Sun(rng.uniform(48, 65), rng.uniform(120, 150))
    satellite = "LE07" if index % 3 == 1 else "LT05"
    second = index % 4 == 2
    cover = rng.uniform(0.35, 0.5) if index % 6 == 5 else rng.uniform(0, 0.1)
    acquired = day + datetime.timedelta(days=0 if second else int(rng.integers(-1, 2)))
    for later, cloudy in ((0, cover), (1, cover + 0.1))[: 1 + second]:
        sky = optics.clouds(rng, ground, PIXEL_M, cloudy, sun)
        date = acquired + datetime.timedelta(days=later)
        written += dswe.write_dswe(out / "dswe", world, place, date, satellite, sun, sky, rng)
    ancillary.add_forest_change(forest_change, world, place)
    ancillary.add_hand(hand, world, place)
    return written


def _place(index: int, ground: int) -> tuple[Place, float]:
    """Where the ground lies, with the latitude of its middle."""
    from rasterio.warp import transform

    longitude, latitude = -98.0 + 2.0 * (index % SITES_PER_ROW), 31.6 + 1.5 * (index // SITES_PER_ROW)
    if index % 4 == 1:
        x, y = (v[0] for v in transform("EPSG:4326", dswe.CRS, [longitude], [latitude]))
        x = dswe.WEST_M + round((x - dswe.WEST_M) / dswe.TILE_M) * dswe.TILE_M
        longitude, latitude = (v[0] for v in transform(dswe.CRS, "EPSG:4326", [x], [y]))
    epsg = 32600 + int((longitude + 180) // 6) + 1
    x, y = (v[0] for v in transform("EPSG:4326", f"EPSG:{epsg}", [longitude], [latitude]))
    half = ground * PIXEL_M / 2
    # ASF's grids start anywhere
    return Place(epsg, round(x - half) + 0.09375, round(y + half) + 0.40625, PIXEL_M), latitude


def _write_sar(
    out: Path,
    world: World,
    place: Place,
    day: datetime.date,
    orbit: int,
    frame: int,
    size: int,
    rng: np.random.Generator,
) -> Path:
    """One ASF folder."""
    far = INCIDENCE_DEG[0] + (INCIDENCE_DEG[1] - INCIDENCE_DEG[0]) * min(world.size * PIXEL_M / SWATH_M, 1)
    view = radar.View(INCIDENCE_DEG[0], far, looks_east=True)
    local, _ = radar.local_geometry(world.height_m, view, PIXEL_M)
    sigma0 = radar.ground_l(world, local, rng.normal(0, 0.7))
    wind = radar.wind_field(rng, rng.uniform(1.5, 7), world.water, PIXEL_M)[world.water]
    incidence = np.broadcast_to(view.incidence_deg(world.size), world.water.shape)
    for band, value in zip(sigma0, radar.water_l(incidence[world.water], wind), strict=True):
        band[world.water] = value
    power, layover, shadow = radar.image(
        sigma0, world.height_m, view, PIXEL_M, rng, LOOKS, NOISE_DB, RESOLUTION_M, flatten=True
    )
    inside = np.s_[MARGIN_PX : MARGIN_PX + size, MARGIN_PX : MARGIN_PX + size]
    seen = _footprint(size)
    power = np.where(seen, np.maximum(power[(..., *inside)], 1e-9), 0).astype(np.float32)  # 0 is no data
    # 1 = mapped, 2 + 4 layover, 8 + 16 shadow, as Gamma's map counts them
    mapped = np.where(seen, 1 + 6 * layover[inside] + 24 * shadow[inside], 0).astype(np.uint8)
    angle = np.where(seen, np.deg2rad(local[inside]), 0).astype(np.float32)
    height = np.where(seen, np.rint(world.height_m[inside] + 200), 0).astype(np.int16)

    name = f"AP_{orbit:05d}_FBD_F{frame:04d}_RT1"
    grid = place.cropped(MARGIN_PX, MARGIN_PX)
    for channel, layer in zip(("HH", "HV"), power, strict=True):
        write_geotiff(out / name / f"{name}_{channel}.tif", layer[None], grid)
    for suffix, layer in (("dem", height), ("inc_map", angle), ("ls_map", mapped)):
        write_geotiff(out / name / f"{name}.{suffix}.tif", layer[None], grid)
    write_atomic(out / name / f"{name}.iso.xml", _metadata(name, day, orbit, frame))
    return out / name


def _footprint(size: int) -> np.ndarray:
    """The swath's part of the image: a parallelogram along the tilted track."""
    y, x = np.mgrid[:size, :size]
    lean = np.tan(np.deg2rad(TRACK_TILT_DEG))
    return (x >= (size - 1 - y) * lean) & (x < size - y * lean)


def _metadata(name: str, day: datetime.date, orbit: int, frame: int) -> str:
    time = f"{day:%Y-%m-%d}T04:{orbit % 60:02d}:{frame % 60:02d}Z"
    return f"""\
<?xml version="1.0" encoding="UTF-8"?>
<!-- {NOTICE} -->
<gmd:DS_Series xmlns:gmd="http://www.isotc211.org/2005/gmd" xmlns:gco="http://www.isotc211.org/2005/gco" \
xmlns:gml="http://www.opengis.net/gml/3.2">
<gmd:fileIdentifier><gco:CharacterString>{name}</gco:CharacterString></gmd:fileIdentifier>
<gmd:temporalElement><gmd:EX_TemporalExtent><gmd:extent><gml:TimePeriod gml:id="acquisition">
<gml:beginPosition>{time}</gml:beginPosition>
<gml:endPosition>{time}</gml:endPosition>
</gml:TimePeriod></gmd:extent></gmd:EX_TemporalExtent></gmd:temporalElement>
<gmd:platform>ALOS</gmd:platform><gmd:beamMode>FBD</gmd:beamMode><gmd:polarizations>HH,HV</gmd:polarizations>
<gmd:orbit>{orbit}</gmd:orbit><gmd:frame>{frame}</gmd:frame><gmd:radiometry>gamma0 power</gmd:radiometry>
</gmd:DS_Series>
"""
