"""Products as the archives deliver them: found by their names below a folder, and recorded with their digests."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, InputError, SceneError
from .files import sha256_file
from .footprints import EDGE_POINTS, corners_lonlat, near_blocks
from .labelled import relative_error
from .plan import Plan, SceneJob, group_shards
from .raster import Grid, wgs84_bounds
from .spec import Header, Scene, SkippedScene, SourceFile
from .splits import connected_groups

SIMULATED = "simulation.json"  # a source that holds it was made by ``tidemark simulate``
ACQUIRED = "acquired.json"  # what ``tidemark acquire`` fetched
SIDECARS = {".shp": (".shx", ".dbf", ".prj")}
FRACTIONS = {"train": 0.7, "val": 0.15, "test": 0.15}
MAX_TEXT_BYTES = 8 << 20


def fractions(held_out: float, where: str) -> dict[str, float]:
    """Shares of the splits where validation and test get ``held_out`` each. Raises InputError beyond 0.05 to 0.4."""
    if not isinstance(held_out, int | float) or not 0.05 <= held_out <= 0.4:
        raise InputError(f"held_out must be a share from 0.05 to 0.4, found {held_out!r}", where=where)
    return {"train": 1 - 2 * held_out, "val": held_out, "test": held_out}


def dealt(held_out: float) -> str:
    """The shares in words: ``dealt 70 : 15 : 15 to train, val and test``."""
    return f"dealt {100 - 200 * held_out:g} : {100 * held_out:g} : {100 * held_out:g} to train, val and test"


@contextmanager
def relative_errors(folder: Path) -> Iterator[None]:
    """Name files relative to the source in what is raised inside: what is recorded must not depend on its place."""
    try:
        yield
    except SceneError as error:
        raise relative_error(error, folder) from None


def walk(folder: Path) -> Iterator[str]:
    """Relative paths of all files below a folder, hidden ones left out, in order of the names."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(files):
            yield Path(parent, name).relative_to(folder).as_posix()


def find(folder: Path, patterns: Mapping[str, str]) -> list[tuple[str, str, dict[str, str]]]:
    """The files whose *name* a pattern matches, wherever they lie: (kind, relative path, named groups).

    Args:
        folder: the source.
        patterns: kind -> regular expression of the whole file name; capitals do not matter.

    Raises:
        InputError: there is no such folder, or none of its files has a wanted name.
    """
    if not folder.is_dir():
        raise InputError("no such folder", where=folder, hint="give the folder that holds the products")
    compiled = {kind: re.compile(pattern, re.IGNORECASE) for kind, pattern in patterns.items()}
    found = []
    for path in walk(folder):
        for kind, pattern in compiled.items():
            if match := pattern.fullmatch(path.rsplit("/", 1)[-1]):
                found.append((kind, path, match.groupdict()))
    if not found:
        raise InputError(f"no file has the name of a product ({', '.join(patterns)})", where=folder)
    return found


def is_simulated(folder: Path) -> bool:
    """Whether the source, or a folder in it, says that it was simulated."""
    return any(name.rsplit("/", 1)[-1] == SIMULATED for name in walk(folder))


def read_text(path: Path) -> str:
    """A metadata file as text. Raises InputError when it is too large to be one."""
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise InputError(f"{path.stat().st_size} bytes of metadata, over {MAX_TEXT_BYTES}", where=path)
    return path.read_text(encoding="utf-8", errors="replace")


def source_files(folder: Path, names: Iterable[str]) -> tuple[SourceFile, ...]:
    """The manifest's record of each named file that is there, and of a shapefile's companions."""
    listed = [n for name in names for n in (name, *_companions(name))]
    present = [n for n in dict.fromkeys(listed) if (folder / n).is_file()]
    return tuple(_recorded(folder, name) for name in present)


def _recorded(folder: Path, name: str) -> SourceFile:
    found = (folder / name).stat()
    digest = _digest(str(folder / name), found.st_size, found.st_mtime_ns, found.st_ino)
    return SourceFile(path=name, bytes=found.st_size, sha256=digest)


@lru_cache(1 << 20)
def _digest(path: str, _size: int, _modified_ns: int, _inode: int) -> str:
    """A tile that serves many scenes is read once."""
    return sha256_file(path)


def _companions(name: str) -> list[str]:
    path = Path(name)
    return [path.with_suffix(suffix).as_posix() for suffix in SIDECARS.get(path.suffix, ())]


def ground_keys(grids: Mapping[str, Grid], guard_m: float = 0.0) -> dict[str, str]:
    """Scene id -> the id of the first scene that it hangs together with through shared ground.

    Args:
        grids: scene id -> its grid; a scene without georeference is a group of its own.
        guard_m: scenes closer than this many metres belong together too.
    """
    ids = sorted(grids)
    outlines = np.full((len(ids), 4 * EDGE_POINTS, 2), np.nan)
    for at, scene in enumerate(ids):
        grid = grids[scene]
        if grid.transform is not None:
            outlines[at] = corners_lonlat(np.array(grid.transform), grid.height, grid.width, grid.crs, EDGE_POINTS)[0]
    group = np.arange(len(ids))
    known = np.flatnonzero(np.isfinite(outlines).all(axis=(1, 2)))
    if known.size:
        # one outline for all dates of a tile: their pairs would grow with the square of the dates
        places, at, place = np.unique(outlines[known], axis=0, return_index=True, return_inverse=True)
        group[known] = known[at[place.reshape(-1)]]
        for pairs, _ in near_blocks(places, places, guard_m):
            edges = np.concatenate([np.stack([np.arange(len(ids)), group], axis=1), known[at[pairs]]])
            group = connected_groups(len(ids), edges)
    return {scene: ids[first] for scene, first in zip(ids, group, strict=True)}


@contextmanager
def reasons(skipped: Sequence[SkippedScene]) -> Iterator[None]:
    """Say why scenes were skipped where those that are left are too few for the splits."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(error.what, hint="; ".join(s.reason for s in skipped[:3]) or None) from None


def make_plan(
    header: Header,
    folder: Path,
    parts: Iterable[tuple[str, str, Grid, str | None, tuple[SourceFile, ...], dict[str, Any]]],
    windows_of,
    skipped: Iterable[SkippedScene],
) -> Plan:
    """A plan of one job a scene, grouped into shards; the provenance cites what ``tidemark acquire`` wrote down.

    Args:
        header: the data set.
        folder: the source, which no digest depends on.
        parts: scene id, split, grid, date, sources and payload (JSON values) of every scene.
        windows_of: number of chips that a grid may give, which decides the grouping.
        skipped: scenes that cannot be used.
    """
    if (folder / ACQUIRED).is_file():
        from .acquire.ledger import provenance  # an HTTP client comes with it

        header = header.model_copy(update={"provenance": header.provenance + provenance(folder)})
    scenes, jobs, sizes = [], [], {}
    chip_bytes = sum(a.chip_bytes for a in header.arrays)
    for scene_id, split, grid, date, sources, payload in parts:
        scenes.append(
            Scene(id=scene_id, split=split, date=date, crs=grid.crs, bounds=wgs84_bounds(grid), sources=sources)
        )
        jobs.append(SceneJob(scene_id, split, payload | {"source": str(folder)}))
        sizes[scene_id] = windows_of(grid) * chip_bytes
    shards = tuple(group_shards(jobs, lambda job: sizes[job.id]))
    return Plan(header, tuple(scenes), shards, tuple(skipped))
