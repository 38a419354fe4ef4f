"""A shard of unknown origin is refused, with expected and found, before any pixel is read."""

from __future__ import annotations

import resource
import shutil
import time
from pathlib import Path
from typing import get_args

import h5py
import numpy as np
import pytest
from tidemark.datasets.codecs import decode, encode
from tidemark.datasets.reader import Shard
from tidemark.datasets.spec import Codec, canonical_json, load_manifest
from tidemark.datasets.verify import verify
from tidemark.errors import ChecksumError, FormatError


@pytest.fixture(params=get_args(Codec))
def folder(request, tiny_dataset, tmp_path) -> Path:
    """A private copy of a small data set."""
    return Path(shutil.copytree(tiny_dataset(codec=request.param), tmp_path / "copy"))


@pytest.fixture
def blosc(tiny_dataset, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_dataset(codec="blosc"), tmp_path / "copy"))


def first(folder: Path) -> Shard:
    manifest = load_manifest(folder)
    entry = manifest.shards[0]
    size = (folder / entry.path).stat().st_size  # hostile publishers state the size that their file has
    return Shard(folder, manifest, entry.model_copy(update={"bytes": size}))


def refuses(folder: Path, match: str) -> None:
    started = time.monotonic()
    with pytest.raises(FormatError, match=match):
        first(folder).open()
    assert time.monotonic() - started < 1.0


def edit(folder: Path, newest: str = "v108") -> h5py.File:
    return h5py.File(folder / load_manifest(folder).shards[0].path, "r+", libver=("v108", newest))


def replace(folder: Path, name: str, **options) -> None:
    with edit(folder) as file:
        del file[name]
        file.create_dataset(name, **options)


def test_one_flipped_byte_in_any_array_is_named_and_the_other_chips_still_read(folder):
    whole = first(folder)
    layout, path = whole.open(), whole.path
    intact = {name: [whole.read(name, i).tobytes() for i in range(whole.n)] for name in ("image", "mask")}
    data = path.read_bytes()
    for name in ("image", "mask"):
        place = layout.places[name]
        at = int(place.offset[2] + place.size[2] // 2)
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
        shard = first(folder)
        with pytest.raises(ChecksumError, match=f"{path.name}.*array {name}, chip 2 .{whole.chip_ids[2]}"):
            shard.read(name, 2)
        assert all(shard.read(name, i).tobytes() == intact[name][i] for i in (0, 1, 3, 4))
        problems = verify(folder).problems
        assert any(f"array {name}, chip 2" in p and path.name in p for p in problems), problems
    path.write_bytes(data)
    assert not verify(folder, deep=True).problems


@pytest.mark.parametrize("column", ["window", "transform", "scene", "checksum_meta", "checksum_image"])
def test_a_flipped_byte_in_the_metadata_stops_that_chip_alone(blosc, column):
    with h5py.File(first(blosc).path) as file:
        dataset = file[column]
        at = dataset.id.get_offset() + 3 * dataset.dtype.itemsize * int(np.prod(dataset.shape[1:]))
    path = first(blosc).path
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    shard = first(blosc)
    with pytest.raises(ChecksumError, match="chip 3"):
        shard.read("image", 3)
    shard.read("image", 2)
    assert any("chip 3" in p for p in verify(blosc).problems)


def test_a_truncated_shard_states_both_sizes(folder):
    entry = load_manifest(folder).shards[0]
    path = folder / entry.path
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FormatError, match=f"truncated: expected {entry.bytes} bytes, found {entry.bytes - 100}"):
        Shard(folder, load_manifest(folder), entry).open()
    refuses(folder, "HDF5 cannot read|does not lie inside")


def test_a_missing_shard_is_named(blosc):
    first(blosc).path.unlink()
    manifest = load_manifest(blosc)
    with pytest.raises(FormatError, match="the shard is missing"):
        Shard(blosc, manifest, manifest.shards[0]).open()


def test_external_storage_is_refused(blosc, tmp_path):
    (tmp_path / "secret").write_bytes(bytes(5 * 2 * 128 * 128 * 2))
    external = [(str(tmp_path / "secret"), 0, h5py.h5f.UNLIMITED)]
    replace(blosc, "image", shape=(5, 2, 128, 128), dtype="u2", external=external)
    refuses(blosc, "external storage")


