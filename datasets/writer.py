"""Writer of a shard: chips are encoded while the next ones are read, and go straight into a file that appears whole."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import h5py
import numpy as np

from ..errors import FormatError, SceneError
from .codecs import dataset_options, encode
from .files import atomic_path
from .plan import MAX_CHIP_ID_BYTES, ChipRef
from .shard import FORMAT_ATTRIBUTE, checksum, chunk_places, index_dtype, meta_checksums, storage_codec
from .spec import FORMAT_VERSION, Array, Header

NO_TRANSFORM = (np.nan,) * 6
Frames = Sequence[bytes]  # one chip's arrays, encoded


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

    HDF5 fixes N when the file is made, so it is made for all of them, and made again where some were left out.

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
    rows, kept = _rows(header, refs, scene_numbers, transformed), []
    codec = storage_codec(header, codec)
    encoded = _encoded(header, codec, refs, chips, rows, observe, threads)
    if not refs:
        deque(encoded, maxlen=0)  # which looks that no chip comes
        return rows
    with suppress(_NoChips), atomic_path(path) as temporary:
        with _ShardFile(temporary, header, split, codec, len(rows)) as file:
            for number, frames in encoded:
                kept.append(number)
                file.append(frames)
            if len(kept) == len(rows):
                file.finish(rows, transformed)
        if not kept:
            raise _NoChips
        if len(kept) < len(rows):
            rows = rows[kept]
            _shrink(temporary, header, split, codec, rows, transformed)
    if not kept:
        return rows[:0]
    with atomic_path(path.with_suffix(".idx")) as temporary, open(temporary, "wb") as file:
        np.save(file, rows, allow_pickle=False)
    return rows


class _NoChips(Exception):
    """Nothing was kept: no file appears."""


class _ShardFile:
    """A new shard for ``n`` chips, open while used as a context manager.

    Chips come as their encoded arrays, in manifest order. They are written in blocks, so that the chunks of one array
    lie side by side. Raises OSError when the disk does not take it.
    """

    def __init__(self, path: Path, header: Header, split: str, codec: str, n: int) -> None:
        self.path, self.header, self.split, self.codec, self.n = path, header, split, codec, n
        self._done, self._block = 0, []

    def __enter__(self) -> _ShardFile:
        with _disk_errors():
            self._file = h5py.File(self.path, "w", libver=("v108", "v108"))
            for name, value in (
                (FORMAT_ATTRIBUTE, ".".join(map(str, FORMAT_VERSION))),
                ("dataset", self.header.name),
                ("version", self.header.version),
                ("split", self.split),
            ):
                self._file.attrs.create(name, np.bytes_(value))
            self._datasets = [_create(self._file, array, self.n, self.codec) for array in self.header.arrays]
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if error is None:
            self._write_block()
            with _disk_errors():
                self._file.close()
        else:  # which says more than what closing may raise
            with suppress(RuntimeError, OSError):
                self._file.close()

    def append(self, frames: Frames) -> None:
        """Take the next chip."""
        self._block.append(frames)
        if len(self._block) == _block(self.header):
            self._write_block()

    def _write_block(self) -> None:
        first, block, self._block = self._done, self._block, []
        self._done += len(block)
        if not block:
            return
        with _disk_errors():
            columns = zip(*block, strict=True)
            for dataset, array, frames in zip(self._datasets, self.header.arrays, columns, strict=True):
                if dataset.chunks is None:
                    values = np.frombuffer(b"".join(frames), array.dtype)
                    dataset[first : self._done] = values.reshape(len(frames), *array.shape)
                    continue
                for i, frame in enumerate(frames, first):
                    dataset.id.write_direct_chunk((i, *(0,) * len(array.shape)), frame)

    def finish(self, rows: np.ndarray, transformed: Sequence[str]) -> None:
        """Write the metadata of all chips, and note in ``rows`` where their bytes lie."""
        self._write_block()
        with _disk_errors():
            for name in rows.dtype.names[: 4 + len(transformed)] + ("checksum_meta",):
                self._file.create_dataset(name, data=rows[name], track_times=False)
            for array in self.header.arrays:
                sums = rows[f"{array.name}_checksum"]
                self._file.create_dataset(f"checksum_{array.name}", data=sums, track_times=False)
            self._file.flush()
        for dataset, array in zip(self._datasets, self.header.arrays, strict=True):
            rows[f"{array.name}_offset"], rows[f"{array.name}_size"] = chunk_places(dataset, array)


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # how h5py reports a disk that fails while a file is closed
        raise OSError(0, str(error)) from error


def _shrink(path: Path, header: Header, split: str, codec: str, rows: np.ndarray, transformed: Sequence[str]) -> None:
    """Make an unfinished shard one of its first ``len(rows)`` chips: HDF5 fixed N when the file was made."""
    whole = path.with_name(f"{path.name}.whole")
    path.rename(whole)
    try:
        with h5py.File(whole, "r") as source, _ShardFile(path, header, split, codec, len(rows)) as target:
            datasets = [source[array.name] for array in header.arrays]
            for i in range(len(rows)):
                target.append([_frame(dataset, i) for dataset in datasets])
            target.finish(rows, transformed)
    finally:
        whole.unlink()


def _frame(dataset: h5py.Dataset, i: int) -> bytes:
    if dataset.chunks is None:
        return dataset[i].tobytes()
    return dataset.id.read_direct_chunk((i, *(0,) * (dataset.ndim - 1)))[1]


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


def _encoded(
    header: Header, codec: str, refs, chips, rows: np.ndarray, observe, threads: int
) -> Iterator[tuple[int, Frames]]:
    """Number and encoded arrays of each chip that is kept, encoded while the next ones are read."""
    waiting: deque = deque()
    codecs = [codec if array.shape else "none" for array in header.arrays]

    def encoded(chip: dict[str, np.ndarray]) -> list[tuple[bytes, int]]:
        values = (chip[array.name] for array in header.arrays)
        return [
            (v.tobytes() if c == "none" else encode(c, v), checksum(v)) for c, v in zip(codecs, values, strict=True)
        ]

    def first() -> tuple[int, Frames]:
        number, future = waiting.popleft()
        frames, digests = zip(*future.result(), strict=True)
        for array, digest in zip(header.arrays, digests, strict=True):
            rows[f"{array.name}_checksum"][number] = digest
        return number, frames

    stream = iter(chips)
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
            if len(waiting) >= 2 * _block(header):
                yield first()
        if next(stream, _END) is not _END:
            raise FormatError(f"the builder announced {len(refs)} chips and yielded more", where=header.name)
        while waiting:
            yield first()


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
