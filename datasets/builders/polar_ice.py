"""Polar ice: Sentinel-1 EW scenes around Greenland with ice-chart polygons, as maps or as patches with one label.

Source: ExtremeEarth Polar training data, doi 10.5281/zenodo.3695276, and any scenes in its form: one GeoTIFF a scene
with HH and HV as its first bands, and one shapefile whose name ends in the scene's id, found in the GeoTIFF's name
(``seaice_s1_20180116t075430.shp``), with the attribute ``poly_type``: L (land), W (water), I (ice).

Rows are lines of the raster (north to south), columns run west to east; the sampler of github.com/ysbecca/polar-patch
exchanged the two between pixels and labels (see ``polar_patch.py``).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import numpy as np

from ...errors import InputError, SceneError
from .. import raster
from ..labelled import IGNORE, relative_error
from ..plan import ChipRef, Plan, SceneJob, slug
from ..polygons import read_polygons
from ..products import FRACTIONS, find, ground_keys, is_simulated, make_plan, reasons, relative_errors, source_files
from ..spec import ICE_CLASSES, Array, Band, BuilderInfo, Header, SkippedScene, Task
from ..splits import by_group, by_scene

NAME, VERSION = "polar-ice", "1.0.0"
CHIP_SIZE, PATCH_SIZE = 256, 64
MIN_LABELLED = 0.1  # share of a chip's pixels
CODES = {"W": 0, "I": 1, "L": 2}
FORMS = ("maps", "consecutive", "random")
SPLITS = ("by-ground", "by-scene")
UNITS = {"uint8": "8-bit stretched", "float32": "dB"}
PATTERNS = {"image": r".*\.tiff?", "polygons": r".*_(?P<id>[^_]+)\.shp"}


def plan(
    source: Path,
    *,
    form: Literal["maps", "consecutive", "random"] = "maps",
    split: Literal["by-ground", "by-scene"] = "by-ground",
    quota: int = 500,
    max_tries: int = 20_000,
    seed: int = 0,
) -> Plan:
    """Plan the data set from a folder of scenes and shapefiles.

    Args:
        source: the folder.
        form: ``maps`` (chips of 256 pixels with a mask), or patches of 64 pixels with the class at their centre:
            ``consecutive`` (on a grid of 64 pixels) or ``random`` (uniform positions).
        split: ``by-ground`` keeps scenes that share ground together; ``by-scene`` does not, for sources whose scenes
            all overlap, and says so in the card.
        quota: patches of a class that a scene gives at most.
        max_tries: positions that ``random`` draws in a scene at most.
        seed: of the random positions.
    """
    for name, value, valid in (("form", form, FORMS), ("split", split, SPLITS)):
        if value not in valid:
            raise InputError(f"{name} must be one of {', '.join(valid)}, found {value!r}", where=NAME)
    for name, value, least in (("quota", quota, 1), ("max_tries", max_tries, 1), ("seed", seed, 0)):
        if not isinstance(value, int) or not least <= value <= 10_000_000:
            raise InputError(f"{name} must be a whole number from {least} on, found {value!r}", where=NAME)
    folder = Path(source).absolute()
    members, skipped = _match(folder)
    grids, dtype = {}, None
    for scene, (image, polygons) in sorted(members.items()):
        try:
            grids[scene], dtype = _check(folder, image, polygons, dtype)
        except InputError as error:
            skipped.append(SkippedScene(id=scene, reason=str(relative_error(error, folder))))
    if not grids:
        raise InputError("no scene could be used", where=folder, hint="; ".join(s.reason for s in skipped[:3]))
    with reasons(skipped):
        split_of = by_group(ground_keys(grids), FRACTIONS) if split == "by-ground" else by_scene(list(grids), FRACTIONS)
    parameters = {"form": form, "split": split}
    if form != "maps":
        parameters |= {"quota": quota}
    if form == "random":
        parameters |= {"max_tries": max_tries, "seed": seed}
    parts = (
        (scene, split_of[scene], grid, _date(scene), source_files(folder, members[scene]),
         {"image": members[scene][0], "polygons": members[scene][1], **parameters})
        for scene, grid in grids.items()
    )  # fmt: skip

    def chips(grid: raster.Grid) -> int:
        return len(raster.tiles(grid.height, grid.width, CHIP_SIZE)) if form == "maps" else len(CODES) * quota

    return make_plan(header(parameters, dtype, is_simulated(folder)), folder, parts, chips, skipped)


def index(job: SceneJob) -> list[ChipRef]:
    """The chips or patches of one scene."""
    with IceScene(job) as scene:
        places = {"maps": scene.tiles, "consecutive": scene.consecutive, "random": scene.random}[job.payload["form"]]
        refs = []
        for row, column, size, label in places():
            window = (row, column, size, size)
            payload = {} if label is None else {"label": int(label)}
            transform = scene.grid.window_transform(window)
            refs.append(ChipRef(f"{slug(job.id)}_{row}_{column}", window, transform, payload=payload))
        return refs


def read(job: SceneJob, refs: Sequence[ChipRef]) -> Iterator[dict[str, np.ndarray]]:
    """``image`` (2, S, S), HH and HV; with ``valid`` and ``mask`` uint8 (S, S), or with ``label`` uint8 ()."""
    with IceScene(job) as scene:
        for ref in refs:
            image, valid = scene.read(ref.window)
            if "label" in ref.payload:
                yield {"image": image, "label": np.array(ref.payload["label"], np.uint8)}
            else:
                yield {"image": image, "valid": valid.astype(np.uint8), "mask": scene.mask(ref.window, valid)}


class IceScene:
    """One scene and its polygons, open while used as a context manager."""

    def __init__(self, job: SceneJob) -> None:
        self.folder, self.id, self.payload = Path(job.payload["source"]), job.id, job.payload
        self._stack = ExitStack()

    def __enter__(self) -> IceScene:
        with self._stack as stack, relative_errors(self.folder):
            self._image = stack.enter_context(raster.open_raster(self.folder / self.payload["image"], num_threads=2))
            self.grid = raster.grid_of(self._image)
            self.polygons = read_polygons(
                self.folder / self.payload["polygons"], self.grid, attribute="poly_type", values=CODES
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self._stack.close()
        if isinstance(error, SceneError):
            raise relative_error(error, self.folder) from None

    def read(self, window: raster.PixelWindow) -> tuple[np.ndarray, np.ndarray]:
        """HH and HV (2, h, w) and where they have data (h, w): anything but 0 or NaN in both."""
        return with_data(raster.read_window(self._image, window, (1, 2), 0))

    def mask(self, window: raster.PixelWindow, valid: np.ndarray) -> np.ndarray:
        """Classes (h, w): 255 outside of all polygons, where those of two classes overlap, and without data."""
        return np.where(valid, self.polygons.rasterise(self.grid, window, IGNORE), IGNORE).astype(np.uint8)

    def tiles(self) -> Iterator[tuple[int, int, int, None]]:
        """Row, column, size of the chips of which a tenth has a class."""
        for window in raster.tiles(self.grid.height, self.grid.width, CHIP_SIZE):
            mask = self.polygons.rasterise(self.grid, window, IGNORE)
            if (mask != IGNORE).mean() < MIN_LABELLED:
                continue
            if (self.mask(window, self.read(window)[1]) != IGNORE).mean() >= MIN_LABELLED:
                yield window[0], window[1], CHIP_SIZE, None

    def consecutive(self) -> Iterator[tuple[int, int, int, int]]:
        """Row, column, size, class of patches on a grid, line by line, until the class has its quota."""
        rows = np.arange(0, self.grid.height - PATCH_SIZE + 1, PATCH_SIZE)
        columns = np.arange(0, self.grid.width - PATCH_SIZE + 1, PATCH_SIZE)
        row, column = (a.ravel() for a in np.meshgrid(rows, columns, indexing="ij"))
        yield from self._take(row, column)

    def random(self) -> Iterator[tuple[int, int, int, int]]:
        """The same at uniform positions, at most ``max_tries`` of them; the draw depends on the scene's id alone."""
        high = self.grid.height - PATCH_SIZE + 1, self.grid.width - PATCH_SIZE + 1
        if min(high) < 1:
            return
        entropy = (self.payload["seed"], zlib.crc32(self.id.encode()))
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
        drawn = rng.integers(0, high, (self.payload["max_tries"], 2))
        _, first = np.unique(drawn, axis=0, return_index=True)
        yield from self._take(*drawn[np.sort(first)].T)

    def _take(self, rows: np.ndarray, columns: np.ndarray) -> Iterator[tuple[int, int, int, int]]:
        a, _, c, _, e, f = self.grid.transform
        half = PATCH_SIZE / 2
        classes = self.polygons.classes_at(c + a * (columns + half), f + e * (rows + half))
        left = dict.fromkeys(CODES.values(), self.payload["quota"])
        for row, column, label in zip(rows.tolist(), columns.tolist(), classes.tolist(), strict=True):
            if left.get(label, 0) and self.read((row, column, PATCH_SIZE, PATCH_SIZE))[1].all():
                left[label] -= 1
                yield row, column, PATCH_SIZE, label


