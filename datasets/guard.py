"""Opens a shard of unknown origin: everything is compared with the manifest before any pixel is read.

HDF5 can point outside the file (external storage, external and soft links, virtual data sets) and can declare any
size. Only hard-linked datasets at the root with the declared shape, dtype, chunk and filters pass, and every chunk
must lie inside the file with the size that its header and the manifest give.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from ..errors import FormatError
from .codecs import BLOSC_CODECS, BLOSC_FILTER, first_bad_blosc_header
from .plan import MAX_CHIP_ID_BYTES
from .shard import FORMAT_ATTRIBUTE, chunk_places, meta_fields, storage_codec, usable_ids
from .spec import FORMAT_VERSION, Array, Header

_FILTERS = {
    **dict.fromkeys(BLOSC_CODECS, [BLOSC_FILTER]),
    "gzip": [h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE],
    "none": [],
}


@dataclass(frozen=True)
class Places:
    """Where the chips of one array lie: byte offset and stored size (N,), and the codec of each chunk."""

    offset: np.ndarray
    size: np.ndarray
    codec: str


@dataclass(frozen=True)
class Layout:
    """A shard that passed the guard: places by array, and the metadata rows (N,) with their checksums."""

    places: dict[str, Places]
    rows: np.ndarray
    transformed: tuple[str, ...]


def open_layout(path: Path, header: Header, split: str, chips: int, size: int | None, codec: str) -> Layout:
    """Guard one shard. Raises FormatError with expected and found; reads only metadata and chunk headers."""
    try:
        found = path.stat().st_size
    except FileNotFoundError:
        raise FormatError("the shard is missing", where=path, hint="pull or build the data set again") from None
    if size is not None and found != size:
        kind = "truncated" if found < size else "longer than published"
        raise FormatError(f"the shard is {kind}: expected {size} bytes, found {found}", where=path)
    try:
        with h5py.File(path, "r", locking=False) as file:
            return _layout(file, header, split, chips, found, codec, path)
    except FormatError as error:
        raise error if error.where else FormatError(error.what, where=path, hint=error.hint) from None
    except Exception as error:  # whatever h5py makes of damaged structures
        raise FormatError(f"HDF5 cannot read the shard ({error})", where=path) from None


def check_links(file: h5py.File, expected: set[str], optional_prefix: str | None = None) -> list[str]:
    """The names at the root, which must be ``expected`` (plus any with the prefix), each a hard link."""
    root = h5py.h5g.open(file.id, b"/")
    count = root.get_num_objs()
    if count > len(expected) + 64:
        raise FormatError(f"expected {len(expected)} datasets at the root, found {count} objects")
    names = {root.get_objname_by_idx(i).decode("utf-8", "replace") for i in range(count)}
    for name in sorted(names):
        kind = root.links.get_info(name.encode()).type
        if kind != h5py.h5l.TYPE_HARD:
            word = {h5py.h5l.TYPE_SOFT: "a soft", h5py.h5l.TYPE_EXTERNAL: "an external"}.get(kind, "a user-defined")
            raise FormatError(f"{name!r} is {word} link; only datasets stored in the file itself are read")
    extra = {n for n in names - expected if optional_prefix is None or not n.startswith(optional_prefix)}
    if extra or expected - names:
        missing = ", ".join(sorted(expected - names)) or "none"
        raise FormatError(f"datasets at the root: missing {missing}; unexpected {', '.join(sorted(extra)) or 'none'}")
    return sorted(names)


def open_dataset(
    file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype, chunk: tuple[int, ...] | None, codec: str
) -> h5py.Dataset:
    """One dataset at the root, refused unless it is exactly as declared and stored in this file."""
    try:
        handle = h5py.h5d.open(file.id, name.encode())
    except (KeyError, TypeError, ValueError, RuntimeError):
        raise FormatError(f"{name!r} is not a dataset") from None
    stored = handle.get_type()
    kinds = {h5py.h5t.INTEGER: "integer", h5py.h5t.FLOAT: "float", h5py.h5t.STRING: "string"}
    kinds |= {h5py.h5t.REFERENCE: "reference", h5py.h5t.VLEN: "variable-length", h5py.h5t.COMPOUND: "compound"}
    kind = kinds.get(stored.get_class(), "other")
    variable = isinstance(stored, h5py.h5t.TypeStringID) and stored.is_variable_str()
    if kind not in ("integer", "float", "string") or variable:
        raise FormatError(f"array {name}: {'variable-length string' if variable else kind} type is not read")
    if stored.dtype != dtype:
        raise FormatError(f"array {name}: expected {dtype}, found {stored.dtype}")
    if handle.shape != shape:
        raise FormatError(f"array {name}: expected shape {shape}, found {handle.shape}")
    plist = handle.get_create_plist()
    layout = plist.get_layout()
    if layout == h5py.h5d.VIRTUAL:
        raise FormatError(f"array {name} is a virtual dataset; only data stored in the file itself is read")
    if plist.get_external_count():
        raise FormatError(f"array {name} has external storage; only data stored in the file itself is read")
    filters = [plist.get_filter(i) for i in range(plist.get_nfilters())]
    if [f[0] for f in filters] != _FILTERS[codec]:
        names = ", ".join(f"{f[3].decode('ascii', 'replace') or 'unnamed'} ({f[0]})" for f in filters) or "none"
        raise FormatError(f"array {name}: expected codec {codec}, found HDF5 filters {names}")
    found = plist.get_chunk() if layout == h5py.h5d.CHUNKED else None
    if found != chunk or layout not in (h5py.h5d.CHUNKED, h5py.h5d.CONTIGUOUS):
        raise FormatError(f"array {name}: expected chunk {chunk or 'contiguous'}, found {found or 'another layout'}")
    return h5py.Dataset(handle)


def read_attribute(file: h5py.File, name: str) -> str:
    """A short fixed-length byte attribute of the root group."""
    if not h5py.h5a.exists(file.id, name.encode()):
        raise FormatError(f"the attribute {name!r} is missing")
    attribute = h5py.h5a.open(file.id, name.encode())
    stored = attribute.get_type()
    if not isinstance(stored, h5py.h5t.TypeStringID) or stored.is_variable_str() or stored.get_size() > 256:
        raise FormatError(f"the attribute {name!r} is not a short fixed-length string")
    if attribute.shape != ():
        raise FormatError(f"the attribute {name!r} is not a single value")
    return bytes(file.attrs[name]).decode("ascii", "replace")


def place_chunks(dataset: h5py.Dataset, array: Array, codec: str, file_bytes: int) -> Places:
    """Index the chunks of a guarded dataset; each must exist and lie inside the file."""
    n = dataset.shape[0]
    if dataset.chunks is not None and dataset.id.get_num_chunks() != n:
        raise FormatError(f"array {array.name}: expected {n} chunks, found {dataset.id.get_num_chunks()}")
    offset, size = chunk_places(dataset, array)
    outside = (offset == 0) | (offset > file_bytes) | (size > file_bytes) | (offset + size > file_bytes)
    if outside.any():
        raise FormatError(f"array {array.name}: chip {int(np.argmax(outside))} does not lie inside the file")
    return Places(offset, size, codec)


def _layout(file, header: Header, split: str, chips: int, file_bytes: int, codec: str, path: Path) -> Layout:
    version = read_attribute(file, FORMAT_ATTRIBUTE)
    parts = version.split(".")
    if len(parts) != 2 or not all(p.isdecimal() for p in parts):
        raise FormatError(f"format version {version!r} is not a version")
    if tuple(map(int, parts)) > FORMAT_VERSION:
        own = ".".join(map(str, FORMAT_VERSION))
        raise FormatError(f"written by a newer version: needs format >= {version}, this one reads {own}")
    for name, expected in (("dataset", header.name), ("version", header.version), ("split", split)):
        if (found := read_attribute(file, name)) != expected:
            raise FormatError(f"the shard belongs to another {name}: expected {expected!r}, found {found!r}")

    names = {"chip_id", "scene", "window", "transform", "checksum_meta"}
    names |= {a.name for a in header.arrays} | {f"checksum_{a.name}" for a in header.arrays}
    present = check_links(file, names, optional_prefix="transform_")
    transformed = tuple(n.removeprefix("transform_") for n in present if n.startswith("transform_"))
    for name in transformed:
        header.array(name)

    checks = [("checksum_meta", "<u8"), *((f"checksum_{a.name}", "<u8") for a in header.arrays)]
    row = np.dtype([*meta_fields(transformed), *checks])
    if chips * row.itemsize > file_bytes:  # before anything of this length is made
        raise FormatError(f"{chips} chips need {chips * row.itemsize} bytes of metadata, the file has {file_bytes}")
    codec = storage_codec(header, codec)
    places = {}
    for array in header.arrays:
        own = codec if array.shape else "none"
        chunk = (1, *array.shape) if own != "none" else None
        dataset = open_dataset(file, array.name, (chips, *array.shape), np.dtype(array.dtype), chunk, own)
        places[array.name] = place_chunks(dataset, array, own, file_bytes)
        if own in BLOSC_CODECS:
            buffer = np.memmap(path, np.uint8, "r")
            bad = first_bad_blosc_header(buffer, places[array.name].offset, places[array.name].size, array.chip_bytes)
            if bad is not None:
                raise FormatError(
                    f"array {array.name}: chunk {bad} declares another size than {array.chip_bytes} bytes"
                )
    return Layout(places, _read_rows(file, row, chips), transformed)


def _read_rows(file, dtype: np.dtype, chips: int) -> np.ndarray:
    rows = np.empty(chips, dtype)
    for name in dtype.names:
        field = dtype[name]
        dataset = open_dataset(file, name, (chips, *field.shape), field.base, None, "none")
        if dataset.id.get_offset() is None:
            raise FormatError(f"array {name} has no data")
        rows[name] = dataset[()]
    if not usable_ids(rows["chip_id"]):
        raise FormatError(f"chip ids must be unique ASCII strings of up to {MAX_CHIP_ID_BYTES} characters")
    return rows
