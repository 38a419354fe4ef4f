"""predictions.h5: what is written comes back, and no crafted file gets past the guard."""

from __future__ import annotations

import time
import zlib

import h5py
import numpy as np
import pytest
from tidemark.datasets.spec import Array, Band, BuilderInfo, ClassDef, Manifest, Task
from tidemark.errors import FormatError
from tidemark.models.predictions import Predictions, write_predictions

CHIPS = ["a", "b", "c"]
DATASET = {"name": "toy", "version": "1.0.0", "content_sha256": "0" * 64}


def toy_manifest(kind="segmentation", classes=2, shape=(8, 8)) -> Manifest:
    role = {0: "label", 2: "mask", 3: "target"}[len(shape)]
    bands = [Band(name=f"b{i}") for i in range(shape[0])] if role == "target" else []
    return Manifest(
        name="toy", version="1.0.0", title="t", description="d", licence=None, provenance="p", known_label_defects="",
        task=Task(kind=kind, classes=[ClassDef(id=i, name=f"c{i}", color="#000000") for i in range(classes)]),
        arrays=[Array(name="image", dtype="uint8", shape=(1, 8, 8), role="image", bands=[Band(name="vv")]),
                Array(name=role, dtype="uint8", shape=shape, role=role, bands=bands)],
        builder=BuilderInfo(name="b", version="1"), format_version="1.0", codec="gzip", content_sha256="0" * 64,
        statistics=[], splits=[], scenes=[], shards=[],
    )  # fmt: skip


def maps(n=3, shape=(8, 8), probability=True):
    rng = np.random.default_rng(0)
    for _ in range(n):
        yield rng.integers(0, 2, shape, np.uint8), rng.integers(0, 256, shape, np.uint8) if probability else None


def write(path, chunks=None, chip_ids=CHIPS, **changes):
    chunks = maps() if chunks is None else chunks
    return write_predictions(path, dataset=DATASET | changes, split="test", model="m", chip_ids=chip_ids, chunks=chunks)


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "run" / "test" / "predictions.h5")


def test_maps_and_probabilities_come_back_by_chip_id(path):
    predictions = Predictions.open(path)
    assert (predictions.chip_ids, predictions.shape, predictions.model) == (CHIPS, (8, 8), "m")
    for chip, (class_map, probability) in zip(CHIPS, maps(), strict=True):
        np.testing.assert_array_equal(predictions.read(chip)[0], class_map)
        np.testing.assert_array_equal(predictions.read(chip)[1], probability)
    with pytest.raises(FormatError, match="no chip 'z'"):
        predictions.read("z")


def test_plain_h5py_reads_the_same_values(path):
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["prediction"][...], [class_map for class_map, _ in maps()])
        assert file["prediction"].chunks == (1, 8, 8) and file["prediction"].compression == "gzip"


def test_patches_have_one_class_and_k_probabilities(tmp_path):
    rows = [(np.uint8(k), np.array([k, 0, 255 - k], np.uint8)) for k in (2, 0, 1)]
    predictions = Predictions.open(write(tmp_path / "p.h5", rows))
    predictions.check(toy_manifest("classification", 3, ()), "test", CHIPS)
    class_id, probability = predictions.read("a")
    assert class_id == 2 and probability.tolist() == [2, 0, 253]


def images(n=3, shape=(2, 8, 8)):
    rng = np.random.default_rng(0)
    return [(rng.random(shape).astype(np.float16), None) for _ in range(n)]


def test_reflectance_comes_back_as_float16(tmp_path):
    images_in = images()
    images_in[1][0][:, 0] = np.nan
    path = write(tmp_path / "p.h5", images_in)
    predictions = Predictions.open(path)
    predictions.check(toy_manifest("regression", 0, (2, 8, 8)), "test", CHIPS)
    assert predictions.shape == (2, 8, 8) and predictions.probability_shape is None
    for chip, (image, _) in zip(CHIPS, images_in, strict=True):
        found, probability = predictions.read(chip)
        assert found.dtype == np.float16 and probability is None
        np.testing.assert_array_equal(found, image)
    with h5py.File(path) as file:
        assert file["reflectance"].chunks == (1, 2, 8, 8) and file.attrs["tidemark_predictions"] == b"1.1"
        np.testing.assert_array_equal(file["reflectance"][1], images_in[1][0])


def test_class_maps_are_still_written_for_the_first_readers(path):
    with h5py.File(path) as file:
        assert file.attrs["tidemark_predictions"] == b"1.0"


def test_class_maps_and_reflectance_do_not_stand_for_each_other(tmp_path, path):
    with pytest.raises(FormatError, match="expected the array reflectance, found prediction"):
        Predictions.open(path).check(toy_manifest("regression", 0, (2, 8, 8)), "test", CHIPS)
    reflectance = Predictions.open(write(tmp_path / "r.h5", images()))
    with pytest.raises(FormatError, match="expected the array prediction, found reflectance"):
        reflectance.check(toy_manifest(), "test", CHIPS)
    with pytest.raises(FormatError, match=r"expected shape \(3, 8, 8\) a chip, found \(2, 8, 8\)"):
        reflectance.check(toy_manifest("regression", 0, (3, 8, 8)), "test", CHIPS)


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([(i.astype(np.float32), None) for i, _ in images()], "chip a: expected .*float16.*found .*float32"),
        ([*images(2), *images(1, (2, 4, 4))], "chip c: expected"),
        ([*images(2), *maps(1)], "chip c: expected"),
    ],
)
def test_reflectance_that_does_not_fit_leaves_the_old_file(path, chunks, message):
    before = path.read_bytes()
    with pytest.raises(FormatError, match=message):
        write(path, chunks)
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == [path.name]


