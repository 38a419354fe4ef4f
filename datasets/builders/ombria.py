"""OMBRIA: Sentinel-1 flood mapping, 756 chips of 256² with an image before and one after each flood.

Source: Drakonakis et al. 2022, doi 10.1109/JSTARS.2022.3155559, github.com/geodrak/OMBRIA.

The published test split is no test: most of its chips touch a training chip. Here the three flood events of 2021,
which share no ground with the rest, are the test split, and the validation split is three blocks of contiguous ids of
the published training chips. Contiguous ids are neighbours: the cuts lie where the mapped area changes, and two ids
beside each cut between training and validation belong to neither.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ...errors import InputError, SceneError
from ..plan import ChipRef, Plan, SceneJob, ShardJob
from ..sources import Source, open_source
from ..spec import Array, Band, BuilderInfo, ClassDef, Header, Scene, Task

NAME, VERSION = "ombria", "1.0.0"
CHIP_SIZE = 256
EXPECTED_SHA256 = "3546ba75d733a1748cea06f92c88025b84758167ce262338f47cd7df8ea6d015"
EVENTS = ("ALBANIA", "GUYANA", "TIMOR")

# Inclusive ranges of the published training ids. The ids between two ranges of different splits are dropped: the two
# on the training side of every cut. Three training ranges follow each other without a gap, cut where the area changes.
BLOCKS = (
    ("train", 1, 134),
    ("train", 135, 257),
    ("train", 258, 344),
    ("val", 347, 398),
    ("train", 401, 533),
    ("val", 536, 602),
    ("train", 605, 718),
    ("val", 721, 787),
)
_TRIPLE = re.compile(r"OmbriaS1/(train|test)/AFTER/S1_after_(\d{1,6})\.png")
_EVENT = re.compile(r"2021/([A-Z]{1,20})/Sentinel1/AFTER/imafter_(\d{1,6})\.png")


def plan(source: Path, *, official_split: bool = False, unverified_source: bool = False) -> Plan:
    """Plan OMBRIA from its zip or folder.

    Args:
        source: ``OMBRIA.zip`` as published, or the folder it unpacks to.
        official_split: the published train and test split instead, as the data set ``ombria-official``; its test
            chips touch training chips, and the audit says so.
        unverified_source: accept other files than the published ones (recorded in the manifest).
    """
    files = open_source(source)
    chips = _list_chips(files)
    digests = files.verify([n for names in chips.values() for n in names], EXPECTED_SHA256, unverified_source)
    groups: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for collection, number in sorted(chips):
        if home := _home(collection, number, official_split):
            groups.setdefault(home, []).append((collection, number))
    scenes, shards = [], []
    for (split, scene), members in groups.items():
        payload = {
            "source": str(source),
            "chips": [[f"{collection}-{number:04d}", *chips[collection, number]] for collection, number in members],
        }
        names = {name: digests[name] for member in members for name in chips[member]}
        record = files.record(f"OMBRIA, {scene}", names)
        scenes.append(Scene(id=scene, split=split, sources=(record,)))
        shards.append(ShardJob(key=scene, split=split, scenes=(SceneJob(scene, split, payload),)))
    return Plan(header(official_split, unverified_source), tuple(scenes), tuple(shards))


def index(job: SceneJob) -> list[ChipRef]:
    """All chips of the scene, by id; their place on the ground is not published."""
    return [ChipRef(id=chip[0], window=(0, 0, CHIP_SIZE, CHIP_SIZE)) for chip in job.payload["chips"]]


def read(job: SceneJob, refs: Sequence[ChipRef]) -> Iterator[dict[str, np.ndarray]]:
    """``image`` uint8 (2, 256, 256), before and after, and ``mask`` uint8 (256, 256)."""
    files, names = Source(job.payload["source"]), {chip[0]: chip[1:] for chip in job.payload["chips"]}
    for ref in refs:
        before, after, mask = (_decode(files, name) for name in names[ref.id])
        yield {"image": np.stack([before, after]), "mask": (mask > 127).astype(np.uint8)}


def header(official_split: bool, unverified_source: bool) -> Header:
    """What the manifest states before any pixel is read."""
    parameters = {"official_split": official_split, "unverified_source": unverified_source}
    if official_split:
        split = (
            "This is the published split: 624 training and 70 test chips. It is no test: most test chips touch a "
            "training chip, and the audit names them. It is here for comparison with published figures only."
        )
    else:
        split = (
            "Splits: the three flood events of 2021 (Albania, Guyana, Timor), one scene each, are the test split. "
            "Blocks of contiguous ids of the published training chips make train and validation, cut where the mapped "
            "area changes, with two ids dropped beside every cut between the two. The published test chips are left "
            "out, because most touch a training chip."
        )
    bands = tuple(
        Band(name=name, sensor="Sentinel-1 (polarisation not stated)", unit="8-bit stretched")
        for name in ("before", "after")
    )
    size = (CHIP_SIZE, CHIP_SIZE)
    return Header(
        name="ombria-official" if official_split else "ombria",
        version="1.0.0",
        title="OMBRIA flood mapping, published split" if official_split else "OMBRIA flood mapping",
        description=(
            "Floods mapped from Sentinel-1: a chip before and a chip after the event, and the flood extent. " + split
        ),
        licence=None,
        citation=(
            "Drakonakis, G. I., Tsagkatakis, G., Fotiadou, K., Tsakalides, P. (2022): OmbriaNet: Supervised flood "
            "mapping via convolutional neural networks using multitemporal Sentinel-1 and Sentinel-2 data fusion. "
            "IEEE JSTARS 15, 2341-2356, doi 10.1109/JSTARS.2022.3155559."
        ),
        homepage="https://github.com/geodrak/OMBRIA",
        provenance=(
            "github.com/geodrak/OMBRIA at commit 38a4903: 8-bit single-channel PNG files, Sentinel-1 part. Masks from "
            "Copernicus EMS Rapid Mapping. Pixels are unchanged; a mask value above 127 is flood."
        ),
        known_label_defects=(
            "The mask is the flood extent, not all water: permanent water is 0. Every chip appears to be stretched on "
            "its own, so grey values do not compare between chips. Polarisation, dates and georeference are not "
            "published. About 25 chips hold constant bright strips at swath edges, which are nodata in disguise with "
            "label 0. The flood share is a third of the training pixels and 11 to 23 % of the events'. In one large "
            "floodplain (training ids 436 to 720) the masks hardly follow the backscatter."
        ),
        task=Task(
            kind="segmentation",
            classes=(
                ClassDef(id=0, name="not flooded", color="#d9cfa6"),
                ClassDef(id=1, name="flood", color="#1f6fb4"),
            ),
        ),
        arrays=(
            Array(name="image", dtype="uint8", shape=(2, *size), role="image", bands=bands),
            Array(name="mask", dtype="uint8", shape=size, role="mask"),
        ),
        builder=BuilderInfo(name=NAME, version=VERSION, parameters=parameters),
    )


def _list_chips(files: Source) -> dict[tuple[str, int], tuple[str, str, str]]:
    """(collection, number) -> names of before, after and mask; collections are train, test and the events."""
    names, chips = set(files.names()), {}
    for name in sorted(names):
        if match := _TRIPLE.fullmatch(name):
            folder, number = name.rpartition("/AFTER/")[0], match[2]
            triple = (f"BEFORE/S1_before_{number}.png", f"AFTER/S1_after_{number}.png", f"MASK/S1_mask_{number}.png")
        elif match := _EVENT.fullmatch(name):
            folder, number = name.rpartition("/AFTER/")[0], match[2]
            triple = (f"BEFORE/imbefore_{number}.png", f"AFTER/imafter_{number}.png", f"MASK/gt_{number}.png")
        else:
            continue
        members = tuple(f"{folder}/{part}" for part in triple)
        if missing := [m for m in members if m not in names]:
            raise InputError(f"{missing[0]} is missing beside {name}", where=files.path)
        chips[match[1], int(number)] = members
    if not chips:
        raise InputError("no OMBRIA chips in it (OmbriaS1/train/AFTER/S1_after_0001.png, …)", where=files.path)
    return chips


def _home(collection: str, number: int, official_split: bool) -> tuple[str, str] | None:
    """(split, scene) of a chip, or None where it belongs to no split."""
    if official_split:
        return (collection, f"official-{collection}") if collection in ("train", "test") else None
    if collection == "train":
        for split, first, last in BLOCKS:
            if first <= number <= last:
                return split, f"{split}-{first:03d}-{last:03d}"
        return None
    return ("test", collection.lower()) if collection in EVENTS else None


def _decode(files: Source, name: str) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(files.read(name)), formats=("PNG",)) as image:
            if image.size != (CHIP_SIZE, CHIP_SIZE) or image.mode != "L":
                found = f"{image.width}×{image.height} of mode {image.mode}"
                raise SceneError(f"expected {CHIP_SIZE}×{CHIP_SIZE} 8-bit grey, found {found}", where=name)
            return np.asarray(image)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise SceneError(f"not a readable PNG ({error})", where=name) from None
