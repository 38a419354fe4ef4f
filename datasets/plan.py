"""What a builder plans before any pixel is read: scenes, shards and the chips that a pass over the labels finds.

A builder is one module with ``NAME``, ``VERSION`` and three functions::

    plan(source: Path, **parameters) -> Plan
    index(job: SceneJob) -> list[ChipRef]
    read(job: SceneJob, refs: Sequence[ChipRef]) -> Iterator[dict[str, np.ndarray] | None]

``plan`` reads lists and headers only. ``index`` passes over the labels of one scene and names its chips; ``read``
yields their arrays in that order, None for a chip that turns out to hold too little. A scene that cannot be used
raises SceneError in any of the three.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from .spec import Header, Scene, SkippedScene

MAX_CHIP_ID_BYTES = 48
OWN_SHARD_BYTES = 64 << 20  # a scene with more decoded bytes has a shard of its own
SHARD_BYTES = 256 << 20
Affine6 = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class SceneJob:
    """One scene as a worker needs it. ``payload`` holds JSON values; its keys ``source`` (a path)
    and ``stamps`` (of a saved plan) name no content."""

    id: str
    split: str
    payload: dict[str, Any]


@dataclass(frozen=True)
class ChipRef:
    """One chip: ``window`` is row, column, height, width in the scene; ``transform`` the affine a, b, c, d, e, f of
    the target's grid (pixel to CRS), ``transforms`` those of arrays on another grid; None where unknown."""

    id: str
    window: tuple[int, int, int, int]
    transform: Affine6 | None = None
    transforms: dict[str, Affine6] = field(default_factory=dict)
    payload: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ShardJob:
    """One shard ``<split>/<key>.h5``: a scene, or a group of small scenes of one split."""

    key: str
    split: str
    scenes: tuple[SceneJob, ...]


@dataclass(frozen=True)
class Plan:
    """A whole build. ``scenes`` fixes the scene numbers that the shards store."""

    header: Header
    scenes: tuple[Scene, ...]
    shards: tuple[ShardJob, ...]
    skipped: tuple[SkippedScene, ...] = ()


def slug(text: str) -> str:
    """At most 30 characters of file names and chip ids; what does not fit is told apart by a digest."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]{0,29}", text):
        return text
    clean = re.sub(r"[^A-Za-z0-9.-]+", "-", text).strip("-.")[:17]
    return f"{clean or 'scene'}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def group_shards(jobs: Sequence[SceneJob], decoded_bytes: Callable[[SceneJob], int]) -> Iterator[ShardJob]:
    """Large scenes alone, small ones in groups of one split, in the order of ``jobs``."""
    for split in dict.fromkeys(job.split for job in jobs):
        group: list[SceneJob] = []
        groups, size = [group], 0
        for job in (j for j in jobs if j.split == split):
            own = decoded_bytes(job)
            if own >= OWN_SHARD_BYTES:
                groups.append([job])
                continue
            if group and size + own > SHARD_BYTES:
                group, size = [], 0
                groups.append(group)
            group.append(job)
            size += own
        for members in filter(None, groups):
            key = slug(members[0].id) if len(members) == 1 else f"{slug(members[0].id)}-and-{len(members) - 1}-more"
            yield ShardJob(key=key, split=split, scenes=tuple(members))
