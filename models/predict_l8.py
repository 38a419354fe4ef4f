"""Landsat-8 scenes as Sentinel-2 would see them: a folder to six bands at 10 m on its grid, in bounded memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from .. import _compat  # noqa: F401
from ..datasets import optical
from ..datasets.l8_scene import LandsatScene, OpenScene, scene_products, sentinel2_grid
from ..datasets.l8s2_header import BAND_NAMES
from ..errors import DeviceError, InputError, PartialResultError, WeightsError
from .device import enough_memory
from .harmonization.consistency import back_project
from .l8_models import Interpolation, Networks, open_model
from .l8_tiles import TileReader
from .reflectance_cog import Strip, beside, write_scene
from .scene_sources import check_apart
from .tiling import blend_strips, make_tiling
from .weights import Pretrained

TILE_PX, OVERLAP = 256, 0.25
BATCH = {"cpu": 1, "cuda": 16}


def predict_landsat(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    weights: Sequence[str | Path | Pretrained] = (),
    method: str | None = None,
    pan: str | Path | None = None,
    uncertainty: bool = False,
    consistent: bool = False,
    mask_clouds: bool = False,
    overlap: float | None = None,
    tile: int | None = None,
    blend: str = "hann",
    device: str = "auto",
    batch_size: int | None = None,
    strict: bool = False,
) -> list[Path]:
    """Bring Landsat-8 scenes to Sentinel-2's bands and grid.

    Args:
        folders: of Level-2 products (see ``datasets.l8_scene``), or what ``tidemark acquire`` wrote.
        out: GeoTIFF to write, or, without the suffix .tif, a folder for ``<product>_10m.tif`` of every scene. Six
            bands int16, reflectance * 10 000, nodata -32768. Beside it ``…_qa.tif``: QA_PIXEL of the Landsat pixel.
        weights: of a harmonization network; several are averaged (deep ensemble).
        method: instead of weights ``nearest``, ``bilinear`` or ``bicubic``.
        pan: folder of the Level-1 products, where they do not lie there or beside.
        uncertainty: also write ``…_sigma.tif``: standard deviation of each band, stored alike.
        consistent: hold the Landsat pixels' means, see ``harmonization.consistency``.
        mask_clouds: no data where QA_PIXEL says (dilated) cloud, cirrus or shadow.
        overlap, tile, blend: see ``make_tiling``, in pixels of 10 m; 0.25 of 256 by default; ``hann`` or ``crop``.
        device: see ``find_device``.
        batch_size: tiles per step.
        strict: stop at the first scene that cannot be used.

    Returns:
        The reflectance files.

    Raises:
        InputError, SceneError, WeightsError, DeviceError: nothing could be mapped.
        PartialResultError: some scenes could not be used (named); the others are written.
        StorageError: a result cannot be written; what was there before stays.
    """
    out = Path(out)
    if blend == "published":
        raise InputError("the published tiles are for class maps", where="--blend", hint="take hann or crop")
    if not folders:
        raise InputError("no folder of Landsat-8 products given")
    model = open_model(weights, method, uncertainty, device)
    tiles = TILE_PX if tile is None else tile, OVERLAP if overlap is None else overlap, blend
    make_tiling(1, 1, *tiles)  # bad numbers end here, not scene by scene
    options = {"consistent": consistent, "mask_clouds": mask_clouds, "batch_size": batch_size}
    scenes = list(scene_products(folders, pan))
    single = out.suffix.lower() in (".tif", ".tiff")
    if single and len(scenes) > 1:
        raise InputError(f"{len(scenes)} scenes for one file", where=out, hint="name a folder to write to")
    done, failed = [], []
    for scene in scenes:
        try:
            if isinstance(scene, InputError):
                raise scene
            target = out if single else out / f"{scene.id}_10m.tif"
            map_scene(scene, target, model, tiles, **options)
            done.append(target)
        except (DeviceError, WeightsError):  # no other scene would fare better
            raise
        except InputError as error:
            if strict or len(scenes) == 1:
                raise
            failed.append(str(error))
    if failed and not done:
        raise InputError(f"none of {len(scenes)} scenes could be mapped: {'; '.join(failed)}")
    if failed:
        raise PartialResultError(f"{len(done)} of {len(scenes)} scenes mapped; not {'; '.join(failed)}")
    return done


def map_scene(
    scene: LandsatScene,
    out: Path,
    model: Interpolation | Networks,
    tiles: tuple[int, float, str],
    *,
    consistent: bool = False,
    mask_clouds: bool = False,
    batch_size: int | None = None,
) -> None:
    """Map one scene to ``out``; ``tiles`` are side, overlap and blend of ``make_tiling``."""
    files = [*(path for path, _ in scene.bands.values()), *scene.pan.values()]
    check_apart(files, [out, beside(out, "qa"), beside(out, "sigma")])
    with OpenScene(scene, model.with_pan) as opened:
        grid, own = sentinel2_grid(opened.grid, scene.id)
        tiling = make_tiling(grid.height, grid.width, *tiles)
        strips = _strips(TileReader(opened, own, tiling), model, consistent, mask_clouds, batch_size)
        tags = model.tags | {
            "TIDEMARK_SOURCE": scene.id,
            "TIDEMARK_DATE": f"{scene.date[:4]}-{scene.date[4:6]}-{scene.date[6:]}",
            "TIDEMARK_CONSISTENT": "YES" if consistent else "NO",
        }
        write_scene(out, grid, strips, tags, model.with_sigma)


def _strips(
    reader: TileReader, model: Interpolation | Networks, consistent: bool, mask_clouds: bool, batch_size: int | None
) -> Iterator[Strip]:
    from rich.progress import Progress

    batch_size = BATCH[model.device.type] if batch_size is None else batch_size
    if batch_size < 1:
        raise InputError(f"needs a batch size above 0, found {batch_size}")
    tiling, bands = reader.tiling, len(BAND_NAMES)
    size = (tiling.height, tiling.width)

    def predict(valid: np.ndarray, **inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = np.zeros((len(valid), bands * (1 + model.with_sigma), *size), np.float32)
        some = valid[:, 0].any((1, 2))
        if some.any():
            found[some] = _predict(model, {key: values[some] for key, values in inputs.items()}, size, consistent)
        return found, valid[:, 0]

    with Progress(transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(reader.scene.scene.id, total=len(tiling.tops))
        strips = blend_strips(tiling, lambda a, b: reader.valid(a, b)[None], predict, batch_size, reader.tiles)
        for first, values, valid in strips:
            quality = reader.quality(first, first + len(valid))
            if mask_clouds:
                valid = valid & optical.l8_usable(quality)
            yield Strip(values[:bands], values[bands:] if model.with_sigma else None, valid, quality)
            progress.advance(task)


@torch.inference_mode()
def _predict(
    model: Interpolation | Networks, inputs: dict[str, np.ndarray], size: tuple[int, int], hold: bool
) -> np.ndarray:
    with enough_memory("take a smaller batch size or smaller tiles"):
        given = {key: torch.from_numpy(values).to(model.device) for key, values in inputs.items()}
        image, grid = given["image"], given["grid_image"]
        mean, sigma = model(image, given.get("pan"), grid, given.get("grid_pan"), size)
        if hold:
            mean = back_project(mean, image, grid)
        found = mean if sigma is None else torch.cat([mean, sigma], 1)
    if not torch.isfinite(found).all():
        raise WeightsError("the model returns values that are not finite", hint="its weights or numbers overflow")
    return found.float().cpu().numpy()
