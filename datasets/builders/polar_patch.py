"""polar-patch: 10 047 Sentinel-1 EW patches of 64² around Greenland, labelled water, ice or land.

Source: github.com/ysbecca/polar-patch, cut from the ExtremeEarth Polar training set, doi 10.5281/zenodo.3695276.

Two things are wrong with the source. 2 009 patches are blank and labelled all the same (2 008 in all three channels,
6536 in the two that carry information): they are dropped. And the sampler cut pixels at (row = x, column = y) but
labelled the point (column = x, row = y), so that labels belong to the transposed place. Version 1.0.0 keeps the stored
labels; version 2.0.0 has labels derived by ``repair_labels``.

No patch names its scene. Ids run in four passes over the same scenes, so the position within the pass (the phase)
tells scenes apart. Patches that overlap bit by bit are up to 0.079 apart in phase, two such pairs across the ends of
the pass (phases 0.966 and 0.005, 0.004 and 0.949), hence a guard band of 0.08 in a circle. Land lies in three clusters
(phases 0.14-0.26, 0.40-0.51, 0.66-0.77), and each split must hold one of them: among all arrangements of
train, test and validation on the circle with boundaries on a grid of 0.01, the one used has the class shares nearest
to those of the whole, in both versions. The blocks inside a split are the units of inference; they touch each other,
so they are less independent than scenes would be.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from ...errors import InputError, SceneError
from ..plan import ChipRef, Plan, SceneJob, ShardJob
from ..sources import Source, open_source
from ..spec import ICE_CLASSES, Array, Band, BuilderInfo, Header, Scene, Task
from ..splits import PhaseBlock, by_phase_blocks

NAME, VERSION = "polar-patch", "1.0.0"
EXPECTED_SHA256 = "17d8fef5e9c76d3700bab43134dd4a7de389848b69188e34239ead4262b15596"
PATCH_SIZE = 64
CODES = {"W": 0, "I": 1, "L": 2}
DROPPED = 255  # in arrays of repaired labels
BANDS = (2, 1)  # HH is blue, HV is green
BLANK_MAX = 3  # a patch whose every HH and HV value is at most this shows nothing

PASS_STARTS = (0, 2504, 5010, 7520)  # ids at which the sampler began again with the first scene
GUARD = 0.08
BLOCKS = (
    *(PhaseBlock(k * 0.045, (k + 1) * 0.045, "train") for k in range(8)),
    PhaseBlock(0.44, 0.51, "test"),
    PhaseBlock(0.51, 0.58, "test"),
    PhaseBlock(0.58, 0.65, "test"),
    PhaseBlock(0.73, 0.78, "val"),
    PhaseBlock(0.78, 0.83, "val"),
    PhaseBlock(0.91, 0.955, "train"),
    PhaseBlock(0.955, 1.0, "train"),
)

REPAIR_NEIGHBOURS = 3
REPAIR_PHASE_WINDOW = 1 / 40
REPAIR_RADIUS_PX = 600


def plan(source: Path, *, labels: Literal["stored", "repaired"] = "stored", unverified_source: bool = False) -> Plan:
    """Plan polar-patch from its zip or folder.

    Args:
        source: the repository's zip, or the folder it unpacks to.
        labels: ``stored`` makes version 1.0.0, ``repaired`` makes version 2.0.0.
        unverified_source: accept other files than the published ones (recorded in the manifest).
    """
    if labels not in ("stored", "repaired"):
        raise InputError(f"labels must be 'stored' or 'repaired', found {labels!r}", where=NAME)
    files = open_source(source)
    points, stored = read_points(files)
    digests = files.verify([*map(_image, range(len(stored))), "meta.csv"], EXPECTED_SHA256, unverified_source)
    chosen = stored if labels == "stored" else repair_labels(points, stored)
    block = by_phase_blocks(pass_phase(len(stored)), BLOCKS, GUARD)
    scenes, shards = [], {}
    for number, place in enumerate(BLOCKS):
        ids = np.flatnonzero(block == number)
        usable = ids[chosen[ids] != DROPPED]
        if not usable.size:
            continue
        patches = [[int(i), *map(int, points[i]), int(chosen[i])] for i in usable]
        record = files.record(f"polar-patch, {place.id}", {_image(i): digests[_image(i)] for i in ids})
        scenes.append(Scene(id=place.id, split=place.split, sources=(record,)))
        job = SceneJob(place.id, place.split, {"source": str(source), "patches": patches})
        shards.setdefault(place.split, []).append(job)
    groups = tuple(ShardJob(key="phases", split=split, scenes=tuple(jobs)) for split, jobs in shards.items())
    return Plan(header(labels, unverified_source), tuple(scenes), groups)


def index(job: SceneJob) -> list[ChipRef]:
    """The patches of one phase block that are not blank, by id; ``window`` is the cut in the (unknown) scene."""
    files, refs = Source(job.payload["source"]), []
    for number, x, y, label in job.payload["patches"]:
        if _decode(files, number)[..., BANDS].max() > BLANK_MAX:
            payload = {"number": number, "label": label}
            refs.append(ChipRef(id=f"{number:05d}", window=(x, y, PATCH_SIZE, PATCH_SIZE), payload=payload))
    return refs


def read(job: SceneJob, refs: Sequence[ChipRef]) -> Iterator[dict[str, np.ndarray]]:
    """``image`` uint8 (2, 64, 64), HH and HV, and ``label`` uint8 ()."""
    files = Source(job.payload["source"])
    for ref in refs:
        rgb = _decode(files, ref.payload["number"])
        image = np.ascontiguousarray(rgb[..., BANDS].transpose(2, 0, 1))
        yield {"image": image, "label": np.array(ref.payload["label"], np.uint8)}


def read_points(files: Source) -> tuple[np.ndarray, np.ndarray]:
    """``meta.csv``: points int64 (N, 2) as stored (x, y) and label ids uint8 (N,), in order of id.

    Raises InputError when ids are not 0 to N-1 in order, or a row does not read ``id x y label``.
    """
    rows = list(csv.reader(io.StringIO(files.read("meta.csv").decode("ascii", "replace")), delimiter=" "))
    points, labels = np.zeros((len(rows), 2), np.int64), np.zeros(len(rows), np.uint8)
    for number, row in enumerate(rows):
        try:
            at, x, y, code = row
            if int(at) != number or not 0 <= int(x) < 1 << 20 or not 0 <= int(y) < 1 << 20:
                raise ValueError
            points[number], labels[number] = (int(x), int(y)), CODES[code]
        except (ValueError, KeyError):
            raise InputError(
                f"line {number + 1} is not '{number} x y label' with label W, I or L: {' '.join(row)[:60]!r}",
                where=f"{files.path}, meta.csv",
            ) from None
    if not rows:
        raise InputError("no patches listed", where=f"{files.path}, meta.csv")
    return points, labels


def passes(n: int, starts: Sequence[int] = PASS_STARTS) -> tuple[np.ndarray, np.ndarray]:
    """First id and length (int64) of the pass of each of ``n`` ids."""
    begin = np.array([s for s in starts if s < n], np.int64)
    length = np.diff(np.append(begin, n))
    owner = np.searchsorted(begin, np.arange(n), side="right") - 1
    return begin[owner], length[owner]


def pass_phase(n: int, starts: Sequence[int] = PASS_STARTS) -> np.ndarray:
    """float64 (n,) in [0, 1): position of each id within its pass over the scenes."""
    begin, length = passes(n, starts)
    return (np.arange(n) - begin) / length


def repair_labels(points: np.ndarray, labels: np.ndarray, starts: Sequence[int] = PASS_STARTS) -> np.ndarray:
    """Labels for the places that the pixels really show, from the labelled points near them.

    The pixels of patch i lie at (column = y, row = x). Among the patches whose phase is in
    [phase_i - 0.025, phase_i + 0.025), blank ones included, the three whose stored points are nearest to (y, x) in
    Chebyshev distance decide (ties: the lower id), when the third is nearer than 600 px and all three agree.

    Args:
        points: int64 (N, 2) stored x, y in pixels of the unknown scenes.
        labels: uint8 (N,) stored labels.
        starts: first ids of the passes.

    Returns:
        uint8 (N,): the derived label, or ``DROPPED``.
    """
    n = len(labels)
    phase = pass_phase(n, starts)
    order = np.argsort(phase, kind="stable")
    low, high = np.searchsorted(phase[order], [phase - REPAIR_PHASE_WINDOW, phase + REPAIR_PHASE_WINDOW], side="left")
    result = np.full(n, DROPPED, np.uint8)
    width = int((high - low).max())
    if width < REPAIR_NEIGHBOURS:
        return result
    for rows in np.array_split(np.arange(n), max(1, n * width // 2_000_000)):
        at = low[rows, None] + np.arange(width)
        candidate = order[np.minimum(at, n - 1)]
        distance = np.abs(points[candidate] - points[rows, None, ::-1]).max(axis=2)
        rank = np.where(at < high[rows, None], distance * n + candidate, np.iinfo(np.int64).max)  # ties: lower id
        nearest = np.sort(np.partition(rank, REPAIR_NEIGHBOURS - 1, axis=1)[:, :REPAIR_NEIGHBOURS], axis=1)
        found = labels[nearest % n]
        sure = (nearest[:, -1] // n < REPAIR_RADIUS_PX) & (found == found[:, :1]).all(axis=1)
        result[rows[sure]] = found[sure, 0]
    return result


def header(labels: str, unverified_source: bool) -> Header:
    """What the manifest states before any pixel is read."""
    if labels == "stored":
        version, title = "1.0.0", "polar-patch: water, ice, land (stored labels)"
        label_text = "Labels are those stored in the source."
        defects = (
            "The sampler cut pixels at (row = x, column = y) but labelled the point (column = x, row = y): pixels and "
            "labels come from transposed places, and many labels are wrong. Evidence: 470 pairs of patches overlap bit "
            "by bit under row = x, 3 under row = y. Version 2.0.0 holds repaired labels."
        )
    else:
        version, title = "2.0.0", "polar-patch: water, ice, land (repaired labels)"
        label_text = (
            "Labels are derived, not stored: the label on which the three nearest labelled points of the same phase "
            "(within 0.025) agree, seen from the place that the pixels really show, when the third is nearer than "
            "600 px; patches without such agreement are dropped."
        )
        defects = (
            "Labels are derived by a neighbourhood rule, because the source pairs pixels and labels from transposed "
            "places. The rule leaves out patches near class borders, so the patches left are easier than the "
            "average, and it can be wrong where scenes alike in phase differ."
        )
    text = "; ".join(
        f"{split} " + ", ".join(f"{b.start:.3f}-{b.stop:.3f}" for b in BLOCKS if b.split == split)
        for split in ("train", "val", "test")
    )
    return Header(
        name=NAME,
        version=version,
        title=title,
        description=(
            f"64 x 64 pixel patches of Sentinel-1 EW scenes around Greenland, one class per patch. {label_text} 2 009 "
            "blank patches of the source are dropped. No patch names its scene; ids run in four passes over the same "
            f"scenes, and the split is by position within the pass (phase): {text}. The phase is taken as a circle, "
            f"and patches within a guard band of {GUARD} between different splits are dropped, because patches up to "
            "0.079 apart overlap. Land occurs in three clusters of the phase, one for each split. A block is the unit "
            "of inference; blocks of one split touch, so they are less independent than scenes would be."
        ),
        licence=None,
        citation=(
            "Patches: github.com/ysbecca/polar-patch. Scenes and polygons: ExtremeEarth Polar use case training data, "
            "doi 10.5281/zenodo.3695276."
        ),
        homepage="https://github.com/ysbecca/polar-patch",
        provenance=(
            "github.com/ysbecca/polar-patch at commit f7d97ea: RGB PNG files and meta.csv. Blue is HH and green is HV, "
            "8-bit stretched; red follows from the two (about 85 HV / HH) and is left out. Windows are row = x, "
            "column = y of the source's cut; whether that is the corner or the centre is not known."
        ),
        known_label_defects=defects,
        task=Task(
            kind="classification",
            classes=ICE_CLASSES,
        ),
        arrays=(
            Array(
                name="image",
                dtype="uint8",
                shape=(2, PATCH_SIZE, PATCH_SIZE),
                role="image",
                bands=tuple(Band(name=n, sensor="Sentinel-1 EW", unit="8-bit stretched") for n in ("HH", "HV")),
            ),
            Array(name="label", dtype="uint8", shape=(), role="label"),
        ),
        builder=BuilderInfo(
            name=NAME, version=VERSION, parameters={"labels": labels, "unverified_source": unverified_source}
        ),
    )


def _image(number: int) -> str:
    return f"images/{number}.png"


def _decode(files: Source, number: int) -> np.ndarray:
    """uint8 (64, 64, 3), RGB. Raises SceneError when the file is not that."""
    name = _image(number)
    try:
        with Image.open(io.BytesIO(files.read(name)), formats=("PNG",)) as image:
            if image.size != (PATCH_SIZE, PATCH_SIZE) or image.mode != "RGB":
                raise SceneError(f"expected RGB of 64 x 64, found {image.mode} of {image.size}", where=name)
            return np.asarray(image)
    except (InputError, OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        if isinstance(error, SceneError):
            raise
        raise SceneError(f"not a readable PNG ({error})", where=name) from None