def test_the_same_predictions_give_the_same_bytes(tmp_path):
    first = write(tmp_path / "a.h5").read_bytes()
    time.sleep(1.1)  # HDF5 times have a resolution of one second
    assert write(tmp_path / "b.h5").read_bytes() == first


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        (list(maps(2)), "2 predictions for 3 chips"),
        (list(maps(4)), "more predictions than the 3 chips"),
        ([*maps(2), *maps(1, (4, 4))], "chip c: expected"),
        ([*maps(2), *maps(1, probability=False)], "chip c: expected"),
        ([(np.zeros((8, 8), int), None)] * 3, "chip a: expected"),
        ([], "no predictions"),
    ],
)
def test_predictions_that_do_not_fit_leave_the_old_file(path, chunks, message):
    before = path.read_bytes()
    with pytest.raises(FormatError, match=message):
        write(path, chunks)
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == [path.name]


def test_predictions_for_other_data_are_refused_with_expected_and_found(tmp_path, path):
    manifest = toy_manifest()
    Predictions.open(path).check(manifest, "test", CHIPS)
    for changes, message in (
        ({"name": "other"}, "another data set: expected toy, found other"),
        ({"version": "2.0.0"}, "another data set version: expected 1.0.0, found 2.0.0"),
        ({"content_sha256": "f" * 64}, "another content_sha256"),
    ):
        with pytest.raises(FormatError, match=message):
            Predictions.open(write(tmp_path / "x.h5", **changes)).check(manifest, "test", CHIPS)
    with pytest.raises(FormatError, match="another split: expected val, found test"):
        Predictions.open(path).check(manifest, "val", CHIPS)


def test_missing_and_extra_chips_are_counted_and_named(path):
    with pytest.raises(FormatError, match=r"of the 4 chips of toy test: 2 missing \(d, e\), 1 extra \(c\)"):
        Predictions.open(path).check(toy_manifest(), "test", ["a", "b", "d", "e"])


def test_repeated_chips_are_counted_and_named(tmp_path):
    with pytest.raises(FormatError, match=r"1 chips are repeated: a"):
        Predictions.open(write(tmp_path / "x.h5", chip_ids=["a", "b", "a"]))


def test_another_shape_or_class_is_refused(tmp_path, path):
    with pytest.raises(FormatError, match=r"expected shape \(16, 16\) a chip, found \(8, 8\)"):
        Predictions.open(path).check(toy_manifest(shape=(16, 16)), "test", CHIPS)
    strange = Predictions.open(write(tmp_path / "x.h5", [(np.full((8, 8), 7, np.uint8), None)] * 3))
    strange.check(toy_manifest(), "test", CHIPS)
    with pytest.raises(FormatError, match="chip b: expected classes 0 to 1 or 255, found 7"):
        strange.read("b")
    rows = [(np.uint8(0), np.zeros(4, np.uint8))] * 3
    with pytest.raises(FormatError, match="expected 3 classes, found 4"):
        Predictions.open(write(tmp_path / "y.h5", rows)).check(toy_manifest("classification", 3, ()), "test", CHIPS)


def replace(path, name, make):
    """Swap one dataset of a good file for what ``make(file)`` puts there."""
    with h5py.File(path, "r+") as file:
        if name in file:
            del file[name]
        make(file)


def external_storage(file):
    file.create_dataset("prediction", (3, 8, 8), np.uint8, external=[("secret.bin", 0, 192)])


def virtual(file):
    layout = h5py.VirtualLayout((3, 8, 8), np.uint8)
    layout[:] = h5py.VirtualSource("secret.h5", "d", (3, 8, 8))
    file.create_virtual_dataset("prediction", layout)


def soft_link(file):
    file["prediction"] = h5py.SoftLink("/probability")


def external_link(file):
    file["prediction"] = h5py.ExternalLink("secret.h5", "/d")


def group(file):
    file.create_group("prediction")


def huge(file):
    file.create_dataset("prediction", (3, 1 << 16, 1 << 16), np.uint8, chunks=(1, 1 << 12, 1 << 12), compression="gzip")


def huge_columns(file):
    del file["chip_id"], file["probability"]
    file.create_dataset("chip_id", (1 << 40,), "S48")
    file.create_dataset("prediction", (1 << 40,), np.uint8)


def unwritten(file):
    file.create_dataset("prediction", (3, 8, 8), np.uint8, chunks=(1, 8, 8), compression="gzip", shuffle=True)


def strange_filter(file):
    file.create_dataset("prediction", data=np.zeros((3, 8, 8), np.uint8), chunks=(1, 8, 8), compression="lzf")


