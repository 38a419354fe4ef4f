"""``tidemark verify``: are the files on disk the published ones, and what exactly is wrong where they are not?"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import ChecksumError, FormatError, TidemarkError
from .files import sha256_file
from .manifest import content_sha256
from .reader import PARTIAL_NAME, Shard, pulled_shards
from .shard import load_index, meta_fields
from .spec import MANIFEST_NAME, Manifest, ShardEntry, canonical_json, load_manifest
from .split_map import MAP_NAME
from .statistics import TRAIN, Tally


@dataclass(frozen=True)
class Verification:
    """Outcome: every problem in one line, and how much was looked at."""

    folder: Path
    shards: int
    chips: int
    bytes: int
    deep: bool
    problems: tuple[str, ...]


def verify(
    folder: str | Path,
    deep: bool = False,
    threads: int = 2,
    progress: Callable[[int, int, str], None] | None = None,
) -> Verification:
    """Compare a data set with its manifest.

    Every shard passes the guard and has its sha256 compared; a shard whose sha256 differs is searched chip by chip.
    Of a data set that was pulled in part only the shards that are here are looked at. ``deep`` decodes every chip of
    every shard, compares all checksums and counts the statistics and labels again.

    Raises FormatError only where there is no readable manifest; all other faults are in ``problems``.
    """
    folder = Path(folder)
    manifest = load_manifest(folder)
    problems = []
    if (folder / MANIFEST_NAME).read_bytes() != canonical_json(manifest):
        problems.append(f"{folder / MANIFEST_NAME}: not in canonical form, its sha256 names nothing")
    pulled = pulled_shards(folder)
    here = [entry for entry in manifest.shards if pulled is None or entry.path in pulled]
    tallies: dict[str, Tally] = {}
    with ThreadPoolExecutor(threads) as pool:
        checks = pool.map(lambda entry: _check_shard(folder, manifest, entry, deep), here)
        for done, (entry, (found, tally)) in enumerate(zip(here, checks, strict=True), start=1):
            problems += found
            if tally is not None:
                tallies.setdefault(entry.split, Tally(manifest, entry.split)).merge(tally)
            if progress is not None:
                progress(done, len(here), entry.path)
    if not problems and pulled is None:
        content = content_sha256(folder, manifest, manifest.scenes, manifest.shards)
        if content != manifest.content_sha256:
            problems.append(f"{folder}: content_sha256 expected {manifest.content_sha256}, found {content}")
    if deep and not problems and pulled is None:
        problems += _check_counts(folder, manifest, tallies)
    listed = {MANIFEST_NAME, "README.md", MAP_NAME, PARTIAL_NAME}
    listed |= {p for e in manifest.shards for p in (e.path, e.index_path)}
    extra = [p for p in folder.rglob("*") if p.is_file() and p.relative_to(folder).as_posix() not in listed]
    problems += [f"{path}: not part of the data set" for path in sorted(extra) if ".build" not in path.parts]
    size = sum(e.bytes + e.index_bytes for e in here)
    chips = sum(e.chips for e in here)
    return Verification(folder, len(here), chips, size, deep, tuple(problems))


def _check_shard(folder: Path, manifest: Manifest, entry: ShardEntry, deep: bool) -> tuple[list[str], dict | None]:
    problems = []
    shard = Shard(folder, manifest, entry)
    try:
        layout = shard.open()
    except TidemarkError as error:
        return [str(error)], None
    whole = (found := sha256_file(shard.path)) == entry.sha256
    tally = None
    if deep or not whole:
        tally = Tally(manifest, entry.split)
        problems += _check_chips(shard, tally)
    if not whole:
        problems.append(f"{shard.path}: sha256 expected {entry.sha256}, found {found}")
    index = folder / entry.index_path
    if not index.is_file():
        return [*problems, f"{index}: the sidecar index is missing"], None
    if (found := sha256_file(index)) != entry.index_sha256:
        return [*problems, f"{index}: sha256 expected {entry.index_sha256}, found {found}"], None
    try:
        rows, transformed = load_index(index, manifest, entry)
    except FormatError as error:
        return [*problems, str(error)], None
    if transformed != sorted(layout.transformed):
        return [*problems, f"{index}: does not have the fields and rows of the shard"], None
    for array in manifest.arrays:
        places = layout.places[array.name]
        same = (rows[f"{array.name}_offset"] == places.offset) & (rows[f"{array.name}_size"] == places.size)
        same &= rows[f"{array.name}_checksum"] == layout.rows[f"checksum_{array.name}"]
        if not same.all():
            problems.append(f"{index}: array {array.name}, chip {int(np.argmin(same))} lies elsewhere in the shard")
    fields = *(name for name, *_ in meta_fields(transformed)), "checksum_meta"
    if different := [name for name in fields if rows[name].tobytes() != layout.rows[name].tobytes()]:
        problems.append(f"{index}: {', '.join(different)} differ from the shard's")
    return problems, None if tally is None else tally.to_json()


def _check_chips(shard: Shard, tally: Tally) -> list[str]:
    problems = []
    for i in range(shard.n):
        chip = {}
        for array in shard.manifest.arrays:
            try:
                chip[array.name] = shard.read(array.name, i)
            except (ChecksumError, FormatError) as error:
                problems.append(str(error))
        if len(chip) == len(shard.manifest.arrays):
            tally.observe(chip)
    return problems


def _check_counts(folder: Path, manifest: Manifest, tallies: dict[str, Tally]) -> list[str]:
    problems = []
    for split in manifest.splits:
        if (split.classes, split.ignored) != tallies.get(split.name, Tally(manifest, split.name)).class_counts():
            problems.append(f"{folder}: split {split.name} has other label counts than the manifest states")
    if TRAIN in tallies and tallies[TRAIN].statistics() != manifest.statistics:
        problems.append(f"{folder}: the band statistics are not those of the training split")
    return problems
