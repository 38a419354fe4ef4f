"""The child process that makes one shard: ``python -m tidemark.datasets.worker``, a request on standard input.

All HDF5 writing happens here, because a full disk can crash HDF5 when it closes a file. The process ends when its
standard input closes, so a killed builder leaves no writer behind. The result is a JSON file in the build's journal.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from ..errors import FormatError, SceneError, TidemarkError
from .files import sha256_file, storage_error, write_atomic
from .plan import SceneJob
from .plan_file import check_stamps
from .spec import Header
from .statistics import Tally
from .writer import write_shard


def make_shard(request: dict) -> dict:
    """Write the shard that ``request`` describes and return its journal entry (also without any usable scene)."""
    header, builder = Header.model_validate(request["header"]), import_module(request["builder"])
    jobs = [(number, SceneJob(**job)) for number, job in request["scenes"]]
    path, skipped = Path(request["path"]), {}
    for _, job in jobs:
        check_stamps(job)
    while True:
        left = [(number, job) for number, job in jobs if job.id not in skipped]
        try:
            return _write(request, header, builder, left, path, skipped)
        except _Unusable as unusable:
            skipped[unusable.scene] = unusable.reason


class _Unusable(Exception):
    def __init__(self, scene: str, reason: str) -> None:
        self.scene, self.reason = scene, reason


@contextmanager
def _reading(job: SceneJob) -> Iterator[None]:
    """A source that cannot be read makes its scene unusable; it is no fault of the disk that is written to."""
    try:
        yield
    except SceneError as error:
        raise _Unusable(job.id, str(error)) from None
    except OSError as error:
        words = str(SceneError(f"cannot be read ({error.strerror or error})", where=error.filename))
        raise _Unusable(job.id, words.replace(f"{job.payload.get('source')}/", "")) from None


def _write(request: dict, header: Header, builder, jobs, path: Path, skipped: dict[str, str]) -> dict:
    found = []
    for number, job in jobs:
        with _reading(job):
            found.append((number, job, list(builder.index(job))))
    refs = [ref for _, _, chips in found for ref in chips]
    numbers = [number for number, _, chips in found for _ in chips]
    tally = Tally(header, request["split"])

    def chips():
        for _, job, scene_refs in found:
            with _reading(job):
                yield from builder.read(job, scene_refs)

    try:
        rows = write_shard(path, header, request["split"], request["codec"], refs, numbers, chips(), tally.observe)
    except SceneError as error:  # a chip of the wrong shape or dtype: the scene it belongs to cannot be used
        owner = next((job.id for _, job, cs in found if any(c.id == str(error.where) for c in cs)), None)
        raise _Unusable(owner, str(error)) if owner else error from None
    filled = set(rows["scene"].tolist())
    entry = {
        "hash": request["hash"],
        "skipped": skipped,
        "scenes": [job.id for number, job, _ in found if number in filled],
        "chips": len(rows),
    }
    if not len(rows):
        return entry | {"tally": tally.to_json()}
    if unknown := tally.unknown_labels():
        path.unlink()
        path.with_suffix(".idx").unlink()
        raise FormatError(f"labels {unknown} are neither a class nor the ignore index", where=path)
    files = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
    index = path.with_suffix(".idx")
    files |= {"index_bytes": index.stat().st_size, "index_sha256": sha256_file(index)}
    return entry | files | {"tally": tally.to_json()}


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


def main() -> None:
    """Serve one request; errors go to standard output as JSON, so that the parent can raise them again."""
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        entry = make_shard(request)
        write_atomic(request["journal"], json.dumps(entry))
        answer = {"ok": True}
    except (TidemarkError, OSError) as error:
        if isinstance(error, OSError):
            error = storage_error(error, Path(request["path"]))
        where = None if error.where is None else str(error.where)
        answer = {"error": type(error).__name__, "what": error.what, "where": where, "hint": error.hint}
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
    os._exit(0)  # skips HDF5's clean-up, which can crash after a failed write


if __name__ == "__main__":
    main()
