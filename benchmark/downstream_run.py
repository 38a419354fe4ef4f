"""``tidemark downstream``: simulates farmland, maps it by every row, trains the parcel networks, writes the tables."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ..datasets.files import write_atomic
from ..datasets.l8_scene import find_scenes
from ..datasets.l8s2_products import group
from ..datasets.raster import open_raster, read_window
from ..datasets.s2_scene import Surface, read_sentinel2
from ..datasets.simulate.l8s2_series import PARCELS, simulate_location
from ..errors import InputError
from ..models.l8_models import open_model
from ..models.parcels import ParcelNet, empty_parcel_net, find_parcels, train_parcels
from ..models.predict_l8 import map_scene
from ..models.reflectance_cog import NODATA, SCALE
from ..models.weights import from_pretrained, load_weights, save_tensors
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
    networks = _parcel_networks(out, settings)
    models = {row: (open_model(given, method), consistent) for row, (given, method, consistent) in rows.items()}
    tables: dict[str, dict[str, np.ndarray]] = {"same_day": {}, "series": {}, "parcels": {}}
    for row in (SENTINEL2, *models):
        for table, sums in _sums(out, settings, row, models.get(row), networks).items():
            tables[table][row] = np.array(sums).swapaxes(0, 1)  # seeds first
    found = score(tables)
    facts = {"weights": {row: model.tags for row, (model, _) in models.items()}}
    write_atomic(out / "downstream.json", as_json(found, settings, facts))
    write_atomic(out / "downstream.md", as_markdown(found))
    return out / "downstream.md"


def _sums(out: Path, settings: Settings, row: str, model: tuple | None, networks: Sequence) -> dict[str, list]:
    """What ``score`` needs of one row: by table (U, S, K); taken from an earlier run of the same where there is one."""
    stated = {"settings": asdict(settings), "row": model and [model[0].tags, model[1]]}
    file = out / "sums" / f"{_digest(stated)}.json"
    if file.is_file():
        return json.loads(file.read_text())
    tables: dict[str, list] = {"series": [], "parcels": []} | ({"same_day": []} if model else {})
    for index in range(settings.train, settings.train + settings.test):
        folder = _simulated(out, settings, index)
        location = read_location(folder, out / "maps" / file.stem / str(index), {row: model} if model else {})
        images = location.l8[row] if model else location.s2
        if model:
            tables["same_day"].append([same_day_sums(location, row).tolist()])
        tables["series"].append([series_sums(location, row).tolist()])
        counts = [sum(parcel_counts(location.parcels, find_parcels(n, i)) for i in images).tolist() for n in networks]
        tables["parcels"].append(counts)
        print(f"{row}: location {len(tables['series'])} of {settings.test}", file=sys.stderr)
    write_atomic(file, json.dumps(tables))
    return tables


def _digest(stated: object) -> str:
    return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()[:12]


def _simulated(out: Path, settings: Settings, index: int) -> Path:
    """The products of a location, simulated where they are not there yet."""
    sensors = ("s2",) if index < settings.train else ("l8", "s2")
    name = f"seed{settings.seed}-{settings.size}px-{settings.dates}dates-{'-'.join(sensors)}-{index:02d}"
    folder = out / "products" / name
    if not (folder / "complete").is_file():
        simulate_location(folder, settings.seed, index, settings.size, settings.dates, sensors)
        write_atomic(folder / "complete", "")
    return folder


def _parcel_networks(out: Path, settings: Settings) -> list[ParcelNet]:
    """One a seed, trained where an earlier run has not."""
    key = _digest([settings.seed, settings.size, settings.train, settings.dates, settings.steps])
    files = {seed: out / "parcels" / f"{key}-seed{seed}.safetensors" for seed in settings.seeds}
    images, masks, networks = [], [], []
    if not all(file.is_file() for file in files.values()):
        for index in range(settings.train):
            folder = _simulated(out, settings, index)
            images += [surface.image for surface in read_series(folder)]
            masks += [read_parcels(folder)] * settings.dates
    for seed, file in files.items():
        if not file.is_file():
            save_tensors(train_parcels(images, masks, seed, settings.steps), file)
        networks.append(empty_parcel_net())
        load_weights(networks[-1], file)
    return networks


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
    """Sentinel-2, and Landsat mapped by each model to its grid and cut to its extent; the maps stay below ``maps``."""
    series = list(read_series(folder))
    grid = series[0].grid
    l8: dict[str, list[np.ndarray]] = {row: [] for row in models}
    scenes = sorted(find_scenes(folder), key=lambda scene: scene.date) if models else []
    for row, (model, consistent) in models.items():
        for scene in scenes:
            path = maps / f"{scene.id}_10m.tif"
            map_scene(scene, path, model, TILES, consistent=consistent)
            with open_raster(path) as dataset:
                left = round((grid.transform[2] - dataset.transform.c) / dataset.transform.a)
                top = round((grid.transform[5] - dataset.transform.f) / dataset.transform.e)
                values = read_window(dataset, (top, left, grid.height, grid.width), range(1, dataset.count + 1), NODATA)
            l8[row].append(values.astype(np.float32) * np.float32(SCALE))
    s2 = np.stack([surface.image for surface in series])
    return Location(s2, {row: np.stack(images) for row, images in l8.items()}, read_parcels(folder))
