"""Chunk codecs: how the bytes of one chip lie in a shard.

``blosc`` and ``blosc-hc`` are Blosc-1 with LZ4 and byte shuffle (HDF5 filter 32001, hdf5plugin reads it), ``gzip`` is
HDF5's own shuffle + deflate 4, ``none`` is contiguous storage. Encoding and decoding bypass HDF5's filter pipeline,
which holds one global lock: these functions release the GIL and scale over threads.

Both Blosc codecs decode alike; they differ in how long the encoder searches. Measured against bitshuffle and LZ4's
level 5, where putting the bits back costs more than LZ4 itself: ``blosc`` makes real Sentinel-2 chips 20 to 26 %
smaller, Landsat-8 and HLS 2 % larger, a panchromatic band alone 9 % larger, float32 backscatter 1 % larger (a whole
simulated ALOS scene with its optical layers 9 %), and decodes 16-bit chips 1.1 to 1.6, floats 2 to 3, masks 3 to 5
times as fast. ``blosc-hc`` takes another 4 to 12 % off 16-bit chips and decodes them 1.5 to 1.7 times as fast as
bitshuffle, but encodes only 30 to 90 MB/s a core: for data that are written once and read by many. Chips of any
shuffle, level and compressor of Blosc-1 are read.
"""

from __future__ import annotations

import struct
import zlib

import hdf5plugin
import numcodecs.blosc
import numpy as np

from ..errors import FormatError

BLOSC_FILTER = 32001
BLOSC_CODECS = ("blosc", "blosc-hc")
GZIP_LEVEL = 4
_BLOSC_HEADER = np.dtype(
    [("version", "u1"), ("lz", "u1"), ("flags", "u1"), ("typesize", "u1")]
    + [("nbytes", "<u4"), ("blocksize", "<u4"), ("cbytes", "<u4")]
)
BLOSC_HEADER_BYTES = _BLOSC_HEADER.itemsize

numcodecs.blosc.use_threads = False  # one call = one thread: the caller's pool decides, and nothing forks badly


def blosc_settings(codec: str, itemsize: int) -> tuple[str, int]:
    """Blosc's compressor and level for elements of ``itemsize`` bytes.

    Fast LZ4 finds short chance matches in the noisy low bytes of integers: they save nothing and are slow to decode.
    The lowest levels of LZ4HC do not. Floats have little for either to find.
    """
    if codec == "blosc-hc":
        return "lz4hc", 5
    return {1: ("lz4hc", 3), 2: ("lz4hc", 2)}.get(itemsize, ("lz4", 5))


def dataset_options(codec: str, itemsize: int = 1) -> dict:
    """Keyword arguments of ``h5py.Group.create_dataset`` that declare the filters; only Blosc asks for the itemsize."""
    if codec in BLOSC_CODECS:
        compressor, level = blosc_settings(codec, itemsize)
        return dict(hdf5plugin.Blosc(cname=compressor, clevel=level, shuffle=hdf5plugin.Blosc.SHUFFLE))
    return {"compression": "gzip", "compression_opts": GZIP_LEVEL, "shuffle": True}


def encode(codec: str, chip: np.ndarray) -> bytes:
    """One chip, C-contiguous, as the bytes of one HDF5 chunk."""
    if codec in BLOSC_CODECS:
        compressor, level = blosc_settings(codec, chip.itemsize)
        return numcodecs.blosc.compress(chip, compressor.encode(), level, numcodecs.blosc.SHUFFLE)
    planes = chip.reshape(-1).view(np.uint8).reshape(-1, chip.itemsize)
    return zlib.compress(np.ascontiguousarray(planes.T), GZIP_LEVEL)


def decode(codec: str, frame: memoryview, out: np.ndarray) -> None:
    """Decode one chunk into ``out`` (C-contiguous), never writing or allocating more than its size."""
    if codec in BLOSC_CODECS:
        check_blosc_header(frame, out.nbytes)
        try:
            numcodecs.blosc.decompress(frame, out)
        except (RuntimeError, ValueError) as error:
            raise FormatError(f"the Blosc chunk does not decode ({error})") from None
        return
    inflater = zlib.decompressobj()
    try:
        raw = inflater.decompress(frame, out.nbytes)
        more = inflater.decompress(inflater.unconsumed_tail, 1)  # reads the checksum at the end, too
    except zlib.error as error:
        raise FormatError(f"the gzip chunk does not decode ({error})") from None
    if len(raw) != out.nbytes or more:
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
