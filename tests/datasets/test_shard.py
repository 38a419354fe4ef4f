"""What is written is what is read, by us and by any HDF5."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import get_args

import h5py
import hdf5plugin  # noqa: F401  registers the Blosc filter with h5py
import numcodecs.blosc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tidemark.benchmark.synthetic import synthetic_chip
from tidemark.datasets.codecs import BLOSC_CODECS, decode, encode
from tidemark.datasets.plan import ChipRef
from tidemark.datasets.reader import open_split
from tidemark.datasets.spec import Array, Band, BuilderInfo, ClassDef, Codec, Header, Task, manifest_schema
from tidemark.datasets.statistics import Tally, valid_pixels
from tidemark.datasets.writer import write_shard
from tidemark.errors import FormatError, SceneError


def header(dtype="uint16", shape=(2, 64, 96), **more) -> Header:
    bands = tuple(Band(name=f"b{i}") for i in range(shape[0]))
    return Header(
        name="t",
        version="1.0.0",
        title="T",
        description="",
        licence=None,
        provenance="",
        known_label_defects="",
        task=Task(kind="classification", classes=[ClassDef(id=i, name=n, color="#000000") for i, n in enumerate("ab")]),
        arrays=(
            Array(name="image", dtype=dtype, shape=shape, role="image", bands=bands),
            Array(name="label", dtype="uint8", shape=(), role="label"),
        ),
        builder=BuilderInfo(name="t", version="1"),
        **more,
    )


def chips(head: Header, n: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    rng, image = np.random.default_rng(seed), head.arrays[0]
    values = [rng.normal(500, 90, image.shape).astype(image.dtype) for _ in range(n)]
    return [{"image": v, "label": np.uint8(i % 2)} for i, v in enumerate(values)]


def refs(n: int) -> list[ChipRef]:
    return [ChipRef(f"c{i}", (i, 2 * i, 64, 96), (10.0, 0, i, 0, -10.0, 5.0)) for i in range(n)]


@settings(max_examples=40, deadline=None)
@given(
    chip=hnp.arrays(
        dtype=st.sampled_from([np.uint8, np.int16, np.uint16, np.float32, np.float64]),
        shape=hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=20),
    ),
    codec=st.sampled_from(["blosc", "blosc-hc", "gzip"]),
)
def test_codecs_return_the_very_bytes(chip, codec):
    out = np.empty_like(chip)
    decode(codec, memoryview(encode(codec, chip)), out)
    assert out.tobytes() == chip.tobytes()


@pytest.mark.parametrize("shuffle", [numcodecs.blosc.NOSHUFFLE, numcodecs.blosc.SHUFFLE, numcodecs.blosc.BITSHUFFLE])
@pytest.mark.parametrize("compressor", ["lz4", "lz4hc", "zstd"])
def test_chunks_of_any_encoder_of_blosc_are_read(compressor, shuffle):
    """Shards written before the default was byte shuffle, and other writers' choices."""
    chip = np.arange(6 * 64 * 64, dtype=np.uint16).reshape(6, 64, 64)
    frame = numcodecs.blosc.compress(chip, compressor.encode(), 5, shuffle)
    for codec in BLOSC_CODECS:
        out = np.empty_like(chip)
        decode(codec, memoryview(frame), out)
        assert np.array_equal(out, chip)


def test_the_slow_blosc_codec_takes_less_room():
    chip = synthetic_chip(0, 4, 256)
    for array in chip.values():
        assert len(encode("blosc-hc", array)) < len(encode("blosc", array)) < array.nbytes


@pytest.mark.parametrize("codec", get_args(Codec))
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32"])
def test_a_shard_reads_back_through_plain_h5py(tmp_path, codec, dtype):
    head = header(dtype, (2, 192, 192))
    written = chips(head, 5)
    write_shard(tmp_path / "a.h5", head, "train", codec, refs(5), [0] * 5, iter(written))
    with h5py.File(tmp_path / "a.h5") as file:
        assert np.array_equal(file["image"][()], np.stack([c["image"] for c in written]))
        assert file["label"][()].tolist() == [0, 1, 0, 1, 0]
        assert file["chip_id"][1] == b"c1" and file["window"][2].tolist() == [2, 4, 64, 96]
        assert file["image"].chunks == (None if codec == "none" else (1, 2, 192, 192))
        assert file.attrs["tidemark_format"] == b"1.0"


def test_debians_h5dump_reads_the_header(tiny_dataset):
    if shutil.which("h5dump") is None:
        pytest.skip("h5dump is not installed (Debian: hdf5-tools)")
    for codec in get_args(Codec):
        path = next((tiny_dataset(codec=codec) / "train").glob("*.h5"))
        done = subprocess.run(["h5dump", "-H", "-p", path], capture_output=True, text=True)
        assert done.returncode == 0 and 'DATASET "image"' in done.stdout, done.stderr
        assert ("FILTER_ID 32001" in done.stdout) == (codec in BLOSC_CODECS)


