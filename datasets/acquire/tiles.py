"""Which tiles of the global layers an area needs, by the archives' own names.

Global Forest Change: 10 degrees, named by the top-left corner (``Hansen_GFC-2020-v1.8_first_40N_090W.tif``), from 80 N
to 60 S (Hansen et al. 2013, data download page). HAND of Copernicus GLO-30: 1 degree, named by the south-west corner,
pixel centres on whole arc seconds, so that every tile lies half a pixel north and west of its name's degrees
(https://glo-30-hand.s3.amazonaws.com/readme.html).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import ceil, floor

import shapely
from shapely.geometry.base import BaseGeometry

from ...errors import InputError

GFC_DEGREES, GFC_NORTH, GFC_SOUTH = 10, 80, -60
HAND_HALF_PIXEL = 0.5 / 3600
Box = tuple[float, float, float, float]  # west, south, east, north in degrees; west > east crosses the antimeridian


def gfc_tiles(box: Box) -> list[str]:
    """Names of the ``first`` composites that a box meets, sorted; none where the product has no tiles."""
    names = []
    for west, south in _cells(box, GFC_DEGREES):
        north = south + GFC_DEGREES
        if GFC_SOUTH < north <= GFC_NORTH:
            names.append(f"Hansen_GFC-2020-v1.8_first_{_degrees(north, 2, 'NS')}_{_degrees(west, 3, 'EW')}.tif")
    return sorted(names)


def hand_tiles(box: Box) -> list[str]:
    """Names of the HAND tiles that a box meets, sorted; those of open sea do not exist in the archive."""
    west, south, east, north = box
    shifted = (west + HAND_HALF_PIXEL, south - HAND_HALF_PIXEL, east + HAND_HALF_PIXEL, north - HAND_HALF_PIXEL)
    cells = {(w, max(s, -90)) for w, s in _cells(shifted, 1)}
    return sorted(
        f"Copernicus_DSM_COG_10_{_degrees(s, 2, 'NS', True)}_00_{_degrees(w, 3, 'EW', True)}_00_HAND.tif"
        for w, s in cells
    )


def bounds(geometry: BaseGeometry) -> Box:
    """The box of an area in degrees. One that spans more than 180 degrees is taken to cross the antimeridian."""
    longitudes, latitudes = shapely.get_coordinates(geometry).T
    if not len(longitudes) or not (abs(latitudes) <= 90).all() or not (abs(longitudes) <= 540).all():
        raise InputError("not an area in degrees of longitude and latitude", where=geometry.wkt[:80])
    if longitudes.max() - longitudes.min() > 180:
        longitudes = longitudes % 360
    west, east = float(longitudes.min()), float(longitudes.max())
    return (_wrapped(west), float(latitudes.min()), _wrapped(east, top=True), float(latitudes.max()))


def tiles_of(boxes: Iterable[Box], names) -> list[str]:
    """The tiles of many areas, each once; ``names`` is ``gfc_tiles`` or ``hand_tiles``."""
    return sorted({name for box in boxes for name in names(box)})


def _cells(box: Box, size: int) -> Iterator[tuple[int, int]]:
    """West and south of the cells of a global grid that a box meets; to touch an edge is not to meet."""
    west, south, east, north = box
    if not (-90.01 <= south <= north <= 90.01 and -180.01 <= west <= 180.01 and -180.01 <= east <= 180.01):
        raise InputError("not a box: west, south, east, north in degrees", where=str(box))
    if west > east:
        east += 360
    for row in _indices(south, north, size):
        for column in _indices(west, east, size):
            yield (column * size + 180) % 360 - 180, row * size


def _indices(low: float, high: float, size: int) -> range:
    first = floor(low / size)
    return range(first, max(ceil(high / size), first + 1))


def _degrees(value: int, digits: int, letters: str, letter_first: bool = False) -> str:
    number, letter = f"{abs(value):0{digits}d}", letters[value < 0]
    return letter + number if letter_first else number + letter


def _wrapped(longitude: float, top: bool = False) -> float:
    """Longitude in -180…180; an eastern edge on the antimeridian is 180, a western one -180."""
    wrapped = (longitude + 180) % 360 - 180
    return 180.0 if top and wrapped == -180 else wrapped
