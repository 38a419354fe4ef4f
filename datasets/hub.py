"""Data sets from the Hugging Face Hub.

A repository holds one data set; version 1.0.0 is its tag ``v1.0.0``. The tag is resolved to a commit once and written
into a lock file, so that a moved tag is an error and not other data. The client keeps the files in its own cache and
checks sizes only; here every file is compared with the manifest's sha256 before it takes its place in the data root.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np

from ..errors import ChecksumError, FormatError, HubError, InputError
from .files import atomic_path, check_room, sha256_file, write_atomic
from .hub_errors import explain
from .hub_reference import Reference, parse_reference, read_lock, resolve
from .reader import PARTIAL_NAME
from .shard import load_index
from .spec import MANIFEST_NAME, Manifest, ShardEntry, load_manifest, manifest_sha256

LOCK_NAME = "tidemark.lock.json"
CARD_NAME = "README.md"
Bounds = tuple[float, float, float, float]


def pull(
    reference: str,
    out: str | Path = "data",
    *,
    splits: Sequence[str] = (),
    scenes: Sequence[str] = (),
    bounds: Bounds | None = None,
    workers: int = 4,
    progress: Callable[[int, int, str], None] | None = None,
) -> Path:
    """Bring a published data set, or the wanted part of it, to ``<out>/<name>/<version>``.

    What is there already and right is kept; a file whose sha256 differs is quarantined in the client's cache.

    Args:
        reference: ``ORG/NAME`` or ``ORG/NAME@1.0.0``.
        out: root folder of data sets; ``tidemark.lock.json`` in it records the commit.
        splits: only these; all by default.
        scenes: only the shards with chips of these scenes.
        bounds: only the shards with chips of scenes that meet this box: WGS84 west, south, east, north in degrees.
        workers: files fetched at a time.
        progress: called with files done, files in all, and the file's path.

    Returns:
        the data set's folder.

    Raises:
        HubError, StorageError: one line on what failed; what was fetched is kept, and the next call goes on.
        ChecksumError: a file is not the one that was published.
        FormatError: the manifest is not acceptable, or not that of the version asked for.
    """
    out = Path(out)
    lock = read_lock(out / LOCK_NAME)
    pinned, commit = resolve(parse_reference(reference), lock)
    manifest = remote_manifest(pinned, commit)
    entries = _of_splits(manifest, splits)
    if scenes or bounds is not None:
        entries = _with_scenes(pinned, commit, manifest, entries, scenes, bounds)
    folder = out / manifest.name / manifest.version
    if (folder / MANIFEST_NAME).exists() and manifest_sha256(load_manifest(folder)) != manifest_sha256(manifest):
        raise FormatError(
            f"another data set of this name and version lies here than {pinned}", where=folder, hint="move it away"
        )
    files = [
        (path, size, digest)
        for e in entries
        for path, size, digest in ((e.path, e.bytes, e.sha256), (e.index_path, e.index_bytes, e.index_sha256))
    ]
    todo = [file for file in files if not _is_there(folder / file[0], *file[1:])]
    _check_room(folder, sum(size for _, size, _ in todo))
    _list_missing(pinned, commit, [path for path, _, _ in todo])

    def bring(file: tuple[str, int, str]) -> str:
        path, size, digest = file
        _place(checked_file(pinned, commit, path, size, digest), folder / path)
        return path

    with ThreadPoolExecutor(workers) as pool:
        for done, path in enumerate(pool.map(bring, todo), 1):
            if progress is not None:
                progress(done, len(todo), path)
    with suppress(HubError):  # the card is for people: a data set without it is whole
        _place(_download(pinned, commit, CARD_NAME), folder / CARD_NAME)
    _note_parts(folder, manifest, entries)
    _place(_download(pinned, commit, MANIFEST_NAME), folder / MANIFEST_NAME)
    record = {"commit": commit, "content_sha256": manifest.content_sha256, "manifest_sha256": manifest_sha256(manifest)}
    if lock.get(str(pinned)) != record:
        write_atomic(out / LOCK_NAME, json.dumps(lock | {str(pinned): record}, indent=1, sort_keys=True) + "\n")
    return folder


def remote_manifest(reference: Reference, commit: str) -> Manifest:
    """The manifest of a resolved version. Raises HubError, FormatError."""
    manifest = load_manifest(_download(reference, commit, MANIFEST_NAME).parent)
    if manifest.version != reference.version:
        raise FormatError(f"its manifest is that of {manifest.name} {manifest.version}", where=reference)
    return manifest


def checked_file(reference: Reference, commit: str, path: str, size: int, sha256: str) -> Path:
    """A file of the repository in the client's cache, after its size and digest were compared.

    Raises:
        ChecksumError: they differ; the file is set aside and the next call fetches it anew.
        HubError, StorageError: it could not be fetched.
    """
    cached = _download(reference, commit, path)
    blob = cached.resolve()
    if blob.stat().st_size == size and (found := sha256_file(blob)) == sha256:
        return blob
    found = f"sha256 {found}" if blob.stat().st_size == size else f"{blob.stat().st_size} bytes"
    aside = set_aside(cached)
    expected = f"sha256 {sha256}" if found.startswith("sha256") else f"{size} bytes"
    raise ChecksumError(
        f"expected {expected}, found {found}",
        where=f"{reference}/{path}",
        hint=f"set aside as {aside} and not used; pull again",
    )


def set_aside(cached: Path) -> Path:
    """Take a wrong file out of the client's cache without losing it; where it is now."""
    blob = cached.resolve()
    aside = blob.with_name(f"{blob.name}.quarantined")
    os.replace(blob, aside)
    cached.unlink(missing_ok=True)
    return aside


