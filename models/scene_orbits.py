"""Sentinel-1 of two orbits, each a GeoTIFF of its own, as one scene; an orbit may be missing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from rasterio.io import DatasetReader

from ..datasets.mosaic import Mosaic
from ..datasets.raster import Grid, check_georeferenced, check_same_grid, grid_of, open_raster, read_window
from ..datasets.spec import Band
from ..errors import SceneError, WeightsError
from .scene_bands import stored_band
from .weights import Pretrained

ORBITS = {"asc": "ascending", "desc": "descending"}
WORDS = {"as": "asc", "asc": "asc", "ascend": "asc", "ascending": "asc"}
WORDS |= {"des": "desc", "desc": "desc", "descend": "desc", "descending": "desc"}
_WORD = re.compile(rf"(?:^|[_\-.])({'|'.join(WORDS)})(?=$|[_\-.])", re.IGNORECASE)
_BAND = re.compile(r"(vv|vh|hh|hv)_(asc|desc)", re.IGNORECASE)
WARPED_NODATA = -9999.0

Rows = Callable[[int, int], np.ndarray]


def orbit_bands(bands: Sequence[Band]) -> dict[str, dict[str, Band]]:
    """Orbit (asc, desc) -> polarisation -> band, by names such as ``vv_asc``; empty where a band is none of these."""
    found: dict[str, dict[str, Band]] = {}
    for band in bands:
        match = _BAND.fullmatch(band.name)
        if match is None:
            return {}
        found.setdefault(match[2].lower(), {})[match[1].lower()] = band
    return found


def pair_key(path: Path) -> str:
    """The file's name without ending and without the word for its orbit: the same for both orbits of a scene."""
    return _WORD.sub("", path.stem, count=1) or path.stem


@contextmanager
def open_orbits(paths: Sequence[Path], weights: Sequence[Pretrained]) -> Iterator[tuple[Grid, list[Band], Rows]]:
    """Grid, bands and ``read_rows`` of one or two GeoTIFFs, each of one orbit.

    The orbit is what the bands' names or the tag ORBIT_PASS say, else the word in the file's name (``_as``, ``_des``),
    else ascending for the first file and descending for the second. Bands are found by their polarisation, else VV and
    VH come first. A second file on another grid is brought to the first one's, bilinearly and block by block. Bands of
    an orbit that is missing are NaN everywhere, so that weights of the other orbit are taken (see `OrbitInference`).

    Raises:
        SceneError: a file cannot be read, or both are of one orbit.
        WeightsError: bands that the weights need are missing.
    """
    trained = weights[0].preprocess.bands
    wanted = orbit_bands(trained)
    if not wanted:
        raise WeightsError(
            f"two files are for weights with bands of two orbits (vv_asc, vv_desc); these need "
            f"{', '.join(band.name for band in trained)}",
            where=paths[0],
            hint="to map files apart, give a folder as --out",
        )
    with ExitStack() as stack:
        files = [stack.enter_context(open_raster(path)) for path in paths]
        orbits = [_orbit(file, place) for place, file in enumerate(files)]
        if len(set(orbits)) < len(orbits):
            raise SceneError(f"two files of the {ORBITS[orbits[0]]} orbit", where=f"{paths[0]} + {paths[1]}")
        grid = grid_of(files[0])
        layers: dict[str, tuple[list[Band], Rows]] = {}
        for orbit, file in zip(orbits, files, strict=True):
            if orbit in wanted:
                layers[orbit] = _layer(stack, file, wanted[orbit], grid)
        bands, readers = [], []
        for orbit, named in wanted.items():
            if orbit not in layers:
                layers[orbit] = _gap(list(named.values()), grid)
            bands += layers[orbit][0]
            readers.append(layers[orbit][1])
        there = {band.name for orbit in orbits for band in wanted.get(orbit, {}).values()}
        _check_weights(weights, [ORBITS[orbit] for orbit in orbits], there, paths)

        def read_rows(first: int, stop: int) -> np.ndarray:
            return np.concatenate([read(first, stop) for read in readers])

        yield grid, bands, read_rows


def _orbit(file: DatasetReader, place: int) -> str:
    named = {match[2].lower() for text in file.descriptions if (match := _BAND.fullmatch((text or "").strip()))}
    if len(named) == 1:
        return named.pop()
    stated = str(file.tags().get("ORBIT_PASS", "")).strip().lower()
    if stated in WORDS:
        return WORDS[stated]
    match = _WORD.search(Path(file.name).stem)
    return WORDS[match[1].lower()] if match else tuple(ORBITS)[place]


def _layer(stack: ExitStack, file: DatasetReader, wanted: dict[str, Band], grid: Grid) -> tuple[list[Band], Rows]:
    """Bands of one file, as they come from it, and what reads rows of them on the scene's grid."""
    numbers = _numbers(file, list(wanted))
    bands = [stored_band(file, numbers[name], band) for name, band in wanted.items()]
    indexes = [numbers[name] for name in wanted]
    try:
        check_same_grid(file, grid)
    except SceneError as apart:
        if grid.crs is None or file.crs is None:
            raise SceneError("both orbits need one grid, or a coordinate reference system", where=file.name) from apart
        check_georeferenced(file)
        nodata = bands[0].nodata
        warped = stack.enter_context(
            Mosaic(
                [Path(file.name)],
                grid,
                bands=indexes,
                resampling="bilinear",
                dtype="float32",
                nodata=WARPED_NODATA,
                source_nodata=WARPED_NODATA if nodata is None else nodata,
            )
        )
        if warped.empty:
            raise SceneError("shares no ground with the other orbit's file", where=file.name) from None
        bands = [band.model_copy(update={"nodata": WARPED_NODATA}) for band in bands]
        return bands, lambda first, stop: warped.read((first, 0, stop - first, grid.width))
    return bands, lambda first, stop: read_window(file, (first, 0, stop - first, grid.width), indexes)


def _numbers(file: DatasetReader, polarisations: list[str]) -> dict[str, int]:
    """Polarisation -> number of its band, by description (VV, VV_asc, Sigma0_VV), else in order."""
    words = [re.split(r"[^a-z]+", re.sub(r"\d", "", (text or "").casefold())) for text in file.descriptions]
    if not any({"vv", "vh", "hh", "hv"} & set(own) for own in words) and file.count >= len(polarisations):
        return {name: number for number, name in enumerate(polarisations, 1)}
    found = {name: [n for n, own in enumerate(words, 1) if name in own] for name in polarisations}
    if any(len(numbers) != 1 for numbers in found.values()):
        names = ", ".join(text or "?" for text in file.descriptions)
        raise WeightsError(f"expected bands {', '.join(polarisations).upper()}, found {names}", where=file.name)
    return {name: numbers[0] for name, numbers in found.items()}


def _gap(bands: list[Band], grid: Grid) -> tuple[list[Band], Rows]:
    return bands, lambda first, stop: np.full((len(bands), stop - first, grid.width), np.nan, np.float32)


def _check_weights(weights: Sequence[Pretrained], orbits: list[str], there: set[str], paths: Sequence[Path]) -> None:
    """WeightsError where no weights can say anything: each would see a missing band everywhere."""
    for own in weights:
        needed = set(own.preprocess.needed)
        if needed <= there or (own.preprocess.partial and needed & there):
            return
    lacking = ", ".join(name for name in weights[0].preprocess.needed if name not in there)
    raise WeightsError(
        f"the scene has the {' and '.join(orbits)} orbit alone, the weights need {lacking} too",
        where=" + ".join(map(str, paths)),
        hint=f"give --weights of the {orbits[0]} orbit as well, or the other orbit's file",
    )
