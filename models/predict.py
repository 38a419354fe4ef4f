"""Maps of whole scenes: overlapping tiles, smooth blending, GeoTIFF to GeoTIFF in bounded memory."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader, DatasetWriter
from rasterio.windows import Window

from .. import _compat  # noqa: F401
from ..datasets.files import atomic_path
from ..datasets.raster import grid_of, open_raster, read_window
from ..datasets.spec import Band
from ..errors import InputError, StorageError, WeightsError
from .inference import Inference, OrbitInference, numpy_inference
from .predictions import NODATA
from .pyramid import PaddedScene, Pyramid
from .tiling import Tiling, blend_strips, in_blocks, inside, make_tiling
from .weights import Pretrained, from_pretrained

BLOCK_PX = 256
BATCH = {"cpu": 4, "cuda": 32}
PERCENT = 100


class SceneMap(NamedTuple):
    """``class_map`` uint8 (H,W), 255 = nodata; ``probability`` float32 (H,W), NaN = nodata: of class 1 for a binary
    model, else of the most probable class."""

    class_map: np.ndarray
    probability: np.ndarray


def predict_scene(
    source: str | Path | np.ndarray,
    weights: str | Path | Pretrained | Sequence[str | Path | Pretrained],
    out: str | Path | None = None,
    *,
    overlap: float = 0.5,
    tile: int = 256,
    blend: str = "hann",
    probability: bool = True,
    polygons: str | Path | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    bands: Sequence[str] = (),
) -> Path | SceneMap:
    """Map a scene with trained weights.

    Args:
        source: a GeoTIFF, or an array (C,H,W) with the bands that the weights were trained on, in their order.
        weights: folder of weights (or of a run), Hugging Face repository, or what ``from_pretrained`` returned. If
            several, the first takes all bands, and a tile where it lacks data goes to another (see `OrbitInference`).
        out: class map to write: uint8 on the scene's grid, nodata 255, the classes' colours. Needed for a GeoTIFF.
        overlap: share of a tile that it has in common with its neighbours.
        tile: side of a tile in pixels. For a patch classifier give the side of its patches.
        blend: ``hann``, ``crop`` or ``published``, see `make_tiling`.
        probability: also write ``<out>_probability.tif``: percent as uint8, nodata 255, of class 1 for a binary
            model, else of the most probable class.
        polygons: GeoPackage to write: class 1 of a binary map, else every class, as polygons.
        device: see ``find_device``.
        batch_size: tiles per step; by default 4 on a CPU, 32 on a GPU.
        bands: names of the GeoTIFF's bands, in its order, instead of its own descriptions.

    Returns:
        ``out``, or for an array a `SceneMap`.

    Raises:
        InputError: no GeoTIFF or numbers out of range.
        WeightsError: the scene has other bands or units than the weights.
        SceneError: the GeoTIFF cannot be read.
        StorageError: the result cannot be written; what was there before stays.
    """
    given = [weights] if isinstance(weights, str | Path | Pretrained) else list(weights)
    pretrained, *others = (w if isinstance(w, Pretrained) else from_pretrained(w) for w in given)
    if isinstance(source, np.ndarray):
        if out is not None or polygons is not None:
            raise InputError("an array has no grid to write files on", hint="leave out and polygons away")
        return _map_array(source, pretrained, others, overlap, tile, blend, device, batch_size)
    if out is None:
        raise InputError("no file to write to", where=source, hint="give out")
    out = Path(out)
    with open_raster(source) as scene, ExitStack() as stack:
        found, indexes = scene_bands(scene, pretrained, bands)
        infer = _inference(pretrained, others, found, device)
        tiling = make_tiling(scene.height, scene.width, tile, overlap, blend)

        def read_rows(first: int, stop: int) -> np.ndarray:
            return read_window(scene, (first, 0, stop - first, scene.width), indexes)

        strips = _strips(
            tiling, PaddedScene(read_rows, scene.height, scene.width, found), infer, batch_size, str(source)
        )
        paths = {"class": out} | ({"probability": probability_path(out)} if probability else {})
        # The context managers nest: files take their places only after all of them are complete.
        temporary = {key: stack.enter_context(atomic_path(path)) for key, path in paths.items()}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                _write(temporary, scene, strips, pretrained)
        except RasterioError as error:
            raise StorageError(f"cannot write ({error})", where=out, hint="is the disk full?") from error
        if polygons is not None:
            from .vector import write_polygons

            write_polygons(temporary["class"], stack.enter_context(atomic_path(polygons)), pretrained.classes)
    return out


def probability_path(out: str | Path) -> Path:
    """Where the probability of the class map ``out`` lies."""
    out = Path(out)
    return out.with_name(f"{out.stem}_probability{out.suffix or '.tif'}")


def scene_bands(
    scene: DatasetReader, pretrained: Pretrained, names: Sequence[str] = ()
) -> tuple[list[Band], list[int]]:
    """Which bands of a GeoTIFF the weights need, as manifest bands, and their numbers counted from 1.

    Bands with descriptions (or ``names`` in their place, one per band) are found by name. Without descriptions the
    file must have exactly the bands of the training data, in that order. The file's nodata, scale and offset count;
    where it states no scale, integers are taken as stored in the training data and floats as physical values. A unit
    that the file states must be the right one; a file without units cannot be checked.

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
    elif scene.count == len(trained):
        numbers = {name: number for number, name in enumerate(trained, 1)}
    else:
        raise WeightsError(
            f"expected {len(trained)} bands ({expected}), found {scene.count} without descriptions",
            where=scene.name,
            hint="describe the bands, e.g. with gdal_edit or rasterio",
        )
    used = [trained[name] for name, number in numbers.items() if number is not None]
    bands = []
    for band in used:
        number = numbers[band.name]
        unit = scene.units[number - 1] or band.unit
        if unit.casefold() != band.unit.casefold():
            raise WeightsError(f"band {band.name!r}: expected unit {band.unit!r}, found {unit!r}", where=scene.name)
        bands.append(_stored_band(scene, number, band))
    try:
        pretrained.check_input(bands)
    except WeightsError as error:
        names = ", ".join(text or "?" for text in described)
        raise WeightsError(f"expected bands {expected}, found {names} ({error.what})", where=scene.name) from None
    return bands, [numbers[band.name] for band in used]