@pytest.mark.parametrize("link", [h5py.SoftLink("/mask"), h5py.ExternalLink("/etc/passwd", "/x")])
def test_links_are_refused(blosc, link):
    with edit(blosc) as file:
        del file["image"]
        file["image"] = link
    refuses(blosc, "(soft|external) link")


def test_a_link_as_a_middle_component_never_counts(blosc):
    with edit(blosc) as file:
        file["sub"] = h5py.ExternalLink("elsewhere.h5", "/")
    refuses(blosc, "external link")


def test_a_virtual_data_set_is_refused(blosc):
    layout = h5py.VirtualLayout((5, 2, 128, 128), "u2")
    layout[:] = h5py.VirtualSource("other.h5", "image", (5, 2, 128, 128))
    with edit(blosc, "latest") as file:
        del file["image"]
        file.create_virtual_dataset("image", layout)
    refuses(blosc, "virtual")


def test_a_declared_shape_of_four_tebibytes_allocates_nothing(blosc):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    replace(blosc, "image", shape=(5, 2, 1 << 19, 1 << 19), dtype="u2", chunks=(1, 2, 128, 128), compression="gzip")
    refuses(blosc, "expected shape")
    manifest = load_manifest(blosc)
    huge = manifest.model_copy(update={"splits": (), "scenes": manifest.scenes})
    entry = manifest.shards[0].model_copy(update={"chips": 2**31, "bytes": first(blosc).path.stat().st_size})
    with pytest.raises(FormatError):
        Shard(blosc, huge, entry).open()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 100_000  # KiB


def test_chips_that_are_declared_but_not_stored_allocate_nothing(tiny_dataset, tmp_path):
    labelled = tiny_dataset(chips=2, kind="classification", classes=3, shape=(2, 32, 32))
    folder = Path(shutil.copytree(labelled, tmp_path / "copy"))
    path, chips = first(folder).path, 1 << 28
    with h5py.File(path) as file:
        stated, columns = dict(file.attrs), {name: (d.shape[1:], d.dtype) for name, d in file.items()}
    path.unlink()
    with h5py.File(path, "w", libver=("v108", "v108")) as file:
        file.attrs.update(stated)
        for name, (shape, dtype) in columns.items():
            file.create_dataset(name, (chips, *shape), dtype)
    manifest = load_manifest(folder)
    entry = manifest.shards[0].model_copy(update={"chips": chips, "bytes": path.stat().st_size})
    started = time.monotonic()
    with pytest.raises(FormatError, match=rf"{chips} chips need \d+ bytes of metadata, the file has {entry.bytes}"):
        Shard(folder, manifest, entry).open()
    assert time.monotonic() - started < 1.0


def test_a_chunk_that_inflates_beyond_its_size_is_refused(blosc):
    bomb = encode("blosc", np.zeros(64 << 20, np.uint8))
    with edit(blosc) as file:
        file["image"].id.write_direct_chunk((1, 0, 0, 0), bomb)
    refuses(blosc, "declares another size")


def test_a_gzip_chunk_never_inflates_beyond_its_chip():
    out = np.empty((4, 4), np.uint16)
    with pytest.raises(FormatError, match="another size than the 32 bytes"):
        decode("gzip", memoryview(encode("gzip", np.zeros(256 << 20, np.uint8))), out)


def test_a_flipped_byte_of_a_gzip_chunk_is_a_fault_of_the_format_wherever_it_is():
    chip = np.random.default_rng(0).integers(0, 2, (64, 64), np.uint8)
    frame, refused = encode("gzip", chip), 0
    for place in range(len(frame)):
        broken = bytearray(frame)
        broken[place] ^= 8
        try:
            decode("gzip", memoryview(broken), np.empty_like(chip))
        except FormatError:
            refused += 1
    assert refused > 0.99 * len(frame)  # Adler-32 misses what moves few small values


def test_a_hundred_thousand_groups_are_refused_at_once(blosc):
    with edit(blosc) as file:
        for i in range(100_000):
            h5py.h5g.create(file.id, f"g{i}".encode())
    refuses(blosc, "objects")


