"""Landsat-8 to Sentinel-2: pairs of the same ground within a day, each sensor on its own grid.

A folder holds the archives' own products: Landsat Collection 2 Level-2 (``LC08_L2SP_…_SR_B2.TIF`` to ``_SR_B7.TIF``,
``_QA_PIXEL.TIF``) with the panchromatic band of Level-1 (``LC08_L1TP_…_B8.TIF`` and its ``_MTL.json`` or ``.txt``), and
Sentinel-2 L2A (``S2A_MSIL2A_….SAFE`` with JP2 or GeoTIFF bands and SCL). Or it holds the authors' form, one HDF5 file a
pair and their table (``l8s2_pairs.py``). Rules and filters: Deep-Harmonization, ISPRS 2024.

86 pixels of 30 m and 172 of 15 m are 2 580 m, a chip of Sentinel-2 is 2 560 m: the three grids are not stretched onto
each other, each has its own transform. Sentinel-2 tiles overlap by 10 km; what the next tile also holds is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
from rasterio.io import DatasetReader

from ...errors import InputError, SceneError
from .. import l8s2_pairs, optical, raster
from ..l8s2_header import (
    CHIP_SIZE,
    L8_SIZE,
    MIN_PSNR_DB,
    MIN_SSIM,
    MIN_VALID,
    NAME,
    PAN_SIZE,
    S2_BANDS,
    header,
)
from ..l8s2_products import FORMATS, L8_BANDS, group, in_zone, partner
from ..labelled import relative_error
from ..plan import ChipRef, Plan, SceneJob
from ..products import (
    fractions,
    ground_keys,
    is_simulated,
    make_plan,
    read_text,
    reasons,
    relative_errors,
    source_files,
)
from ..spec import SkippedScene
from ..splits import by_group, connected_groups

TILE_CORE = 39  # chips of a side that no other tile holds: tiles begin every 100 km
TILE_SIZE = 10980
MAX_SHIFT_M = 15.0  # half a Landsat pixel
SHIFT_CHIPS = 16  # whose median decides
NIR = 3  # the band in which both see most


def plan(source: Path, *, max_days: int = 1, split: str | None = None, held_out: float = 0.15) -> Plan:
    """Plan the data set from products, or from the authors' pairs.

    Args:
        source: folder of products, or of the authors' HDF5 files with their table.
        max_days: between the acquisitions of the two sensors.
        split: for the authors' pairs, ``published`` (their table) or ``by-tile``; products are split by MGRS tile, and
            tiles whose chips show the same ground stay together.
        held_out: of products: share of the tiles for validation, and for the test.
    """
    folder, shares = Path(source).absolute(), fractions(held_out, NAME)
    if not isinstance(max_days, int) or not 0 <= max_days <= 30:
        raise InputError(f"max_days must be 0 to 30, found {max_days!r}", where=NAME)
    if l8s2_pairs.tables(folder):
        return l8s2_pairs.plan(folder, split or "published")
    if split not in (None, "by-tile"):
        raise InputError(f"products are split by tile, found split={split!r}", where=NAME)
    scenes, landsat = group(folder)
    found, skipped = {}, []
    for scene, s2 in sorted(scenes.items()):
        try:
            found[scene] = (s2, *partner(folder, scene, s2, landsat, max_days))
        except InputError as error:
            skipped.append(SkippedScene(id=scene, reason=str(relative_error(error, folder))))
    last = {(s2["tile"], s2["time"], s2["baseline"]): scene for scene, (s2, *_) in found.items()}
    for scene in sorted(set(found) - set(last.values())):  # the ids of its chips would be the same
        del found[scene]
        skipped.append(SkippedScene(id=scene, reason=f"{scene}: a later product of the same image is there"))
    tiles = {scene: (s2["tile"], grid) for scene, (s2, grid, _) in found.items()}
    with reasons(skipped):
        split_of = by_group(_places(tiles), shares) if tiles else {}
    parts = []
    for scene, (s2, grid, l8) in found.items():
        names = (*s2["bands"].values(), *l8["bands"].values(), *l8["pan"].values())
        payload = {"s2": s2, "l8": l8}
        sources = source_files(folder, names)
        parts.append((scene, split_of[scene], grid, s2["date"], sources, payload))
    own_shares = {} if held_out == 0.15 else {"held_out": held_out}
    stated = header({"max_days": max_days} | own_shares, "by-tile", is_simulated(folder), held_out=held_out)
    return make_plan(stated, folder, parts, lambda grid: len(windows(grid.height, grid.width)), skipped)


def index(job: SceneJob) -> list[ChipRef]:
    """The windows that Landsat holds, row by row."""
    if "pairs" in job.payload:
        return l8s2_pairs.index(job)
    s2 = job.payload["s2"]
    with Pair(job) as pair:
        inside = [w for w in windows(pair.grid.height, pair.grid.width) if pair.holds(w)]
        if not inside:
            raise SceneError("Landsat holds no chip of it as a whole", where=job.id)
        names = (f"T{s2['tile']}_{s2['time']}_N{s2['baseline']}_{w[0]}_{w[1]}" for w in inside)
        return [
            ChipRef(name, window, pair.grid.window_transform(window), pair.transforms(window))
            for name, window in zip(names, inside, strict=True)
        ]


def read(job: SceneJob, refs: Sequence[ChipRef]) -> Iterator[dict[str, np.ndarray] | None]:
    """``image`` uint16 (6, 86, 86), ``pan`` uint16 (1, 172, 172), ``target`` uint16 (6, 256, 256), ``valid`` uint8.

    None where the two sensors did not both see clearly, or not alike. Raises SceneError when no chip is left, or the
    two sensors do not lie on each other.
    """
    if "pairs" in job.payload:
        yield from l8s2_pairs.read(job, refs)
        return
    shifts, dropped = [], {"not clear": 0, "not alike": 0}
    with Pair(job) as pair:
        for ref in refs:
            chip = pair.chip(ref.window)
            valid = chip["valid"] != 0
            if valid.mean() < MIN_VALID:
                dropped["not clear"] += 1
                yield None
                continue
            one, two = reflectances(chip, ref.transforms, ref.transform)
            if not optical.alike(one, two, valid, MIN_PSNR_DB, MIN_SSIM):
                dropped["not alike"] += 1
                yield None
                continue
            if len(shifts) < SHIFT_CHIPS:
                shifts.append(optical.registration_shift(two[NIR], one[NIR]))
            yield chip
    if not shifts:
        why = ", ".join(f"{n} {words}" for words, n in dropped.items())
        raise SceneError(f"none of {len(refs)} chips that Landsat holds will do ({why})", where=job.id)
    down, right = np.median(shifts, axis=0) * pair.grid.transform[0]
    if max(abs(down), abs(right)) > MAX_SHIFT_M:
        raise SceneError(
            f"Landsat lies {down:.1f} m south and {right:.1f} m east of Sentinel-2 (limit {MAX_SHIFT_M:g} m)",
            where=job.id,
            hint="co-register them first",
        )


class Pair:
    """One Sentinel-2 product and its Landsat scene, open while used as a context manager."""

    def __init__(self, job: SceneJob) -> None:
        self.folder, self.payload = Path(job.payload["source"]), job.payload
        self._stack, self._row = ExitStack(), None  # the row of the strip that is in memory

    def __enter__(self) -> Pair:
        s2, l8 = self.payload["s2"], self.payload["l8"]
        with self._stack as stack, relative_errors(self.folder):
            self._s2 = {band: self._open(stack, name) for band, name in s2["bands"].items()}
            self._l8 = {band: self._open(stack, name) for band, name in l8["bands"].items()}
            self._pan = self._open(stack, l8["pan"]["B8"])
            metadata = self.folder / l8["pan"]["MTL"]
            self._gains = optical.pan_gains(read_text(metadata), metadata)
            self._stack = stack.pop_all()
        self.grid = raster.grid_of(self._s2["B02"])
        own = {"image": self._l8["QA_PIXEL"], "pan": self._pan}
        self._grids = {array: in_zone(raster.grid_of(opened), self.grid.crs) for array, opened in own.items()}
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self._stack.close()
        if isinstance(error, SceneError):
            raise relative_error(error, self.folder) from None

    def _open(self, stack: ExitStack, name: str) -> DatasetReader:
        return stack.enter_context(raster.open_raster(self.folder / name, FORMATS, num_threads=2))

    def _window(self, window: raster.PixelWindow, array: str) -> raster.PixelWindow:
        """The pixels of another grid whose middle is nearest to the chip's."""
        size, grid = (L8_SIZE if array == "image" else PAN_SIZE), self._grids[array]
        a, _, c, _, e, f = self.grid.window_transform(window)
        x, y = c + a * window[3] / 2, f + e * window[2] / 2
        column = round((x - grid.transform[2]) / grid.transform[0] - size / 2)
        return (round((y - grid.transform[5]) / grid.transform[4] - size / 2), column, size, size)

    def holds(self, window: raster.PixelWindow) -> bool:
        """Whether the Landsat rasters reach around the chip."""
        for array, grid in self._grids.items():
            row, column, height, width = self._window(window, array)
            if row < 0 or column < 0 or row + height > grid.height or column + width > grid.width:
                return False
        return True

    def transforms(self, window: raster.PixelWindow) -> dict[str, raster.Affine6]:
        """Affine of the Landsat arrays of a chip."""
        return {array: grid.window_transform(self._window(window, array)) for array, grid in self._grids.items()}

    def _load(self, row: int) -> None:
        """Read the Sentinel-2 strip of 256 rows that begins at ``row``."""
        *_, (_, column, _, _) = windows(self.grid.height, self.grid.width)
        width, baseline = column + CHIP_SIZE, int(self.payload["s2"]["baseline"])
        if self._row is None:
            self._target = np.empty((len(S2_BANDS), CHIP_SIZE, width), np.uint16)
        for number, band in enumerate(S2_BANDS):
            if self._s2[band].width == self.grid.width:
                values = raster.read_window(self._s2[band], (row, 0, CHIP_SIZE, width), (1,), optical.S2_FILL)
            else:
                around = (row // 2 - 1, -1, CHIP_SIZE // 2 + 2, width // 2 + 2)
                values = optical.double(
                    raster.read_window(self._s2[band], around, (1,), optical.S2_FILL), optical.S2_FILL
                )
            self._target[number] = optical.s2_surface(values[0], baseline)
        scl = raster.read_window(self._s2["SCL"], (row // 2, 0, CHIP_SIZE // 2, width // 2), (1,), 0)[0]
        usable = optical.s2_usable(scl).repeat(2, 0).repeat(2, 1)
        self._row, self._usable = row, usable & (self._target != optical.S2_NODATA).all(0)

    def chip(self, window: raster.PixelWindow) -> dict[str, np.ndarray]:
        """The arrays of one chip; Sentinel-2 is read by strips of 256 rows, so ask row by row."""
        if window[0] != self._row:
            self._load(window[0])
        columns = slice(window[1], window[1] + CHIP_SIZE)
        place = self._window(window, "image")
        dn = np.concatenate([raster.read_window(self._l8[band], place, (1,)) for band in L8_BANDS])
        clear = optical.l8_usable(raster.read_window(self._l8["QA_PIXEL"], place, (1,), 1)[0])
        clear &= (dn != optical.L8_FILL).all(0)
        seen = nearest(clear, self.transforms(window)["image"], self.grid.window_transform(window), CHIP_SIZE)
        pan = raster.read_window(self._pan, self._window(window, "pan"), (1,))
        return {
            "image": optical.l8_not_negative(dn).astype(np.uint16),
            "pan": optical.pan_reflectance(pan, self._gains),
            "target": self._target[:, :, columns].copy(),
            "valid": (seen & self._usable[:, columns]).astype(np.uint8),
        }


def windows(height: int, width: int) -> list[raster.PixelWindow]:
    """Whole chips of a tile, row by row; of a full tile those that no neighbouring tile of its zone holds as well."""
    rows, columns = _chips(height), _chips(width)
    return [(r * CHIP_SIZE, c * CHIP_SIZE, CHIP_SIZE, CHIP_SIZE) for r in range(rows) for c in range(columns)]


def _chips(side: int) -> int:
    return min(side // CHIP_SIZE, TILE_CORE) if side >= TILE_SIZE else side // CHIP_SIZE


def _places(found: dict[str, tuple[str, raster.Grid]]) -> dict[str, str]:
    """Scene id -> the first of the tiles that hang together with its own through the ground of their chips.

    Chips of tiles in two zones, or of parts of tiles where these overlap, may show the same ground.
    """
    grids = {
        scene: replace(grid, height=_chips(grid.height) * CHIP_SIZE, width=_chips(grid.width) * CHIP_SIZE)
        for scene, (_, grid) in found.items()
    }
    tiles = sorted({tile for tile, _ in found.values()})
    number = {scene: tiles.index(tile) for scene, (tile, _) in found.items()}
    pairs = [(number[scene], number[first]) for scene, first in ground_keys(grids).items()]
    groups = connected_groups(len(tiles), np.array(pairs))
    return {scene: tiles[groups[at]] for scene, at in number.items()}


def nearest(values: np.ndarray, source: raster.Affine6, target: raster.Affine6, size: int) -> np.ndarray:
    """(size, size): for each pixel of a north-up grid the pixel of another one that holds its centre (edges held)."""
    centres = np.arange(size) + 0.5
    columns = np.floor((target[2] + centres * target[0] - source[2]) / source[0]).astype(int)
    rows = np.floor((target[5] + centres * target[4] - source[5]) / source[4]).astype(int)
    return values[np.clip(rows, 0, len(values) - 1)[:, None], np.clip(columns, 0, values.shape[1] - 1)]


def reflectances(
    chip: dict[str, np.ndarray], own: dict[str, raster.Affine6], target: raster.Affine6
) -> tuple[np.ndarray, np.ndarray]:
    """Both sensors on the chip's grid as float32 (6, 256, 256) reflectance: Landsat bilinear, then Sentinel-2."""
    l8 = chip["image"].astype(np.float32) * np.float32(optical.L8_SCALE) + np.float32(optical.L8_OFFSET)
    s2 = chip["target"].astype(np.float32) * np.float32(optical.S2_SCALE)
    return optical.resample(l8, own["image"], target, CHIP_SIZE), s2
