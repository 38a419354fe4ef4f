"""What is mapped: a GeoTIFF, the two of both orbits, or a folder of products, as one scene with the weights' bands."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os.path import realpath
from pathlib import Path

import numpy as np

from ..datasets.builders import polar_ice
from ..datasets.products import walk
from ..datasets.raster import Grid, grid_of, local_file, open_raster, read_window
from ..datasets.spec import Band
from ..errors import InputError
from .scene_bands import EW_SENSOR, scene_bands
from .scene_orbits import open_orbits, orbit_bands, pair_key
from .weights import Pretrained

GEOTIFFS = (".tif", ".tiff")


@dataclass(frozen=True)
class SceneFiles:
    """A scene that was found: ``paths`` is a GeoTIFF or the two of both orbits; or ``granule`` in a folder of ALOS."""

    id: str
    paths: tuple[Path, ...]
    granule: str | None = None

    @property
    def words(self) -> str:
        """The files as errors name them."""
        return " + ".join(map(str, self.paths)) + (f" ({self.granule})" if self.granule else "")


@dataclass(frozen=True)
class OpenScene:
    """A scene with the bands that the weights need: ``read_rows(first, stop)`` gives stored values (C, rows, width)."""

    name: str
    grid: Grid
    bands: list[Band]
    read_rows: Callable[[int, int], np.ndarray]


def find_scenes(
    sources: Iterable[str | Path | Sequence[str | Path] | SceneFiles], weights: Sequence[Pretrained]
) -> list[SceneFiles]:
    """The scenes in files and folders, in the given order.

    For weights of Sentinel-1's orbits, files whose names differ by the orbit alone (``scene01_s1_as.tif``,
    ``scene01_s1_des.tif``) are one scene. A folder gives its ALOS granules, or else all of its GeoTIFFs.

    Raises:
        InputError: nothing to map, or two scenes of one name.
    """
    orbits = bool(orbit_bands(weights[0].preprocess.bands))
    found: list[SceneFiles] = []
    files: dict[str, list[Path]] = {}
    for source in sources:
        if isinstance(source, SceneFiles):
            found.append(source)
        elif not isinstance(source, str | Path):
            paths = tuple(map(Path, source))
            found.append(SceneFiles(pair_key(paths[0]) if len(paths) > 1 else paths[0].stem, paths))
        elif Path(source).is_dir():
            found += _in_folder(Path(source), files, orbits)
        else:
            files.setdefault(_key(Path(source), orbits), []).append(Path(source))
    for key, paths in files.items():
        name = paths[0].stem if len(paths) == 1 else key.rsplit("/", 1)[-1]
        found.append(SceneFiles(name, tuple(paths)))
    if not found:
        raise InputError("no scene to map", hint="give GeoTIFFs, or folders that hold them")
    names = [scene.id for scene in found]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{len(repeated)} names belong to several scenes: {', '.join(repeated[:5])}")
    return found


def _in_folder(folder: Path, files: dict[str, list[Path]], orbits: bool) -> list[SceneFiles]:
    from .scene_alos import find_granules

    if granules := find_granules(folder):
        return [SceneFiles(granule, (folder,), granule) for granule in granules]
    for name in walk(folder):
        if name.lower().endswith(GEOTIFFS):
            files.setdefault(_key(folder / name, orbits), []).append(folder / name)
    return []


def _key(path: Path, orbits: bool) -> str:
    # Both orbits may lie in folders of their own (s1_ascend, s1_descend), so only the name counts.
    return pair_key(path) if orbits and pair_key(path) != path.stem else str(path)


@contextmanager
def open_scene(
    source: str | Path | Sequence[str | Path] | SceneFiles,
    weights: Sequence[Pretrained],
    names: Sequence[str] = (),
    despeckle: float | None = None,
) -> Iterator[OpenScene]:
    """Open a scene for weights.

    Args:
        source: a GeoTIFF, two GeoTIFFs of both orbits, a folder with one ALOS granule, or what ``find_scenes`` found.
        weights: the first takes all bands; further ones are for tiles where it lacks data.
        names: of a GeoTIFF's bands, in its order, instead of its own descriptions.
        despeckle: smoothing of ALOS backscatter, as the data set was built with.

    Raises:
        InputError: no local file, or several scenes in a folder.
        SceneError: a file cannot be read, or its layers do not fit together.
        WeightsError: other bands or units than the weights need.
    """
    from .scene_alos import open_granule

    scenes = find_scenes([source], weights)
    if len(scenes) > 1:
        raise InputError(f"{len(scenes)} scenes where one is expected", where=source, hint="give a folder as --out")
    scene = scenes[0]
    if scene.granule is not None:
        with open_granule(scene.paths[0], scene.granule, weights, despeckle) as opened:
            yield OpenScene(scene.id, *opened)
        return
    if despeckle is not None:
        raise InputError("despeckle is for folders of ALOS products", where=scene.words)
    if len(scene.paths) > 2:
        raise InputError(f"{len(scene.paths)} files for one scene, expected one or two", where=scene.words)
    for path in scene.paths:
        local_file(path)
    if not names and (len(scene.paths) == 2 or _lacks_orbit(scene.paths[0], weights[0])):
        with open_orbits(scene.paths, weights) as opened:
            yield OpenScene(scene.id, *opened)
        return
    if len(scene.paths) == 2:
        raise InputError("names of bands are for one file", where=scene.words, hint="describe the bands in the files")
    with open_raster(scene.paths[0]) as file:
        found, indexes = scene_bands(file, weights[0], names)

        def read_rows(first: int, stop: int) -> np.ndarray:
            return _with_gaps(read_window(file, (first, 0, stop - first, file.width), indexes), found)

        yield OpenScene(scene.id, grid_of(file), found, read_rows)


def check_apart(source: str | Path | Sequence[str | Path] | SceneFiles, results: Iterable[Path]) -> None:
    """InputError where a result would replace a file of the scene itself, or another result."""
    paths = source.paths if isinstance(source, SceneFiles) else [source] if isinstance(source, str | Path) else source
    own, taken = set(map(realpath, paths)), set()
    for path in results:
        place = realpath(path)
        if place in own:
            raise InputError("the map would replace its own scene", where=path, hint="give another --out")
        if place in taken:
            raise InputError("two results would be this file", where=path, hint="give other names")
        taken.add(place)


def _lacks_orbit(path: Path, pretrained: Pretrained) -> bool:
    """Whether a GeoTIFF shows one orbit: its bands have no orbit in their names, or the other orbit's are not there."""
    trained = pretrained.preprocess.bands
    if not orbit_bands(trained):
        return False
    with open_raster(path) as file:
        described = {text.strip().casefold() for text in file.descriptions if text}
        if described:
            return not {name.casefold() for name in pretrained.preprocess.needed} <= described
        return pair_key(path) != path.stem and (file.count < len(trained) or len(orbit_bands(trained)) == 1)


def _with_gaps(stored: np.ndarray, bands: Sequence[Band]) -> np.ndarray:
    """NaN where an EW scene has no data: it is stored as 0 in all bands, which no single band's nodata can tell."""
    if bands[0].sensor != EW_SENSOR or any(band.nodata is not None for band in bands):
        return stored
    image, known = polar_ice.with_data(stored)
    return np.where(known, image, np.float32(np.nan))
