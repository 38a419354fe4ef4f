"""Which bands of a GeoTIFF weights need, and what the file's own words on them mean."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
from rasterio.io import DatasetReader

from ..datasets.builders.polar_ice import UNITS
from ..datasets.spec import Band
from ..errors import InputError, SceneError, WeightsError
from .weights import Pretrained

EW_SENSOR = "Sentinel-1 EW"


def scene_bands(
    scene: DatasetReader, pretrained: Pretrained, names: Sequence[str] = ()
) -> tuple[list[Band], list[int]]:
    """Which bands of a GeoTIFF the weights need, as manifest bands, and their numbers counted from 1.

    Bands with descriptions (or ``names`` in their place, one per band) are found by name. Without descriptions the
    file must have exactly the bands of the training data, in that order. The file's nodata, scale and offset count;
    where it states no scale, integers are taken as stored in the training data and floats as physical values. A unit
    that the file states must be the right one; a file without units cannot be checked.

    In an EW scene HH and HV come first, whatever follows.

    Raises:
        WeightsError: missing bands or other units, with what was expected and found.
    """
    trained = {band.name: band for band in pretrained.preprocess.bands}
    if names and len(names) != scene.count:
        raise InputError(f"{len(names)} names of bands for {scene.count} bands", where=scene.name)
    described = [text.strip() if text else "" for text in names or scene.descriptions]
    expected = ", ".join(trained)
    if any(described):
        found = {text.casefold(): number for number, text in enumerate(described, 1) if text}
        numbers = {name: found.get(name.casefold()) for name in trained}
    elif scene.count == len(trained) or scene.count > len(trained) and _first_bands(trained.values()):
        numbers = {name: number for number, name in enumerate(trained, 1)}
    else:
        raise WeightsError(
            f"expected {len(trained)} bands ({expected}), found {scene.count} without descriptions",
            where=scene.name,
            hint="describe the bands, e.g. with gdal_edit or rasterio",
        )
    used = [trained[name] for name, number in numbers.items() if number is not None]
    bands = [stored_band(scene, numbers[band.name], band) for band in used]
    try:
        pretrained.check_input(bands)
    except WeightsError as error:
        names = ", ".join(text or "?" for text in described)
        raise WeightsError(f"expected bands {expected}, found {names} ({error.what})", where=scene.name) from None
    return bands, [numbers[band.name] for band in used]


def _first_bands(trained: Iterable[Band]) -> bool:
    return all(band.sensor == EW_SENSOR for band in trained)


def stored_band(scene: DatasetReader, number: int, trained: Band) -> Band:
    """A band of a GeoTIFF (counted from 1) as the manifest would state it, when it shows what ``trained`` does.

    Raises:
        SceneError: its pixels are no real numbers.
        WeightsError: it states another unit, or its type shows one.
    """
    dtype = np.dtype(scene.dtypes[number - 1]) if re.fullmatch(r"u?int\d+|float\d+", scene.dtypes[number - 1]) else None
    if dtype is None:
        raise SceneError(f"band {number}: expected real numbers, found {scene.dtypes[number - 1]}", where=scene.name)
    unit = scene.units[number - 1] or trained.unit
    if trained.sensor == EW_SENSOR:  # no file of these states a unit: bytes are stretched amplitudes, floats are dB
        unit = UNITS.get(dtype.name, unit)
    if unit.casefold() != trained.unit.casefold():
        raise WeightsError(f"band {trained.name!r}: expected unit {trained.unit!r}, found {unit!r}", where=scene.name)
    scale, offset, nodata = scene.scales[number - 1], scene.offsets[number - 1], scene.nodatavals[number - 1]
    stated = (scale, offset) != (1.0, 0.0)
    physical = not stated and dtype.kind == "f"
    changes = {}
    if stated or physical:
        changes = {"scale": scale, "offset": offset}
        if (scale, offset) != (trained.scale, trained.offset):
            changes["nodata"] = None  # the training data's value is one of another scale
    if nodata is not None:
        changes["nodata"] = float(nodata) if np.isfinite(nodata) else None  # NaN is never valid anyway
    return trained.model_copy(update=changes)
