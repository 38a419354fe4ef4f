"""Footprints, class shares and thumbnails of all chips: GeoParquet for tables and maps, STAC for catalogues."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .export import Progress, exported_chips
from .files import atomic_path, write_atomic
from .footprints import corners_lonlat
from .spec import Manifest

THUMBNAIL_PX = 128
STAC_VERSION = "1.0.0"
UNKNOWN_DATE = "1970-01-01T00:00:00Z"


def write_index(folder: Path, manifest: Manifest, target: Path, progress: Progress) -> None:
    """Write ``chips.parquet``, ``collection.json``, ``items/<chip>.json`` and ``thumbnails/<chip>.png``.

    Raises:
        InputError: no chip has a position, so there is nothing to index on a map.
    """
    rows = []
    for split in manifest.splits:
        for number, chip in enumerate(exported_chips(folder, manifest, split.name, progress)):
            name = f"{split.name}-{number:06d}"
            rows.append({**chip.facts(), "name": name, "corners": _corners(chip, manifest), **_shares(chip, manifest)})
            _thumbnail(chip, manifest, target / "thumbnails" / f"{name}.png")
    if not any(row["corners"] is not None for row in rows):
        raise InputError("its chips have no position, so there is nothing to index", where=manifest.name)
    _parquet(rows, target / "chips.parquet")
    _stac(rows, manifest, target)


def _corners(chip, manifest: Manifest) -> np.ndarray | None:
    grid = manifest.label_array if manifest.label_array.shape else manifest.arrays[0]
    corners = corners_lonlat(np.array([chip.transform]), *grid.shape[-2:], chip.crs)[0]
    return corners if np.isfinite(corners).all() else None


def _shares(chip, manifest: Manifest) -> dict[str, float]:
    """Share of each class among the labelled pixels."""
    if not manifest.task.classes:
        return {}
    labels = chip.arrays[manifest.label_array.name]
    labelled = max(1, int((labels != manifest.task.ignore_index).sum()))
    return {f"share:{c.name}": float((labels == c.id).sum() / labelled) for c in manifest.task.classes}


def _thumbnail(chip, manifest: Manifest, path: Path) -> None:
    from PIL import Image

    from .plots import physical, stretch

    image = next(array for array in manifest.arrays if array.role == "image")
    values = physical(chip.arrays[image.name], image.bands)[0]
    shown, low, high, _ = stretch(values, image.bands[0], manifest, image.name)
    grey = np.nan_to_num((np.asarray(shown, float) - low) / max(high - low, 1e-12))
    picture = Image.fromarray((255 * np.clip(grey, 0, 1)).astype(np.uint8))
    picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG")


def _parquet(rows: list[dict[str, Any]], path: Path) -> None:
    import geopandas
    from shapely import Polygon

    table = [{k: v for k, v in row.items() if k not in ("corners", "transform")} for row in rows]
    outlines = [None if row["corners"] is None else Polygon(row["corners"]) for row in rows]
    frame = geopandas.GeoDataFrame(table, geometry=outlines, crs="EPSG:4326")
    with atomic_path(path) as temporary:
        frame.to_parquet(temporary, index=False)


def _stac(rows: list[dict[str, Any]], manifest: Manifest, target: Path) -> None:
    """A static STAC collection; scenes without a date get the epoch and say so."""
    placed = [row for row in rows if row["corners"] is not None]
    dates = {scene.id: scene.date for scene in manifest.scenes}
    items = [_item(row, manifest, dates[row["scene"]]) for row in placed]
    for item in items:
        write_atomic(target / "items" / f"{item['id']}.json", json.dumps(item, indent=1) + "\n")
    times = sorted(item["properties"]["datetime"] for item in items)
    boxes = np.array([item["bbox"] for item in items])
    whole = [*boxes[:, :2].min(0).tolist(), *boxes[:, 2:].max(0).tolist()]
    collection = {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "id": f"{manifest.name}-{manifest.version}",
        "title": manifest.title,
        "description": manifest.description,
        "license": "other",
        "extent": {"spatial": {"bbox": [whole]}, "temporal": {"interval": [[times[0], times[-1]]]}},
        "links": [
            {"rel": "root", "href": "./collection.json", "type": "application/json"},
            *({"rel": "item", "href": f"./items/{i['id']}.json", "type": "application/geo+json"} for i in items),
        ],
    }
    write_atomic(target / "collection.json", json.dumps(collection, indent=1) + "\n")


def _item(row: dict[str, Any], manifest: Manifest, date: str | None) -> dict[str, Any]:
    corners = row["corners"]
    ring = [*corners.tolist(), corners[0].tolist()]
    when = UNKNOWN_DATE if date is None else date if "T" in date else f"{date}T00:00:00Z"
    facts = {f"tidemark:{k}": v for k, v in row.items() if k not in ("corners", "transform", "crs", "name")}
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "id": row["name"],
        "collection": f"{manifest.name}-{manifest.version}",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": [*corners.min(0).tolist(), *corners.max(0).tolist()],
        "properties": {"datetime": when, "tidemark:date_known": date is not None, **facts},
        "links": [
            {"rel": "collection", "href": "../collection.json", "type": "application/json"},
            {"rel": "root", "href": "../collection.json", "type": "application/json"},
        ],
        "assets": {
            "thumbnail": {
                "href": f"../thumbnails/{row['name']}.png",
                "type": "image/png",
                "roles": ["thumbnail"],
            }
        },
    }
