"""Many scenes into one folder: each is mapped on its own, and those that fail are named."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import DeviceError, InputError, PartialResultError
from .predict import Weights, load_weights, predict_scene
from .scene_maps import probability_path
from .scene_sources import check_apart, find_scenes


def predict_scenes(
    sources: Sequence[str | Path],
    weights: Weights | Sequence[Weights],
    out: str | Path,
    *,
    polygons: str | Path | None = None,
    strict: bool = False,
    **options: Any,
) -> list[Path]:
    """Map every scene in files and folders.

    Args:
        sources: see ``find_scenes``.
        weights: see ``predict_scene``.
        out: folder for ``<scene>.tif`` and ``<scene>_probability.tif``; made where needed. Maps of scenes that fail
            are left as they were.
        polygons: folder for ``<scene>.gpkg``.
        strict: stop at the first scene that fails.
        options: of ``predict_scene``.

    Returns:
        The class maps.

    Raises:
        InputError: no scene could be mapped, or a result would replace a source or another result.
        PartialResultError: some could not.
        StorageError: the results cannot be written; later scenes are not tried.
        DeviceError: there is no such device, or it has too little memory.
    """
    loaded = load_weights(weights)
    scenes = find_scenes(sources, loaded)
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{len(scenes)} scenes need a folder, this is a file", where=folder)
    maps = [folder / f"{scene.id}.tif" for scene in scenes]
    for scene in scenes:
        check_apart(scene, [*maps, *map(probability_path, maps)])
    written, failed = [], []
    for scene, path in zip(scenes, maps, strict=True):
        drawn = None if polygons is None else Path(polygons) / f"{scene.id}.gpkg"
        try:
            written.append(predict_scene(scene, loaded, path, polygons=drawn, **options))
        except DeviceError:
            raise
        except InputError as error:
            if strict:
                raise
            failed.append(scene.id)
            print(f"tidemark: {scene.id}: {error}", file=sys.stderr)
    if failed and not written:
        raise InputError(f"none of {len(failed)} scenes could be mapped", hint="the lines above say why")
    if failed:
        raise PartialResultError(f"{len(written)} of {len(scenes)} scenes mapped; not {', '.join(failed[:20])}")
    return written
