"""Simulated scenes as files: GeoTIFF, GeoPackage and a build specification beside them."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ... import __version__
from ...errors import InputError
from ..files import write_atomic
from .backscatter import LOOKS_IW_GRDH
from .scenes import COARSE, MAX_SIZE_PX, NODATA, SceneInfo, simulate_scene

NOTICE = "SIMULATED scene, not an observation"
MAX_SCENES = 600
CHIP_SIZE = 256
NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


def simulate_scenes(
    out: Path,
    scenes: int,
    size: int,
    seed: int,
    looks: float = LOOKS_IW_GRDH,
    progress: Callable[[int, int], None] | None = None,
    *,
    name: str = "s1-water-simulated",
    val: int | None = None,
    test: int | None = None,
) -> list[Path]:
    """Write simulated scenes with their truth, and ``spec.yaml`` that makes a data set of them.

    The same arguments give the same bytes, and a scene does not depend on how many others there are.

    Args:
        out: folder for ``S1SIM_<id>_<date>.tif`` (VV and VH in dB, float32, 0 = no data), ``<id>_water.gpkg`` (water
            polygons in the scene's CRS), ``scenes.json`` (what each scene was made of) and ``spec.yaml``.
        scenes: how many.
        size: side of a scene in pixels of 10 m, a multiple of 4.
        seed: every draw derives from it.
        looks: equivalent number of looks of the speckle.
        progress: called with scenes done and scenes in all.
        name: of the data set in ``spec.yaml``.
        val, test: scenes of these splits, the last ones; by default about a fifth each, at least one.

    Returns:
        The GeoTIFF files.

    Raises:
        InputError: a number outside its range.
        StorageError: the folder is not writable or full.
    """
    if not 1 <= scenes <= MAX_SCENES:
        raise InputError(f"scenes must be 1 to {MAX_SCENES}, found {scenes}")
    if not 64 <= size <= MAX_SIZE_PX or size % COARSE:
        raise InputError(f"size must be 64 to {MAX_SIZE_PX} and a multiple of {COARSE}, found {size}")
    if not 0.5 <= looks <= 1000 or seed < 0:
        raise InputError(f"looks must be 0.5 to 1000 and the seed not negative, found {looks} and {seed}")
    if not NAME.fullmatch(name):
        raise InputError(f"a data set's name has small letters, digits, '.', '_' and '-', found {name!r}")
    fifth = max(1, round(scenes / 5))
    test = min(fifth, scenes - 1) if test is None else test
    val = max(0, min(fifth, scenes - 1 - test)) if val is None else val
    if val + test >= scenes or min(val, test) < 0:
        raise InputError(f"{val} of {scenes} scenes for val and {test} for test leave none to train on")
    paths, infos = [], []
    for index in range(scenes):
        image, water, info = simulate_scene(seed, index, size, looks)
        path = Path(out) / f"S1SIM_{info.id}_{info.date}.tif"
        write_atomic(path, _geotiff(image, info, seed))
        write_atomic(Path(out) / f"{info.id}_water.gpkg", _water_polygons(water, info))
        paths.append(path)
        infos.append(info)
        if progress is not None:
            progress(index + 1, scenes)
    listing = {"notice": NOTICE, "tidemark": __version__, "seed": seed, "scenes": [i.as_json() for i in infos]}
    write_atomic(Path(out) / "scenes.json", json.dumps(listing, indent=1) + "\n")
    splits = split_lists([info.id for info in infos], val, test)
    write_atomic(Path(out) / "spec.yaml", specification(infos, seed, splits, name))
    return paths


def _geotiff(image: np.ndarray, info: SceneInfo, seed: int) -> bytes:
    import rasterio

    profile = {
        "driver": "GTiff", "count": 2, "height": info.size, "width": info.size, "dtype": "float32", "nodata": NODATA,
        "crs": f"EPSG:{info.epsg}", "transform": rasterio.Affine(*info.transform), "tiled": True, "blockxsize": 256,
        "blockysize": 256, "compress": "deflate", "predictor": 3, "zlevel": 6,
    }  # fmt: skip
    with rasterio.MemoryFile() as memory:
        with memory.open(**profile) as dataset:
            dataset.write(image)
            dataset.descriptions = ("VV", "VH")
            dataset.update_tags(
                TIFFTAG_IMAGEDESCRIPTION=f"{NOTICE} (tidemark {__version__}, seed {seed})", SIMULATED="YES",
                ACQUISITION_DATE=info.date, ORBIT_PASS=info.orbit, NEAR_INCIDENCE_DEG=info.incidence_deg,
                EQUIVALENT_LOOKS=info.looks, NOISE_FLOOR_DB=info.noise_floor_db, UNIT="dB",
            )  # fmt: skip
        return bytes(memory.getbuffer())


def _water_polygons(water: np.ndarray, info: SceneInfo) -> bytes:
    """GeoPackage with the layer ``water``; polygons follow the pixel edges, so rasterising them gives the truth."""
    import geopandas
    import pyogrio
    import rasterio
    import shapely
    from rasterio import features

    found = features.shapes(water.astype(np.uint8), mask=water, transform=rasterio.Affine(*info.transform))
    geometries = [shapely.geometry.shape(geometry) for geometry, _ in found]
    frame = geopandas.GeoDataFrame({"kind": ["water"] * len(geometries)}, geometry=geometries, crs=f"EPSG:{info.epsg}")
    buffer = io.BytesIO()
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": f"{info.date}T00:00:00.000Z"})  # else the bytes hold the time
    try:
        frame.to_file(buffer, driver="GPKG", layer="water", geometry_type="Polygon")
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})
    return buffer.getvalue()


def split_lists(ids: list[str], val: int, test: int) -> dict[str, list[str]]:
    """Training, validation and test scenes, in this order."""
    first = len(ids) - val - test
    return {"train": ids[:first], "val": ids[first : first + val], "test": ids[first + val :]}


def specification(infos: list[SceneInfo], seed: int, lists: dict[str, list[str]], name: str) -> str:
    """The text of ``spec.yaml`` for these scenes."""
    first = infos[0]
    title = "Simulated Sentinel-1 water" + (f", {first.looks:g} looks" if first.looks != LOOKS_IW_GRDH else "")
    splits = "\n".join(f"    {split}: [{', '.join(json.dumps(i) for i in ids)}]" for split, ids in lists.items() if ids)
    return f"""\
# Build it with: tidemark build custom --spec spec.yaml
name: {name}
version: 1.0.0
title: {title}
description: >-
  SIMULATED scenes, no observations: fractal terrain with lakes and rivers, backscatter by land cover and incidence
  angle, gamma speckle, wind-roughened water, dark sand and radar shadow. Splits are whole scenes, far from each other.
licence: CC0-1.0
provenance: >-
  tidemark {__version__}, simulate_scenes(scenes={len(infos)}, size={first.size}, seed={seed}, looks={first.looks}).
known_label_defects: >-
  None: the truth is what was simulated. Shore pixels are mixed, as in real products, and labelled by the truth at
  their centre.
simulated: true
images:
  pattern: "S1SIM_{{id}}_{{date}}.tif"
  format: GTiff
  dtype: float32
bands:
  - {{name: VV, sensor: Sentinel-1 (simulated), unit: dB, nodata: {NODATA}}}
  - {{name: VH, sensor: Sentinel-1 (simulated), unit: dB, nodata: {NODATA}}}
classes:
  - {{name: not water, color: "#d9cfa6"}}
  - {{name: water, color: "#1f6fb4"}}
labels:
  kind: polygons
  pattern: "{{id}}_water.gpkg"
  inside: water
  outside: not water
chips:
  size: {CHIP_SIZE if first.size >= CHIP_SIZE else 64}
  min_valid_share: 0.1
splits:
  scenes:
{splits}
"""
