"""Landsat-8 to Sentinel-2 in its authors' form: one HDF5 file a pair, and a table with place, date, split and scores.

The table (CSV) has the columns patch_id, location (MGRS tile), date, geometry (WKT in degrees), pair_type (Train,
Validation, Test), ssim and psnr; a file named after the patch holds ``s2_image``, ``l8_image`` (whole numbers as
delivered) and ``l8_pan`` (top-of-atmosphere reflectance). Files come from strangers: a dataset that is a link, virtual,
external or of another shape is refused before it is read.
"""

from __future__ import annotations

import csv
import math
import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
import shapely
from pyproj import CRS, Transformer

from ..errors import InputError, LeakError, SceneError
from . import optical
from .files import sha256_file, tree_sha256
from .l8s2_header import CHIP_SIZE, L8_SIZE, MIN_PSNR_DB, MIN_SSIM, NAME, PAN_SIZE, header
from .plan import ChipRef, Plan, SceneJob, group_shards, slug
from .products import FRACTIONS, is_simulated, walk
from .raster import local_file
from .spec import Scene, SourceFile
from .splits import by_group

COLUMNS = ("patch_id", "location", "date", "geometry", "pair_type", "ssim", "psnr")
PAIR_TYPES = {"Train": "train", "Validation": "val", "Test": "test"}
SPLITS = ("published", "by-tile")
MAX_CUT_PX = 2  # how much larger or smaller than nominal the authors' cuts are
MAX_FILE_BYTES = 64 << 20
MAX_LOCATION = 150  # characters; it begins the scene's id
DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)?")
ARRAYS = {"s2_image": (6, CHIP_SIZE), "l8_image": (6, L8_SIZE), "l8_pan": (0, PAN_SIZE)}


def tables(folder: Path) -> list[Path]:
    """The tables of pairs below a folder: CSV files with all the columns."""
    if not folder.is_dir():
        return []
    paths = [folder / name for name in walk(folder) if name.lower().endswith(".csv")]
    return [p for p in paths if set(COLUMNS) <= set(_head(p))]


def plan(folder: Path, split: str) -> Plan:
    """Plan the authors' pairs: those that pass their filters, in scenes of one tile and date."""
    if split not in SPLITS:
        raise InputError(f"split must be one of {', '.join(SPLITS)}, found {split!r}", where=NAME)
    stems = sorted((Path(n).stem, n) for n in walk(folder) if n.lower().endswith((".h5", ".hdf5")))
    members: dict[str, list[dict]] = {}
    for row in (r for table in tables(folder) for r in _rows(table)):
        members.setdefault(f"{row['location']}_{row['date']}", []).append(row | {"path": _file(stems, row, folder)})
    if not members:
        raise InputError(f"no pair has SSIM >= {MIN_SSIM:g} and PSNR > {MIN_PSNR_DB:g} dB", where=folder)
    split_of = _splits(members, split)
    scenes, jobs = [], []
    for scene, rows in sorted(members.items()):
        rows.sort(key=lambda r: r["patch_id"])
        crs = tile_crs(rows[0]["location"])
        digests = {r["path"]: sha256_file(folder / r["path"]) for r in rows}
        size = sum((folder / p).stat().st_size for p in digests)
        record = SourceFile(path=f"{scene}/*.h5", bytes=size, sha256=tree_sha256(digests), files=len(digests))
        outlines = [shapely.from_wkt(r["geometry"], on_invalid="ignore") for r in rows]
        bounds = tuple(float(v) for v in shapely.total_bounds(np.array(outlines, object)))
        known = crs is not None and all(math.isfinite(v) for v in bounds)
        date = rows[0]["date"]
        scenes.append(
            Scene(id=scene, split=split_of[scene], date=date, crs=crs if known else None,
                  bounds=bounds if known else None, sources=(record,))
        )  # fmt: skip
        pairs = [
            [r["patch_id"], r["path"], _corner(o, crs) if known else None] for r, o in zip(rows, outlines, strict=True)
        ]
        jobs.append(SceneJob(scene, split_of[scene], {"source": str(folder), "pairs": pairs}))
    stated = header({}, split, is_simulated(folder), f"{NAME}-pairs")
    chip_bytes = sum(a.chip_bytes for a in stated.arrays)
    shards = group_shards(jobs, lambda job: len(job.payload["pairs"]) * chip_bytes)
    return Plan(stated, tuple(scenes), tuple(shards))


