"""The build engine: a plan of shards, any executor, a journal, and a manifest that appears last.

Every shard is one pure task whose HDF5 writing happens in a child process of its own. Finished shards leave an entry
in the journal (``.build/``), keyed by a hash of everything that determines their bytes, so that a build that was
killed, or that ran as parts of a job array, goes on by adopting them. The manifest makes the data set exist.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

from .. import errors
from ..errors import FormatError, InputError, PartialResultError, SceneError, StorageError, TidemarkError
from .card import data_card
from .files import free_space, write_atomic
from .journal import JOURNAL, adopted, check_writable, lock, remove_temporaries, remove_unlisted
from .manifest import assemble, split_rank
from .plan import ChipRef, Plan, SceneJob, ShardJob
from .plan_file import STAMPS
from .spec import FORMAT_VERSION, MANIFEST_NAME, Manifest, canonical_json, load_manifest
from .split_map import MAP_NAME, split_map

__all__ = ["ChipRef", "Plan", "SceneJob", "ShardJob", "build", "plan_data_set", "run_task"]

ATTEMPTS = 2  # a worker that died (out of memory, a crash in a codec) is tried once more


def plan_data_set(builder: str, source: str | Path, **parameters) -> Plan:
    """The plan of one of our builders, by its name (``ombria``) or module; InputError names the valid ones."""
    return import_module(builder_module(builder)).plan(Path(source), **parameters)


def builder_module(name: str) -> str:
    """Dotted module of a builder."""
    known = list_builders()
    if name not in known:
        raise InputError(f"no builder {name!r}, there is {', '.join(known)}")
    return f"{__package__}.builders.{name.replace('-', '_')}"


def list_builders() -> list[str]:
    """Names of the builders: the modules of ``datasets/builders``."""
    folder = Path(__file__).parent / "builders"
    return sorted(p.stem.replace("_", "-") for p in folder.glob("*.py") if not p.stem.startswith("_"))


def build(
    plan: Plan,
    builder: str,
    out: str | Path,
    *,
    workers: int = 1,
    executor: Executor | None = None,
    codec: str = "blosc",
    shard: str | None = None,
    strict: bool = False,
    merge: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> Path:
    """Build (or finish building) a data set.

    Args:
        plan: what to build.
        builder: dotted module of the builder, imported in the workers.
        out: root folder; the data set appears in ``<out>/<name>/<version>``.
        workers: shards made at a time, where no executor is given.
        executor: anything with ``submit`` (a process pool, Dask's ``client.get_executor()``).
        codec: ``blosc``, ``blosc-hc``, ``gzip`` or ``none``.
        shard: ``i/n`` makes only every n-th shard from the i-th (0 ≤ i < n) and writes no manifest.
        strict: end at the first scene that cannot be used, instead of leaving it out.
        merge: publish what the parts of a job array made, and make no shard here.
        progress: called with shards done, shards in all and the key just done.

    Returns:
        The data set's folder.

    Raises:
        BusyError: another builder works on this output.
        PartialResultError: scenes were left out (the data set is published without them), or shards failed (nothing
            is published; what is done is kept for the next run).
        StorageError: the output is not writable or full.
    """
    folder = Path(out) / plan.header.name / plan.header.version
    part = _part(shard)
    if merge and part:
        raise InputError("--merge puts the parts together, --shard makes one: give one of them", where=folder)
    if (folder / MANIFEST_NAME).exists() and not (folder / JOURNAL).exists():  # nothing to do, so nobody to keep out
        return _finished(plan, codec, folder, strict)
    check_writable(folder)
    with lock(folder, part):
        if part is None:
            remove_temporaries(folder)
        if (folder / MANIFEST_NAME).exists():
            shutil.rmtree(folder / JOURNAL, ignore_errors=True)
            return _finished(plan, codec, folder, strict)
        requests = shard_requests(plan, builder, folder, codec)
        wanted = requests[part[0] :: part[1]] if part else requests
        if merge and (missing := [q["key"] for q in wanted if adopted(q) is None]):
            raise PartialResultError(
                f"{len(missing)} of {len(wanted)} shards are missing: {', '.join(missing[:5])}",
                where=folder,
                hint="run their parts of the job array again",
            )
        entries = _run(wanted, workers, executor, strict, progress)
        skipped = [s.model_dump() for s in plan.skipped]
        skipped += [{"id": i, "reason": r} for entry in entries.values() for i, r in entry["skipped"].items()]
        skipped.sort(key=lambda scene: scene["id"])
        if strict:
            _tell_skipped(skipped, folder, strict)
        if part is None:
            manifest = assemble(plan, codec, folder, [(q, entries[q["key"]]) for q in requests], skipped)
            write_atomic(folder / "README.md", data_card(manifest))
            if (picture := split_map(manifest)) is not None:
                write_atomic(folder / MAP_NAME, picture)
            remove_temporaries(folder)
            remove_unlisted(folder, manifest)
            write_atomic(folder / MANIFEST_NAME, canonical_json(manifest))
            shutil.rmtree(folder / JOURNAL, ignore_errors=True)
    _tell_skipped(skipped, folder, strict)
    return folder


def run_task(request: dict) -> dict:
    """Make one shard in a child process, or adopt the one that the journal vouches for. Returns the journal entry."""
    if entry := adopted(request):
        return entry
    command = [sys.executable, "-P", "-m", f"{__package__}.worker"]
    for _attempt in range(ATTEMPTS):
        with (
            tempfile.TemporaryFile("w+") as said,
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True) as child,
        ):
            # the pipe stays open while the child works: its end is how the child learns of our death
            child.stdin.write(json.dumps(request) + "\n")
            child.stdin.flush()
            answer = child.stdout.read()
            child.stdin.close()
            child.wait()
            said.seek(0)
            words = said.read()
        if os.environ.get("TIDEMARK_DEBUG"):
            sys.stderr.write(words)
        if child.returncode == 0 and answer.strip():
            result = json.loads(answer.strip().splitlines()[-1])
            if "error" not in result:
                return json.loads(Path(request["journal"]).read_text())
            raise getattr(errors, result["error"])(result["what"], where=result["where"], hint=result["hint"])
    how = f"signal {-child.returncode}" if child.returncode < 0 else f"exit code {child.returncode}"
    last = f": {words.strip().splitlines()[-1][:300]}" if words.strip() else ""
    raise TidemarkError(
        f"the worker died {ATTEMPTS} times ({how}{last}; {free_space(Path(request['path']))})",
        where=request["key"],
        hint="is there enough memory and disk?",
    )


def _part(shard: str | None) -> tuple[int, int] | None:
    if shard is None:
        return None
    first, _, count = shard.partition("/")
    if not (first.isdecimal() and count.isdecimal() and int(first) < int(count)):
        raise InputError(f"--shard {shard!r} is not i/n with 0 <= i < n")
    return int(first), int(count)


def _tell_skipped(skipped: list[dict], folder: Path, strict: bool) -> None:
    if skipped and strict:
        raise SceneError(skipped[0]["reason"], where=skipped[0]["id"], hint="without --strict it is left out")
    if skipped:
        named = "; ".join(f"{s['id']} ({s['reason']})" for s in skipped[:5])
        raise PartialResultError(f"{len(skipped)} scenes were left out: {named}", where=folder)


def _finished(plan: Plan, codec: str, folder: Path, strict: bool) -> Path:
    """The folder of a data set that is already built, which ends as the build of it did."""
    manifest = load_manifest(folder)
    _require_same(manifest, plan, codec, folder)
    _tell_skipped([s.model_dump() for s in manifest.skipped], folder, strict)
    return folder


def _require_same(manifest: Manifest, plan: Plan, codec: str, folder: Path) -> None:
    planned = plan.header.model_dump(mode="json")  # as JSON, which knows no tuples
    same = manifest.model_dump(mode="json", include=set(planned)) == planned
    if not (same and manifest.scenes == plan.scenes and manifest.codec == codec):
        raise InputError(
            f"version {manifest.version} is already built here from other inputs, parameters or codec",
            where=folder,
            hint="published versions never change: build into another folder or under another version",
        )
    for entry in manifest.shards:
        found = (folder / entry.path).stat().st_size if (folder / entry.path).exists() else None
        if found != entry.bytes:
            raise FormatError(f"expected {entry.bytes} bytes, found {found}", where=folder / entry.path, hint="rebuild")


def shard_requests(plan: Plan, builder: str, folder: Path, codec: str = "blosc") -> list[dict]:
    """What the workers need, a shard each, as JSON values in the order of splits and keys; ``folder``: the version."""
    numbers = {scene.id: number for number, scene in enumerate(plan.scenes)}
    sources = {scene.id: scene.model_dump(mode="json") for scene in plan.scenes}
    header = plan.header.model_dump(mode="json")
    requests = []
    for job in sorted(plan.shards, key=lambda j: (split_rank(j.split), j.key)):
        scenes = [(numbers[scene.id], asdict(scene)) for scene in job.scenes]
        named = [
            (n, s["id"], {k: v for k, v in s["payload"].items() if k not in ("source", STAMPS)}, sources[s["id"]])
            for n, s in scenes
        ]
        determined = {"format": FORMAT_VERSION, "header": header, "codec": codec, "split": job.split, "scenes": named}
        key = f"{job.split}/{job.key}"
        requests.append(
            {
                "key": key,
                "hash": hashlib.sha256(canonical_json(determined | {"key": key})).hexdigest(),
                "builder": builder,
                "header": header,
                "codec": codec,
                "split": job.split,
                "scenes": scenes,
                "path": str((folder / f"{key}.h5").absolute()),
                "journal": str((folder / JOURNAL / f"{job.split}.{job.key}.json").absolute()),
            }
        )
    if len({r["key"] for r in requests}) != len(requests):
        raise InputError("two shards of the plan have the same key", where=folder)
    return requests


def _run(requests: list[dict], workers: int, executor: Executor | None, strict: bool, progress) -> dict[str, dict]:
    """Run all tasks; a failed one does not stop the others, except on a full disk or in strict mode."""
    pool = executor or ThreadPoolExecutor(max_workers=max(1, workers))  # its threads only wait for their children
    entries, failed = {}, {}
    try:
        waiting: dict[Future, dict] = {pool.submit(run_task, request): request for request in requests}
        for future in as_completed(waiting):
            key = waiting[future]["key"]
            try:
                entries[key] = future.result()
            except StorageError:
                raise
            except Exception as error:
                # one dead worker breaks every pending task of a process pool: those are run here, one by one
                if not isinstance(error, TidemarkError):
                    try:
                        entries[key] = run_task(waiting[future])
                    except TidemarkError as again:
                        error = again
                if key not in entries:
                    failed[key] = error
            if strict and (failed or entries[key]["skipped"]):
                break
            if progress is not None:
                progress(len(entries) + len(failed), len(requests), key)
    finally:
        if executor is None:
            pool.shutdown(cancel_futures=True)
    if failed:
        if all(isinstance(e, InputError) for e in failed.values()):
            raise next(iter(failed.values()))
        named = "; ".join(f"{key} ({error})" for key, error in list(failed.items())[:5])
        raise PartialResultError(
            f"{len(failed)} of {len(requests)} shards failed: {named}", hint="the others are kept; run it again"
        )
    return entries
