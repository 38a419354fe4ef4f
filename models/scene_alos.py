"""A folder of ALOS PALSAR products with their ancillary tiles, as the builder of ``alos-dswe`` reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from ..datasets import raster
from ..datasets.alos_dswe_header import CHIP_SIZE, NODATA, header
from ..datasets.builders.alos_dswe import BILINEAR, LAYERS, PATTERNS, AlosScene
from ..datasets.mosaic import Mosaic
from ..datasets.plan import SceneJob
from ..datasets.products import find
from ..datasets.spec import Band
from ..errors import InputError, SceneError, WeightsError
from .weights import Pretrained

OPTICAL = ("red", "nir", "swir1", "swir2")
SMOOTHED = "-smoothed"  # in the name of a data set whose backscatter was smoothed

Window = raster.PixelWindow
Layer = tuple[tuple[str, ...], Callable[[Window], np.ndarray]]


def find_granules(folder: Path) -> list[str]:
    """Names of the PALSAR granules below a folder."""
    return sorted({groups["granule"] for kind, _, groups in _products(folder) if kind == "sar"})


def _products(folder: Path) -> list[tuple[str, str, dict[str, str]]]:
    try:
        return find(folder, {kind: PATTERNS[kind] for kind in ("sar", "gfc", "hand")})
    except InputError:  # none of the names: a folder of something else
        return []


@contextmanager
def open_granule(
    folder: Path, granule: str, weights: Sequence[Pretrained], despeckle: float | None
) -> Iterator[tuple[raster.Grid, list[Band], Callable[[int, int], np.ndarray]]]:
    """Grid, bands and ``read_rows`` of one granule; what the weights do not need is not looked for.

    HH and HV are brought to dB, optical and terrain layers bilinearly to the SAR grid, both by the builder's own code.

    Args:
        folder: holds ASF's folder of the granule and, where needed, forest-change and HAND tiles.
        granule: its name.
        weights: that will see it.
        despeckle: weight of the total-variation smoothing, as the data set was built with.

    Raises:
        SceneError: a file is missing or cannot be used.
        WeightsError: the weights need other bands, or smoothed backscatter that was not asked for.
    """
    own = {band.name: band for band in header(despeckle, False).arrays[0].bands}
    needed = list(dict.fromkeys(name for w in weights for name in w.preprocess.needed))
    if unknown := [name for name in needed if name not in own]:
        raise WeightsError(f"the weights need {', '.join(unknown)}; ALOS products have {', '.join(own)}", where=folder)
    smoothed = any(SMOOTHED in str(w.dataset.get("name", "")) for w in weights)
    if smoothed and despeckle is None:
        raise WeightsError(
            "the weights have learned from smoothed backscatter", where=folder, hint="give --despeckle as it was built"
        )
    if despeckle is not None and not 0 < despeckle <= 100:
        raise InputError(f"despeckle must be above 0 and at most 100, found {despeckle}")
    folder = folder.absolute()
    job = _job(folder, granule)
    with ExitStack() as stack:
        layers = job.payload["layers"]
        grid = _check(folder, granule, layers, needed)
        scene = stack.enter_context(AlosScene(job))
        found: list[Layer] = [(("hh", "hv"), _backscatter(scene, despeckle))]
        if any(name in OPTICAL for name in needed):
            gfc = stack.enter_context(scene.continuous("gfc", (1, 2, 3, 4), 0))
            found.append((OPTICAL, _reaching(gfc, "forest-change", granule).read))
        if "dem" in needed:
            dem = stack.enter_context(Mosaic([folder / layers["dem"]], grid, **BILINEAR))
            found.append((("dem",), dem.read))
        if "hand" in needed:
            hand = stack.enter_context(scene.continuous("hand", (1,), np.nan))
            found.append((("hand",), _reaching(hand, "HAND", granule).read))
        names = [name for group, _ in found for name in group]
        chosen = [names.index(name) for name in own if name in needed]
        bands = [own[names[place]] for place in chosen]
        for w in weights:
            w.check_input(bands)

        def read_strip(row: int) -> np.ndarray:
            window = (row, 0, CHIP_SIZE, scene.width)
            image = np.concatenate([read(window) for _, read in found])[chosen, :, : grid.width]
            image[~np.isfinite(image)] = NODATA
            return image

        yield grid, bands, _Strips(read_strip)


class _Strips:
    """Rows of a scene out of the builder's own strips: warping and smoothing depend a little on where they begin."""

    def __init__(self, read_strip: Callable[[int], np.ndarray]) -> None:
        self._read_strip, self._row, self._strip = read_strip, None, None

    def __call__(self, first: int, stop: int) -> np.ndarray:
        parts, at = [], first
        while at < stop:
            row = at // CHIP_SIZE * CHIP_SIZE
            if row != self._row:
                self._strip = None  # two strips would be twice the memory
                self._row, self._strip = row, self._read_strip(row)
            end = min(row + CHIP_SIZE, stop)
            parts.append(self._strip[:, at - row : end - row])
            at = end
        return np.concatenate(parts, 1)


def _job(folder: Path, granule: str) -> SceneJob:
    layers, tiles = {}, {"gfc": [], "hand": []}
    for kind, path, groups in _products(folder):
        if kind in tiles:
            tiles[kind].append(path)
        elif groups["granule"] == granule:
            layers[LAYERS[groups["layer"].upper()]] = path
    return SceneJob(granule, "", {"source": str(folder), "layers": layers, **tiles})


def _check(folder: Path, granule: str, layers: dict[str, str], needed: list[str]) -> raster.Grid:
    """The grid of a granule whose SAR files are there and agree."""
    suffixes = {"hh": "_HH.tif", "hv": "_HV.tif"} | ({"dem": ".dem.tif"} if "dem" in needed else {})
    for layer, suffix in suffixes.items():
        if layer not in layers:
            raise SceneError(f"{granule}{suffix} is missing", where=granule)
    with raster.open_raster(folder / layers["hh"]) as hh, raster.open_raster(folder / layers["hv"]) as hv:
        grid = raster.check_georeferenced(hh)
        for band in (hh, hv):
            raster.check_bands(band, "float32", (1,))
        raster.check_same_grid(hv, grid)
    return grid


def _reaching(mosaic: Mosaic, words: str, granule: str) -> Mosaic:
    if mosaic.empty:
        raise SceneError(f"no {words} tile reaches it", where=granule)
    return mosaic


def _backscatter(scene: AlosScene, despeckle: float | None) -> Callable[[Window], np.ndarray]:
    if despeckle is None:
        return scene.sar
    return lambda window: scene.smooth(window, scene.sar(window), despeckle)
