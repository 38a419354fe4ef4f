"""What both forms of the Landsat-8 to Sentinel-2 data set state before any pixel is read."""

from __future__ import annotations

from typing import Any

from . import optical
from .products import dealt
from .spec import Array, Band, BuilderInfo, Header, Task

NAME, VERSION = "l8s2", "1.0.0"
MIN_SSIM, MIN_PSNR_DB = 0.81, 22.0  # between the two sensors, as the authors keep pairs
MIN_VALID = 0.9  # share of a chip that both saw clearly
CHIP_SIZE, L8_SIZE, PAN_SIZE = 256, 86, 172
BAND_NAMES = ("blue", "green", "red", "nir", "swir1", "swir2")
S2_BANDS = ("B02", "B03", "B04", "B8A", "B11", "B12")
# Centres: Landsat 8 Data Users Handbook, table 2-1; Sentinel-2 User Handbook, table 1 (S2A)
L8_UM, PAN_UM = (0.482, 0.561, 0.655, 0.865, 1.609, 2.201), 0.590
S2_UM = (0.4924, 0.5598, 0.6646, 0.8647, 1.6137, 2.2024)


def header(parameters: dict[str, Any], split: str, simulated: bool, name: str = NAME, held_out: float = 0.15) -> Header:
    """The header; ``name`` differs for the authors' own pairs; ``held_out``: share of tiles of val, and of test."""
    l8 = tuple(
        Band(name=n, sensor="Landsat-8 OLI", unit="reflectance", scale=optical.L8_SCALE, offset=optical.L8_OFFSET,
             nodata=optical.L8_FILL, wavelength_um=um)
        for n, um in zip(BAND_NAMES, L8_UM, strict=True)
    )  # fmt: skip
    s2 = tuple(
        Band(name=n, sensor="Sentinel-2 MSI", unit="reflectance", scale=optical.S2_SCALE, nodata=optical.S2_NODATA,
             wavelength_um=um)
        for n, um in zip(BAND_NAMES, S2_UM, strict=True)
    )  # fmt: skip
    pan = Band(
        name="pan", sensor="Landsat-8 OLI", unit="top-of-atmosphere reflectance", scale=optical.PAN_SCALE, nodata=0,
        wavelength_um=PAN_UM,
    )  # fmt: skip
    rule = {
        "by-tile": "All pairs of one MGRS tile are in one split; the tiles are "
        + ("dealt 70 : 15 : 15." if held_out == 0.15 else f"{dealt(held_out)}."),
        "published": "The split is that of the authors' table.",
    }[split]
    return Header(
        name=name + ("-sim" if simulated else ""),
        version="1.0.0" if name == NAME or split == "published" else "2.0.0",
        title="L8S2: Landsat-8 to Sentinel-2 harmonization" + (" (simulated)" if simulated else ""),
        description=(
            "Six bands of Landsat-8 surface reflectance at 30 m (86 x 86) and its panchromatic band at 15 m (172 x "
            "172), to be brought to what Sentinel-2 saw of the same ground at 10 m (256 x 256). Each array has a "
            "transform of its own: the Landsat arrays cover 2 580 m, the target 2 560 m, and their origins differ. "
            f"valid tells where both saw clearly (QA_PIXEL, SCL). Pairs with SSIM >= {MIN_SSIM:g}, PSNR > "
            f"{MIN_PSNR_DB:g} dB and, where products are the source, {MIN_VALID:.0%} valid pixels. {rule}"
        ),
        licence=None,
        citation=(
            "Venkatesh Thirugnana Sambandham, K., Kirchheim, K., Ortmeier, F., Mukhopadhaya, S.: Deep learning-based "
            "harmonization and super-resolution of Landsat-8 and Sentinel-2 images. ISPRS Journal of Photogrammetry "
            "and Remote Sensing 212 (2024)."
        ),
        homepage="https://github.com/venkatesh-thiru/Deep-Harmonization",
        provenance=(
            "Simulated products in the layouts of the archives; no satellite measured them."
            if simulated
            else "Landsat Collection 2 (USGS) and Sentinel-2 L2A (ESA, Copernicus)."
        ),
        known_label_defects=(
            "The target is another sensor's measurement, up to a day later and under another sun: what changed in "
            "between, haze and missed clouds are in it. NIR is band 8A, which like SWIR has 20 m and is brought to 10 "
            "m bilinearly. The two registrations differ by up to half a Landsat pixel. Negative reflectance is 0."
        ),
        simulated=simulated,
        task=Task(kind="regression"),
        arrays=(
            Array(name="image", dtype="uint16", shape=(6, L8_SIZE, L8_SIZE), role="image", bands=l8),
            Array(name="pan", dtype="uint16", shape=(1, PAN_SIZE, PAN_SIZE), role="context", bands=(pan,)),
            Array(name="target", dtype="uint16", shape=(6, CHIP_SIZE, CHIP_SIZE), role="target", bands=s2),
            Array(name="valid", dtype="uint8", shape=(CHIP_SIZE, CHIP_SIZE), role="valid"),
        ),
        builder=BuilderInfo(name=NAME, version=VERSION, parameters=parameters | {"split": split}),
    )