def test_a_link_cycle_is_refused(blosc):
    with edit(blosc) as file:
        file["loop"] = file["/"]
    refuses(blosc, "unexpected loop")
    with edit(blosc) as file:
        del file["image"], file["loop"]
        file["image"] = file["/"]
    refuses(blosc, "not a dataset")


def test_an_unknown_filter_is_refused_by_name(blosc):
    replace(blosc, "image", shape=(5, 2, 128, 128), dtype="u2", chunks=(1, 2, 128, 128), compression="lzf")
    refuses(blosc, "lzf .32000")


@pytest.mark.parametrize(
    ("dtype", "word"),
    [
        (h5py.string_dtype(), "variable-length"),
        (h5py.vlen_dtype("u1"), "variable-length"),
        (h5py.ref_dtype, "reference"),
    ],
)
def test_object_types_are_refused_by_name(blosc, dtype, word):
    replace(blosc, "image", shape=(5, 2, 128, 128), dtype=dtype)
    refuses(blosc, word)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"shape": (5, 3, 128, 128), "dtype": "u2"}, r"expected shape \(5, 2, 128, 128\), found \(5, 3, 128, 128\)"),
        ({"shape": (4, 2, 128, 128), "dtype": "u2"}, r"expected shape \(5, .*found \(4, "),
        ({"shape": (5, 2, 128, 128), "dtype": "i2"}, "expected uint16, found int16"),
        ({"shape": (5, 2, 128, 128), "dtype": ">u2"}, "expected uint16, found >u2"),
        ({"shape": (5, 2, 128, 128), "dtype": "u2"}, "expected codec blosc, found HDF5 filters none"),
    ],
)
def test_another_form_than_the_manifests_states_expected_and_found(blosc, options, match):
    replace(blosc, "image", **options)
    refuses(blosc, match)


def test_chunks_of_another_shape_are_refused(blosc):
    import hdf5plugin

    options = dict(hdf5plugin.Blosc(cname="lz4", clevel=5, shuffle=hdf5plugin.Blosc.BITSHUFFLE))
    replace(blosc, "image", data=np.ones((5, 2, 128, 128), "u2"), chunks=(1, 2, 64, 64), **options)
    refuses(blosc, r"expected chunk \(1, 2, 128, 128\), found \(1, 2, 64, 64\)")


def test_a_chunk_stored_without_its_filter_is_refused(blosc):
    with edit(blosc) as file:
        raw = np.zeros((2, 128, 128), "u2").tobytes()
        file["image"].id.write_direct_chunk((0, 0, 0, 0), raw, filter_mask=1)
    refuses(blosc, "without its filters")


def test_a_missing_array_is_named(blosc):
    with edit(blosc) as file:
        del file["checksum_image"]
    refuses(blosc, "missing checksum_image")


def test_a_newer_format_says_what_it_needs(blosc):
    with edit(blosc) as file:
        file.attrs["tidemark_format"] = np.bytes_("9.0")
    refuses(blosc, "newer version: needs format >= 9.0")
    raw = canonical_json(load_manifest(blosc)).replace(b'"format_version": "1.0"', b'"format_version": "1.7"')
    (blosc / "dataset.json").write_bytes(raw)
    with pytest.raises(FormatError, match="needs format >= 1.7"):
        load_manifest(blosc)


def test_a_shard_of_another_split_is_refused(blosc):
    with edit(blosc) as file:
        file.attrs["split"] = np.bytes_("val")
    refuses(blosc, "another split: expected 'train', found 'val'")


def test_no_byte_salad_escapes_the_guard(blosc):
    """Any damage to the HDF5 structure ends in FormatError or in a checksum, never in another exception."""
    path = first(blosc).path
    data, rng = path.read_bytes(), np.random.default_rng(0)
    intact = [first(blosc).read("image", i).tobytes() for i in range(5)]
    for _ in range(150):
        broken = bytearray(data)
        for at in rng.integers(0, min(len(data), 8192), 4):
            broken[at] = rng.integers(256)
        path.write_bytes(broken)
        shard = first(blosc)
        for i in range(5):
            try:
                assert shard.read("image", i).tobytes() == intact[i]
            except FormatError:
                pass
