"""Chips of a published data set over HTTP ranges, without downloading its shards.

The sidecar of a shard says where every chip lies and what its checksum is; it is fetched whole and compared with the
manifest. Ranges that lie close together become one request, requests run side by side, and what came is kept on disk
chip by chip. The HDF5 structure itself is never read, and nothing is used before its checksum was compared.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Lock
from urllib.parse import urlsplit

import numpy as np

from ..errors import ChecksumError, FormatError, HubError
from .codecs import decode
from .guard import Layout, Places
from .hub import checked_file, remote_manifest
from .hub_errors import explain
from .hub_reference import Reference, parse_reference, resolve
from .reader import Shard
from .shard import checksum, load_index, meta_checksums, storage_codec
from .spec import Manifest, ShardEntry

SCHEME = "hf://"
JOIN_GAP = 64 << 10  # bytes between two wanted ranges that are cheaper to read than to ask for anew
MAX_REQUEST = 8 << 20  # longer requests are cut, so that several run side by side
CONNECTIONS = 8


class RemoteShard(Shard):
    """A shard that stays where it is. Reads fetch what the cache lacks; see ``Shard`` for the rest.

    Args:
        manifest, entry, checksum: as for ``Shard``; checksums are always compared with what comes over the network.
        reference, commit: the resolved version.
        cache: folder for the chips' stored bytes; None keeps none.
    """

    whole_batches = True  # one call for many chips lets ranges be joined and run side by side

    def __init__(
        self,
        manifest: Manifest,
        entry: ShardEntry,
        reference: Reference,
        commit: str,
        cache: Path | None,
    ) -> None:
        super().__init__(f"{SCHEME}{reference}", manifest, entry, checksum=True)
        self.reference, self.commit = reference, commit
        self.cache = None if cache is None else cache / entry.sha256
        self.source = Source(reference, commit, entry.path)

    def open(self) -> Layout:
        """Fetch and compare the sidecar, once."""
        if self._lock_pid != os.getpid():  # a fork while another thread was opening leaves the lock held for ever
            self._lock, self._lock_pid = Lock(), os.getpid()
        with self._lock:
            if self._layout is None:
                self._index(self._from_index())
        return self._layout

    def _from_index(self) -> Layout:
        entry, manifest = self.entry, self.manifest
        path = checked_file(self.reference, self.commit, entry.index_path, entry.index_bytes, entry.index_sha256)
        index, transformed = load_index(path, manifest, entry, where=self._place(entry.index_path))
        names = index.dtype.names
        codec = storage_codec(manifest, manifest.codec)
        places = {}
        for array in manifest.arrays:
            offset, size = index[f"{array.name}_offset"], index[f"{array.name}_size"]
            ends = offset.astype(np.float64) + size
            own = codec if array.shape else "none"  # one value per chip is a column, as the metadata
            if ends.max(initial=0) > entry.bytes or own == "none" and (size != array.chip_bytes).any():
                raise FormatError(f"array {array.name} lies outside the shard", where=self._place(entry.index_path))
            places[array.name] = Places(offset, size, own)
        sums = [(n, f"checksum_{n.removesuffix('_checksum')}") for n in names if n.endswith("_checksum")]
        renamed = np.dtype([(dict(sums).get(n, n), index.dtype[n]) for n in names])
        rows = index.view(renamed)
        wrong = meta_checksums(index, transformed) != index["checksum_meta"]
        self._bad_meta = frozenset(np.flatnonzero(wrong).tolist())
        return Layout(places, rows, tuple(transformed))

    def read_many(self, array: str, indices: Sequence[int], out: np.ndarray | None = None) -> np.ndarray:
        """Chips ``indices`` of ``array``: (len(indices), *shape) in the native dtype, verified.

        Raises:
            HubError: they could not be fetched.
            ChecksumError: the bytes are not those that were published; none of them stays in the cache.
        """
        stored = self._array(array)
        if out is None:
            out = np.empty((len(indices), *stored.shape), stored.dtype)
        frames = self._frames(array, [int(i) for i in indices])
        chips = out if stored.shape else out[:, None]  # a view of each chip, never a copied scalar
        for row, i in zip(chips, indices, strict=True):
            frame = memoryview(frames[int(i)])
            try:
                if stored.codec == "none":
                    row.reshape(-1).view(np.uint8)[...] = np.frombuffer(frame, np.uint8)
                else:
                    decode(stored.codec, frame, row)
            except (FormatError, ValueError) as error:
                self._forget(indices)
                raise ChecksumError(f"does not decode ({error})", where=self._name(array, int(i))) from None
        try:
            for row, i in zip(chips, indices, strict=True):
                self._check(stored, array, int(i), checksum(row))
        except ChecksumError:
            self._forget(indices)
            raise
        return out

    def prepare(self, arrays: Sequence[str], indices: Sequence[int]) -> None:
        """Fetch the chips of several arrays side by side; the reads that follow take them from memory."""
        wanted = [(array, int(i)) for array in arrays for i in dict.fromkeys(indices)]
        self._ready |= self._fetch(wanted)

    def _frames(self, array: str, chips: Sequence[int]) -> dict[int, bytes]:
        """The stored bytes by chip: prepared, or from the cache or the network."""
        found = {i: frame for i in dict.fromkeys(chips) if (frame := self._ready.pop((array, i), None)) is not None}
        missing = self._fetch([(array, i) for i in dict.fromkeys(chips) if i not in found])
        return found | {i: frame for (_, i), frame in missing.items()}

    def _fetch(self, wanted: Sequence[tuple[str, int]]) -> dict[tuple[str, int], bytes]:
        places = self.open().places
        found = {key: frame for key in wanted if (frame := self._cached(*key)) is not None}
        ranges = sorted(
            (int(places[a].offset[i]), int(places[a].size[i]), (a, i)) for a, i in wanted if (a, i) not in found
        )
        groups = joined([(offset, size) for offset, size, _ in ranges])
        if not groups:
            return found
        with ThreadPoolExecutor(min(CONNECTIONS, len(groups))) as pool:
            blocks = pool.map(lambda group: self.source.read(group[0], group[1]), groups)
            for (start, _, members), block in zip(groups, blocks, strict=True):
                for offset, size, key in (ranges[member] for member in members):
                    found[key] = block[offset - start : offset - start + size]
                    self._keep(*key, found[key])
        return found

    def _cached(self, array: str, i: int) -> bytes | None:
        if self.cache is None:
            return None
        try:
            frame = (self.cache / f"{array}-{i}").read_bytes()
        except OSError:
            return None
        return frame if len(frame) == int(self._layout.places[array].size[i]) else None

    def _keep(self, array: str, i: int, frame: bytes) -> None:
        if self.cache is None:
            return
        path = self.cache / f"{array}-{i}"
        temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
        with suppress(OSError):  # a full disk costs the cache, not the chip
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(frame)
            os.replace(temporary, path)  # no fsync: its checksum is compared at every read

    def _forget(self, indices: Sequence[int]) -> None:
        """Drop the chips' bytes in all arrays: what came with wrong bytes is not trusted either."""
        for array in self.manifest.arrays:
            for i in map(int, indices):
                self._ready.pop((array.name, i), None)
                if self.cache is not None:
                    (self.cache / f"{array.name}-{i}").unlink(missing_ok=True)

    def _place(self, path: str) -> str:
        return f"{SCHEME}{self.reference}/{path}"

    def _name(self, array: str, i: int) -> str:
        chip = self.open().rows["chip_id"][i].decode("ascii", "replace")
        return f"{self._place(self.entry.path)}, array {array}, chip {i} ({chip})"