def index(job: SceneJob) -> list[ChipRef]:
    """One chip for every pair, by patch id, once each file has been looked at."""
    refs = []
    for patch, path, corner in job.payload["pairs"]:
        _open(Path(job.payload["source"]), path).close()
        window, place, own = (0, 0, CHIP_SIZE, CHIP_SIZE), None, {}
        if corner is not None:
            x, y = corner
            place = (10.0, 0.0, x, 0.0, -10.0, y)
            for array, size, step in (("image", L8_SIZE, 30.0), ("pan", PAN_SIZE, 15.0)):
                edge = (size * step - CHIP_SIZE * 10.0) / 2  # the cuts' own corners are not told: same centre
                own[array] = (step, 0.0, x - edge, 0.0, -step, y + edge)
        refs.append(ChipRef(slug(patch), window, place, own, payload={"path": path}))
    return refs


def read(job: SceneJob, refs: Sequence[ChipRef]) -> Iterator[dict[str, np.ndarray]]:
    """The arrays of each pair, as the builder of products gives them."""
    for ref in refs:
        folder, path = Path(job.payload["source"]), ref.payload["path"]
        with _open(folder, path) as file:
            try:
                s2, l8, pan = (np.nan_to_num(file[name][()]) for name in ARRAYS)
            except (OSError, RuntimeError) as error:
                raise SceneError(f"unreadable ({error})", where=path) from None
        l8, s2 = _cut(l8, L8_SIZE), _cut(s2, CHIP_SIZE)
        # the authors' numbers carry no offset: reflectance = DN / 10 000
        target = np.where(s2 == optical.S2_FILL, optical.S2_NODATA, np.clip(s2, 0, optical.S2_NODATA - 1))
        stored = np.rint(_cut(pan[None], PAN_SIZE) / optical.PAN_SCALE)
        clear = (l8 != optical.L8_FILL).all(0)
        at = np.clip(np.floor((np.arange(CHIP_SIZE) * 10 + 15) / 30).astype(int), 0, L8_SIZE - 1)
        yield {
            "image": optical.l8_not_negative(np.clip(l8, 0, 65535).astype(np.uint16)).astype(np.uint16),
            "pan": np.where(stored == 0, 0, np.clip(stored, 1, 65535)).astype(np.uint16),
            "target": target.astype(np.uint16),
            "valid": (clear[at[:, None], at] & (target != optical.S2_NODATA).all(0)).astype(np.uint8),
        }


def tile_crs(tile: str) -> str | None:
    """WKT of the UTM zone of an MGRS tile such as 33UUU, None for another text."""
    if len(tile) != 5 or not tile[:2].isdecimal() or not 1 <= int(tile[:2]) <= 60 or not tile[2:].isalpha():
        return None
    return CRS.from_epsg((32600 if tile[2].upper() >= "N" else 32700) + int(tile[:2])).to_wkt()


def _head(path: Path) -> list[str]:
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        return next(csv.reader([file.readline(65536)]), [])


