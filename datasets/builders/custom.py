"""Your own data without code: a folder of images and masks (or polygons) and a YAML specification of it.

``datasets/build_spec.py`` documents the specification. Every image is a scene. Scenes larger than a chip are tiled
without overlap, smaller ones become one padded chip; what lies beyond the image, or has no data in any band, is
ignored by the label. Stored pixels are the files', unchanged; where whole numbers have no nodata value and chips reach
beyond their image, an array ``valid`` says so.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from pydantic import ValidationError

from ...errors import ConfigError, SceneError
from .. import raster
from ..build_spec import BuildSpec, load_spec, pattern_regex
from ..labelled import IGNORE, LabelledScene, relative_error
from ..plan import ChipRef, Plan, SceneJob, group_shards, slug
from ..products import source_files, walk
from ..spec import Array, Band, BuilderInfo, Header, Scene, SkippedScene, describe_validation
from ..splits import by_scene, by_spatial_block

NAME, VERSION = "custom", "1.1.0"


def plan(source: Path) -> Plan:
    """Plan a data set from its specification.

    Args:
        source: the ``.yaml`` file; images and labels lie beside it, or in the folder that it names.

    Raises:
        ConfigError: the specification is not acceptable, or does not fit the files that are there.
    """
    spec = load_spec(source)
    folder = Path(source).absolute().parent / (spec.folder or "")
    try:
        header(spec)
    except ValidationError as error:
        raise ConfigError(describe_validation(error), where=source) from None
    members = _list_images(spec, folder)
    fixed = _splits_of_scenes(spec, members)
    scenes, jobs, skipped = [], [], []
    grids: dict[str, raster.Grid] = {}
    for scene_id, member in members.items():
        if scene_id in fixed or spec.splits.blocks is not None:
            try:
                grids[scene_id] = _check_scene(spec, folder, member)
            except SceneError as error:
                skipped.append(SkippedScene(id=scene_id, reason=str(relative_error(error, folder))))
    tiles = {i: raster.tiles(g.height, g.width, spec.chips.size) for i, g in grids.items()}
    if spec.splits is not None and spec.splits.blocks is not None:
        parts = _parts_by_block(spec, grids, tiles)
    else:
        parts = [(i, i, fixed[i], tiles[i]) for i in grids]
    sources = {i: source_files(folder, (members[i]["image"], members[i]["label"])) for i in grids}
    settings = spec.model_dump(mode="json", include={"images", "bands", "classes", "labels", "chips"})
    for part_id, scene_id, split, windows in parts:
        member, grid = members[scene_id], grids[scene_id]
        around = _around(windows, grid)
        scenes.append(
            Scene(
                id=part_id,
                split=split,
                date=member.get("date"),
                crs=grid.crs,
                bounds=raster.wgs84_bounds(grid, around),
                sources=sources[scene_id],
            )
        )
        payload = {
            "source": str(folder),
            "image": member["image"],
            "label": member["label"],
            "scene": scene_id,
            "windows": [list(w) for w in windows],
            "settings": settings,
        }
        jobs.append(SceneJob(part_id, split, payload))
    padded = any(top + h > grids[i].height or left + w > grids[i].width for i in grids for top, left, h, w in tiles[i])
    stated = header(spec, padded)
    chip_bytes = sum(a.chip_bytes for a in stated.arrays)
    shards = group_shards(jobs, lambda job: len(job.payload["windows"]) * chip_bytes)
    return Plan(stated, tuple(scenes), tuple(shards), tuple(skipped))


def index(job: SceneJob) -> list[ChipRef]:
    """The windows of the scene that hold enough labelled pixels with data and are not blank, row by row."""
    with _open(job) as scene:
        chips, refs = scene.settings["chips"], []
        for window in map(tuple, job.payload["windows"]):
            image, mask, _ = scene.read(window)
            if (mask != IGNORE).mean() < max(chips["min_valid_share"], 1e-12):
                continue
            if chips["drop_blank"] and scene.is_blank(image):
                continue
            name = f"{slug(job.payload['scene'])}_{window[0]}_{window[1]}"
            refs.append(ChipRef(id=name, window=window, transform=scene.grid.window_transform(window)))
        return refs


def read(job: SceneJob, refs: Sequence[ChipRef]) -> Iterator[dict[str, np.ndarray]]:
    """``image`` (C, S, S) in the files' dtype, ``mask`` uint8 (S, S) with 255 = ignore, and ``valid`` uint8 (S, S).

    ``valid`` is written where the header declares it: no value of the image can say where it ends.
    """
    with _open(job) as scene:
        for ref in refs:
            image, mask, valid = scene.read(tuple(ref.window))
            yield {"image": image, "mask": mask, "valid": valid.astype(np.uint8)}


def _open(job: SceneJob) -> LabelledScene:
    payload = job.payload
    return LabelledScene(Path(payload["source"]), payload["image"], payload["label"], payload["settings"])


def _list_images(spec: BuildSpec, folder: Path) -> dict[str, dict[str, str]]:
    """Scene id -> relative ``image`` and ``label``, ``date`` (ISO) and ``group``, in order of id."""
    if not folder.is_dir():
        raise ConfigError("no such folder", where=folder, hint="`folder` is relative to the specification")
    regex, members = pattern_regex(spec.images.pattern), {}
    for path in walk(folder):
        if (match := regex.fullmatch(path)) is None:
            continue
        found = match.groupdict()
        scene_id = f"{found['split']}/{found['id']}" if "split" in found else found["id"]
        if scene_id in members:
            raise ConfigError(f"{path} and {members[scene_id]['image']} are the same scene {scene_id!r}", where=folder)
        member = {"image": path, "label": spec.labels.pattern.format_map(found)}
        if ".." in PurePosixPath(member["label"]).parts:
            raise ConfigError(f"the label of {path} would lie outside of the folder", where=folder)
        if "date" in found:
            member["date"] = _date(found["date"], path)
        members[scene_id] = member | {k: found[k] for k in ("group", "split") if k in found}
    if not members:
        raise ConfigError(f"no file matches {spec.images.pattern!r}", where=folder)
    return dict(sorted(members.items()))


def _date(text: str, path: str) -> str:
    try:
        return datetime.date.fromisoformat(text).isoformat()
    except ValueError:
        raise ConfigError(f"{text!r} is no date", where=path) from None


def _splits_of_scenes(spec: BuildSpec, members: dict[str, dict[str, str]]) -> dict[str, str]:
    """Scene id -> split, by the rule of the specification; empty where blocks of ground are split instead."""
    rule = spec.splits
    if rule is None:
        split_of = {i: m["split"] for i, m in members.items()}
    elif rule.blocks is not None:
        return {}
    elif rule.scenes is not None:
        listed = {i: split for split, ids in rule.scenes.items() for i in ids}
        if missing := sorted({*listed, *rule.leave_out} - set(members)):
            raise ConfigError(
                f"splits: no scene {missing[0]!r}",
                where=spec.name,
                hint=f"there is {', '.join(list(members)[:8])}{', …' * (len(members) > 8)}",
            )
        if forgotten := sorted(set(members) - set(listed) - set(rule.leave_out)):
            raise ConfigError(
                f"splits: scene {forgotten[0]!r} is in none",
                where=spec.name,
                hint="list it under `leave_out` where that is meant",
            )
        split_of = listed
    else:
        groups = by_scene(sorted({m.get("group", i) for i, m in members.items()}), rule.fractions, rule.seed)
        split_of = {i: groups[m.get("group", i)] for i, m in members.items()}
    homes: dict[str, tuple[str, str]] = {}
    for i, split in split_of.items():
        first, home = homes.setdefault(members[i].get("group", i), (i, split))
        if home != split:
            raise ConfigError(f"splits: {first!r} ({home}) and {i!r} ({split}) are of one group", where=spec.name)
    return split_of


def _check_scene(spec: BuildSpec, folder: Path, member: dict[str, str]) -> raster.Grid:
    """The grid of a scene whose headers are as specified; SceneError otherwise."""
    if not (folder / member["label"]).is_file():
        raise SceneError("no label beside the image", where=member["image"], hint=f"{member['label']} is missing")
    with raster.open_raster(folder / member["image"], (spec.images.format,)) as image:
        grid = raster.check_georeferenced(image) if spec.images.need_crs else raster.grid_of(image)
        raster.check_bands(image, spec.images.dtype, spec.band_indexes)
    if spec.labels.kind == "mask":
        with raster.open_raster(folder / member["label"], (spec.labels.format,)) as label:
            if label.count != 1 or np.dtype(label.dtypes[0]).kind not in "iu":
                raise SceneError(
                    f"expected one band of whole numbers, found {label.count} of {label.dtypes[0]}", where=label.name
                )
            expected = grid if spec.labels.format == "GTiff" else raster.Grid(grid.height, grid.width)
            raster.check_same_grid(label, expected)
    return grid


def _parts_by_block(spec: BuildSpec, grids: dict, tiles: dict) -> list[tuple[str, str, str, list]]:
    """(part id, scene id, split, windows) for every block of ground in a scene; the block is the unit of inference."""
    from rasterio import CRS

    if not grids:
        return []
    first = next(iter(grids.values()))
    if any(g.crs != first.crs for g in grids.values()) or first.crs is None:
        raise ConfigError("splits by blocks need one CRS for all scenes", where=spec.name, hint="split by scenes")
    crs, rule = CRS.from_wkt(first.crs), spec.splits
    if not crs.is_projected or crs.linear_units_factor[1] != 1.0:
        raise ConfigError("splits by blocks need a projected CRS in metres", where=spec.name, hint="split by scenes")
    chips = [(i, window) for i in grids for window in tiles[i]]
    boxes = np.array([grids[i].bounds(window) for i, window in chips])
    split_of = by_spatial_block(boxes, rule.blocks.size_m, rule.blocks.guard_m, rule.fractions, rule.seed)
    blocks = np.floor((boxes[:, :2] + boxes[:, 2:]) / 2 / rule.blocks.size_m).astype(int)
    parts: dict[tuple, list] = {}
    for (i, window), split, block in zip(chips, split_of, blocks, strict=True):
        if split is not None:
            parts.setdefault((i, *map(int, block), split), []).append(window)
    return [(f"{i}/block-{x}-{y}", i, split, windows) for (i, x, y, split), windows in sorted(parts.items())]


def _around(windows: list[raster.PixelWindow], grid: raster.Grid) -> raster.PixelWindow:
    """The smallest window inside the image that holds all given ones."""
    top, left = min(w[0] for w in windows), min(w[1] for w in windows)
    bottom = min(max(w[0] + w[2] for w in windows), grid.height)
    right = min(max(w[1] + w[3] for w in windows), grid.width)
    return (top, left, bottom - top, right - left)


def header(spec: BuildSpec, padded: bool = False) -> Header:
    """What the manifest states before any pixel is read; ``padded``: some chips reach beyond their image."""
    bands = tuple(Band(**band.model_dump(exclude={"index"})) for band in spec.bands)
    size = (spec.chips.size, spec.chips.size)
    arrays = (
        Array(name="image", dtype=spec.images.dtype, shape=(len(bands), *size), role="image", bands=bands),
        Array(name="mask", dtype="uint8", shape=size, role="mask"),
    )
    if padded and np.dtype(spec.images.dtype).kind in "iu" and any(band.nodata is None for band in bands):
        arrays += (Array(name="valid", dtype="uint8", shape=size, role="valid"),)
    blocks = spec.splits.blocks if spec.splits else None
    return Header(
        name=spec.name,
        version=spec.version,
        title=spec.title,
        description=spec.description,
        licence=spec.licence,
        citation=spec.citation,
        homepage=spec.homepage,
        provenance=spec.provenance,
        known_label_defects=spec.known_label_defects,
        simulated=spec.simulated,
        guard_distance_m=blocks.guard_m if blocks else None,
        task=spec.task,
        arrays=arrays,
        builder=BuilderInfo(name=NAME, version=VERSION, parameters={"spec": spec.model_dump(mode="json")}),
    )
