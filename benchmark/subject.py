"""What ``tidemark bench`` measures: a model with its weights, the reference model, and the data they are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from pyproj import Geod
from rasterio.transform import from_origin

from ..datasets.build import build
from ..datasets.context import context_scale
from ..datasets.footprints import corners_lonlat
from ..datasets.l8s2_header import header as l8s2_header
from ..datasets.pairs import PAN, pair_arrays
from ..datasets.raster import open_raster
from ..datasets.reader import open_split
from ..datasets.spec import Band, ClassDef, Header, load_manifest
from ..datasets.transforms import Preprocess
from ..errors import InputError
from ..models.fetch import find_weights
from ..models.harmonization.meaning import Meaning
from ..models.registry import ModelSpec, create_model, find_model
from ..models.runs import RUN_NAME, read_run
from ..models.weights import Pretrained, from_pretrained, save_pretrained
from . import synthetic, synthetic_pairs
from .pair_inputs import REFERENCE

CLASSES = (
    ClassDef(id=0, name="not water", color="#d9cfa6"),
    ClassDef(id=1, name="water", color="#1f6fb4"),
    ClassDef(id=2, name="ice", color="#e8eef2"),
)
PIXEL_M = 10.0  # of the synthetic scene, as Sentinel-1 GRD and Sentinel-2


@dataclass(frozen=True)
class Subject:
    """A model with weights in a folder; ``weights_sha256`` is None for random ones, ``data`` None where it has none."""

    name: str
    arguments: dict[str, Any]
    folder: Path
    weights_sha256: str | None
    data: Path | None
    pretrained: Pretrained


def find_subject(
    target: str, room: Path, *, channels: int, arguments: Mapping[str, Any], data: Path | None = None
) -> Subject:
    """A run folder, a folder of weights, a Hugging Face repository, or a registered name (random weights).

    Args:
        target: what the user gave.
        room: a folder for random weights.
        channels: bands of the input, for a registered name of classes; one of reflectance has the bands of l8s2.
        arguments: of the model, for a registered name.
        data: version folder of a data set; None: where a run says.

    Raises:
        ConfigError: an unknown name (with the nearest one) or argument, or a trivial row.
        InputError: arguments beside weights, or a data set of another task or without a panchromatic band.
        WeightsError: the weights there cannot be loaded.
    """
    path = Path(target)
    if path.exists() or "/" in target:
        if arguments:
            raise InputError("weights have their arguments already", where=target, hint="leave --arg away")
        pretrained = from_pretrained(target)
        if data is None and (path / RUN_NAME).exists():
            folder = read_run(path).dataset.folder
            data = folder if folder.is_dir() else None
        folder = find_weights(target, None)
        return Subject(pretrained.name, pretrained.args, folder, pretrained.weights_sha256, data, pretrained)
    tasks, preprocess, classes = find_model(target).tasks, synthetic_preprocess(channels), None
    task, manifest = tasks[0], None if data is None else load_manifest(data)
    if manifest is not None:
        task, classes = manifest.task.kind, manifest.task.classes
        if task not in tasks:
            raise InputError(f"{target} is for {' or '.join(tasks)}, {manifest.name} is a {task}", where=data)
    if task == "regression":
        folder = random_pair_weights(target, arguments, room, manifest or l8s2_header({}, "by-tile", simulated=True))
    else:
        if manifest is not None:
            preprocess = Preprocess.from_manifest(manifest, normalization="per_chip")
        folder = random_weights(target, arguments, preprocess, room, task, classes)
    return Subject(target, dict(arguments), folder, None, data, from_pretrained(folder))


def synthetic_preprocess(channels: int) -> Preprocess:
    """Normalisation of `synthetic`'s chips."""
    bands = synthetic.declared_bands(channels)
    mean, std = synthetic.MEAN_COUNTS, synthetic.STD_COUNTS
    return Preprocess(bands, normalization="manifest", mean=[mean] * channels, std=[std] * channels)


def random_weights(
    name: str,
    arguments: Mapping[str, Any],
    preprocess: Preprocess,
    room: Path,
    task: str = "segmentation",
    classes: Sequence[ClassDef] | None = None,
) -> Path:
    """Save a fresh model of a registered name, seed 0; without ``classes`` for two of pixels, or three of patches."""
    classes = classes or (CLASSES[:2] if task == "segmentation" else CLASSES)
    inputs = dict.fromkeys(find_model(name).inputs, preprocess.channels)
    spec = ModelSpec(inputs, 1 if task == "segmentation" and len(classes) == 2 else len(classes))
    return _save_random(name, arguments, spec, preprocess, room, task, classes)


