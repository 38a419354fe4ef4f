"""Indexed reader: chips straight from the mapped file, decoded and verified without HDF5's lock.

A shard opens lazily in every process (the guard runs, the chunks are indexed, the file is mapped), so objects can be
pickled, forked and shared between threads. Reads release the GIL while they copy, decode and hash.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
import xxhash

from ..errors import ChecksumError, FormatError
from .codecs import decode
from .guard import Layout, open_layout
from .shard import SMALL_CHIP_BYTES, checksum, meta_checksums
from .spec import Array, Manifest, ShardEntry, load_manifest

# So much is copied and then hashed at a time: the hash finds it in the core's own cache instead of in memory.
CACHED_BYTES = 1 << 19
# Small chips are copied together, so much at a time: what Python does between copies keeps other threads waiting.
GATHERED_BYTES = 8 << 20

PARTIAL_NAME = "partial.json"  # names the shards that are here, where a data set was pulled in part


@dataclass(frozen=True, slots=True)
class StoredArray:
    """Where the chips of one array lie, looked up once per process.

    What Python does per chip counts: between two chips it runs from a cold cache, and whoever needs the interpreter's
    lock meanwhile sleeps longer than that.
    """

    codec: str
    shape: tuple[int, ...]
    dtype: np.dtype
    chip_bytes: int
    offset: np.ndarray  # (N,) of the stored bytes
    size: np.ndarray
    sums: np.ndarray  # uint64 (N,)

    @classmethod
    def of(cls, layout: Layout, array: Array) -> StoredArray:
        """The declared array in an opened shard."""
        places, sums = layout.places[array.name], layout.rows[f"checksum_{array.name}"]
        dtype = np.dtype(array.dtype)
        columns = map(np.ascontiguousarray, (places.offset, places.size, sums))
        return cls(places.codec, array.shape, dtype, array.chip_bytes, *columns)


class Shard:
    """One HDF5 file of a data set.

    Args:
        folder: the data set's folder, ``<root>/<name>/<version>``.
        manifest: its manifest.
        entry: which shard.
        checksum: compare every chip with its stored XXH3-64 checksum.

    ``whole_batches`` tells a loader to ask for all chips of a batch at once.

    Raises:
        FormatError: at first use, when the file is not what the manifest says.
        ChecksumError: when a chip's bytes are not those that were written; other chips still read.
    """

    whole_batches = False

    def __init__(self, folder: str | Path, manifest: Manifest, entry: ShardEntry, checksum: bool = True) -> None:
        self.path = Path(folder) / entry.path
        self.manifest, self.entry, self.checksum = manifest, entry, checksum
        self.n = entry.chips
        self._reset()

    def _reset(self) -> None:
        self._lock, self._lock_pid = Lock(), os.getpid()
        self._pid, self._layout, self._bytes = -1, None, None
        self._stored: dict[str, StoredArray] = {}
        self._bad_meta: frozenset[int] = frozenset()
        self._ready: dict[tuple[str, int], bytes] = {}  # of shards that prepare

    def __getstate__(self) -> dict:
        return {k: v for k, v in self.__dict__.items() if not k.startswith("_")}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._reset()

    def __len__(self) -> int:
        return self.n

    def open(self) -> Layout:
        """Guard, index and map the file, once per process."""
        if self._pid == os.getpid():
            return self._layout
        if self._lock_pid != os.getpid():  # a fork while another thread was opening leaves the lock held for ever
            self._lock, self._lock_pid = Lock(), os.getpid()
        with self._lock:
            if self._pid != os.getpid():
                manifest, entry = self.manifest, self.entry
                layout = open_layout(self.path, manifest, entry.split, entry.chips, entry.bytes, manifest.codec)
                scenes = layout.rows["scene"]
                if scenes.min() < 0 or scenes.max() >= len(manifest.scenes):
                    raise FormatError(f"scene number {scenes.max()} of {len(manifest.scenes)}", where=self.path)
                sums = meta_checksums(layout.rows, sorted(layout.transformed))
                self._bad_meta = frozenset(np.flatnonzero(sums != layout.rows["checksum_meta"]).tolist())
                with open(self.path, "rb") as file:
                    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                self._index(layout)
                self._bytes, self._pid = np.frombuffer(mapped, np.uint8), os.getpid()
        return self._layout

    def _index(self, layout: Layout) -> None:
        self._stored = {array.name: StoredArray.of(layout, array) for array in self.manifest.arrays}
        self._layout = layout

    @property
    def chip_ids(self) -> list[str]:
        """The N chip ids."""
        return [i.decode("ascii") for i in self.open().rows["chip_id"].tolist()]

    @property
    def scene_index(self) -> np.ndarray:
        """int32 (N,): index into the manifest's scenes."""
        return self.open().rows["scene"]

    @property
    def window(self) -> np.ndarray:
        """int64 (N, 4): row, column, height, width in the scene, in pixels."""
        return self.open().rows["window"]

    @property
    def transform(self) -> np.ndarray:
        """float64 (N, 6): affine a, b, c, d, e, f of the target's grid in CRS units; NaN where unknown."""
        return self.open().rows["transform"]

    def array_transform(self, array: str) -> np.ndarray:
        """float64 (N, 6): the array's own grid, or the target's where it has none of its own."""
        layout = self.open()
        return layout.rows[f"transform_{array}" if array in layout.transformed else "transform"]

    def prepare(self, arrays: Sequence[str], indices: Sequence[int]) -> None:
        """Tell what will be read next; a mapped file has nothing to prepare."""

    def read(self, array: str, i: int, out: np.ndarray | None = None) -> np.ndarray:
        """Chip ``i`` of ``array`` in its native dtype, into ``out`` (C-contiguous) where given."""
        declared = self.manifest.array(array)
        if out is None:
            out = np.empty(declared.shape, declared.dtype)
        self.read_many(array, (i,), out[None])
        return out

    def read_many(self, array: str, indices: Sequence[int], out: np.ndarray | None = None) -> np.ndarray:
        """Chips ``indices`` of ``array``: (len(indices), *shape) in the native dtype, verified."""
        stored = self._array(array)
        if out is None:
            out = np.empty((len(indices), *stored.shape), stored.dtype)
        if stored.codec != "none":
            self._decode(stored, array, indices, out)
        elif stored.chip_bytes < SMALL_CHIP_BYTES:
            self._gather_small(stored, array, indices, out)
        else:
            self._gather(stored, array, indices, out)
        return out

    def _array(self, name: str) -> StoredArray:
        """The array in the opened shard. Raises FormatError for a name that the manifest does not have."""
        self.open()
        stored = self._stored.get(name)
        if stored is None:
            self.manifest.array(name)
        return stored

    def _decode(self, stored: StoredArray, array: str, indices: Sequence[int], out: np.ndarray) -> None:
        codec, offset, size, content = stored.codec, stored.offset, stored.size, self._bytes
        for row, i in zip(out, indices, strict=True):
            start = offset.item(i)
            try:
                decode(codec, content[start : start + size.item(i)], row)
            except FormatError as error:
                raise ChecksumError(error.what, where=self._name(array, i)) from None
            if self.checksum:
                self._check(stored, array, i, checksum(row))

    def _gather(self, stored: StoredArray, array: str, indices: Sequence[int], out: np.ndarray) -> None:
        source, flat = self._contiguous(stored, out)
        for row, i in zip(flat, indices, strict=True):
            if self.checksum:
                self._check(stored, array, i, _copy_hashed(source[i], row))
            else:
                np.copyto(row, source[i])

    def _gather_small(self, stored: StoredArray, array: str, indices: Sequence[int], out: np.ndarray) -> None:
        source, flat = self._contiguous(stored, out)
        places = np.asarray(indices, np.intp)
        if len(places) and (places.min() < 0 or places.max() >= self.n):
            raise IndexError(f"chip {places.min()} to {places.max()} of {self.n}")
        side_by_side = bool((np.diff(places) == 1).all())
        step = max(1, GATHERED_BYTES // max(1, stored.chip_bytes))
        for first in range(0, len(places), step):
            some, piece = places[first : first + step], flat[first : first + step]
            chips = slice(some[0], some[-1] + 1) if side_by_side else some
            np.copyto(piece, source[chips])  # ``take`` would not copy this twice, but hold the interpreter's lock
            if not self.checksum:
                continue
            found = list(map(checksum, piece))
            if self._bad_meta or found != stored.sums[chips].tolist():
                for i, digest in zip(some.tolist(), found, strict=True):
                    self._check(stored, array, i, digest)

    def _contiguous(self, stored: StoredArray, out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All chips of an uncompressed array and ``out``, both as rows of bytes."""
        start = stored.offset.item(0)
        source = self._bytes[start : start + self.n * stored.chip_bytes].reshape(self.n, stored.chip_bytes)
        flat = out.reshape(len(out), -1).view(np.uint8) if out.ndim > 1 else out.view(np.uint8).reshape(len(out), -1)
        return source, flat

    def _check(self, stored: StoredArray, array: str, i: int, digest: int) -> None:
        if digest != stored.sums.item(i):
            raise ChecksumError("the bytes differ from those written", where=self._name(array, i))
        if i in self._bad_meta:
            raise ChecksumError("id, scene, window or transform differ from those written", where=self._name("meta", i))

    def _name(self, array: str, i: int) -> str:
        return f"{self.path}, array {array}, chip {i} ({self.open().rows['chip_id'][i].decode('ascii', 'replace')})"


def _copy_hashed(source: np.ndarray, target: np.ndarray) -> int:
    """Copy bytes (without the interpreter's lock, unlike ``take``) and return their XXH3-64."""
    digest = xxhash.xxh3_64()
    for first in range(0, len(target), CACHED_BYTES):
        piece = target[first : first + CACHED_BYTES]
        np.copyto(piece, source[first : first + CACHED_BYTES])
        digest.update(piece)
    return digest.intdigest()


def open_split(
    folder: str | Path, split: str, checksum: bool = True, partial: bool = False
) -> tuple[Manifest, list[Shard]]:
    """The manifest and the (still closed) shards of one split, of a folder or of ``hf://ORG/NAME@1.0.0``.

    Raises:
        FormatError: of a data set that was pulled in part not all of the split is here, and ``partial`` is False, or
            none of it is.
    """
    if is_remote(folder):
        from .stream import open_remote_split

        return open_remote_split(str(folder), split)
    manifest = load_manifest(folder)
    entries = manifest.split_shards(split)
    pulled = pulled_shards(folder)
    here = [entry for entry in entries if pulled is None or entry.path in pulled]
    if len(here) < len(entries) and not (partial and here):
        raise FormatError(
            f"{len(here)} of the {len(entries)} shards of split {split!r} are here", where=folder, hint="pull the split"
        )
    return manifest, [Shard(folder, manifest, entry, checksum) for entry in here]


def is_remote(root: str | Path) -> bool:
    """Whether a data set's root is an address of the Hub, not a folder."""
    return str(root).startswith("hf://")


def pulled_shards(folder: str | Path) -> set[str] | None:
    """Paths of the shards that are here, of a data set that was pulled in part; None: all of them."""
    marker = Path(folder) / PARTIAL_NAME
    if not marker.exists():
        return None
    try:
        paths = json.loads(marker.read_bytes())
    except (OSError, ValueError, RecursionError):
        paths = None
    if not (isinstance(paths, list) and all(isinstance(path, str) for path in paths)):
        raise FormatError("not a list of shards", where=marker, hint="remove it and pull again")
    return set(paths)