class Source:
    """Byte ranges of one file of a repository. The address behind the Hub's redirect is asked for once."""

    def __init__(self, reference: Reference, commit: str, path: str) -> None:
        self.reference, self.commit, self.path = reference, commit, path
        self._location: str | None = None
        self._lock = Lock()

    def __getstate__(self) -> dict:
        return {k: v for k, v in self.__dict__.items() if k != "_lock"}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._lock = Lock()

    def read(self, start: int, length: int) -> bytes:
        """Bytes ``start`` to ``start + length``. Raises HubError."""
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_backoff

        where = f"{SCHEME}{self.reference}/{self.path}"
        for fresh in (False, True):  # the address carries a signature that runs out
            try:
                location = self._address(fresh)
                headers = build_hf_headers()
                if urlsplit(location).netloc != urlsplit(self._hub_address()).netloc:
                    headers.pop("authorization", None)
                headers |= {"Range": f"bytes={start}-{start + length - 1}", "Accept-Encoding": "identity"}
                answer = http_backoff("GET", location, headers=headers)
                if answer.status_code == 403 and not fresh:
                    continue
                hf_raise_for_status(answer)
            except Exception as error:
                raise explain(error, where) from None
            if answer.status_code != 206 or len(answer.content) != length:
                raise HubError(
                    f"asked for {length} bytes from {start}, got {len(answer.content)} ({answer.status_code})",
                    where=where,
                    hint="pull the data set instead",
                )
            return answer.content
        raise HubError("the address of the file has expired twice", where=where)

    def _hub_address(self) -> str:
        from huggingface_hub import hf_hub_url

        return hf_hub_url(self.reference.repo, self.path, repo_type="dataset", revision=self.commit)

    def _address(self, fresh: bool) -> str:
        from huggingface_hub import get_hf_file_metadata

        with self._lock:
            if self._location is None or fresh:
                self._location = get_hf_file_metadata(self._hub_address()).location
            return self._location


def joined(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int, list[int]]]:
    """Ascending (offset, size) ranges as requests: start, length and the numbers of the ranges inside."""
    groups: list[tuple[int, int, list[int]]] = []
    for number, (offset, size) in enumerate(ranges):
        if groups:
            start, length, members = groups[-1]
            together = max(length, offset + size - start)
            if offset - (start + length) <= JOIN_GAP and together <= MAX_REQUEST:
                groups[-1] = (start, together, [*members, number])
                continue
        groups.append((offset, size, [number]))
    return groups


def open_remote_split(root: str, split: str) -> tuple[Manifest, list[RemoteShard]]:
    """The manifest and the shards of one split of ``hf://ORG/NAME[@1.0.0]``; nothing of the shards is read yet."""
    reference, commit = resolve(parse_reference(root), {})
    manifest = remote_manifest(reference, commit)
    entries = manifest.split_shards(split)
    return manifest, [RemoteShard(manifest, e, reference, commit, chip_cache()) for e in entries]


def chip_cache() -> Path:
    """Folder of streamed chips: ``tidemark-chips`` beside the Hub's own cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / "tidemark-chips"


def clear_chip_cache() -> int:
    """Remove all streamed chips; the bytes freed."""
    folder = chip_cache()
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0
    shutil.rmtree(folder, ignore_errors=True)
    return size