def with_data(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bands (C, h, w) with 0 in place of what is not finite, and where they have data (h, w): not 0 in all of them."""
    if image.dtype.kind == "f":
        image = np.where(np.isfinite(image).all(0), image, np.float32(0))
    return image, (image != 0).any(0)


def _match(folder: Path) -> tuple[dict[str, tuple[str, str]], list[SkippedScene]]:
    """Scene id -> (image, shapefile), and the files that have no counterpart."""
    found = find(folder, PATTERNS)
    images = [path for kind, path, _ in found if kind == "image"]
    members, skipped, used = {}, [], set()
    for path, groups in ((path, groups) for kind, path, groups in found if kind == "polygons"):
        scene = groups["id"].upper()
        own = [image for image in images if scene in image.rsplit("/", 1)[-1].upper()]
        used |= set(own)
        if len(own) == 1 and scene not in members:
            members[scene] = own[0], path
        else:
            what = f"{len(own)} GeoTIFFs have {scene} in their name" if len(own) != 1 else "a second shapefile"
            skipped.append(_skipped(path, f"{what}, expected one"))
    left = sorted(set(images) - used)
    return members, skipped + [_skipped(path, "no shapefile ends in its id") for path in left]


def _skipped(path: str, why: str) -> SkippedScene:
    return SkippedScene(id=path[-200:], reason=f"{path}: {why}")  # a path may be longer than an id


def _check(folder: Path, image: str, polygons: str, dtype: str | None) -> tuple[raster.Grid, str]:
    """The grid of a scene and the type of its pixels, which is that of the first scene."""
    if missing := [s for s in (".shx", ".dbf", ".prj") if not (folder / polygons).with_suffix(s).is_file()]:
        raise SceneError(f"the shapefile lacks its {', '.join(missing)}", where=folder / polygons)
    with raster.open_raster(folder / image) as opened:
        grid = raster.check_georeferenced(opened)
        found = opened.dtypes[0]
        if dtype is None and found not in UNITS:
            raise SceneError(f"expected dtype {' or '.join(UNITS)}, found {found}", where=folder / image)
        raster.check_bands(opened, dtype or found, (1, 2))
    return grid, dtype or found


def _date(scene: str) -> str | None:
    found = re.search(r"(\d{4})(\d{2})(\d{2})T(\d{2})(\d{2})(\d{2})", scene)
    return "{}-{}-{}T{}:{}:{}Z".format(*found.groups()) if found else None


def header(parameters: dict, dtype: str, simulated: bool) -> Header:
    """What the manifest states before any pixel is read."""
    form, split = parameters["form"], parameters["split"]
    maps, size = form == "maps", CHIP_SIZE if form == "maps" else PATCH_SIZE
    bands = tuple(Band(name=n, sensor="Sentinel-1 EW", unit=UNITS[dtype]) for n in ("HH", "HV"))
    what = {
        "maps": (
            f"Chips of {CHIP_SIZE} x {CHIP_SIZE} pixels that tile the scenes, with the class of every pixel. Ground "
            "outside of all polygons, and where polygons of different classes overlap, is ignored; chips with less "
            f"than {MIN_LABELLED:.0%} classified ground are left out."
        ),
        "consecutive": (
            f"Patches of {PATCH_SIZE} x {PATCH_SIZE} pixels on a grid, line by line, with the class of the polygon "
            f"that holds their centre, at most {parameters.get('quota')} of a class and scene."
        ),
        "random": (
            f"Patches of {PATCH_SIZE} x {PATCH_SIZE} pixels at uniform positions, with the class of the polygon that "
            f"holds their centre, at most {parameters.get('quota')} of a class and scene out of "
            f"{parameters.get('max_tries')} tries. Patches of one scene may overlap."
        ),
    }[form]
    rule = {
        "by-ground": "Scenes that share ground stay together; the groups are dealt 70 : 15 : 15.",
        "by-scene": "Scenes are dealt 70 : 15 : 15; ground of different splits may overlap.",
    }[split]
    arrays = (Array(name="image", dtype=dtype, shape=(2, size, size), role="image", bands=bands),)
    if maps:
        arrays += tuple(Array(name=n, dtype="uint8", shape=(size, size), role=n) for n in ("valid", "mask"))
    else:
        arrays += (Array(name="label", dtype="uint8", shape=(), role="label"),)
    return Header(
        name=NAME + ("" if maps else f"-{form}") + ("-sim" if simulated else ""),
        version="1.0.0" if split == "by-ground" else "2.0.0",
        title="Polar ice: water, ice and land in Sentinel-1 EW" + (" (simulated)" if simulated else ""),
        description=f"{what} Pixels of value 0 in both HH and HV have no data. {rule}",
        licence=None,
        citation="ExtremeEarth Polar use case training data, doi 10.5281/zenodo.3695276.",
        homepage="https://doi.org/10.5281/zenodo.3695276",
        provenance=(
            "Simulated Sentinel-1 EW scenes and charts in the form of the training data; no satellite measured them."
            if simulated
            else "Sentinel-1 EW GRDM GeoTIFFs and ice-chart polygons (attribute poly_type) of the same scenes."
        ),
        known_label_defects=(
            "Polygons are drawn as for an ice chart: coarser than the pixels, so that leads, floes and small islands "
            "lie inside polygons of another class. "
            + ("" if maps else "A patch has the class of its centre, whatever else it shows. ")
            + ("Ground of scenes in different splits may overlap." if split == "by-scene" else "")
        ).strip(),
        simulated=simulated,
        task=Task(
            kind="segmentation" if maps else "classification",
            classes=ICE_CLASSES,
        ),
        arrays=arrays,
        builder=BuilderInfo(name=NAME, version=VERSION, parameters=parameters),
    )