def test_a_stranger_needs_only_hdf5plugin(tiny_dataset):
    path = next((tiny_dataset(codec="blosc") / "train").glob("*.h5"))
    code = "import h5py, hdf5plugin, sys; print(h5py.File(sys.argv[1])['image'][0].sum())"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    _, shards = open_split(path.parents[1], "train")
    expected = next(s for s in shards if s.path == path).read("image", 0).sum()
    assert done.stdout.strip() == str(expected), done.stderr


def test_small_chips_lie_contiguously(tiny_dataset):
    folder = tiny_dataset(codec="blosc", shape=(2, 64, 64), dtype="uint8", kind="classification", name="small")
    with h5py.File(next((folder / "train").glob("*.h5"))) as file:
        assert file["image"].chunks is None


@pytest.mark.parametrize("threads", [1, 4])
def test_bytes_do_not_depend_on_encoder_threads(tmp_path, threads):
    head = header("uint16", (2, 192, 192))
    for name, t in (("a", 1), ("b", threads)):
        write_shard(tmp_path / f"{name}.h5", head, "train", "blosc", refs(9), [0] * 9, iter(chips(head, 9)), threads=t)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert (tmp_path / "a.idx").read_bytes() == (tmp_path / "b.idx").read_bytes()


@pytest.mark.parametrize("codec", ["blosc", "gzip", "none"])
def test_a_chip_left_out_leaves_the_bytes_of_a_shard_that_never_had_it(tmp_path, codec):
    head, written = header("uint16", (2, 192, 192)), chips(header("uint16", (2, 192, 192)), 7)
    seen = []
    kept = [1, 2, 4, 5]
    fewer = [ref for i, ref in enumerate(refs(7)) if i in kept]
    write_shard(tmp_path / "a.h5", head, "train", codec, fewer, [0] * 4, iter([written[i] for i in kept]))
    yielded = iter([chip if i in kept else None for i, chip in enumerate(written)])
    rows = write_shard(tmp_path / "b.h5", head, "train", codec, refs(7), [0] * 7, yielded, seen.append)
    assert rows["chip_id"].tolist() == [b"c1", b"c2", b"c4", b"c5"] and len(seen) == 4
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert (tmp_path / "a.idx").read_bytes() == (tmp_path / "b.idx").read_bytes()
    assert not len(write_shard(tmp_path / "c.h5", head, "train", codec, refs(2), [0] * 2, iter([None, None])))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "a.idx", "b.h5", "b.idx"]


def test_the_sidecar_alone_finds_every_chip(tiny_dataset):
    for codec in ("blosc", "gzip", "none"):
        folder = tiny_dataset(codec=codec)
        manifest, shards = open_split(folder, "val")
        rows = np.load(folder / manifest.split_shards("val")[0].index_path, allow_pickle=False)
        data = shards[0].path.read_bytes()
        for i, row in enumerate(rows):
            frame = data[row["image_offset"] : row["image_offset"] + row["image_size"]]
            out = np.frombuffer(frame, "u2").reshape(2, 128, 128) if codec == "none" else np.empty((2, 128, 128), "u2")
            if codec != "none":
                decode(codec, memoryview(frame), out)
            assert np.array_equal(out, shards[0].read("image", i))


def test_wrong_chips_are_refused_and_leave_no_file(tmp_path):
    head = header()
    wrong = [{"image": np.zeros((2, 64, 95), "u2"), "label": np.uint8(0)}]
    with pytest.raises(SceneError, match=r"expected uint16 \(2, 64, 96\), found uint16 \(2, 64, 95\)"):
        write_shard(tmp_path / "a.h5", head, "train", "none", refs(1), [0], iter(wrong))
    with pytest.raises(FormatError, match="announced 3 chips"):
        write_shard(tmp_path / "a.h5", head, "train", "none", refs(3), [0] * 3, iter(chips(head, 2)))
    with pytest.raises(FormatError, match="repeat"):
        write_shard(tmp_path / "a.h5", head, "train", "none", refs(1) * 2, [0] * 2, iter(chips(head, 2)))
    with pytest.raises(FormatError, match="ASCII"):
        write_shard(tmp_path / "a.h5", head, "train", "none", [ChipRef("ä", (0, 0, 1, 1))], [0], iter(chips(head, 1)))
    assert list(tmp_path.iterdir()) == []


def test_shards_can_be_pickled_and_shared_between_threads(tiny_dataset):
    _, shards = open_split(tiny_dataset(), "train")
    expected = [shards[0].read("image", i) for i in range(shards[0].n)]
    copy = pickle.loads(pickle.dumps(shards[0]))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: copy.read("image", i % copy.n), range(40)))
    assert all(np.array_equal(f, expected[i % copy.n]) for i, f in enumerate(found))