def _stored_band(scene: DatasetReader, number: int, trained: Band) -> Band:
    scale, offset, nodata = scene.scales[number - 1], scene.offsets[number - 1], scene.nodatavals[number - 1]
    stated = (scale, offset) != (1.0, 0.0)
    physical = not stated and np.dtype(scene.dtypes[number - 1]).kind == "f"
    if stated or physical:
        changes = {"scale": scale, "offset": offset}
        if (scale, offset) != (trained.scale, trained.offset):
            changes["nodata"] = None  # the training data's value is one of another scale
    else:
        changes = {}
    if nodata is not None:
        changes["nodata"] = float(nodata) if np.isfinite(nodata) else None  # NaN is never valid anyway
    return trained.model_copy(update=changes)


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
    batch_size = BATCH[infer.device.type] if batch_size is None else batch_size
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


def _write(paths: dict[str, Path], scene: DatasetReader, strips: Iterator[tuple], pretrained: Pretrained) -> None:
    grid = grid_of(scene)
    profile = {
        "driver": "GTiff",
        "height": grid.height,
        "width": grid.width,
        "count": 1,
        "dtype": "uint8",
        "nodata": NODATA,
        "crs": scene.crs,
        "tiled": True,
        "blockxsize": BLOCK_PX,
        "blockysize": BLOCK_PX,
        "compress": "deflate",
        "bigtiff": "IF_SAFER",
    }
    if grid.transform is not None:
        profile["transform"] = scene.transform
    with ExitStack() as stack:
        files: dict[str, DatasetWriter] = {
            key: stack.enter_context(
                rasterio.open(path, "w", **profile, **({"photometric": "palette"} if key == "class" else {}))
            )
            for key, path in paths.items()
        }
        _describe(files, pretrained)
        for first, (classes, chances) in in_blocks(((c, p) for _, c, p in strips), BLOCK_PX):
            window = Window(0, first, grid.width, len(classes))
            files["class"].write(classes, 1, window=window)
            if "probability" in files:
                percent = np.full(chances.shape, NODATA, np.uint8)
                known = classes != NODATA
                percent[known] = np.round(PERCENT * chances[known])
                files["probability"].write(percent, 1, window=window)
    factors = [2**k for k in range(1, 12) if max(grid.height, grid.width) // 2 ** (k - 1) > BLOCK_PX]
    for key, path in paths.items():
        if factors:
            with rasterio.open(path, "r+", driver="GTiff") as file:
                file.build_overviews(factors, rasterio.enums.Resampling[{"class": "mode"}.get(key, "average")])


def _describe(files: dict[str, DatasetWriter], pretrained: Pretrained) -> None:
    colors = {c["id"]: tuple(int(c["color"][i : i + 2], 16) for i in (1, 3, 5)) + (255,) for c in pretrained.classes}
    files["class"].write_colormap(1, {**colors, NODATA: (0, 0, 0, 0)})
    names = ", ".join(f"{c['id']} = {c['name']}" for c in pretrained.classes)
    files["class"].set_band_description(1, f"class: {names}")
    tags = {"TIDEMARK_MODEL": pretrained.name, "TIDEMARK_WEIGHTS_SHA256": pretrained.weights_sha256}
    for file in files.values():
        file.update_tags(**tags)
    if "probability" in files:
        binary = pretrained.spec.out_channels == 1
        what = pretrained.classes[1]["name"] if binary else "the most probable class"
        files["probability"].set_band_description(1, f"probability of {what}, percent")
        files["probability"].set_band_unit(1, "%")
