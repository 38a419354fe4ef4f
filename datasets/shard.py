"""Layout and writer of a shard: the HDF5 file of one build task, with its sidecar index.

All datasets lie at the root. One chunk is one chip, so a reader can fetch and decode chips on its own; a shard whose
chips are small is contiguous. Beside the data stand per-chip geometry and XXH3-64 checksums of the decoded bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO

import h5py
import numpy as np
import xxhash

from ..errors import FormatError, SceneError
from .codecs import dataset_options, encode
from .files import atomic_path, storage_error
from .plan import MAX_CHIP_ID_BYTES, ChipRef
from .spec import FORMAT_VERSION, Array, Header

SMALL_CHIP_BYTES = 64 << 10
SPOOL_BYTES = 64 << 20  # of encoded chips in memory; more of them wait in a file without a name beside the shard
FORMAT_ATTRIBUTE = "tidemark_format"
checksum = xxhash.xxh3_64_intdigest  # of a chip's decoded bytes in C order
NO_TRANSFORM = (np.nan,) * 6


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


def meta_checksums(rows: np.ndarray, transformed: Sequence[str]) -> np.ndarray:
    """XXH3-64 (N,) over id, scene, window and transforms of each row of a structured array."""
    dtype = np.dtype(meta_fields(transformed))
    packed = np.empty(len(rows), dtype)
    for name in dtype.names:
        packed[name] = rows[name]
    data, step = packed.tobytes(), dtype.itemsize
    return np.array([xxhash.xxh3_64_intdigest(data[i : i + step]) for i in range(0, len(data), step)], np.uint64)


def write_shard(
    path: Path,
    header: Header,
    split: str,
    codec: str,
    refs: Sequence[ChipRef],
    scene_numbers: Sequence[int],
    chips: Iterable[dict[str, np.ndarray] | None],
    observe=None,
    threads: int = 2,
) -> np.ndarray:
    """Write one shard and its sidecar atomically; return the sidecar's rows. Without any chip nothing is written.

    HDF5 fixes N when the file is made, so the encoded chips wait until the last one has been read.

    Args:
        path: ``…/<split>/<key>.h5``; the sidecar takes the suffix ``.idx``.
        header: the data set; its arrays are written in their order.
        split: name of the split.
        codec: ``blosc``, ``blosc-hc``, ``gzip`` or ``none``.
        refs: the chips.
        scene_numbers: index into the manifest's scenes for every chip.
        chips: one mapping of array name to array per chip, in the same order; None for a chip that is left out.
        observe: called with each checked chip, in order (statistics).
        threads: encoder threads; the bytes do not depend on their number.

    Raises:
        FormatError: a chip is missing, of another shape or dtype, or its id is not usable.
        StorageError: the disk does not take it.
    """
    transformed = sorted({name for ref in refs for name in ref.transforms})
    rows = _rows(header, refs, scene_numbers, transformed)
    codec = storage_codec(header, codec)
    with _spool(path) as spool:
        kept, sizes = _spool_chips(header, codec, refs, chips, rows, spool, observe, threads)
        rows = rows[kept]
        if not kept:
            return rows
        with atomic_path(path) as temporary:
            try:
                _write_file(temporary, header, split, codec, rows, transformed, spool, sizes)
            except RuntimeError as error:  # how h5py reports a disk that fails while a file is closed
                raise OSError(0, str(error)) from error
    with atomic_path(path.with_suffix(".idx")) as temporary, open(temporary, "wb") as file:
        np.save(file, rows, allow_pickle=False)
    return rows


@contextmanager
def _spool(path: Path) -> Iterator[IO[bytes]]:
    """A file for encoded chips on the disk of ``path``, in memory while it is small."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with SpooledTemporaryFile(SPOOL_BYTES, dir=path.parent) as spool:
            yield spool
    except OSError as error:
        raise storage_error(error, path) from error


def _write_file(path, header, split, codec, rows, transformed, spool, sizes) -> None:
    with h5py.File(path, "w", libver=("v108", "v108")) as file:
        for name, value in (
            (FORMAT_ATTRIBUTE, ".".join(map(str, FORMAT_VERSION))),
            ("dataset", header.name),
            ("version", header.version),
            ("split", split),
        ):
            file.attrs.create(name, np.bytes_(value))
        datasets = {a.name: _create(file, a, len(rows), codec) for a in header.arrays}
        _write_chips(datasets, header, spool, sizes)
        for name in rows.dtype.names[: 4 + len(transformed)] + ("checksum_meta",):
            file.create_dataset(name, data=rows[name], track_times=False)
        for array in header.arrays:
            file.create_dataset(f"checksum_{array.name}", data=rows[f"{array.name}_checksum"], track_times=False)
        file.flush()
        for array in header.arrays:
            offsets, sizes = chunk_places(datasets[array.name], array)
            rows[f"{array.name}_offset"], rows[f"{array.name}_size"] = offsets, sizes


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