@settings(max_examples=30, deadline=None)
@given(
    values=hnp.arrays(np.int16, (3, 1, 6, 6), elements=st.integers(-32768, 32767)),
    nodata=st.sampled_from([None, 0, -32768]),
)
def test_integer_statistics_are_exact(values, nodata):
    head = header("int16", (1, 6, 6))
    band = Band(name="b0", scale=0.5, offset=3.0, nodata=nodata)
    image = head.arrays[0].model_copy(update={"bands": (band,)})
    head = head.model_copy(update={"arrays": (image, head.arrays[1])})
    parts = [Tally(head, "train"), Tally(head, "train")]
    for i, chip in enumerate(values):
        parts[i % 2].observe({"image": chip, "label": np.uint8(0)})
    merged = Tally(head, "train")
    for part in parts:
        merged.merge(json.loads(json.dumps(part.to_json())))
    (found,) = merged.statistics()
    valid = values[values != nodata] * 0.5 + 3.0 if nodata is not None else values.reshape(-1) * 0.5 + 3.0
    assert found.pixels == valid.size
    if valid.size:
        wanted = (valid.mean(), valid.std(), valid.min(), valid.max())
        assert np.allclose((found.mean, found.std, found.min, found.max), wanted, rtol=1e-6, atol=1e-6)
        p02, p98 = np.percentile(valid, (2, 98), method="inverted_cdf")
        assert np.allclose((found.p02, found.p98), (p02, p98), rtol=1e-6, atol=1e-6)


def test_float_percentiles_are_within_a_bin(tmp_path):
    head, rng = header("float32", (1, 200, 200)), np.random.default_rng(0)
    tally, values = Tally(head, "train"), rng.normal(-14, 5, (2, 1, 200, 200)).astype(np.float32)
    values[0, 0, :5] = np.nan
    for chip in values:
        tally.observe({"image": chip, "label": np.uint8(1)})
    (found,) = tally.statistics()
    valid = values[np.isfinite(values)].astype(np.float64)
    assert found.pixels == valid.size and np.isclose(found.mean, valid.mean(), rtol=1e-6)
    assert np.allclose((found.p02, found.p98), np.percentile(valid, (2, 98)), rtol=0.01)
    assert tally.class_counts() == ({"a": 0, "b": 2}, 0)


@pytest.mark.parametrize(("dtype", "nodata"), [("uint8", -9999.0), ("uint8", 256.0), ("uint8", 0.5), ("uint16", -1.0)])
def test_a_nodata_value_that_the_dtype_cannot_hold_is_no_pixel(dtype, nodata):
    values = np.arange(np.iinfo(dtype).max + 1).astype(dtype)
    assert valid_pixels(values, Band(name="b0", nodata=nodata)).all()


@pytest.mark.parametrize(
    ("dtype", "mean", "sd"), [("float64", 1e9, 1), ("int32", 1.5e9, 10), ("uint32", 4e9, 10), ("float32", -300, 0.01)]
)
def test_a_narrow_band_far_from_zero_keeps_its_deviation(dtype, mean, sd):
    head, rng = header(dtype, (1, 64, 64)), np.random.default_rng(0)
    values = rng.normal(mean, sd, (6, 1, 64, 64)).astype(dtype)
    parts = [Tally(head, "train") for _ in range(3)]  # the last one has no pixel
    for i, chip in enumerate(values):
        parts[i % 2].observe({"image": chip, "label": np.uint8(0)})
    merged = Tally(head, "train")
    for part in reversed(parts):
        merged.merge(json.loads(json.dumps(part.to_json())))
    (found,) = merged.statistics()
    assert np.isclose(found.std, values.std(dtype=np.float64), rtol=1e-6)


def test_values_whose_squares_overflow_are_named():
    tally = Tally(header("float64", (1, 8, 8)), "train")
    tally.observe({"image": np.full((1, 8, 8), -1e160), "label": np.uint8(0)})
    with pytest.raises(FormatError, match=r"array image, band b0: the squares of values up to 1e\+160 are beyond"):
        tally.to_json()


def test_outside_the_training_split_only_labels_are_counted():
    head = header("float32", (1, 8, 8))
    tally = Tally(head, "val")
    tally.observe({"image": np.ones((1, 8, 8), np.float32), "label": np.uint8(1)})
    stored = json.loads(json.dumps(tally.to_json()))
    assert stored["bands"] == {} and tally.class_counts() == ({"a": 0, "b": 1}, 0) and tally.statistics() == ()
    both = Tally(head, "train").to_json() | {"classes": stored["classes"]}  # a journal that counted bands everywhere
    tally.merge(both)
    assert tally.class_counts() == ({"a": 0, "b": 2}, 0)


def test_the_manifest_schema_is_exported():
    schema = manifest_schema()
    assert schema["additionalProperties"] is False and "content_sha256" in schema["required"]
