"""Simulated Sentinel-2 L2A products: SAFE folders with JPEG 2000 bands, scene classification and metadata.

Layout and values after the Sentinel-2 Products Specification Document (S2-PDGS-TAS-DI-PSD): uint16 digital numbers,
reflectance = (DN + BOA_ADD_OFFSET) / 10000, the offset -1000 from processing baseline 04.00 on, 0 = no data.

Sources:
    MTF_AT_NYQUIST: assumed: the middle of 0.15 to 0.30, the requirement that the Sentinel-2 User Handbook (2015) names.
    NOISE: assumed: the handbook's required SNR at the reference radiance, B2 154 at 128, B3 168 at 128, B4 142 at 108,
        B8A 72 at 52, B11 100 at 4, B12 100 at 1.5 W/m2/sr/um, solar irradiance 1941, 1822, 1512, 955, 245, 85 W/m2/um
        and the sun 50 degrees high: reflectance = pi L / (E sin 50) / SNR. The handbook was not at hand.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..files import write_atomic
from . import optics
from .optics import Sky, Sun, resample
from .rasters import NOTICE, Place, encode
from .world import WATER, World

MTF_AT_NYQUIST = 0.22
SIGMA_PX = np.sqrt(-2 * np.log(MTF_AT_NYQUIST)) / np.pi  # Gaussian with that transfer at half a cycle a pixel
NOISE = (0.00176, 0.00171, 0.00206, 0.00310, 0.00067, 0.00072)
FILES = {10: (("B02", 0), ("B03", 1), ("B04", 2)), 20: (("B8A", 3), ("B11", 4), ("B12", 5))}
OFFSET_FROM_BASELINE = "0400"
# Scene classification (SCL): 3 cloud shadow, 4 vegetation, 5 not vegetated, 6 water, 7 unclassified, 8/9 cloud of
# medium/high probability, 10 thin cirrus.
SHADOW, VEGETATION, BARE, WATER_CLASS, CLOUD_MEDIUM, CLOUD_HIGH = 3, 4, 5, 6, 8, 9


def tile_name(zone: int, west: float, north: float) -> str:
    """The 100 km MGRS square of the northern hemisphere whose tile has this corner, such as 31TCJ.

    Args:
        zone: UTM zone.
        west, north: corner of the tile in metres; tiles start at multiples of 60 m next to the square's corner.
    """
    column = "ABCDEFGHJKLMNPQRSTUVWXYZ"[(zone - 1) % 3 * 8 + round(west / 1e5) - 1]
    row = "ABCDEFGHJKLMNPQRSTUV"[(round(north / 1e5) - 1 + (0 if zone % 2 else 5)) % 20]
    latitude = north / 110_600  # good to 0.3 degrees in the middle latitudes
    return f"{zone:02d}{'NPQRSTUVWX'[int(latitude // 8)]}{column}{row}"


def tile_corner(column_100km: int, row_100km: int) -> tuple[float, float]:
    """West and north edge of the tile of a 100 km square, from its west and its north edge in units of 100 km."""
    return float(column_100km * 100_000 // 60 * 60), float(-(-row_100km * 100_000 // 60) * 60)


def write_sentinel2(
    out: Path,
    world: World,
    margin_m: float,
    place: Place,
    tile: str,
    time: str,
    baseline: str,
    orbit: int,
    sun: Sun,
    sky: Sky,
    rng: np.random.Generator,
    driver: str = "JP2OpenJPEG",
) -> Path:
    """Write one product.

    Args:
        out: folder of products.
        world: the ground, ``margin_m`` larger than the product on every side.
        margin_m: see world.
        place: grid of the product at 10 m.
        tile: such as 31TCJ.
        time: sensing start, such as 20210705T105031.
        baseline: processing baseline, such as 0500.
        orbit: relative orbit number.
        sun: for the light on slopes and in the metadata.
        sky: clouds over the world.
        rng: noise and errors of the correction.
        driver: JP2OpenJPEG or GTiff.

    Returns:
        The SAFE folder.
    """
    offset = -1000 if baseline >= OFFSET_FROM_BASELINE else 0
    seen = optics.correction_error(rng, optics.through_sky(optics.reflectance(world, sun), sky), world.pixel_m)
    name = f"S2A_MSIL2A_{time}_N{baseline}_R{orbit:03d}_T{tile}_{time[:9]}{int(time[9:]) + 30000:06d}.SAFE"
    granule = out / name / "GRANULE" / f"L2A_T{tile}_A{30000 + orbit:06d}_{time}"
    size = round((world.size * world.pixel_m - 2 * margin_m) / place.pixel)
    suffix = {"JP2OpenJPEG": "jp2", "GTiff": "tif"}[driver]
    for pixel, bands in FILES.items():
        shape = (size * 10 // pixel,) * 2
        grid = Place(place.epsg, place.west, place.north, pixel)
        for band, index in bands:
            rho = resample(seen[index], world.pixel_m, (margin_m, margin_m), pixel, shape, SIGMA_PX * pixel)
            rho = rho + np.float32(NOISE[index]) * rng.standard_normal(shape, dtype=np.float32)
            dn = np.clip(np.rint(rho * 10_000 - offset), 1, 65535).astype(np.uint16)  # 0 is no data
            path = granule / "IMG_DATA" / f"R{pixel}m" / f"T{tile}_{time}_{band}_{pixel}m.{suffix}"
            write_atomic(path, encode(dn[None], grid, driver))
    shape = (size // 2,) * 2
    scl = _classification(world, sky, margin_m, shape)
    path = granule / "IMG_DATA" / "R20m" / f"T{tile}_{time}_SCL_20m.{suffix}"
    write_atomic(path, encode(scl[None], Place(place.epsg, place.west, place.north, 20.0), driver))
    cloudy = float(np.isin(scl, (CLOUD_MEDIUM, CLOUD_HIGH)).mean() * 100)
    write_atomic(out / name / "MTD_MSIL2A.xml", _product_metadata(name, time, baseline, orbit, offset, cloudy))
    write_atomic(granule / "MTD_TL.xml", _tile_metadata(tile, place, size, sun))
    return out / name


def _classification(world: World, sky: Sky, margin_m: float, shape: tuple[int, int]) -> np.ndarray:
    def at_20m(layer: np.ndarray) -> np.ndarray:
        return resample(layer, world.pixel_m, (margin_m, margin_m), 20.0, shape, SIGMA_PX * 20)

    scl = np.where(at_20m(optics.bare_ground(world)) > 0.5, BARE, VEGETATION).astype(np.uint8)
    scl[at_20m(world.cover == WATER) > 0.5] = WATER_CLASS
    scl[at_20m(sky.shadow) > 0.2] = SHADOW
    opacity = at_20m(sky.opacity)
    scl[opacity > 0.1] = CLOUD_MEDIUM
    scl[opacity > 0.5] = CLOUD_HIGH
    return scl


def _product_metadata(name: str, time: str, baseline: str, orbit: int, offset: int, cloudy: float) -> str:
    stamp = f"{time[:4]}-{time[4:6]}-{time[6:8]}T{time[9:11]}:{time[11:13]}:{time[13:]}.024Z"
    offsets = "".join(f'<BOA_ADD_OFFSET band_id="{i}">{offset}</BOA_ADD_OFFSET>' for i in range(13))
    listed = f"<BOA_ADD_OFFSET_VALUES_LIST>{offsets}</BOA_ADD_OFFSET_VALUES_LIST>" if offset else ""
    return f"""\