def _rows(table: Path) -> Iterator[dict[str, str]]:
    with open(table, newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.DictReader(file)
        try:
            for row in reader:
                scores = float(row["ssim"]), float(row["psnr"])
                if row["pair_type"] not in PAIR_TYPES or not row["patch_id"]:
                    raise ValueError(f"pair_type {row['pair_type']!r}")
                if not DATE.fullmatch(row["date"]):
                    raise ValueError(f"date {row['date'][:30]!r}, expected YYYY-MM-DD")
                if not 1 <= len(row["location"]) <= MAX_LOCATION:
                    raise ValueError(f"location of {len(row['location'])} characters")
                if scores[0] >= MIN_SSIM and scores[1] > MIN_PSNR_DB:
                    yield {name: row[name] for name in COLUMNS}
        except csv.Error as error:
            raise InputError(f"line {reader.line_num + 1} cannot be read ({error})", where=table) from None
        except (TypeError, ValueError) as error:
            raise InputError(f"line {reader.line_num} is not a pair ({error})", where=table) from None


def _file(stems: list[tuple[str, str]], row: dict[str, str], folder: Path) -> str:
    """The file whose name begins with the patch's id, the exact name first."""
    patch = row["patch_id"]
    for at in range(bisect_left(stems, (patch, "")), len(stems)):
        stem, name = stems[at]
        if not stem.startswith(patch):
            break
        if not stem[len(patch) :][:1].isalnum():  # 10_2021 is not of patch 1
            return name
    raise InputError(f"no HDF5 file for patch {patch}", where=folder, hint="every listed pair is needed")


def _splits(members: dict[str, list[dict]], split: str) -> dict[str, str]:
    """Scene -> split. LeakError where the table puts one tile into two splits."""
    tiles = {scene: rows[0]["location"] for scene, rows in members.items()}
    if split == "by-tile":
        return by_group(tiles, FRACTIONS)
    homes: dict[str, dict] = {}
    for row in (r for rows in members.values() for r in rows):
        first = homes.setdefault(row["location"], row)
        if first["pair_type"] != row["pair_type"]:
            raise LeakError(
                f"tile {row['location']} is in two splits: patch {first['patch_id']} ({first['pair_type']}) and patch "
                f"{row['patch_id']} ({row['pair_type']})",
                hint="--param split=by-tile deals whole tiles",
            )
    return {scene: PAIR_TYPES[rows[0]["pair_type"]] for scene, rows in members.items()}


def _corner(outline, crs: str) -> list[float] | None:
    """West and north in the zone's metres of a chip's outline, None where it is no chip of 2 560 m."""
    if outline is None or outline.is_empty:
        return None
    transformer = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    x, y = transformer.transform(*shapely.get_coordinates(outline).T)
    if not (np.isfinite(x).all() and abs(np.ptp(x) - 2560) < 60 and abs(np.ptp(y) - 2560) < 60):
        return None
    return [round(float(x.min()) / 10) * 10.0, round(float(y.max()) / 10) * 10.0]


def _open(folder: Path, name: str) -> h5py.File:
    """An open pair whose datasets are plain and of the expected form."""
    path = local_file(folder / name)
    if path.stat().st_size > MAX_FILE_BYTES:
        raise SceneError(f"{path.stat().st_size} bytes, over {MAX_FILE_BYTES}", where=name)
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise SceneError(f"not an HDF5 file ({error})", where=name) from None
    for key, (channels, size) in ARRAYS.items():
        if fault := _fault(file, key, channels, size):
            file.close()
            raise SceneError(f"{key} {fault}", where=name)
    return file


def _fault(file: h5py.File, key: str, channels: int, size: int) -> str | None:
    link = file.get(key, getlink=True) if key in file.keys() else None
    if link is None:
        return "is missing"
    if not isinstance(link, h5py.HardLink) or not isinstance(file.get(key), h5py.Dataset):
        return "is a link, or no dataset"
    data = file[key]
    if data.is_virtual or data.external:
        return "is stored outside of the file"
    shape = data.shape[1:] if channels else data.shape
    if len(data.shape) != (3 if channels else 2) or channels and data.shape[0] != channels:
        return f"has the shape {data.shape}"
    if max(abs(n - size) for n in shape) > MAX_CUT_PX:
        return f"has the shape {data.shape}, expected about {size} pixels a side"
    if data.dtype.kind not in ("iu" if channels else "f"):
        return f"is of {data.dtype}, expected {'whole numbers' if channels else 'reflectance as float'}"
    return None


def _cut(values: np.ndarray, size: int) -> np.ndarray:
    """(C, size, size) by the nearest pixel, as the authors bring their cuts to one size."""
    rows, columns = (np.arange(size) * n // size for n in values.shape[1:])
    return values[:, rows[:, None], columns]
