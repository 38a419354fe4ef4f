import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from tidemark.datasets import build as engine
from tidemark.datasets.audit import AuditReport, audit, write_report
from tidemark.datasets.audit_report import Check, Pair
from tidemark.datasets.overlaps import (
    Fingerprints,
    exact_overlap,
    fingerprint,
    near_hashes,
    overlap_candidates,
    perceptual_hash,
)
from tidemark.datasets.plan import ChipRef, Plan, SceneJob, ShardJob
from tidemark.datasets.seams import correlation, edge_features, seam_limit, seams
from tidemark.datasets.spec import (
    Array,
    Band,
    BuilderInfo,
    ClassDef,
    Header,
    Scene,
    SourceFile,
    Task,
    canonical_json,
    load_manifest,
)
from tidemark.datasets.worker import make_shard

DATA = Path(os.environ.get("TIDEMARK_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_ombria = pytest.mark.skipif(not (DATA / "ombria.zip").exists(), reason=f"no ombria.zip in {DATA}")
needs_polar = pytest.mark.skipif(not (DATA / "polar-patch.zip").exists(), reason=f"no polar-patch.zip in {DATA}")
SIZE = 96


@dataclass
class Chip:
    image: np.ndarray
    mask: np.ndarray | None = None
    transform: tuple | None = None
    scene: str = ""
    image_transform: tuple | None = None  # where the image has a grid of its own


@dataclass
class DataSet:
    """What ``publish`` writes: split -> chips, and what the manifest says about their scenes."""

    splits: dict[str, list[Chip]]
    crs: str | None = None
    guard_m: float | None = None
    sources: dict[str, str] = field(default_factory=dict)  # scene -> sha256


def texture(rng, rows=SIZE, columns=SIZE, bands=2):
    """Speckle with a correlation length of about two pixels, as resampled SAR has, uint8 (C, H, W)."""
    field_ = gaussian_filter(rng.normal(size=(bands, rows, columns)), (0, 1.2, 1.2))
    return np.clip(128 + 60 * field_ / field_.std(), 1, 255).astype(np.uint8)


def edges_of(rng, n, length=256):
    """Edges (N, 2, L) of chips from n places."""
    return np.stack([texture(rng, 3, length)[:, 1] for _ in range(n)]).astype(np.float32)


def publish(tmp_path, data: DataSet) -> Path:
    height, width = data.splits["train"][0].image.shape[1:]
    header = Header(
        name="audited",
        version="1.0.0",
        title="Audited <b>title</b>",
        description="Made by a test.",
        licence=None,
        provenance="random numbers",
        known_label_defects="none",
        guard_distance_m=data.guard_m,
        task=Task(
            kind="segmentation",
            classes=(ClassDef(id=0, name="dry", color="#d9cfa6"), ClassDef(id=1, name="water", color="#1f6fb4")),
        ),
        arrays=(
            Array(
                name="image",
                dtype="uint8",
                shape=(2, height, width),
                role="image",
                bands=(Band(name="VV", nodata=0), Band(name="VH", nodata=0)),
            ),
            Array(name="mask", dtype="uint8", shape=(height, width), role="mask"),
        ),
        builder=BuilderInfo(name="audited", version="1.0.0"),
    )
    half = np.zeros((height, width), np.uint8)
    half[: height // 2] = 1
    jobs, scenes, shards = {}, [], []
    for split, chips in data.splits.items():
        for i, chip in enumerate(chips):
            jobs.setdefault((split, chip.scene or f"{split}-scene"), []).append((f"{split}-{i:03d}", chip))
    for split, scene in jobs:
        sha256 = data.sources.get(scene)
        files = (SourceFile(path=f"{scene}.tif", bytes=1, sha256=sha256),) if sha256 else ()
        scenes.append(Scene(id=scene, split=split, crs=data.crs, sources=files))
        shards.append(ShardJob(scene, split, (SceneJob(scene, split, {}),)))
    builder = ModuleType("tidemark_audit_builder")
    builder.index = lambda job: [
        ChipRef(
            chip_id,
            (0, 0, height, width),
            chip.transform,
            {} if chip.image_transform is None else {"image": chip.image_transform},
        )
        for chip_id, chip in jobs[job.split, job.id]
    ]
    builder.read = lambda job, refs: (
        {"image": chip.image, "mask": half if chip.mask is None else chip.mask} for _, chip in jobs[job.split, job.id]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tidemark_audit_builder", builder)
        patch.setattr(engine, "run_task", make_shard)
        plan = Plan(header, tuple(scenes), tuple(shards))
        return engine.build(plan, "tidemark_audit_builder", tmp_path / "data")


def clean(seed=0, n=12):
    rng = np.random.default_rng(seed)
    return {split: [Chip(texture(rng)) for _ in range(n)] for split in ("train", "val", "test")}


def status(report: AuditReport) -> dict[str, str]:
    return {check.name: check.status for check in report.checks}


@pytest.fixture(scope="module")
def clean_report(tmp_path_factory):
    return audit(publish(tmp_path_factory.mktemp("clean"), DataSet(clean())))


def test_a_clean_data_set_passes_and_says_what_it_could_not_check(clean_report):
    assert clean_report.passed and clean_report.failed == ()
    assert status(clean_report) == {
        "scenes": "pass",
        "footprints": "not-checkable",
        "grids": "not-checkable",
        "equal-chips": "pass",
        "duplicates": "pass",
        "overlaps": "pass",
        "seams": "pass",
        "classes": "pass",
        "blank-chips": "pass",
        "near-duplicates": "pass",
    }
    assert clean_report.text().endswith("PASSED\n")


def test_a_scenes_name_forges_no_line_of_the_report(clean_report):
    forged = "train/a\n\x1b[31mPASSED"
    check = Check(name="seams", title="Seams", status="fail", message="x", found=1, pairs=(Pair(first=forged),))
    text = clean_report.model_copy(update={"checks": (check,)}).text()
    assert "\x1b" not in text and r"train/a\n\x1b[31mPASSED" in text
    assert text.endswith("FAILED: seams\n")


def test_chips_cut_side_by_side_are_found_in_every_direction_though_each_is_stretched(tmp_path):
    splits, rng = clean(1), np.random.default_rng(5)
    wide, tall = texture(rng, SIZE, 3 * SIZE), texture(rng, 3 * SIZE, SIZE)
    splits["train"][2].image = (wide[..., :SIZE] // 2).astype(np.uint8)
    splits["test"][4].image = wide[..., SIZE : 2 * SIZE]
    splits["val"][1].image = (wide[..., 2 * SIZE :] // 3 + 90).astype(np.uint8)
    splits["test"][7].image = tall[:, :SIZE]
    splits["train"][8].image = (tall[:, SIZE : 2 * SIZE] // 2 + 20).astype(np.uint8)
    splits["val"][0].image = tall[:, 2 * SIZE :]
    check = audit(publish(tmp_path, DataSet(splits))).check("seams")
    assert check.status == "fail" and check.found == 4
    assert {(p.first, p.second, p.side) for p in check.pairs} == {
        ("train/train-002", "test/test-004", "right"),
        ("val/val-001", "test/test-004", "left"),
        ("train/train-008", "test/test-007", "top"),
        ("train/train-008", "val/val-000", "bottom"),
    }
    assert "2 of 12 chips of test (against train), 1 of 12 chips of test (against val)" in check.message


@pytest.mark.parametrize("lacking", [1, 2])
def test_neighbours_are_found_although_a_band_is_missing_in_one_or_both(tmp_path, lacking):
    splits, wide = clean(1), texture(np.random.default_rng(9), SIZE, 2 * SIZE)
    pair = [wide[..., :SIZE].copy(), wide[..., SIZE:].copy()]
    for image in pair[:lacking]:
        image[1] = 0
    splits["train"][2].image, splits["test"][4].image = pair
    assert audit(publish(tmp_path, DataSet(splits))).check("seams").found == 1


@pytest.mark.parametrize(("dates", "expected"), [(3, "fail"), (5, "not-checkable")])
def test_one_place_on_many_dates_does_not_pass(tmp_path, dates, expected):
    rng, splits = np.random.default_rng(3), clean(1)
    wide = texture(rng, SIZE, 2 * SIZE).astype(float)
    for k in range(dates):
        seen = np.clip(wide + rng.normal(0, 6, wide.shape), 1, 255).astype(np.uint8)
        splits["train"][k].image, splits["test"][k].image = seen[..., :SIZE], seen[..., SIZE:]
    check = audit(publish(tmp_path, DataSet(splits))).check("seams")
    assert check.status == expected
    assert expected == "fail" or "many dates" in check.message


@pytest.mark.parametrize("shift", [0, 20])
def test_an_overlap_is_found_although_a_chip_has_no_data_in_part_of_it(tmp_path, shift):
    splits, ground = clean(1), texture(np.random.default_rng(3), 2 * SIZE, 2 * SIZE)
    splits["train"][0].image = ground[:, :SIZE, :SIZE].copy()
    splits["train"][0].image[..., -10:] = 0
    splits["test"][0].image = ground[:, shift : shift + SIZE, shift : shift + SIZE]
    check = audit(publish(tmp_path, DataSet(splits))).check("overlaps")
    assert [pair.first for pair in check.pairs] == ["train/train-000"]
    assert check.pairs[0].detail.startswith(f"{(SIZE - shift) * (SIZE - shift - 10)} equal pixels")


def test_footprints_are_not_checkable_where_no_two_splits_are_placed(tmp_path):
    splits = clean(n=3)
    for at, chip in enumerate(splits["train"]):
        chip.transform = (10.0, 0.0, 500_000.0 + 20_000 * at, 0.0, -10.0, 5_000_000.0)
    assert audit(publish(tmp_path, DataSet(splits, crs="EPSG:32633", guard_m=100.0))).check("footprints").status == (
        "not-checkable"
    )


def test_chips_too_small_for_a_fingerprint_are_audited(tmp_path):
    splits = {split: [Chip(texture(np.random.default_rng(0), 4, 4))] for split in ("train", "test")}
    assert audit(publish(tmp_path, DataSet(splits))).check("equal-chips").status == "fail"


def test_a_data_set_that_shows_nothing_at_all_is_audited(tmp_path):
    splits = {split: [Chip(np.full((2, SIZE, SIZE), value, np.uint8))] for split, value in (("train", 7), ("test", 9))}
    report = audit(publish(tmp_path, DataSet(splits)))
    assert report.check("blank-chips").found == 2 and report.check("near-duplicates").found == 0


def test_near_duplicates_are_found_although_a_band_is_constant(tmp_path):
    splits, image = clean(1), texture(np.random.default_rng(3))
    image[1] = 7
    splits["train"][0].image, splits["test"][0].image = image, image // 2 + 1
    assert audit(publish(tmp_path, DataSet(splits))).check("near-duplicates").found == 1


@pytest.mark.parametrize(("metres", "expected"), [(2_000, "fail"), (200_000, "pass")])
def test_edges_that_look_alike_are_no_seam_where_the_map_says_so(tmp_path, metres, expected):
    splits, wide = clean(1), texture(np.random.default_rng(5), SIZE, 2 * SIZE)
    splits["train"][2].image, splits["test"][4].image = wide[..., :SIZE], wide[..., SIZE:]
    for number, chips in enumerate(splits.values()):
        for at, chip in enumerate(chips):
            chip.transform = (10.0, 0.0, 400_000.0 + number * metres, 0.0, -10.0, 5_000_000.0 - 1_000 * at)
    assert audit(publish(tmp_path, DataSet(splits, crs="EPSG:32633"))).check("seams").status == expected


def test_fill_and_a_common_step_are_no_seam():
    rng = np.random.default_rng(0)
    edges = edges_of(rng, 400)
    edges[:200, :, :60] = 255  # a swath edge at the same place in many chips
    edges[200:, :, 128:] = np.clip(edges[200:, :, 128:] * 0.3, 1, 60)  # a coast at the same place in many chips
    order = np.random.default_rng(1).permutation(400)
    features = edge_features(edges[order])
    limit = seam_limit(dict.fromkeys(("top", "bottom", "left", "right"), features), 400 * 400)
    halves = features.take(np.arange(200)), features.take(np.arange(200, 400))
    assert seams(*halves, limit) == ([], 0)
    assert [(i, j) for i, j, _ in seams(features.take(np.arange(5)), features, limit)[0]] == [(k, k) for k in range(5)]


def test_two_swath_edges_at_one_place_do_not_correlate():
    edges = edges_of(np.random.default_rng(0), 2)
    edges[:, :, 90:] = 255
    first, second = edge_features(edges[:1]), edge_features(edges[1:])
    assert not first.valid[..., 90:].any() and abs(correlation(first, second)[0]) < 0.2
    edges[0, :, 40:], edges[1, :, 40:] = 255, 255  # too little is left
    assert correlation(edge_features(edges[:1]), edge_features(edges[:1]))[0] == 0


def test_two_coasts_at_one_place_do_not_correlate():
    edges = edges_of(np.random.default_rng(0), 2)
    edges[:, :, 128:] = edges[:, :, 128:] * 0.1
    assert abs(correlation(edge_features(edges[:1]), edge_features(edges[1:]))[0]) < 0.3


def test_an_edge_like_too_many_others_is_a_pattern_and_no_seam():
    rng = np.random.default_rng(0)
    edges = edges_of(rng, 300)
    edges[250:260] = edges[0]
    features = edge_features(edges)
    limit = seam_limit(dict.fromkeys(("top", "bottom", "left", "right"), features), 300 * 300)
    first, second = features.take(np.arange(100)), features.take(np.arange(100, 300))
    assert seams(first, second, limit) == ([], 10)


def test_edges_without_texture_are_not_compared():
    flat = np.full((50, 2, 64), 7.0, np.float32)
    flat[:25] = np.nan
    features = edge_features(flat)
    assert not features.valid.any() and not features.texture.any()
    assert seam_limit(dict.fromkeys(("top", "bottom", "left", "right"), features), 1000) is None


def test_short_edges_say_that_seams_cannot_be_told_from_chance(tmp_path):
    rng = np.random.default_rng(0)
    splits = {name: [Chip(texture(rng, 16, 16)) for _ in range(40)] for name in ("train", "test")}
    check = audit(publish(tmp_path, DataSet(splits))).check("seams")
    assert check.status == "not-checkable" and "16 px are too short" in check.message


def test_equal_chips_and_duplicates_are_told_apart(tmp_path):
    splits = clean(2)
    splits["test"][3].image = splits["train"][5].image
    splits["val"][1].image = splits["val"][9].image
    report = audit(publish(tmp_path, DataSet(splits)))
    equal, within = report.check("equal-chips"), report.check("duplicates")
    assert (equal.status, within.status) == ("fail", "report")
    assert {(p.first, p.second) for p in equal.pairs} == {("train/train-005", "test/test-003")}
    assert {(p.first, p.second) for p in within.pairs} == {("val/val-001", "val/val-009")}
    assert not report.passed


def test_one_copy_in_test_is_found_among_any_number_of_copies_in_train(tmp_path):
    splits = clean(2, n=4)
    same = splits["train"][0].image
    splits["train"] += [Chip(same) for _ in range(70)]
    splits["test"][3].image = same
    equal = audit(publish(tmp_path, DataSet(splits))).check("equal-chips")
    assert equal.status == "fail" and equal.chips["test (against train)"] == 1


@pytest.mark.parametrize(("compared", "expected"), [(3, "not-checkable"), (4, "pass")])
def test_a_check_that_leaves_candidates_out_does_not_pass(tmp_path, monkeypatch, compared, expected):
    splits = clean(2, n=4)
    monkeypatch.setattr("tidemark.datasets.audit.MAX_CONFIRMED", compared)
    monkeypatch.setattr("tidemark.datasets.audit.overlap_candidates", lambda *_: [(0, 9, 0, k, 1) for k in range(4)])
    check = audit(publish(tmp_path, DataSet(splits))).check("overlaps")
    assert check.status == expected
    assert ("only 3 of 4 candidates were compared" in check.message) == (expected == "not-checkable")


def test_a_bit_exact_overlap_is_found_at_any_offset(tmp_path):
    splits, ground = clean(3), texture(np.random.default_rng(9), 200, 200)
    splits["train"][0].image = ground[:, 10 : 10 + SIZE, 20 : 20 + SIZE]
    splits["test"][0].image = ground[:, 60 : 60 + SIZE, 3 : 3 + SIZE]
    check = audit(publish(tmp_path, DataSet(splits))).check("overlaps")
    assert check.status == "fail"
    assert [(p.first, p.second) for p in check.pairs] == [("train/train-000", "test/test-000")]
    assert f"{46 * 79} equal pixels at an offset of 50 rows and -17 columns" in check.pairs[0].detail


def test_a_near_duplicate_is_reported_and_does_not_fail(tmp_path):
    splits, rng = clean(4), np.random.default_rng(9)
    smooth = gaussian_filter(rng.normal(size=(2, SIZE, SIZE)), (0, 8, 8))
    image = np.clip(128 + 60 * smooth / smooth.std(), 1, 250).astype(np.uint8)
    splits["train"][0].image = image
    splits["test"][0].image = (image + rng.integers(0, 4, image.shape)).astype(np.uint8)
    report = audit(publish(tmp_path, DataSet(splits)))
    assert report.check("near-duplicates").status == "report" and report.passed
    assert report.check("near-duplicates").pairs[0].second == "test/test-000"


def test_the_same_source_file_in_two_splits_fails_and_names_both(tmp_path):
    data = DataSet(clean(), sources={"train-scene": "a" * 64, "val-scene": "b" * 64, "test-scene": "a" * 64})
    check = audit(publish(tmp_path, data)).check("scenes")
    assert check.status == "fail"
    assert (check.pairs[0].first, check.pairs[0].second) == ("train/train-scene", "test/test-scene")


def test_a_chip_whose_scene_belongs_to_another_split_fails(tmp_path):
    folder = publish(tmp_path, DataSet(clean()))
    manifest = load_manifest(folder)
    scenes = [s.model_copy(update={"split": "test" if s.split == "val" else s.split}) for s in manifest.scenes]
    (folder / "dataset.json").write_bytes(canonical_json(manifest.model_copy(update={"scenes": tuple(scenes)})))
    check = audit(folder).check("scenes")
    assert check.status == "fail" and check.found == 12
    assert check.pairs[0].first == "val/val-000" and "belongs to test" in check.pairs[0].detail


UTM = "EPSG:32633"


def placed(gap_m, guard_m, crs=UTM):
    splits = clean(6, n=3)
    for k, chips in enumerate(splits.values()):
        for i, chip in enumerate(chips):
            left = 500_000 + k * 20_000 + i * 10 * SIZE
            chip.transform = (10.0, 0.0, left, 0.0, -10.0, 6_000_000.0)
    at = splits["train"][2].transform[2]
    splits["test"][0].transform = (10.0, 0.0, at + 10 * SIZE + gap_m, 0.0, -10.0, 6_000_000.0)
    return DataSet(splits, crs=crs, guard_m=guard_m)


@pytest.mark.parametrize(("gap_m", "guard_m", "expected"), [(400, 500, "fail"), (600, 500, "pass"), (-20, 0, "fail")])
def test_ground_closer_than_the_guard_distance_fails(tmp_path, gap_m, guard_m, expected):
    check = audit(publish(tmp_path, placed(gap_m, guard_m))).check("footprints")
    assert check.status == expected
    if expected == "fail":
        assert [(p.first, p.second) for p in check.pairs] == [("train/train-002", "test/test-000")]
        assert check.pairs[0].detail == ("overlap" if gap_m < 0 else "400 m apart")


def test_all_leaks_are_counted_and_the_first_are_named(tmp_path, monkeypatch):
    data = placed(gap_m=-20, guard_m=0)
    for chip in (*data.splits["val"], *data.splits["test"]):
        chip.transform = data.splits["train"][2].transform
    monkeypatch.setattr("tidemark.datasets.audit.MAX_PAIRS", 4)
    monkeypatch.setattr("tidemark.datasets.footprints.BLOCK_PAIRS", 2)
    check = audit(publish(tmp_path, data)).check("footprints")
    assert check.status == "fail" and check.found == 3 + 3 + 9 and len(check.pairs) == 4
    assert check.chips == {
        "test (against train)": 3,
        "test (against val)": 3,
        "train (against test)": 1,
        "train (against val)": 1,
        "val (against test)": 3,
        "val (against train)": 3,
    }


@pytest.mark.parametrize(("shift", "expected"), [(0.0, "pass"), (5.0, "fail")])
def test_a_label_half_a_pixel_off_its_image_fails(tmp_path, shift, expected):
    data = placed(gap_m=5_000, guard_m=0)
    for chip in (chip for chips in data.splits.values() for chip in chips):
        chip.image_transform = chip.transform
    chip = data.splits["val"][1]
    a, b, west, d, e, north = chip.transform
    chip.image_transform = (a, b, west + shift, d, e, north)
    check = audit(publish(tmp_path, data)).check("grids")
    assert check.status == expected
    if expected == "fail":
        assert [(p.first, p.detail) for p in check.pairs] == [("val/val-001", "image lies 0.5 pixels off mask")]


def test_a_class_absent_from_a_split_fails(tmp_path):
    splits = clean(7)
    for chip in splits["val"]:
        chip.mask = np.zeros((SIZE, SIZE), np.uint8)
    check = audit(publish(tmp_path, DataSet(splits))).check("classes")
    assert (check.status, check.message) == ("fail", "val has no water")


def test_blank_chips_fail_only_where_they_are_labelled(tmp_path):
    splits = clean(8)
    splits["train"][0].image = np.full((2, SIZE, SIZE), 100, np.uint8)
    splits["train"][1].image = np.zeros((2, SIZE, SIZE), np.uint8)  # nodata
    splits["train"][2].image = np.zeros((2, SIZE, SIZE), np.uint8)
    splits["train"][2].mask = np.full((SIZE, SIZE), 255, np.uint8)
    check = audit(publish(tmp_path, DataSet(splits))).check("blank-chips")
    assert check.status == "fail" and "3 of 36 chips show nothing, 2 of them" in check.message
    assert [p.first for p in check.pairs] == ["train/train-000", "train/train-001"]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    row=st.integers(-40, 40),
    column=st.integers(-40, 40),
    dtype=st.sampled_from(["uint8", "int16", "float32"]),
)
def test_every_overlap_of_good_size_is_a_candidate_at_the_right_offset(seed, row, column, dtype):
    ground = np.random.default_rng(seed).integers(0, 200, (2, 160, 160)).astype(dtype)
    one, two = ground[:, 48:112, 48:112], ground[:, 48 + row : 112 + row, 48 + column : 112 + column]
    prints = Fingerprints.join([(k, *fingerprint(np.ascontiguousarray(x))) for k, x in enumerate((one, two))])
    if abs(row) + abs(column) <= 40:
        assert overlap_candidates(prints, np.array([0, 1]))[0][:4] == (0, 1, row, column)
        assert exact_overlap(one, two, row, column) == (64 - abs(row)) * (64 - abs(column))
        assert overlap_candidates(prints, np.array([0, 0])) == []


def test_saturated_or_different_pixels_are_no_overlap():
    flat = np.full((2, 64, 64), 255, np.uint8)
    flat[:, ::9, ::9] = 7
    assert exact_overlap(flat, flat, 0, 0) == 0
    noise = np.random.default_rng(0).integers(0, 200, (2, 64, 64), dtype=np.uint8)
    assert exact_overlap(noise, noise, 0, 0) == 64 * 64
    assert exact_overlap(noise, noise, 60, 60) == 0
    other = noise.copy()
    other[1, 5, 5] ^= 1
    assert exact_overlap(noise, other, 0, 0) == 0


@given(seed=st.integers(0, 500), bits=st.sets(st.integers(0, 63), max_size=6))
def test_near_hashes_are_those_within_three_bits(seed, bits):
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, 60, dtype=np.uint64)
    hashes[7] = hashes[3] ^ np.uint64(sum(1 << b for b in bits))
    assert ([3, 7] in near_hashes(hashes).tolist()) == (len(bits) <= 3)


def test_the_perceptual_hash_ignores_a_stretch_but_not_another_place():
    rng = np.random.default_rng(0)
    one, other = (gaussian_filter(rng.normal(size=(80, 70)), 6) for _ in range(2))
    hashes = perceptual_hash(np.stack([one, 3 * one + 10, other]))
    assert hashes[0] == hashes[1] and np.bitwise_count(hashes[0] ^ hashes[2]) > 12


def test_the_report_is_one_escaped_page_with_the_pairs_side_by_side(tmp_path):
    splits, wide = clean(1), texture(np.random.default_rng(5), SIZE, 2 * SIZE)
    splits["train"][2].image, splits["test"][4].image = wide[..., :SIZE], wide[..., SIZE:]
    folder = publish(tmp_path, DataSet(splits))
    report = audit(folder)
    page = write_report(report, folder, tmp_path / "out" / "audit.html")
    html = page.read_text()
    assert "<b>title" not in html and "&lt;b&gt;title" in html
    assert "http" not in html and html.count("data:image/png;base64,") == 1
    assert "train/train-002 · test/test-004" in html
    assert AuditReport.model_validate(json.loads(page.with_suffix(".json").read_text())) == report
    text = page.with_suffix(".txt").read_text()
    assert text == report.text() and text.endswith("FAILED: seams\n")
    before = page.read_bytes()
    assert write_report(audit(folder), folder, page).read_bytes() == before


def test_a_report_quotes_names_that_hold_markup(tmp_path):
    folder = publish(tmp_path, DataSet(clean(n=2)))
    report = audit(folder)
    bad = Check(name="x", title="<script>", status="fail", message="<script>", pairs=(Pair(first="<script>"),))
    report = report.model_copy(update={"checks": (bad,)})
    assert "<script>" not in write_report(report, folder, tmp_path / "a.html").read_text()


def test_the_audit_starts_without_torch():
    code = "import sys, tidemark.datasets.audit, tidemark.datasets.plots; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture(scope="session")
def ombria(tmp_path_factory):
    from tidemark.datasets.builders import ombria as builder

    out = tmp_path_factory.mktemp("ombria")
    yield {
        official: engine.build(
            builder.plan(DATA / "ombria.zip", official_split=official), "tidemark.datasets.builders.ombria", out
        )
        for official in (False, True)
    }
    shutil.rmtree(out)


@needs_ombria
@pytest.mark.slow
def test_the_official_ombria_split_leaks_and_ours_does_not(ombria):
    official = audit(ombria[True])
    touched = {p.second for p in official.check("seams").pairs}
    assert [check.name for check in official.failed] == ["seams"]
    assert len(touched) == 68 and all(name.startswith("test/") for name in touched)
    ours = audit(ombria[False])
    assert ours.passed and status(ours)["seams"] == "pass"


@needs_polar
@pytest.mark.slow
def test_exact_overlaps_of_polar_patch_are_found_without_coordinates():
    from tidemark.datasets.builders import polar_patch as builder

    source = builder.open_source(DATA / "polar-patch.zip")
    pairs = np.loadtxt(DATA / "polar-audit" / "exact_overlap_pairs.csv", delimiter=",", skiprows=1, dtype=int)
    ids = sorted(set(pairs.ravel().tolist()))
    images = [np.ascontiguousarray(builder._decode(source, i)[..., (2, 1)].transpose(2, 0, 1)) for i in ids]
    prints = Fingerprints.join([(k, *fingerprint(image)) for k, image in enumerate(images)])
    found = {
        (ids[a], ids[b])
        for a, b, row, column, _ in overlap_candidates(prints, np.arange(len(ids)))
        if exact_overlap(images[a], images[b], row, column)
    }
    known = {tuple(sorted(pair)) for pair in pairs.tolist()}
    assert len(known & found) >= 0.98 * len(known)