def random_pair_weights(name: str, arguments: Mapping[str, Any], room: Path, stated: Header) -> Path:
    """Save a fresh harmonization network, seed 0, for the bands of a data set of pairs.

    Raises:
        InputError: the data set has no panchromatic band, or is none of pairs.
    """
    image, target, pan = pair_arrays(stated)
    if pan is None:
        raise InputError(f"{name} needs the input {PAN!r}, {stated.name} has none")
    inputs = {key: Preprocess(array.bands, normalization="none") for key, array in (("image", image), (PAN, pan))}
    spec = ModelSpec({key: preprocess.channels for key, preprocess in inputs.items()}, len(target.bands))
    residual = bool(arguments.get("residual", False))
    meaning = Meaning(pan=inputs[PAN].to_config(), target=target.bands, loss="not trained", residual=residual)
    return _save_random(name, arguments, spec, inputs["image"], room, task="regression", harmonization=meaning)


def _save_random(
    name: str,
    arguments: Mapping[str, Any],
    spec: ModelSpec,
    preprocess: Preprocess,
    room: Path,
    task: str,
    classes: Sequence[ClassDef] = (),
    harmonization: Meaning | None = None,
) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = create_model(name, spec, **arguments)
    folder = room / f"random-{name}"
    save_pretrained(
        model,
        folder,
        name=name,
        spec=spec,
        args=arguments,
        preprocess_config=preprocess.to_config(),
        classes=classes,
        card={"task_kind": task},
        harmonization=harmonization,
    )
    return folder


def reference_for(subject: Subject, room: Path) -> Path:
    """Weights of the reference model for the same input; of reflectance the subject's own (``ReferenceOnPairs``)."""
    name, arguments = REFERENCE
    if subject.pretrained.task_kind == "regression":
        return subject.folder
    return random_weights(name, arguments, subject.pretrained.preprocess, room / "reference")


def synthetic_dataset(subject: Subject, room: Path, *, chips: int, size: int) -> Path:
    """A data set with the input of random weights: the split is ``train``; ``size`` is the side of map or image."""
    if subject.pretrained.task_kind == "regression":
        return build(synthetic_pairs.plan(chips=chips, size=size), synthetic_pairs.__name__, room / "data")
    contexts = tuple(name for name in subject.pretrained.spec.in_channels if context_scale(name))
    channels = subject.pretrained.preprocess.channels
    plan = synthetic.plan(chips=chips, bands=channels, size=size, contexts=contexts)
    return build(plan, synthetic.__name__, room / "data")


def synthetic_scene(bands: Sequence[Band], path: Path, side: int) -> Path:
    """A GeoTIFF of ``side`` x ``side`` pixels of 10 m with these bands."""
    profile = {"driver": "GTiff", "width": side, "height": side, "count": len(bands), "dtype": "uint16"}
    grid = {"crs": "EPSG:32633", "transform": from_origin(500_000, 7_800_000, PIXEL_M, PIXEL_M)}
    image = synthetic.synthetic_chip(0, len(bands), side)["image"]
    with rasterio.open(path, "w", **profile, **grid, tiled=True, compress="deflate") as file:
        file.write(image)
        for number, band in enumerate(bands, 1):
            file.set_band_description(number, band.name)
            file.set_band_unit(number, band.unit)
    return path


def chip_km2(folder: Path, split: str) -> float | None:
    """Mean ground area of a split's chips in km², on the WGS84 ellipsoid; None where a chip's place is not known."""
    manifest, shards = open_split(folder, split)
    grid = next((a for a in manifest.arrays if a.role in ("mask", "target")), None)
    grid = grid or next(a for a in manifest.arrays if a.role == "image")
    areas = []
    for shard in shards:
        for number in np.unique(shard.scene_index).tolist():
            rows = shard.transform[shard.scene_index == number]
            areas.append(_areas_km2(corners_lonlat(rows, *grid.shape[-2:], manifest.scenes[number].crs)))
    mean = float(np.mean(np.concatenate(areas)))
    return mean if np.isfinite(mean) else None


def scene_km2(path: Path) -> float | None:
    """Ground area of a GeoTIFF in km²; None without CRS."""
    with open_raster(path) as scene:
        if scene.crs is None:
            return None
        corners = corners_lonlat(np.array(scene.transform[:6]), scene.height, scene.width, scene.crs.to_wkt())
    area = float(_areas_km2(corners)[0])
    return area if np.isfinite(area) else None


def _areas_km2(corners: np.ndarray) -> np.ndarray:
    geod = Geod(ellps="WGS84")
    return np.array([abs(geod.polygon_area_perimeter(*quad.T)[0]) / 1e6 for quad in corners])