<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<!-- {NOTICE} -->
<n1:Level-2A_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-2A.xsd">
<n1:General_Info><Product_Info>
<PRODUCT_START_TIME>{stamp}</PRODUCT_START_TIME><PRODUCT_STOP_TIME>{stamp}</PRODUCT_STOP_TIME>
<PRODUCT_URI>{name}</PRODUCT_URI><PROCESSING_LEVEL>Level-2A</PROCESSING_LEVEL><PRODUCT_TYPE>S2MSI2A</PRODUCT_TYPE>
<PROCESSING_BASELINE>{baseline[:2]}.{baseline[2:]}</PROCESSING_BASELINE>
<Datatake><SPACECRAFT_NAME>Sentinel-2A</SPACECRAFT_NAME><SENSING_ORBIT_NUMBER>{orbit}</SENSING_ORBIT_NUMBER></Datatake>
</Product_Info><Product_Image_Characteristics>
<QUANTIFICATION_VALUES_LIST><BOA_QUANTIFICATION_VALUE unit="none">10000</BOA_QUANTIFICATION_VALUE>\
</QUANTIFICATION_VALUES_LIST>
{listed}
</Product_Image_Characteristics></n1:General_Info>
<n1:Quality_Indicators_Info><Cloud_Coverage_Assessment>{cloudy:.6f}</Cloud_Coverage_Assessment>\
</n1:Quality_Indicators_Info>
</n1:Level-2A_User_Product>
"""


def _tile_metadata(tile: str, place: Place, size: int, sun: Sun) -> str:
    grids = "".join(
        f'<Size resolution="{p}"><NROWS>{size * 10 // p}</NROWS><NCOLS>{size * 10 // p}</NCOLS></Size>'
        f'<Geoposition resolution="{p}"><ULX>{place.west:.0f}</ULX><ULY>{place.north:.0f}</ULY>'
        f"<XDIM>{p}</XDIM><YDIM>-{p}</YDIM></Geoposition>"
        for p in (10, 20)
    )
    return f"""\
<?xml version="1.0" encoding="UTF-8" standalone="no"?>
<!-- {NOTICE} -->
<n1:Level-2A_Tile_ID xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/S2_PDI_Level-2A_Tile_Metadata.xsd">
<n1:General_Info><TILE_ID metadataLevel="Brief">T{tile}</TILE_ID></n1:General_Info>
<n1:Geometric_Info><Tile_Geocoding metadataLevel="Brief">
<HORIZONTAL_CS_NAME>WGS84 / UTM zone {tile[:2]}N</HORIZONTAL_CS_NAME>\
<HORIZONTAL_CS_CODE>EPSG:{place.epsg}</HORIZONTAL_CS_CODE>{grids}
</Tile_Geocoding><Tile_Angles metadataLevel="Standard"><Mean_Sun_Angle>
<ZENITH_ANGLE unit="deg">{90 - sun.elevation:.6f}</ZENITH_ANGLE>
<AZIMUTH_ANGLE unit="deg">{sun.azimuth:.6f}</AZIMUTH_ANGLE>
</Mean_Sun_Angle></Tile_Angles></n1:Geometric_Info>
</n1:Level-2A_Tile_ID>
"""
