"""Layout of a shard: the HDF5 file of one build task, with its sidecar index.

All datasets lie at the root. One chunk is one chip, so a reader can fetch and decode chips on its own; a shard whose
chips are small is contiguous. Beside the data stand per-chip geometry and XXH3-64 checksums of the decoded bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import xxhash

from ..errors import FormatError
from .plan import MAX_CHIP_ID_BYTES
from .spec import Array, Header, Manifest, ShardEntry

SMALL_CHIP_BYTES = 64 << 10
FORMAT_ATTRIBUTE = "tidemark_format"
checksum = xxhash.xxh3_64_intdigest  # of a chip's decoded bytes in C order


def storage_codec(header: Header, codec: str) -> str:
    """``none`` (contiguous) where one chip of all arrays together is under 64 KiB, else ``codec``."""
    return "none" if sum(a.chip_bytes for a in header.arrays) < SMALL_CHIP_BYTES else codec


def meta_fields(transformed: Sequence[str]) -> list[tuple]:
    """dtype fields of the per-chip metadata; ``transformed`` names the arrays on grids of their own."""
    own = [(f"transform_{name}", "<f8", (6,)) for name in transformed]
    return [
        ("chip_id", f"S{MAX_CHIP_ID_BYTES}"),
        ("scene", "<i4"),
        ("window", "<i8", (4,)),
        ("transform", "<f8", (6,)),
        *own,
    ]


def index_dtype(arrays: Sequence[Array], transformed: Sequence[str]) -> np.dtype:
    """Row of the sidecar: metadata, then byte offset, stored size and checksum of the chip in every array."""
    places = [(f"{a.name}_{what}", "<u8") for a in arrays for what in ("offset", "size", "checksum")]
    return np.dtype([*meta_fields(transformed), ("checksum_meta", "<u8"), *places])


def load_index(path: Path, manifest: Manifest, entry: ShardEntry, where: object = None) -> tuple[np.ndarray, list[str]]:
    """Rows (N,) of a sidecar of unknown origin, and the arrays with grids of their own.

    Raises FormatError, before anything of the declared length is made, where it is not that of the shard.
    """
    where = where or path
    try:
        with open(path, "rb") as file:
            version, (shape, _, dtype) = np.lib.format.read_magic(file), np.lib.format.read_array_header_1_0(file)
            start = file.tell()
    except Exception as error:  # whatever NumPy makes of a damaged header
        raise FormatError(f"not a NumPy array file ({error})", where=where) from None
    transformed = sorted(n.removeprefix("transform_") for n in dtype.names or () if n.startswith("transform_"))
    if version != (1, 0) or dtype != index_dtype(manifest.arrays, transformed) or shape != (entry.chips,):
        raise FormatError("does not have the fields and rows of the shard", where=where)
    if (found := path.stat().st_size) != (expected := start + entry.chips * dtype.itemsize):
        raise FormatError(f"{entry.chips} chips take {expected} bytes, found {found}", where=where)
    rows = np.fromfile(path, dtype, offset=start)
    if not usable_ids(rows["chip_id"]):
        raise FormatError("chip ids must be unique ASCII strings", where=where)
    if rows["scene"].min() < 0 or rows["scene"].max() >= len(manifest.scenes):
        raise FormatError("names a scene that does not exist", where=where)
    return rows, transformed


def usable_ids(ids: np.ndarray) -> bool:
    """Whether chip ids (N,) are unique ASCII strings."""
    return len(np.unique(ids)) == len(ids) and all(i and i.isascii() for i in ids.tolist())


def meta_checksums(rows: np.ndarray, transformed: Sequence[str]) -> np.ndarray:
    """XXH3-64 (N,) over id, scene, window and transforms of each row of a structured array."""
    dtype = np.dtype(meta_fields(transformed))
    packed = np.empty(len(rows), dtype)
    for name in dtype.names:
        packed[name] = rows[name]
    data, step = packed.tobytes(), dtype.itemsize
    return np.array([xxhash.xxh3_64_intdigest(data[i : i + step]) for i in range(0, len(data), step)], np.uint64)


def chunk_places(dataset: h5py.Dataset, array: Array) -> tuple[np.ndarray, np.ndarray]:
    """Byte offset and stored size (N,) uint64 of every chip of ``dataset``; a missing chunk has offset 0."""
    n = dataset.shape[0]
    if dataset.chunks is None:
        first = dataset.id.get_offset()
        first = 0 if first is None else first
        return np.uint64(first) + np.arange(n, dtype=np.uint64) * np.uint64(array.chip_bytes), np.full(
            n, array.chip_bytes, np.uint64
        )
    places = np.zeros((n, 2), np.uint64)

    def note(info) -> None:
        if not info.chunk_offset[0] < n or any(info.chunk_offset[1:]):
            raise FormatError(f"array {array.name} has a chunk at {info.chunk_offset}, outside its {n} chips")
        if info.filter_mask:
            raise FormatError(f"chip {info.chunk_offset[0]} of array {array.name} is stored without its filters")
        places[info.chunk_offset[0]] = info.byte_offset, info.size

    dataset.id.chunk_iter(note)
    return places[:, 0], places[:, 1]