def whole_chunk(file):
    file.create_dataset("prediction", data=np.zeros((3, 8, 8), np.uint8), chunks=(3, 8, 8), compression="gzip",
                        shuffle=True)  # fmt: skip


def float_maps(file):
    file.create_dataset("prediction", data=np.zeros((3, 8, 8)), chunks=(1, 8, 8), compression="gzip", shuffle=True)


def variable_ids(file):
    del file["chip_id"]
    file.create_dataset("chip_id", data=CHIPS, dtype=h5py.string_dtype())
    file["prediction"] = np.zeros((3, 8, 8), np.uint8)


def further_array(file):
    file["prediction"], file["surprise"] = np.zeros((3, 8, 8), np.uint8), np.zeros(3)


def many_groups(file):
    for i in range(2000):
        file.create_group(f"probability{i}")


def cycle(file):
    file["prediction"] = file["/"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (external_storage, "external storage"),
        (virtual, "virtual"),
        (soft_link, "'prediction' is a soft link"),
        (external_link, "'prediction' is an external link"),
        (group, "not a dataset"),
        (huge, "over 268435456 bytes"),
        (huge_columns, "chips are declared|has no data"),
        (unwritten, "expected 3 chunks, found 0"),
        (strange_filter, "lzf"),
        (whole_chunk, "expected chunk"),
        (float_maps, "expected uint8, found float64"),
        (variable_ids, "variable-length"),
        (further_array, "unexpected surprise"),
        (many_groups, "at the root"),
        (cycle, "not a dataset"),
        (lambda file: None, "missing prediction"),
    ],
)
def test_a_crafted_file_is_refused_before_any_read(path, make, message):
    replace(path, "prediction", make)
    with pytest.raises(FormatError, match=message) as refused:
        Predictions.open(path)
    assert str(path) in str(refused.value)


def no_reflectance(file):
    file["reflectance"] = h5py.ExternalLink("secret.h5", "/d")


def soft_reflectance(file):
    file["reflectance"] = h5py.SoftLink("/chip_id")


def wide_reflectance(file):
    file.create_dataset("reflectance", data=np.zeros((3, 2, 8, 8)), chunks=(1, 2, 8, 8), compression="gzip",
                        shuffle=True)  # fmt: skip


def flat_reflectance(file):
    file.create_dataset("reflectance", data=np.zeros((3, 8, 8), np.float16), chunks=(1, 8, 8), compression="gzip",
                        shuffle=True)  # fmt: skip


def huge_reflectance(file):
    file.create_dataset("reflectance", (3, 64, 1 << 11, 1 << 11), np.float16, chunks=(1, 1, 64, 64), compression="gzip")


def reflectance_and_classes(file):
    file["reflectance"], file["prediction"] = np.zeros((3, 2, 8, 8), np.float16), np.zeros((3, 8, 8), np.uint8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (no_reflectance, "'reflectance' is an external link"),
        (soft_reflectance, "'reflectance' is a soft link"),
        (wide_reflectance, "expected float16, found float64"),
        (flat_reflectance, r"shape \(3, 8, 8\) does not fit"),
        (huge_reflectance, "over 268435456 bytes"),
        (reflectance_and_classes, "unexpected prediction"),
    ],
)
def test_a_crafted_file_of_reflectance_is_refused_before_any_read(tmp_path, make, message):
    path = write(tmp_path / "p.h5", images())
    replace(path, "reflectance", make)
    with pytest.raises(FormatError, match=message):
        Predictions.open(path)


def test_a_chunk_that_inflates_beyond_its_chip_is_refused(path):
    bomb = zlib.compress(bytes(64 << 20), 9)
    with h5py.File(path, "r+") as file:
        file["prediction"].id.write_direct_chunk((1, 0, 0), bomb)
    predictions = Predictions.open(path)
    predictions.read("a")
    with pytest.raises(FormatError, match="array prediction, chip b: .*64 bytes"):
        predictions.read("b")


def test_attributes_must_be_there_short_and_of_a_known_format(path):
    for value, message in ((None, "'model' is missing"), ("text", "not a short fixed-length"),
                           (np.bytes_(b"x" * 300), "not a short fixed-length")):  # fmt: skip
        with h5py.File(path, "r+") as file:
            file.attrs.pop("model", None)
            if value is not None:
                file.attrs["model"] = value
        with pytest.raises(FormatError, match=message):
            Predictions.open(path)


def test_a_newer_format_says_so(path):
    with h5py.File(path, "r+") as file:
        file.attrs.create("tidemark_predictions", np.bytes_("1.7"))
    with pytest.raises(FormatError, match="newer version: needs predictions format >= 1.7"):
        Predictions.open(path)


def test_an_absent_a_truncated_and_a_foreign_file_are_named(tmp_path, path):
    with pytest.raises(FormatError, match="no predictions here"):
        Predictions.open(tmp_path / "none.h5")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(FormatError, match="cannot read"):
        Predictions.open(path)
    path.write_bytes(b"PK" * 1000)
    with pytest.raises(FormatError, match="cannot read"):
        Predictions.open(path)
