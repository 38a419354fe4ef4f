"""``tidemark downstream``: simulates farmland, maps it by every row, trains the parcel networks, writes the tables."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..datasets.files import write_atomic
from ..datasets.l8_scene import find_scenes
from ..datasets.l8s2_products import group
from ..datasets.raster import open_raster
from ..datasets.s2_scene import Surface, read_sentinel2
from ..datasets.simulate.l8s2_series import PARCELS, simulate_location
from ..errors import InputError
from ..models.l8_models import open_model
from ..models.parcels import find_parcels, train_parcels
from ..models.predict_l8 import map_scene
from ..models.reflectance_cog import SCALE
from ..models.weights import from_pretrained
from .downstream import (
    ROWS,
    SENTINEL2,
    Location,
    Settings,
    as_json,
    as_markdown,
    parcel_counts,
    same_day_sums,
    score,
    series_sums,
)

TILES = (256, 0.25, "hann")


def downstream(out: Path, weights: Sequence[str], settings: Settings = Settings()) -> Path:
    """Make the tables.

    Args:
        out: folder for the simulated products (kept, and taken again), the maps and ``downstream.json`` and ``.md``.
        weights: of harmonization networks, ``LABEL=FOLDER``, or several folders joined by commas (an ensemble). Each
            gives a row of its own, and one with ``--consistent``.
        settings: what is simulated and trained.

    Returns:
        ``downstream.md``.
    """
    rows = {name: ((), name, False) for name in ROWS}
    for given in weights:
        label, equals, folders = given.partition("=")
        if not equals or not label or label in (*rows, SENTINEL2):
            raise InputError(f"--weights {given!r} is not LABEL=FOLDER with a label of its own")
        trained = [from_pretrained(folder) for folder in folders.split(",")]
        rows |= {label: (trained, None, False), f"{label}, consistent": (trained, None, True)}
    models = {row: (open_model(given, method), consistent) for row, (given, method, consistent) in rows.items()}
    facts = {"weights": {row: model.tags for row, (model, _) in models.items()}}

    networks = _parcel_networks(out, settings)
    tables: dict[str, dict[str, list]] = {"same_day": {}, "series": {}, "parcels": {}}
    for index in range(settings.train, settings.train + settings.test):
        location = read_location(_simulated(out, settings, index), out / "maps" / str(index), models)
        for row in (SENTINEL2, *models):
            images = location.s2 if row == SENTINEL2 else location.l8[row]
            if row != SENTINEL2:
                tables["same_day"].setdefault(row, []).append([same_day_sums(location, row)])
            tables["series"].setdefault(row, []).append([series_sums(location, row)])
            counts = [sum(parcel_counts(location.parcels, find_parcels(n, i)) for i in images) for n in networks]
            tables["parcels"].setdefault(row, []).append(counts)
        print(f"location {index - settings.train + 1} of {settings.test}", file=sys.stderr)
    sums = {t: {row: np.array(v).swapaxes(0, 1) for row, v in rows.items()} for t, rows in tables.items()}
    found = score(sums)
    write_atomic(out / "downstream.json", as_json(found, settings, facts))
    write_atomic(out / "downstream.md", as_markdown(found))
    return out / "downstream.md"


def _simulated(out: Path, settings: Settings, index: int) -> Path:
    """The products of a location, simulated where they are not there yet."""
    sensors = ("s2",) if index < settings.train else ("l8", "s2")
    name = f"seed{settings.seed}-{settings.size}px-{settings.dates}dates-{'-'.join(sensors)}-{index:02d}"
    folder = out / "products" / name
    if not (folder / "complete").is_file():
        simulate_location(folder, settings.seed, index, settings.size, settings.dates, sensors)
        write_atomic(folder / "complete", "")
    return folder


def _parcel_networks(out: Path, settings: Settings) -> list:
    images, masks = [], []
    for index in range(settings.train):
        folder = _simulated(out, settings, index)
        parcels = read_parcels(folder)
        for surface in read_series(folder):
            images.append(surface.image)
            masks.append(parcels)
    return [train_parcels(images, masks, seed, settings.steps) for seed in settings.seeds]


def read_series(folder: Path) -> Iterator[Surface]:
    """Sentinel-2 products of a folder in order of their dates."""
    scenes, _ = group(folder)
    for _, product in sorted(scenes.items(), key=lambda item: item[1]["date"]):
        yield read_sentinel2(folder, product)


def read_parcels(folder: Path) -> np.ndarray:
    """(H, W) uint8, 1 inside a parcel."""
    with open_raster(folder / PARCELS) as dataset:
        return dataset.read(1)


def read_location(folder: Path, maps: Path, models: Mapping) -> Location:
    """Sentinel-2, and Landsat mapped by every model to its grid and cut to its extent; the maps stay in ``maps``."""
    series = list(read_series(folder))
    grid = series[0].grid
    l8: dict[str, list[np.ndarray]] = {row: [] for row in models}
    for scene in sorted(find_scenes(folder), key=lambda scene: scene.date):
        for row, (model, consistent) in models.items():
            path = maps / row.replace(", ", "-") / f"{scene.id}_10m.tif"
            map_scene(scene, path, model, TILES, consistent=consistent)
            with open_raster(path) as dataset:
                left = round((grid.transform[2] - dataset.transform.c) / dataset.transform.a)
                top = round((grid.transform[5] - dataset.transform.f) / dataset.transform.e)
                rows, columns = slice(top, top + grid.height), slice(left, left + grid.width)
                l8[row].append(dataset.read()[:, rows, columns].astype(np.float32) * np.float32(SCALE))
    s2 = np.stack([surface.image for surface in series])
    return Location(s2, {row: np.stack(images) for row, images in l8.items()}, read_parcels(folder))
