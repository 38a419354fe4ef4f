"""What the Tibet-Water data set states before any pixel is read."""

from __future__ import annotations

from .products import dealt
from .spec import WATER_CLASSES, Array, Band, BuilderInfo, Header, Task

NAME, VERSION = "tibet-water", "1.0.0"
CHIP_SIZE = 256
SCALES = (2, 8)
MIN_LABELLED = 0.1  # share of a chip's pixels
NODATA = 0.0
ORBITS = {"as": "ascending", "des": "descending"}


def bands_of(orbits: str) -> list[str]:
    """The orbit of every band, in order."""
    return [o for o in ORBITS.values() if orbits in ("both", o) for _ in ("VV", "VH")]


def header(orbits: str, split: str, simulated: bool, held_out: float = 0.15) -> Header:
    """What the manifest states before any pixel is read."""
    short = {"ascending": "asc", "descending": "desc"}
    names = [
        f"{polarisation}_{short[orbit]}"
        for orbit, polarisation in zip(bands_of(orbits), ("vv", "vh") * 2, strict=False)
    ]
    bands = tuple(Band(name=name, sensor="Sentinel-1", unit="dB", nodata=NODATA) for name in names)
    shape = (len(bands), CHIP_SIZE, CHIP_SIZE)
    contexts = tuple(
        Array(name=f"image_x{scale}", dtype="float32", shape=shape, role="context", bands=bands) for scale in SCALES
    )
    rule = (
        "Scenes 01 to 07 validate, all others train, as the authors split them: there is no further test split."
        if split == "published"
        else f"Scenes that share ground stay together; the groups are {dealt(held_out)}."
    )
    own_shares = {} if held_out == 0.15 else {"held_out": held_out}
    return Header(
        name=NAME + ("" if orbits == "both" else f"-{orbits}") + ("-sim" if simulated else ""),
        version="1.0.0" if split == "published" else "2.0.0",
        title="Tibet-Water: surface water from Sentinel-1" + (" (simulated)" if simulated else ""),
        description=(
            f"Chips of {CHIP_SIZE} x {CHIP_SIZE} pixels of 10 m, Sentinel-1 backscatter of the orbits: {orbits}. "
            "Around each chip lie two contexts with the same centre and the same number of pixels: image_x2 shows "
            f"{2 * CHIP_SIZE} and image_x8 {8 * CHIP_SIZE} pixels of ground, each of their pixels being the mean, in "
            f"dB, of the central 2 x 2 of those it covers. {NODATA:g} means no data: in missing pixels, of a missing "
            f"orbit and beyond the scene; valid tells where any orbit has data. {rule} Chips tile a scene without "
            f"overlap; those with less than {MIN_LABELLED:.0%} labelled ground with data are left out."
        ),
        licence=None,
        citation=(
            "Luo, X., Hu, Z., Liu, L.: Investigating the seasonal dynamics of surface water over the Qinghai-Tibet "
            "Plateau using Sentinel-1 imagery and a novel gated multiscale ConvNet. International Journal of Digital "
            "Earth 16 (2023), doi 10.1080/17538947.2023.2198266."
        ),
        homepage="https://github.com/xinluo2018/Tibet-Water-2020",
        provenance=(
            "Simulated Sentinel-1 scenes of both orbits in the layout of the authors' data; no satellite measured them."
            if simulated
            else "Sentinel-1 IW scenes on the Tibetan Plateau with water drawn by hand, from their authors."
        ),
        known_label_defects=(
            "The two orbits were not acquired at the same moment, while one label serves both. Ground that neither "
            "orbit saw is ignored; where one orbit has no data the label stays and counts. Rivers narrower than a "
            "pixel and ice-covered lakes are drawn as their author judged."
        ),
        simulated=simulated,
        task=Task(
            kind="segmentation",
            classes=WATER_CLASSES,
        ),
        arrays=(
            Array(name="image", dtype="float32", shape=shape, role="image", bands=bands),
            *contexts,
            Array(name="valid", dtype="uint8", shape=(CHIP_SIZE, CHIP_SIZE), role="valid"),
            Array(name="mask", dtype="uint8", shape=(CHIP_SIZE, CHIP_SIZE), role="mask"),
        ),
        builder=BuilderInfo(name=NAME, version=VERSION, parameters={"orbits": orbits, "split": split} | own_shares),
    )
