"""Maps of whole scenes: overlapping tiles, smooth blending, files to Cloud Optimized GeoTIFF in bounded memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .. import _compat  # noqa: F401
from ..datasets.spec import Band
from ..errors import InputError, WeightsError
from .inference import Inference, OrbitInference, numpy_inference
from .predictions import NODATA
from .pyramid import PaddedScene, Pyramid
from .scene_maps import probability_path, write_maps
from .scene_sources import SceneFiles, check_apart, open_scene
from .tiling import Tiling, blend_strips, inside, make_tiling
from .weights import Pretrained, from_pretrained

__all__ = ["SceneMap", "load_weights", "predict_scene", "probability_path"]

TILE_PX, PATCH_PX = 256, 64  # the chips and the patches of the data sets
# Pixels per step of the network, in tiles of 256 px.
BATCH = {"cpu": 4, "cuda": 32}

Weights = str | Path | Pretrained


class SceneMap(NamedTuple):
    """``class_map`` uint8 (H,W), 255 = nodata; ``probability`` float32 (H,W), NaN = nodata: of class 1 for a binary
    model, else of the most probable class."""

    class_map: np.ndarray
    probability: np.ndarray


def predict_scene(
    source: str | Path | Sequence[str | Path] | SceneFiles | np.ndarray,
    weights: Weights | Sequence[Weights],
    out: str | Path | None = None,
    *,
    overlap: float | None = None,
    tile: int | None = None,
    blend: str = "hann",
    probability: bool = True,
    polygons: str | Path | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    bands: Sequence[str] = (),
    despeckle: float | None = None,
) -> Path | SceneMap:
    """Map a scene with trained weights.

    Args:
        source: a GeoTIFF; two GeoTIFFs of Sentinel-1's orbits; a folder with the products of one ALOS granule; or an
            array (C,H,W) with the bands that the weights were trained on, in their order.
        weights: folder of weights (or of a run), Hugging Face repository, or what ``from_pretrained`` returned. If
            several, the first takes all bands, and a tile where it lacks data goes to another (see `OrbitInference`).
        out: class map to write: uint8 on the scene's grid, nodata 255, the classes' colours, as Cloud Optimized
            GeoTIFF. Needed for files.
        overlap: share of a tile that it has in common with its neighbours; by default a half, none for a patch
            classifier.
        tile: side of a tile in pixels, by default 256; for a patch classifier the side of its patches, by default 64.
        blend: ``hann``, ``crop`` or ``published``, see `make_tiling`.
        probability: also write ``<out>_probability.tif``: percent as uint8, nodata 255, of class 1 for a binary
            model, else of the most probable class.
        polygons: GeoPackage to write: class 1 of a binary map, else every class, as polygons.
        device: see ``find_device``.
        batch_size: tiles per step; by default as many pixels as 4 tiles of 256 px on a CPU, 32 on a GPU.
        bands: names of the GeoTIFF's bands, in its order, instead of its own descriptions.
        despeckle: of ALOS backscatter: weight of the smoothing that the weights' data set was built with.

    Returns:
        ``out``, or for an array a `SceneMap`.

    Raises:
        InputError: no such file, or numbers out of range.
        WeightsError: the scene has other bands or units than the weights.
        SceneError: the scene cannot be read.
        StorageError: the result cannot be written; what was there before stays.
    """
    pretrained, *others = loaded = load_weights(weights)
    patches = pretrained.task_kind == "classification"
    tile = tile if tile is not None else PATCH_PX if patches else TILE_PX
    overlap = overlap if overlap is not None else 0.0 if patches else 0.5
    if isinstance(source, np.ndarray):
        if out is not None or polygons is not None:
            raise InputError("an array has no grid to write files on", hint="leave out and polygons away")
        return _map_array(source, pretrained, others, overlap, tile, blend, device, batch_size)
    if out is None:
        raise InputError("no file to write to", where=source, hint="give out")
    check_apart(source, [Path(out), probability_path(out), *([Path(polygons)] if polygons else [])])
    if polygons is not None and Path(polygons).suffix.lower() != ".gpkg":
        raise InputError("polygons are written as GeoPackage", where=polygons, hint="let its name end in .gpkg")
    with open_scene(source, loaded, bands, despeckle) as scene:
        grid = scene.grid
        infer = _inference(pretrained, others, scene.bands, device)
        tiling = make_tiling(grid.height, grid.width, tile, overlap, blend)
        padded = PaddedScene(scene.read_rows, grid.height, grid.width, scene.bands)
        strips = _strips(tiling, padded, infer, batch_size, scene.name)
        polygons = None if polygons is None else Path(polygons)
        write_maps(Path(out), grid, strips, pretrained, probability=probability, polygons=polygons)
    return Path(out)


def load_weights(weights: Weights | Sequence[Weights]) -> list[Pretrained]:
    """Weights as ``predict_scene`` takes them, loaded."""
    given = [weights] if isinstance(weights, str | Path | Pretrained) else list(weights)
    return [w if isinstance(w, Pretrained) else from_pretrained(w) for w in given]


def _inference(pretrained: Pretrained, others: Sequence[Pretrained], bands: Sequence[Band], device: str):
    for other in others:
        if (other.spec.out_channels, other.classes) != (pretrained.spec.out_channels, pretrained.classes):
            raise WeightsError(f"weights of {other.name} with other classes than those of {pretrained.name}")
        if set(other.spec.in_channels) != set(pretrained.spec.in_channels):
            raise WeightsError(f"weights of {other.name} with other inputs than those of {pretrained.name}")
    models = [Inference(p, p.check_input(bands), device) for p in (pretrained, *others)]
    return OrbitInference(models) if others else models[0]


def _map_array(image, pretrained, others, overlap, tile, blend, device, batch_size) -> SceneMap:
    bands = pretrained.preprocess.bands
    if image.ndim != 3 or image.shape[0] != len(bands) or not image.size or image.dtype.kind not in "iuf":
        raise WeightsError(
            f"expected numbers (C,H,W) with the bands {', '.join(b.name for b in bands)}, found "
            f"{image.dtype} {image.shape}"
        )
    infer = _inference(pretrained, others, bands, device)
    tiling = make_tiling(*image.shape[1:], tile, overlap, blend)
    native = image.astype(image.dtype.newbyteorder("="), copy=False)
    scene = PaddedScene(lambda first, stop: native[:, first:stop], *image.shape[1:], bands)
    strips = _strips(tiling, scene, infer, batch_size, "scene")
    class_map = np.empty(image.shape[1:], np.uint8)
    probability = np.empty(image.shape[1:], np.float32)
    for first, classes, chances in strips:
        class_map[first : first + len(classes)], probability[first : first + len(classes)] = classes, chances
    return SceneMap(class_map, probability)


def _strips(tiling: Tiling, scene: PaddedScene, infer, batch_size, name: str) -> Iterator[tuple]:
    """(first row, class map uint8 (rows, width), probability float32 (rows, width)) from top to bottom."""
    from rich.progress import Progress

    predict = numpy_inference(infer, (tiling.height, tiling.width))
    if batch_size is None:
        batch_size = BATCH[infer.device.type] * max(1, TILE_PX**2 // (tiling.height * tiling.width))
    if batch_size < 1:
        raise InputError(f"needs a batch size above 0, found {batch_size}")
    margin, read_rows, context = tiling.margin, scene.read_rows, None
    if margin:

        def read_rows(first: int, stop: int) -> np.ndarray:
            return scene.read(first - margin, stop - margin, -margin, tiling.grid_width - margin)

    if infer.contexts:
        pyramid = Pyramid(scene, (tiling.height, tiling.width), infer.contexts, infer.context_method)

        def context(top: int, lefts: Sequence[int]) -> dict[str, np.ndarray]:
            return pyramid(top - margin, [left - margin for left in lefts])

    with Progress(transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(Path(name).name, total=len(tiling.tops))
        blended = blend_strips(tiling, read_rows, predict, batch_size, context)
        for first, probabilities, valid in inside(blended, margin, scene.height, scene.width):
            if len(probabilities) == 1:
                classes, chances = (probabilities[0] >= 0.5).astype(np.uint8), probabilities[0]
            else:
                classes, chances = probabilities.argmax(0).astype(np.uint8), probabilities.max(0)
            yield first, np.where(valid, classes, np.uint8(NODATA)), np.where(valid, chances, np.float32(np.nan))
            progress.advance(task)
