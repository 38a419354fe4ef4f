"""The manifest of a build whose shards are finished, and the digest that names its data."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from ..errors import InputError
from .plan import Plan
from .spec import FORMAT_VERSION, Header, Manifest, Scene, ShardEntry, SkippedScene, Split
from .statistics import TRAIN, Tally

SPLIT_ORDER = (TRAIN, "val", "test")


def content_sha256(folder: Path, header: Header, scenes: tuple[Scene, ...], shards: tuple[ShardEntry, ...]) -> str:
    """The digest that names the data whatever the codec and the grouping into shards.

    sha256 over the array declarations and then, sorted by split and chip id, one line per chip: split, id, scene id,
    and the hexadecimal bytes of window, transforms and array checksums, as the sidecars state them.
    """
    digest = hashlib.sha256()
    for array in header.arrays:
        digest.update(f"{array.name} {array.dtype} {array.shape}\n".encode())
    lines = []
    for entry in shards:
        rows = np.load(folder / entry.index_path, allow_pickle=False)
        fixed = [n for n in rows.dtype.names if n == "window" or n.startswith("transform")]
        names = [*fixed, *(f"{a.name}_checksum" for a in header.arrays)]
        for row in rows:
            values = " ".join(f"{n}={row[n].tobytes().hex()}" for n in names)
            lines.append(f"{entry.split} {row['chip_id'].decode()} {scenes[row['scene']].id} {values}\n")
    digest.update("".join(sorted(lines)).encode())
    return digest.hexdigest()


def split_rank(split: str) -> tuple[int, str]:
    """Where a split stands: train, val, test, then any other by name."""
    return (SPLIT_ORDER.index(split) if split in SPLIT_ORDER else len(SPLIT_ORDER), split)


def assemble(plan: Plan, codec: str, folder: Path, done: list[tuple[dict, dict]], skipped: list[dict]) -> Manifest:
    """The manifest of finished shards.

    Args:
        plan: of the build.
        codec: of the shards.
        folder: of the version.
        done: the request and the journal entry of every shard, in the order of splits and keys.
        skipped: ``id`` and ``reason`` of the scenes left out.

    Raises:
        InputError: no shard has a chip.
    """
    shards, tallies, scenes = [], {}, {}
    for request, entry in done:
        if not entry["chips"]:
            continue
        fields = {name: entry[name] for name in ("chips", "bytes", "sha256", "index_bytes", "index_sha256")}
        shards.append(ShardEntry(path=f"{request['key']}.h5", split=request["split"], **fields))
        tallies.setdefault(request["split"], Tally(plan.header, request["split"])).merge(entry["tally"])
        scenes[request["split"]] = scenes.get(request["split"], 0) + len(entry["scenes"])
    if not shards:
        raise InputError(
            "no scene could be used", where=folder, hint="; ".join(s["reason"] for s in skipped[:3]) or None
        )
    splits = []
    for name in sorted({scene.split for scene in plan.scenes} | set(tallies), key=split_rank):
        classes, ignored = tallies.get(name, Tally(plan.header, name)).class_counts()  # a split may lose all its scenes
        chips = sum(s.chips for s in shards if s.split == name)
        splits.append(Split(name=name, chips=chips, scenes=scenes.get(name, 0), classes=classes, ignored=ignored))
    statistics = tallies[TRAIN].statistics() if TRAIN in tallies else ()
    return Manifest(
        **{name: getattr(plan.header, name) for name in Header.model_fields},
        format_version=".".join(map(str, FORMAT_VERSION)),
        codec=codec,
        content_sha256=content_sha256(folder, plan.header, plan.scenes, tuple(shards)),
        statistics=statistics,
        splits=tuple(splits),
        scenes=plan.scenes,
        skipped=tuple(SkippedScene(**s) for s in skipped),
        shards=tuple(shards),
    )
