"""Tibet-Water: Sentinel-1 of both orbits with water drawn by hand, and two coarser contexts around every chip.

Source: Luo et al. 2023, doi 10.1080/17538947.2023.2198266, github.com/xinluo2018/Tibet-Water-2020, in folders as
theirs: ``s1_ascend/scene01_s1_as.tif`` and ``s1_descend/scene01_s1_des.tif`` (float32, VV and VH in dB, 0 or NaN
without data) and ``s1_truth/scene01_truth.tif`` (0, 1; 255 = not looked at), or polygons of water instead of a raster.

Their split is by scene: 01 to 07 validate, all others train.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import numpy as np
from rasterio.io import DatasetReader

from ...errors import InputError, SceneError
from .. import raster
from ..context import context_window, shrink
from ..labelled import IGNORE, relative_error, to_classes
from ..plan import ChipRef, Plan, SceneJob
from ..polygons import Polygons, read_polygons
from ..products import find, fractions, ground_keys, is_simulated, make_plan, reasons, relative_errors, source_files
from ..spec import SkippedScene
from ..splits import by_group, by_table
from ..tibet_water_header import CHIP_SIZE, MIN_LABELLED, NAME, NODATA, ORBITS, SCALES, bands_of, header
from ..tibet_water_header import VERSION as VERSION

VALIDATION = range(1, 8)  # scene numbers of the authors' validation split
CHOICES = ("both", "ascending", "descending")
SPLITS = ("published", "by-ground")
PATTERNS = {
    "image": r"scene_?(?P<number>\d{1,4})_s1_(?P<orbit>as|des)\.tiff?",
    "label": r"scene_?(?P<number>\d{1,4})_truth\.(tiff?|gpkg|geojson|shp)",
}


def plan(
    source: Path,
    *,
    orbits: Literal["both", "ascending", "descending"] = "both",
    split: Literal["published", "by-ground"] = "published",
    held_out: float = 0.15,
) -> Plan:
    """Plan the data set from the authors' folders.

    Args:
        source: the folder that holds ``s1_ascend``, ``s1_descend`` and ``s1_truth``.
        orbits: ``both`` makes four bands, of which two have no data where a scene misses an orbit; ``ascending`` and
            ``descending`` make data sets of two bands, without the scenes that miss that orbit.
        split: ``published`` (scenes 01 to 07 validate, the others train), or ``by-ground``: scenes that share ground
            stay together, 70 : 15 : 15.
        held_out: of ``by-ground``: share of the scenes for validation, and for the test.
    """
    shares = fractions(held_out, NAME)
    for name, value, valid in (("orbits", orbits, CHOICES), ("split", split, SPLITS)):
        if value not in valid:
            raise InputError(f"{name} must be one of {', '.join(valid)}, found {value!r}", where=NAME)
    folder = Path(source).absolute()
    members: dict[str, dict] = {}
    for kind, path, groups in find(folder, PATTERNS):
        member = members.setdefault(f"scene{int(groups['number']):02d}", {"images": {}})
        place, key = (member, "label") if kind == "label" else (member["images"], ORBITS[groups["orbit"].lower()])
        if key in place:
            raise InputError(f"{path} and {place[key]} are the same scene", where=folder)
        place[key] = path
    grids, skipped = {}, []
    for scene, member in sorted(members.items()):
        try:
            _choose_orbits(member, orbits, scene)
            grids[scene] = _check(folder, member, scene)
        except InputError as error:
            skipped.append(SkippedScene(id=scene, reason=str(relative_error(error, folder))))
    if split == "published":
        table = {s: "val" if int(s.removeprefix("scene")) in VALIDATION else "train" for s in grids}
        split_of = by_table(sorted(grids), table)
    else:
        with reasons(skipped):
            split_of = by_group(ground_keys(grids), shares) if grids else {}
    parts = []
    for scene, grid in grids.items():
        member = members[scene]
        sources = source_files(folder, (*member["images"].values(), member["label"]))
        parts.append((scene, split_of[scene], grid, None, sources, {**member, "bands": bands_of(orbits)}))
    stated = header(orbits, split, is_simulated(folder), held_out)
    return make_plan(stated, folder, parts, lambda g: len(raster.tiles(g.height, g.width, CHIP_SIZE)), skipped)


def index(job: SceneJob) -> list[ChipRef]:
    """The windows of the scene of which a tenth is labelled ground with data, row by row."""
    refs = []
    with TibetScene(job) as scene:
        for row in range(0, scene.grid.height, CHIP_SIZE):
            strip, labels = scene.strip((row, 0, CHIP_SIZE, scene.width)), scene.labels(row)
            labels[(strip == NODATA).all(0)] = IGNORE
            for column in range(0, scene.width, CHIP_SIZE):
                if (labels[:, column : column + CHIP_SIZE] != IGNORE).mean() < MIN_LABELLED:
                    continue
                window = (row, column, CHIP_SIZE, CHIP_SIZE)
                around = {
                    f"image_x{scale}": _scaled(scene.grid.window_transform(context_window(window, scale)), scale)
                    for scale in SCALES
                }
                transform = scene.grid.window_transform(window)
                refs.append(ChipRef(f"{job.id}_{row}_{column}", window, transform, around))
    return refs


def read(job: SceneJob, refs: Sequence[ChipRef]) -> Iterator[dict[str, np.ndarray]]:
    """``image``, ``image_x2``, ``image_x8`` float32 (bands, 256, 256) in dB; ``valid``, ``mask`` uint8."""
    with TibetScene(job) as scene:
        coarse = scene.shrunk(SCALES[-1])
        rows = dict.fromkeys(ref.window[0] for ref in refs)
        for row in rows:
            _, _, height, width = context_window((row, 0, CHIP_SIZE, scene.width), 2)
            margin = CHIP_SIZE // 2
            near = scene.strip((row - margin, -margin, height, scene.width + 2 * margin))
            near_x2, labels = shrink(near, 2, NODATA), scene.labels(row)
            for ref in (r for r in refs if r.window[0] == row):
                column = ref.window[1]
                image = near[:, margin : margin + CHIP_SIZE, margin + column : margin + column + CHIP_SIZE]
                mask, valid = labels[:, column : column + CHIP_SIZE].copy(), (image != NODATA).any(0)
                mask[~valid] = IGNORE
                yield {
                    "image": image,
                    "image_x2": near_x2[:, :, column // 2 : column // 2 + CHIP_SIZE],
                    "image_x8": coarse[:, row // 8 : row // 8 + CHIP_SIZE, column // 8 : column // 8 + CHIP_SIZE],
                    "valid": valid.astype(np.uint8),
                    "mask": mask,
                }


class TibetScene:
    """One scene, open while used as a context manager; its width is that of whole chips."""

    def __init__(self, job: SceneJob) -> None:
        self.folder, self.job = Path(job.payload["source"]), job
        self._stack = ExitStack()

    def __enter__(self) -> TibetScene:
        payload = self.job.payload
        with self._stack, relative_errors(self.folder):  # closes what is open when a further file cannot be
            self._images: dict[str, DatasetReader] = {
                orbit: self._open(name) for orbit, name in sorted(payload["images"].items())
            }
            self.grid = raster.grid_of(next(iter(self._images.values())))
            self._label: DatasetReader | Polygons = (
                self._open(payload["label"])
                if _is_raster(payload["label"])
                else read_polygons(self.folder / payload["label"], self.grid, value=1)
            )
            self._stack = self._stack.pop_all()
        self.width = -(-self.grid.width // CHIP_SIZE) * CHIP_SIZE
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self._stack.close()
        if isinstance(error, SceneError):
            raise relative_error(error, self.folder) from None

    def _open(self, name: str) -> DatasetReader:
        return self._stack.enter_context(raster.open_raster(self.folder / name, num_threads=2))

    def strip(self, window: raster.PixelWindow) -> np.ndarray:
        """float32 (bands, h, w) in dB of a window that may leave the scene; 0 without data."""
        out = np.zeros((len(self.job.payload["bands"]), *window[2:]), np.float32)
        orbits = self.job.payload["bands"][::2]
        for orbit, image in self._images.items():
            at = 2 * orbits.index(orbit)
            out[at : at + 2] = raster.read_window(image, window, (1, 2), NODATA)
        out[~np.isfinite(out)] = NODATA
        return out

    def labels(self, row: int) -> np.ndarray:
        """uint8 (256, width): 1 water, 0 not, 255 unknown or beyond the scene."""
        window = (row, 0, CHIP_SIZE, self.width)
        inside = np.zeros(window[2:], bool)
        inside[: self.grid.height - row, : self.grid.width] = True
        if isinstance(self._label, Polygons):
            out = self._label.rasterise(self.grid, window)
        else:
            raw = raster.read_window(self._label, window, (1,))[0]
            out = to_classes(raw, {0: 0, 1: 1, IGNORE: IGNORE}, inside, self._label.name)
        out[~inside] = IGNORE
        return out

    def shrunk(self, scale: int) -> np.ndarray:
        """The whole scene ``scale`` times smaller, with the margin that contexts of border chips reach into."""
        margin = (scale - 1) * CHIP_SIZE // 2
        height = -(-self.grid.height // CHIP_SIZE) * CHIP_SIZE
        parts = [
            shrink(self.strip((row, -margin, CHIP_SIZE, self.width + 2 * margin)), scale, NODATA)
            for row in range(0, height, CHIP_SIZE)
        ]
        edge = np.zeros((parts[0].shape[0], margin // scale, parts[0].shape[2]), np.float32)
        return np.concatenate([edge, *parts, edge], axis=1)


def _scaled(transform: raster.Affine6, scale: int) -> raster.Affine6:
    a, b, c, d, e, f = transform
    return (a * scale, b * scale, c, d * scale, e * scale, f)


def _is_raster(name: str) -> bool:
    return Path(name).suffix.lower() in (".tif", ".tiff")


def _choose_orbits(member: dict, orbits: str, scene: str) -> None:
    """Keep the images that the data set wants. SceneError where one is missing."""
    wanted = list(dict.fromkeys(bands_of(orbits)))
    member["images"] = {o: name for o, name in member["images"].items() if o in wanted}
    if not member["images"]:
        raise SceneError(f"no {' and no '.join(wanted)} image", where=scene)


def _check(folder: Path, member: dict, scene: str) -> raster.Grid:
    """The grid of a scene whose files are as they should be."""
    if "label" not in member:
        raise SceneError("no truth raster or polygons", where=scene, hint=f"{scene}_truth.tif is missing")
    grid = None
    for name in member["images"].values():
        with raster.open_raster(folder / name) as image:
            raster.check_bands(image, "float32", (1, 2))
            if grid is None:
                grid = raster.check_georeferenced(image)
            else:
                raster.check_same_grid(image, grid)
    if _is_raster(member["label"]):
        with raster.open_raster(folder / member["label"]) as label:
            if label.count != 1 or np.dtype(label.dtypes[0]).kind not in "iu":
                raise SceneError(
                    f"expected one band of whole numbers, found {label.count} of {label.dtypes[0]}", where=label.name
                )
            raster.check_same_grid(label, grid)
    return grid
