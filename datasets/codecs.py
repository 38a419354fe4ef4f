"""Chunk codecs: how the bytes of one chip lie in a shard.

``blosc`` is Blosc-1 LZ4 level 5 with bitshuffle (HDF5 filter 32001, hdf5plugin reads it), ``gzip`` is HDF5's own
shuffle + deflate 4, ``none`` is contiguous storage. Encoding and decoding bypass HDF5's filter pipeline, which holds
one global lock: these functions release the GIL and scale over threads.
"""

from __future__ import annotations

import struct
import zlib

import hdf5plugin
import numcodecs.blosc
import numpy as np

from ..errors import FormatError

BLOSC_FILTER = 32001
BLOSC_LEVEL = 5
GZIP_LEVEL = 4
_BLOSC_HEADER = np.dtype(
    [("version", "u1"), ("lz", "u1"), ("flags", "u1"), ("typesize", "u1")]
    + [("nbytes", "<u4"), ("blocksize", "<u4"), ("cbytes", "<u4")]
)
BLOSC_HEADER_BYTES = _BLOSC_HEADER.itemsize

numcodecs.blosc.use_threads = False  # one call = one thread: the caller's pool decides, and nothing forks badly


def dataset_options(codec: str) -> dict:
    """Keyword arguments of ``h5py.Group.create_dataset`` that declare the filters of ``codec``."""
    if codec == "blosc":
        return dict(hdf5plugin.Blosc(cname="lz4", clevel=BLOSC_LEVEL, shuffle=hdf5plugin.Blosc.BITSHUFFLE))
    return {"compression": "gzip", "compression_opts": GZIP_LEVEL, "shuffle": True}


def encode(codec: str, chip: np.ndarray) -> bytes:
    """One chip, C-contiguous, as the bytes of one HDF5 chunk."""
    if codec == "blosc":
        return numcodecs.blosc.compress(chip, b"lz4", BLOSC_LEVEL, numcodecs.blosc.BITSHUFFLE)
    planes = chip.reshape(-1).view(np.uint8).reshape(-1, chip.itemsize)
    return zlib.compress(np.ascontiguousarray(planes.T), GZIP_LEVEL)


def decode(codec: str, frame: memoryview, out: np.ndarray) -> None:
    """Decode one chunk into ``out`` (C-contiguous), never writing or allocating more than its size."""
    if codec == "blosc":
        check_blosc_header(frame, out.nbytes)
        try:
            numcodecs.blosc.decompress(frame, out)
        except (RuntimeError, ValueError) as error:
            raise FormatError(f"the Blosc chunk does not decode ({error})") from None
        return
    inflater = zlib.decompressobj()
    try:
        raw = inflater.decompress(frame, out.nbytes)
    except zlib.error as error:
        raise FormatError(f"the gzip chunk does not decode ({error})") from None
    if len(raw) != out.nbytes or inflater.decompress(inflater.unconsumed_tail, 1):
        raise FormatError(f"the gzip chunk holds another size than the {out.nbytes} bytes declared")
    planes = np.frombuffer(raw, np.uint8).reshape(out.itemsize, -1)
    np.copyto(out.reshape(-1).view(np.uint8).reshape(-1, out.itemsize), planes.T)


def check_blosc_header(frame: memoryview, nbytes: int) -> None:
    """Refuse a Blosc frame whose header states another decoded or encoded size than declared."""
    if len(frame) < BLOSC_HEADER_BYTES:
        raise FormatError(f"a Blosc chunk of {len(frame)} bytes is too short")
    stated, _, encoded = struct.unpack_from("<III", frame, 4)
    if stated != nbytes or encoded != len(frame):
        raise FormatError(
            f"Blosc chunk: expected {nbytes} bytes in {len(frame)}, its header says {stated} in {encoded}"
        )


def first_bad_blosc_header(buffer: np.ndarray, offsets: np.ndarray, sizes: np.ndarray, nbytes: int) -> int | None:
    """Index of the first chunk in ``buffer`` (uint8 view of the file) whose header does not match, else None."""
    if (sizes < BLOSC_HEADER_BYTES).any():
        return int(np.argmax(sizes < BLOSC_HEADER_BYTES))
    places = offsets.astype(np.int64)[:, None] + np.arange(BLOSC_HEADER_BYTES)
    headers = buffer[places].view(_BLOSC_HEADER)[:, 0]
    bad = (headers["nbytes"] != nbytes) | (headers["cbytes"] != sizes)
    return int(np.argmax(bad)) if bad.any() else None
