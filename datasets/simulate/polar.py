"""Simulated Sentinel-1 EW scenes around Greenland with ice-chart polygons, as the ExtremeEarth training set has them.

One GeoTIFF a scene, named like its product, with HH, HV and a derived third band in 8 bits at 40 m (polar
stereographic), and one shapefile ``seaice_s1_<scene id>.shp`` with polygons whose ``poly_type`` is L (land), W (water)
or I (ice). As in a chart, the polygons follow the truth roughly, leave ground out, and overlap a little.

Sources:
    EW GRDM: 40 m pixels, 18.9 to 47 degrees over 410 km, five sub-swaths, 10.7 equivalent looks: assumed, after the
        Sentinel-1 Product Definition (S1-RS-MDA-52-7440), whose tables were not at hand.
    NOISE_DB: below the -22 dB that the mission requires; HV of the water in the real patches lies at -28 dB.
    STRETCH: 8-bit DN = 360 * sqrt(sigma0). Real patches of polar-patch are linear in amplitude (their contrast within
        water is that of 11 looks in amplitude); 360 gives their medians, and 255 lies at -3 dB. Third band 85 HV / HH.
    Jumps of the noise floor between sub-swaths: chosen.
"""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
from scipy import ndimage

from . import ice, radar
from .ice import IceScene, make_ice
from .rasters import Place, polygons_of, write_geotiff, write_polygons

PIXEL_M, EPSG = 40.0, 3413
INCIDENCE_DEG, SWATH_M = (18.9, 47.0), 410_000.0
LOOKS, NOISE_DB, RESOLUTION_M = 10.7, -27.0, 93.0
STRETCH = 360.0
SUBSWATHS = 5
CHART_CELL_M = 640.0  # a chart's polygons are drawn at about this detail; chosen
OVERLAP_M = 120.0


def simulate_polar_ice(out: Path, seed: int, scenes: int, size: int) -> list[Path]:
    """Write so many scenes of ``size`` pixels a side, each with its shapefile."""
    written = []
    for index in range(scenes):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(3, index)))
        # around Greenland, 200 km apart
        place = Place(EPSG, 200_000.0 + 200_000 * (index % 6), -700_000.0 - 200_000.0 * (index // 6), PIXEL_M)
        start = datetime.datetime(
            2018 + index // 12, 1 + index % 12, 16, 7, int(rng.integers(60)), int(rng.integers(60))
        )
        end = start + datetime.timedelta(seconds=60)
        stamp = f"{start:%Y%m%dT%H%M%S}"
        orbit = 9198 + 170 * index
        name = f"S1B_EW_GRDM_1SDH_{stamp}_{end:%Y%m%dT%H%M%S}_{orbit:06d}_{orbit + 1800:06X}_{orbit % 65536:04X}"
        scene = make_ice(rng, size, PIXEL_M)
        image, tags = _observe(rng, scene)
        write_geotiff(Path(out) / f"{name}.tif", image, place, None, ("HH", "HV", "85*HV/HH"), tags)
        shapes, types = chart(rng, scene, place)
        path = Path(out) / f"seaice_s1_{stamp.lower()}.shp"
        _write_chart(path, shapes, types, start.date().isoformat())
        written += [Path(out) / f"{name}.tif", path]
    return written


def _observe(rng: np.random.Generator, scene: IceScene) -> tuple[np.ndarray, dict[str, str]]:
    """(3, H, W) uint8 and metadata."""
    size = scene.kind.shape[0]
    span = (INCIDENCE_DEG[1] - INCIDENCE_DEG[0]) * min(size * PIXEL_M / SWATH_M, 1)
    near = rng.uniform(INCIDENCE_DEG[0] + 5, INCIDENCE_DEG[1] - span)
    east = bool(rng.integers(2))
    view = radar.View(near, near + span, east)
    wind, direction = rng.uniform(2, 10), rng.uniform(0, 360)
    sigma0 = ice.backscatter_hh_hv(rng, scene, view, PIXEL_M, wind, direction)
    # the noise floor steps at the borders of the sub-swaths; left in, it shows in HV
    edges = (np.arange(1, SUBSWATHS) / SUBSWATHS * (INCIDENCE_DEG[1] - INCIDENCE_DEG[0])) + INCIDENCE_DEG[0]
    steps = rng.uniform(-1.5, 1.5, SUBSWATHS)[np.digitize(view.incidence_deg(size), edges)]
    sigma0 = sigma0 + (10 ** ((NOISE_DB + steps) / 10))[None, None, :].astype(np.float32)
    power, _, _ = radar.image(sigma0, scene.height_m, view, PIXEL_M, rng, LOOKS, -60.0, RESOLUTION_M)
    hh, hv = np.clip(np.rint(STRETCH * np.sqrt(power)), 1, 255)
    third = np.clip(np.rint(85 * hv / hh), 0, 255)
    image = np.stack([hh, hv, third]).astype(np.uint8)
    y, x = np.mgrid[:size, :size]
    lean = np.tan(np.deg2rad(rng.uniform(8, 16)))
    image[:, x < (size - y) * lean * rng.uniform(0, 0.6)] = 0
    tags = {
        "ORBIT_PASS": "ASCENDING" if east else "DESCENDING", "NEAR_INCIDENCE_DEG": f"{near:.3f}",
        "WIND_M_S": f"{wind:.2f}", "STRETCH": f"DN = {STRETCH:.0f} * sqrt(sigma0)",
    }  # fmt: skip
    return image, tags


def chart(rng: np.random.Generator, scene: IceScene, place: Place) -> tuple[list, list[str]]:
    """Polygons drawn over a scene, with their types: land, ice where it covers most, open water."""
    cell = max(2, round(CHART_CELL_M / place.pixel))
    solid = np.isin(scene.kind, (ice.SNOW, ice.ROCK)).astype(np.float32)
    frozen = np.isin(scene.kind, (ice.NEW_ICE, ice.LEVEL_FIRST_YEAR, ice.DEFORMED_FIRST_YEAR, ice.MULTIYEAR))
    at_sea = np.maximum(ndimage.gaussian_filter(1 - solid, cell), 1e-3)
    share = ndimage.gaussian_filter(frozen.astype(np.float32), cell) / at_sea
    masks = {"L": solid > 0.5, "I": (solid < 0.5) & (share > 0.6), "W": (solid < 0.5) & (share < 0.2)}
    shapes, types = [], []
    for kind, mask in masks.items():
        mask = mask[::cell, ::cell].repeat(cell, 0).repeat(cell, 1)[: mask.shape[0], : mask.shape[1]]
        mask = ndimage.binary_opening(mask, iterations=cell)
        for shape in polygons_of(mask, place):
            drawn = shape.simplify(CHART_CELL_M).buffer(OVERLAP_M * rng.uniform(-2, 2.5))
            parts = getattr(drawn, "geoms", [drawn])
            kept = [part for part in parts if part.area > 9 * CHART_CELL_M**2]
            shapes += kept
            types += [kind] * len(kept)
    return shapes, types


def _write_chart(path: Path, shapes: list, types: list[str], day: str) -> None:
    """The shapefile, in geographic coordinates like ice charts in SIGRID-3."""
    import geopandas

    frame = geopandas.GeoSeries(shapes, crs=f"EPSG:{EPSG}").to_crs("EPSG:4326")
    write_polygons(path, list(frame), {"poly_type": types}, "EPSG:4326", day)
