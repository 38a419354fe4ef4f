"""A plan on disk: made once, so that no part of a job array has to read all sources for their digests.

Every scene carries the stamps of its source files, and the worker that makes its chips compares them first: the digests
that the manifest states are those of the files that were read.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from ..errors import FormatError, InputError
from .files import write_atomic
from .plan import Plan, SceneJob
from .spec import Scene, canonical_json, describe_validation

PLAN_FORMAT = 1
MAX_PLAN_BYTES = 4 << 30
KEY = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"  # of a shard
STAMPS = "stamps"  # key of a payload: relative path -> size in bytes, modification time in ns, inode


def save_plan(plan: Plan, builder: str, version: str, path: str | Path) -> None:
    """Write a plan as JSON.

    Args:
        plan: of products that are recorded file by file.
        builder: name of the builder, such as ``alos-dswe``.
        version: of the builder.
        path: of the file.

    Raises:
        InputError: a source is no file of its own (archives, files recorded as a group), or changed meanwhile.
    """
    scenes = {scene.id: scene for scene in plan.scenes}
    shards = tuple(
        replace(shard, scenes=tuple(_stamped(job, scenes[job.id]) for job in shard.scenes)) for shard in plan.shards
    )
    stated = {"plan_format": PLAN_FORMAT, "builder": builder, "builder_version": version}
    plain = TypeAdapter(Plan).dump_python(replace(plan, shards=shards), mode="json")
    write_atomic(path, canonical_json(stated | {"plan": plain}))


def read_plan(path: str | Path, builder: str, version: str) -> Plan:
    """The plan that ``save_plan`` wrote. Raises FormatError when it is none, or is one of another builder."""
    path = Path(path)
    try:
        if path.stat().st_size > MAX_PLAN_BYTES:
            raise FormatError(f"{path.stat().st_size} bytes, over the limit of {MAX_PLAN_BYTES}", where=path)
        raw = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"no plan to read ({error.strerror})", where=path, hint="write it with --save-plan") from None
    except (ValueError, RecursionError) as error:
        raise FormatError(f"not valid JSON ({error})", where=path) from None
    expected = {"plan_format": PLAN_FORMAT, "builder": builder, "builder_version": version}
    found = {key: raw.get(key) for key in expected} if isinstance(raw, dict) else {}
    if found != expected:
        raise FormatError(f"expected a plan with {expected}, found {found}", where=path, hint="write it again")
    try:
        plan = TypeAdapter(Plan).validate_python(raw.get("plan"))
        canonical_json(raw)
    except ValidationError as error:
        raise FormatError(describe_validation(error), where=path) from None
    except (ValueError, RecursionError) as error:
        raise FormatError(f"not a plan ({error})", where=path) from None
    splits = {scene.id: scene.split for scene in plan.scenes}
    if len(splits) < len(plan.scenes):
        raise FormatError("scene ids repeat", where=path)
    for shard in plan.shards:
        if not re.fullmatch(KEY, shard.key):
            raise FormatError(f"shard {shard.key!r}: its key is no name of a file", where=path)
        if {split for job in shard.scenes for split in (job.split, splits.get(job.id))} != {shard.split}:
            raise FormatError(f"shard {shard.key!r}: its scenes are not those of split {shard.split!r}", where=path)
        for payload in (job.payload for job in shard.scenes):
            if not (isinstance(payload.get("source"), str) and isinstance(payload.get(STAMPS), dict)):
                raise FormatError(f"shard {shard.key!r}: a scene lacks its source or stamps", where=path)
    return plan


def check_stamps(job: SceneJob) -> None:
    """Raises InputError where a source of a scene from a saved plan is no longer the file that was planned with."""
    for name, stamp in job.payload.get(STAMPS, {}).items():
        path = Path(job.payload["source"]) / name
        if _stamp(path) != stamp:
            raise InputError("the file changed after the plan was saved", where=path, hint="save the plan again")


def _stamped(job: SceneJob, scene: Scene) -> SceneJob:
    folder = Path(job.payload["source"]).absolute()
    stamps = {source.path: _stamp(folder / source.path) for source in scene.sources}
    for source in scene.sources:
        if stamps[source.path] is None:
            why = "its plan cannot be saved: it is no file of its own, or is gone"
            raise InputError(why, where=folder / source.path, hint="build without --save-plan")
        if stamps[source.path][0] != source.bytes:
            raise InputError("the file changed while the build was planned", where=folder / source.path)
    return replace(job, payload=job.payload | {"source": str(folder), STAMPS: stamps})


def _stamp(path: Path) -> list[int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns, found.st_ino]