def _rows(header: Header, refs: Sequence[ChipRef], scene_numbers: Sequence[int], transformed: list[str]) -> np.ndarray:
    rows = np.zeros(len(refs), index_dtype(header.arrays, transformed))
    for i, (ref, scene) in enumerate(zip(refs, scene_numbers, strict=True)):
        encoded = ref.id.encode("ascii", "replace")
        if not ref.id.isascii() or not ref.id.isprintable() or not 0 < len(encoded) <= MAX_CHIP_ID_BYTES:
            raise FormatError(f"chip id {ref.id!r} must be 1 to {MAX_CHIP_ID_BYTES} printable ASCII characters")
        row = rows[i]
        row["chip_id"], row["scene"], row["window"] = encoded, scene, ref.window
        row["transform"] = NO_TRANSFORM if ref.transform is None else ref.transform
        for name in transformed:
            row[f"transform_{name}"] = ref.transforms.get(name, NO_TRANSFORM)
    if len(np.unique(rows["chip_id"])) != len(rows):
        raise FormatError("chip ids repeat within a shard", where=header.name)
    rows["checksum_meta"] = meta_checksums(rows, transformed)
    return rows


def _create(file: h5py.File, array: Array, n: int, codec: str) -> h5py.Dataset:
    options = {}
    if codec != "none" and array.shape:  # one value per chip is a column, as the metadata
        options = {"chunks": (1, *array.shape), **dataset_options(codec, np.dtype(array.dtype).itemsize)}
    return file.create_dataset(
        array.name, (n, *array.shape), array.dtype, track_times=False, fill_time="never", **options
    )


def _block(header: Header) -> int:
    """Chips whose chunks of one array lie side by side in the file."""
    return max(4, (8 << 20) // max(1, sum(a.chip_bytes for a in header.arrays)))


def _spool_chips(
    header: Header, codec: str, refs, chips, rows: np.ndarray, spool: IO[bytes], observe, threads: int
) -> tuple[list[int], np.ndarray]:
    """Encode the chips while the next ones are read: numbers of those kept, and the size of each encoded array."""
    kept: list[int] = []
    sizes: list[list[int]] = []
    waiting: deque = deque()
    codecs = [codec if array.shape else "none" for array in header.arrays]

    def encoded(chip: dict[str, np.ndarray]) -> list[tuple[bytes, int]]:
        values = (chip[array.name] for array in header.arrays)
        return [
            (v.tobytes() if c == "none" else encode(c, v), checksum(v)) for c, v in zip(codecs, values, strict=True)
        ]

    def store() -> None:
        number, future = waiting.popleft()
        frames = future.result()
        for array, (frame, digest) in zip(header.arrays, frames, strict=True):
            rows[f"{array.name}_checksum"][number] = digest
            spool.write(frame)
        kept.append(number)
        sizes.append([len(frame) for frame, _ in frames])

    stream, most = iter(chips), 2 * _block(header)
    with ThreadPoolExecutor(threads) as pool:
        for number, ref in enumerate(refs):
            chip = next(stream, _END)
            if chip is _END:
                raise FormatError(f"the builder announced {len(refs)} chips and yielded {number}", where=header.name)
            if chip is None:
                continue
            chip = _checked(header, ref, chip)
            waiting.append((number, pool.submit(encoded, chip)))
            if observe is not None:
                observe(chip)
            if len(waiting) >= most:
                store()
        if next(stream, _END) is not _END:
            raise FormatError(f"the builder announced {len(refs)} chips and yielded more", where=header.name)
        while waiting:
            store()
    return kept, np.array(sizes, np.int64).reshape(-1, len(header.arrays))


def _write_chips(datasets: dict[str, h5py.Dataset], header: Header, spool: IO[bytes], sizes: np.ndarray) -> None:
    places = (np.cumsum(sizes) - sizes.reshape(-1)).reshape(sizes.shape)
    block = _block(header)
    for start in range(0, len(sizes), block):
        numbers = range(start, min(start + block, len(sizes)))
        for at, array in enumerate(header.arrays):
            dataset, frames = datasets[array.name], []
            for i in numbers:
                spool.seek(places[i, at])
                frames.append(spool.read(sizes[i, at]))
            if dataset.chunks is None:
                values = np.frombuffer(b"".join(frames), array.dtype)
                dataset[numbers.start : numbers.stop] = values.reshape(len(frames), *array.shape)
                continue
            for i, frame in zip(numbers, frames, strict=True):
                dataset.id.write_direct_chunk((i, *(0,) * len(array.shape)), frame)


_END = object()


def _checked(header: Header, ref: ChipRef, chip: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    checked = {}
    for array in header.arrays:
        value = np.asarray(chip.get(array.name))
        if value.shape != array.shape or value.dtype != array.dtype:
            raise SceneError(
                f"array {array.name}: expected {array.dtype} {array.shape}, found {value.dtype} {value.shape}",
                where=ref.id,
            )
        checked[array.name] = np.asarray(value, order="C")
    return checked
