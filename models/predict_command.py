"""The command line's ``predict``: class maps of scenes, or reflectance of Landsat-8, by what the weights are for."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from .backends import Accelerated, with_backend
from .predict import load_weights, predict_scene
from .scene_batch import predict_scenes
from .scene_sources import GEOTIFFS

OTHER_FILES = (".png", ".jpg", ".jpeg", ".nc", ".gpkg", ".shp", ".vrt", ".h5")  # no names of folders


def predict_command(
    sources: Sequence[Path],
    weights: Sequence[str],
    out: Path | None,
    common: Mapping[str, Any],
    maps: Mapping[str, Any],
    landsat: Mapping[str, Any],
) -> list[Path]:
    """One scene to a file, or, where ``out`` does not end in .tif, every scene to a file in that folder.

    Args:
        sources: files and folders.
        weights: none with ``landsat["method"]``.
        out: file or folder; None: ``reflectance.tif`` or ``water.tif`` here.
        common: options of every kind; None: the kind's own default.
        maps, landsat: options of class maps and of reflectance; those of the other kind must not be given.

    Returns:
        The files, of a scene the first one.
    """
    loaded = load_weights(weights)
    if not loaded and landsat["method"] is None:
        raise InputError("no weights", hint="give --weights, or --method for Landsat-8")
    kinds = {w.task_kind == "regression" for w in loaded} or {True}
    if len(kinds) > 1:
        raise InputError("weights of reflectance and weights of classes do not go together")
    own, other, what = (landsat, maps, "Landsat-8") if True in kinds else (maps, landsat, "class maps")
    if foreign := [name for name, value in other.items() if value]:
        raise InputError(f"--{foreign[0].replace('_', '-')} is not for {what}")
    out = out or Path("reflectance.tif" if True in kinds else "water.tif")
    if not out.is_dir() and out.suffix.lower() in OTHER_FILES:
        raise InputError("maps are GeoTIFF", where=out, hint="let --out end in .tif, or name a folder")
    options = {name: value for name, value in (common | own).items() if value is not None}
    if True in kinds:
        from .predict_l8 import predict_landsat

        return predict_landsat(sources, out, weights=loaded, **options)
    runtime = {name: options.pop(name) for name in ("backend", "precision") if name in options}
    loaded = [with_backend(w, **runtime) for w in loaded]
    if out.is_dir() or out.suffix.lower() not in GEOTIFFS:
        paths = predict_scenes(sources, loaded, out, **options)
    elif len(sources) > 2:
        raise InputError(f"{len(sources)} sources for one file", where=out, hint="give a folder as --out")
    else:
        del options["strict"]
        paths = [predict_scene(sources[0] if len(sources) == 1 else sources, loaded, out, **options)]
    for model in (w.model for w in loaded if isinstance(w.model, Accelerated)):
        if model.agreement is not None:
            share = f"{model.agreement:.2%} of the first tiles' pixels have the same class as in torch fp32"
            print(f"{model.label}: {share}", file=sys.stderr)
    return paths