def _download(reference: Reference, commit: str, path: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(reference.repo, path, repo_type="dataset", revision=commit))
    except Exception as error:
        raise explain(error, f"{reference}/{path}") from None


def _of_splits(manifest: Manifest, splits: Sequence[str]) -> list[ShardEntry]:
    if not splits:
        return list(manifest.shards)
    return [entry for split in dict.fromkeys(splits) for entry in manifest.split_shards(split)]


def _with_scenes(
    reference: Reference,
    commit: str,
    manifest: Manifest,
    entries: Sequence[ShardEntry],
    scenes: Sequence[str],
    bounds: Bounds | None,
) -> list[ShardEntry]:
    """The shards that hold chips of the wanted scenes, by their sidecars' scene numbers."""
    known = {scene.id for scene in manifest.scenes}
    if unknown := [scene for scene in scenes if scene not in known]:
        raise InputError(f"no scene {unknown[0]!r}", where=reference, hint=f"there is {', '.join(sorted(known)[:10])}")
    if bounds is not None and all(scene.bounds is None for scene in manifest.scenes):
        raise InputError("its scenes have no position, so none can be chosen by a box", where=reference)
    wanted = [
        number
        for number, scene in enumerate(manifest.scenes)
        if (not scenes or scene.id in scenes) and (bounds is None or _meet(scene.bounds, bounds))
    ]
    found = []
    for entry in entries:
        index = checked_file(reference, commit, entry.index_path, entry.index_bytes, entry.index_sha256)
        if np.isin(load_index(index, manifest, entry, f"{reference}/{entry.index_path}")[0]["scene"], wanted).any():
            found.append(entry)
    if not found:
        raise InputError("no chip lies there", where=reference, hint="check the box: west south east north, degrees")
    return found


def _meet(a: Bounds | None, b: Bounds) -> bool:
    return a is not None and a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _is_there(path: Path, size: int, sha256: str) -> bool:
    return path.is_file() and path.stat().st_size == size and sha256_file(path) == sha256


def _check_room(folder: Path, needed: int) -> None:
    from huggingface_hub import constants

    for place in {Path(constants.HF_HUB_CACHE), folder}:
        check_room(place, needed, hint="make room, pull fewer splits, or stream")


def _list_missing(reference: Reference, commit: str, paths: Sequence[str]) -> None:
    """Offline, name what the cache lacks before anything is placed."""
    from huggingface_hub import constants, try_to_load_from_cache

    if not constants.is_offline_mode():
        return
    missing = [
        path
        for path in paths
        if not isinstance(try_to_load_from_cache(reference.repo, path, revision=commit, repo_type="dataset"), str)
    ]
    if missing:
        more = f" and {len(missing) - 10} more" if len(missing) > 10 else ""
        raise HubError(
            f"offline, and {len(missing)} of {len(paths)} files are not in the cache: {', '.join(missing[:10])}{more}",
            where=reference,
            hint="connect and pull again",
        )


def _place(blob: Path, target: Path) -> None:
    """Put a cached file into the data set: a hard link where the disk allows it, else a copy."""
    with atomic_path(target) as temporary:
        try:
            os.link(blob.resolve(), temporary)
        except OSError:
            shutil.copyfile(blob, temporary)


def _note_parts(folder: Path, manifest: Manifest, entries: Sequence[ShardEntry]) -> None:
    """Record which shards were wanted, where that is not all of them."""
    marker = folder / PARTIAL_NAME
    here = {entry.path for entry in entries}
    here |= {e.path for e in manifest.shards if (folder / e.path).is_file() and (folder / e.index_path).is_file()}
    if len(here) < len(manifest.shards):
        write_atomic(marker, json.dumps(sorted(here), indent=1) + "\n")
    elif marker.exists():
        marker.unlink()
