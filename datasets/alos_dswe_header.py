"""What the ALOS-DSWE data set states before any pixel is read."""

from __future__ import annotations

from .dswe import MAX_CLOUD, MAX_DAYS, MIN_VALID, MIN_WATER
from .products import dealt
from .spec import WATER_CLASSES, Array, Band, BuilderInfo, Header, Task

NAME, VERSION = "alos-dswe", "1.0.0"
CHIP_SIZE = 512
NODATA = -9999.0
MIN_LABELLED = 0.1  # share of a chip's pixels
# "first" composites: normalised top-of-atmosphere reflectance * gain + 1; the gains as the R package gfcanalysis
# (scale_toar) has them of Hansen et al. 2013, the 1 is assumed
GFC_GAINS = {"red": 508, "nir": 254, "swir1": 363, "swir2": 423}


def header(despeckle: float | None, simulated: bool, held_out: float = 0.15) -> Header:
    """The header; ``despeckle`` is the weight of the smoothing or None, ``held_out`` the share of val and of test."""
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
    shares = {} if held_out == 0.15 else {"held_out": held_out}
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
            f"groups are {dealt(held_out)}."
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
        builder=BuilderInfo(name=NAME, version=VERSION, parameters={"despeckle": despeckle} | shares),
    )
