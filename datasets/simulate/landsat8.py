"""Simulated Landsat-8 Collection 2 products: Level-2 reflectance with QA_PIXEL, Level-1 panchromatic band with MTL.

Layout and values after the Landsat 8-9 Collection 2 data format control books (LSDS-1822 for Level 1, LSDS-1328 for
Level 2): uint16, 0 = fill; surface reflectance = DN * 2.75e-5 - 0.2; top-of-atmosphere reflectance of the pan band =
(DN * 2e-5 - 0.1) / sin(sun elevation). 30 m pixels have their edges at odd multiples of 15 m, and the 15 m grid starts
7.5 m further inside: both grids share the centre of their first pixel.

Sources:
    BANDPASS: OLI from Sentinel-2A reflectance, slope and offset,
        https://hls.gsfc.nasa.gov/algorithms/bandpass-adjustment.
    PSF: assumed: an edge slope of 0.027 per metre (0.054 in the pan band), the least that OLI's requirements allow as
        E. Knight and G. Kvaran (2014, doi 10.3390/rs61110286) report them; their table was not at hand. A Gaussian's
        is 1 / (sigma sqrt(2 pi)).
    NOISE: assumed: the required SNR at typical radiance, B2 130 at 40, B3 100 at 30, B4 90 at 22, B5 90 at 14, B6 100
        at 4, B7 100 at 1.7, B8 80 at 23 W/m2/sr/um, turned into reflectance as in ``sentinel2.py``. R. Morfitt et al.
        (2015, doi 10.3390/rs70202208) measured far better ones in orbit; their tables were not at hand.
    REGISTRATION_M: GEOMETRIC_RMSE_MODEL_X and _Y, 4.6 m and 4.8 m in the MTL file of LC08_L1TP_143054_20230213.
    PAN: band 8 covers 503 to 676 nm, which are green and red; the path adds reflectance. Chosen, and compared with real
        pairs in the tests.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ..files import write_atomic
from . import optics
from .optics import Sky, Sun, resample
from .rasters import NOTICE, Place, write_geotiff
from .world import WATER, World

BANDPASS = (
    (0.9778, -0.0040),
    (1.0053, -0.0009),
    (0.9765, 0.0009),
    (0.9983, -0.0001),
    (0.9987, -0.0011),
    (1.0030, -0.0012),
)
SIGMA_M, SIGMA_PAN_M = 0.3989 / 0.027, 0.3989 / 0.054
NOISE, NOISE_PAN = (0.00065, 0.00068, 0.00066, 0.00067, 0.00067, 0.00082), 0.00069
REGISTRATION_M = 4.7
PAN_GREEN, PAN_RED, PAN_TRANSMITTANCE, PAN_PATH = 0.6, 0.4, 0.85, 0.05
SCALE, OFFSET = 2.75e-5, -0.2
PAN_MULT, PAN_ADD = 2.0e-5, -0.1
# QA_PIXEL (LSDS-1328, table 6-3): fill 0, dilated cloud 1, cirrus 2, cloud 3, shadow 4, snow 5, clear 6, water 7, then
# confidences of cloud, shadow, snow and cirrus in two bits each (1 low, 3 high).
QA_FILL, QA_CLEAR, QA_WATER, QA_DILATED, QA_CLOUD, QA_SHADOW = 1, 21824, 21952, 21762, 22280, 23888


def write_landsat8(
    out: Path,
    world: World,
    corner: Place,
    path_row: str,
    acquired: str,
    processed: str,
    sun: Sun,
    sky: Sky,
    rng: np.random.Generator,
    beyond_swath: float = 0.0,
) -> tuple[Path, Path]:
    """Write the Level-2 and the Level-1 folder of one scene that covers the world.

    Args:
        out: folder of products.
        world: the ground.
        corner: where the world lies.
        path_row: WRS-2 path and row, such as 199030.
        acquired, processed: dates as YYYYMMDD.
        sun: for slopes, the pan band's gain and the metadata.
        sky: clouds over the world.
        rng: misregistration, noise, errors of the correction.
        beyond_swath: share of the columns on the east side that the swath does not reach (fill).

    Returns:
        The folders of Level 2 and Level 1.
    """
    side_m = world.size * world.pixel_m
    # first edge at an odd multiple of 15 m inside the world
    inset = [float((15 - value) % 30) for value in (corner.west, -corner.north)]
    rows = columns = int((side_m - max(inset)) // 30) - 1
    shift = rng.normal(0, REGISTRATION_M, 2)
    start = (inset[1] + shift[0], inset[0] + shift[1])
    surface = optics.reflectance(world, sun)
    slope, offset = (np.array(c, np.float32)[:, None, None] for c in zip(*BANDPASS, strict=True))
    # clouds are as white to one sensor as to the other: the band passes are adjusted on the ground
    seen = optics.through_sky(surface * slope + offset, sky)
    toa = PAN_PATH + PAN_TRANSMITTANCE * (PAN_GREEN * seen[1] + PAN_RED * seen[2])
    seen = optics.correction_error(rng, seen, world.pixel_m)
    fill = np.arange(columns) >= columns * (1 - beyond_swath)

    place = Place(corner.epsg, corner.west + inset[0], corner.north - inset[1], 30.0)
    # what a pixel shows lies so far from where it says
    tags = {"SIMULATED_SHIFT_SOUTH_M": f"{shift[0]:.3f}", "SIMULATED_SHIFT_EAST_M": f"{shift[1]:.3f}"}
    scene = f"{path_row}_{acquired}_{processed}_02_T1"
    level2, level1 = out / f"LC08_L2SP_{scene}", out / f"LC08_L1TP_{scene}"
    for index in range(6):
        rho = resample(seen[index], world.pixel_m, start, 30.0, (rows, columns), SIGMA_M)
        rho = rho + np.float32(NOISE[index]) * rng.standard_normal(rho.shape, dtype=np.float32)
        dn = np.clip(np.rint((rho - OFFSET) / SCALE), 1, 65535).astype(np.uint16)
        dn[:, fill] = 0
        write_geotiff(level2 / f"{level2.name}_SR_B{index + 2}.TIF", dn[None], place, 0, tags=tags)
    qa = _quality(world, sky, start, (rows, columns))
    qa[:, fill] = QA_FILL
    write_geotiff(level2 / f"{level2.name}_QA_PIXEL.TIF", qa[None], place, QA_FILL)

    pan_place = Place(corner.epsg, place.west + 7.5, place.north - 7.5, 15.0)
    shape = (2 * rows - 1, 2 * columns - 1)
    pan = resample(toa, world.pixel_m, (start[0] + 7.5, start[1] + 7.5), 15.0, shape, SIGMA_PAN_M)
    pan = pan + np.float32(NOISE_PAN) * rng.standard_normal(shape, dtype=np.float32)
    sine = np.float32(np.sin(np.deg2rad(sun.elevation)))
    dn = np.clip(np.rint((pan * sine - PAN_ADD) / PAN_MULT), 1, 65535).astype(np.uint16)
    dn[:, np.repeat(fill, 2)[: shape[1]]] = 0
    write_geotiff(level1 / f"{level1.name}_B8.TIF", dn[None], pan_place, 0)
    cloudy = float(((qa >> 3) & 1)[qa != QA_FILL].mean() * 100)
    for folder in (level1, level2):
        metadata = _metadata(folder.name, acquired, processed, path_row, place, (rows, columns), sun, cloudy)
        write_atomic(folder / f"{folder.name}_MTL.json", json.dumps(metadata, indent=4) + "\n")
        write_atomic(folder / f"{folder.name}_MTL.txt", _odl(metadata))
    return level2, level1


def _quality(world: World, sky: Sky, start: tuple[float, float], shape: tuple[int, int]) -> np.ndarray:
    from scipy import ndimage

    def at_30m(layer: np.ndarray) -> np.ndarray:
        return resample(layer, world.pixel_m, start, 30.0, shape, SIGMA_M)

    qa = np.where(at_30m(world.cover == WATER) > 0.5, QA_WATER, QA_CLEAR).astype(np.uint16)
    cloud = at_30m(sky.opacity) > 0.15
    qa[at_30m(sky.shadow) > 0.2] = QA_SHADOW
    qa[ndimage.binary_dilation(cloud, iterations=3)] = QA_DILATED  # 3 pixels, as CFMask dilates
    qa[cloud] = QA_CLOUD
    return qa


def _metadata(
    name: str,
    acquired: str,
    processed: str,
    path_row: str,
    place: Place,
    shape: tuple[int, int],
    sun: Sun,
    cloudy: float,
) -> dict:
    level = name.split("_")[1]
    files = {f"FILE_NAME_BAND_{b}": f"{name}_SR_B{b}.TIF" for b in range(2, 8)}
    files |= {"FILE_NAME_QUALITY_L1_PIXEL": f"{name}_QA_PIXEL.TIF"}
    if level == "L1TP":
        files = {"FILE_NAME_BAND_8": f"{name}_B8.TIF"}
    rescaling = {"REFLECTANCE_MULT_BAND_8": "2.0000E-05", "REFLECTANCE_ADD_BAND_8": "-0.100000"}
    group = "LEVEL1_RADIOMETRIC_RESCALING"
    if level == "L2SP":
        group = "LEVEL2_SURFACE_REFLECTANCE_PARAMETERS"
        rescaling = {f"REFLECTANCE_MULT_BAND_{b}": "2.75e-05" for b in range(2, 8)}
        rescaling |= {f"REFLECTANCE_ADD_BAND_{b}": "-0.2" for b in range(2, 8)}
    return {
        "LANDSAT_METADATA_FILE": {
            "PRODUCT_CONTENTS": {
                "ORIGIN": NOTICE, "LANDSAT_PRODUCT_ID": name, "PROCESSING_LEVEL": level, "COLLECTION_NUMBER": "02",
                "COLLECTION_CATEGORY": "T1", "OUTPUT_FORMAT": "GEOTIFF", **files,
            },
            "IMAGE_ATTRIBUTES": {
                "SPACECRAFT_ID": "LANDSAT_8", "SENSOR_ID": "OLI_TIRS", "WRS_TYPE": "2", "WRS_PATH": path_row[:3],
                "WRS_ROW": path_row[3:], "DATE_ACQUIRED": f"{acquired[:4]}-{acquired[4:6]}-{acquired[6:]}",
                "CLOUD_COVER": f"{cloudy:.2f}", "SUN_AZIMUTH": f"{sun.azimuth:.8f}",
                "SUN_ELEVATION": f"{sun.elevation:.8f}",
            },
            "PROJECTION_ATTRIBUTES": {
                "MAP_PROJECTION": "UTM", "DATUM": "WGS84", "ELLIPSOID": "WGS84", "UTM_ZONE": str(place.epsg % 100),
                "GRID_CELL_SIZE_PANCHROMATIC": "15.00", "GRID_CELL_SIZE_REFLECTIVE": "30.00",
                "PANCHROMATIC_LINES": str(2 * shape[0] - 1), "PANCHROMATIC_SAMPLES": str(2 * shape[1] - 1),
                "REFLECTIVE_LINES": str(shape[0]), "REFLECTIVE_SAMPLES": str(shape[1]), "ORIENTATION": "NORTH_UP",
                "CORNER_UL_PROJECTION_X_PRODUCT": f"{place.west + 15:.3f}",
                "CORNER_UL_PROJECTION_Y_PRODUCT": f"{place.north - 15:.3f}",
            },
            "LEVEL1_PROCESSING_RECORD": {
                "LANDSAT_PRODUCT_ID": name.replace("L2SP", "L1TP"), "PROCESSING_SOFTWARE_VERSION": "SIMULATED",
                "DATE_PRODUCT_GENERATED": f"{processed[:4]}-{processed[4:6]}-{processed[6:]}T00:00:00Z",
            },
            group: rescaling,
        }
    }  # fmt: skip


def _odl(metadata: dict, indent: int = 0) -> str:
    """The same metadata as Object Description Language, the form of MTL.txt."""
    lines = []
    for key, value in metadata.items():
        pad = "  " * indent
        if isinstance(value, dict):
            lines.append(f"{pad}GROUP = {key}\n{_odl(value, indent + 1)}{pad}END_GROUP = {key}\n")
        else:
            number = (
                value.replace(".", "").replace("-", "").replace("+", "").replace("E", "").replace("e", "").isdigit()
            )
            plain = number and key not in ("COLLECTION_NUMBER", "WRS_ROW")
            lines.append(f"{pad}{key} = {value if plain else json.dumps(value)}\n")
    return "".join(lines) + ("END\n" if indent == 0 else "")
