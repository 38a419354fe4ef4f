"""tibet-water: both orbits and their contexts at the right place, the published split, scenes left out by name."""

from collections import Counter

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.transform import from_origin
from tidemark.datasets import build as engine
from tidemark.datasets.audit import audit
from tidemark.datasets.build import build, builder_module, plan_data_set
from tidemark.datasets.builders import tibet_water
from tidemark.datasets.chips import ChipDataset
from tidemark.datasets.reader import open_split
from tidemark.datasets.spec import load_manifest
from tidemark.datasets.verify import verify
from tidemark.datasets.worker import make_shard
from tidemark.errors import InputError, PartialResultError

SHAPE = (300, 520)  # two rows of three chips, the last ones of each reaching beyond the scene
ORIGIN = (500_000, 3_600_000)


def write(path, array, at=0, crs="EPSG:32645", step=10, **profile):
    path.parent.mkdir(exist_ok=True, parents=True)
    array = array[None] if array.ndim == 2 else array
    options = dict(crs=crs, transform=from_origin(ORIGIN[0] + 50_000 * at, ORIGIN[1], step, step)) | profile
    with rasterio.open(
        path, "w", driver="GTiff", dtype=array.dtype, count=len(array), height=array.shape[1], width=array.shape[2],
        tiled=True, blockxsize=128, blockysize=128, compress="deflate", **options,
    ) as dataset:  # fmt: skip
        dataset.write(array)


def backscatter(seed):
    rng = np.random.default_rng(seed)
    return rng.uniform(-25, -5, (2, *SHAPE)).astype(np.float32)


def add_scene(folder, number, ascending=True, descending=True):
    name = f"scene{number:02d}"
    asc, desc = backscatter(number), backscatter(100 + number)
    asc[:, :40, :60] = 0  # a wedge that only the descending orbit saw
    asc[:, 250:260, 400:] = np.nan
    desc[:, 250:260, 400:] = 0  # nobody saw this
    water = (asc[0] < -20).astype(np.uint8)
    water[100:110] = 255
    if ascending:
        write(folder / "s1_ascend" / f"{name}_s1_as.tif", asc, number)
    if descending:
        write(folder / "s1_descend" / f"{name}_s1_des.tif", desc, number)
    write(folder / "s1_truth" / f"{name}_truth.tif", water, number)
    return asc, desc, water


@pytest.fixture
def folder(tmp_path):
    for number in (1, 8, 9):
        add_scene(tmp_path / "src", number)
    return tmp_path / "src"


@pytest.fixture(autouse=True)
def in_this_process(request, monkeypatch):
    if "real_workers" not in request.fixturenames:
        monkeypatch.setattr(engine, "run_task", make_shard)


@pytest.fixture
def real_workers():
    pass


def make(folder, out, options=(), **parameters):
    plan = plan_data_set("tibet-water", folder, **parameters)
    return build(plan, builder_module("tibet-water"), out, **dict(options))


def chips_of(made, split):
    _, shards = open_split(made, split)
    arrays = ("image", "image_x2", "image_x8", "mask")
    return {
        chip: {name: shard.read(name, i) for name in arrays} | {"transform": shard.transform[i]}
        for shard in shards
        for i, chip in enumerate(shard.chip_ids)
    }


def test_bands_come_in_their_order_and_missing_pixels_are_zero(folder, tmp_path):
    made = make(folder, tmp_path)
    manifest = load_manifest(made)
    assert made == tmp_path / "tibet-water" / "1.0.0"
    assert [b.name for b in manifest.array("image").bands] == ["vv_asc", "vh_asc", "vv_desc", "vh_desc"]
    asc, desc, water = add_scene(tmp_path / "again", 8)
    chips = chips_of(made, "train")
    assert [c for c in chips if c.startswith("scene08")] == [
        "scene08_0_0", "scene08_0_256", "scene08_256_0", "scene08_256_256"
    ]  # fmt: skip
    chip = chips["scene08_0_256"]
    expected = np.nan_to_num(np.concatenate([asc, desc]))[:, :256, 256:512]
    np.testing.assert_array_equal(chip["image"], expected)
    truth = water[:256, 256:512].copy()
    truth[250:, 144:] = 255  # neither orbit has data
    np.testing.assert_array_equal(chip["mask"], truth)
    assert tuple(chip["transform"]) == (10, 0, 500_000 + 8 * 50_000 + 2560, 0, -10, 3_600_000)
    wedge = chips["scene08_0_0"]
    assert (wedge["image"][:2, :40, :60] == 0).all() and (wedge["image"][2:, :40, :60] != 0).all()
    assert (wedge["mask"][:40, :60] < 2).all()
    beyond = chips["scene08_256_256"]
    assert (beyond["image"][:, 44:] == 0).all() and (beyond["mask"][44:] == 255).all()


def test_contexts_have_the_chips_centre_and_their_own_transform(folder, tmp_path):
    made = make(folder, tmp_path)
    chip = chips_of(made, "train")["scene08_0_256"]
    asc, desc, _ = add_scene(tmp_path / "again", 8)
    scene = np.where(np.isnan(np.concatenate([asc, desc])), 0, np.concatenate([asc, desc]))
    for scale in (2, 8):
        margin = (scale - 1) * 128
        around = np.zeros((4, 256 * scale, 256 * scale))
        height, width = SHAPE[0], SHAPE[1]
        top, left = 0 - margin, 256 - margin
        rows, columns = (
            slice(max(top, 0), min(top + 256 * scale, height)),
            slice(max(left, 0), min(left + 256 * scale, width)),
        )
        around[:, rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = scene[
            :, rows, columns
        ]
        first = scale // 2 - 1
        four = np.stack([around[:, first + i :: scale, first + j :: scale] for i in (0, 1) for j in (0, 1)])
        count = (four != 0).sum(0)
        mean = np.where(count, four.sum(0) / np.maximum(count, 1), 0)
        np.testing.assert_allclose(chip[f"image_x{scale}"], mean, atol=1e-4)
    shard = open_split(made, "train")[1][0]
    row = list(shard.chip_ids).index("scene08_0_256")
    for scale in (2, 8):
        a, _, c, _, e, f = shard.array_transform(f"image_x{scale}")[row]
        own = shard.transform[row]
        assert (a, e) == (10 * scale, -10 * scale)
        assert (c + 128 * a, f + 128 * e) == (own[2] + 1280, own[5] - 1280)


def test_the_published_split_is_the_default(folder, tmp_path):
    add_scene(folder, 7)
    add_scene(folder, 39)
    manifest = load_manifest(make(folder, tmp_path))
    assert {s.id: s.split for s in manifest.scenes} == {
        "scene01": "val", "scene07": "val", "scene08": "train", "scene09": "train", "scene39": "train",
    }  # fmt: skip


def test_scenes_that_share_ground_stay_together(folder, tmp_path):
    for number in (2, 3):
        add_scene(folder, number)
    shifted = backscatter(4)
    for orbit, short in (("ascend", "as"), ("descend", "des")):  # overlaps scene 3 by half
        write(folder / f"s1_{orbit}" / f"scene04_s1_{short}.tif", shifted, 3 + 0.05)
    write(folder / "s1_truth" / "scene04_truth.tif", np.zeros(SHAPE, np.uint8), 3 + 0.05)
    made = make(folder, tmp_path, split="by-ground")
    manifest = load_manifest(made)
    split_of = {s.id: s.split for s in manifest.scenes}
    assert manifest.version == "2.0.0" and split_of["scene03"] == split_of["scene04"]
    assert set(split_of.values()) == {"train", "val", "test"}
    checks = {c.name: c.status for c in audit(made).checks}
    assert checks["scenes"] == "pass" and checks["footprints"] == "pass"


def test_the_share_that_is_held_out_is_a_parameter_of_the_build(folder, tmp_path):
    for number in (2, 3, 4, 5, 6, 10, 11):
        add_scene(folder, number)
    plan = plan_data_set("tibet-water", folder, split="by-ground", held_out=0.4)
    counts = Counter(scene.split for scene in plan.scenes)
    assert counts["val"] == counts["test"] == 4 and plan.header.builder.parameters["held_out"] == 0.4
    assert "dealt 20 : 40 : 40" in plan.header.description
    for wrong in (0, 0.5, "half", True):
        with pytest.raises(InputError, match="held_out must be a share from 0.05 to 0.4"):
            plan_data_set("tibet-water", folder, split="by-ground", held_out=wrong)


def test_a_context_that_reaches_into_another_split_fails_the_audit(folder, tmp_path):
    # 4 km east of the training scene 8, the chips do not touch, but contexts of 20 km do
    near = 8 + (5200 + 4000) / 50_000
    for orbit, short in (("ascend", "as"), ("descend", "des")):
        write(folder / f"s1_{orbit}" / f"scene02_s1_{short}.tif", backscatter(2), near)
    write(folder / "s1_truth" / "scene02_truth.tif", (backscatter(2)[0] < -20).astype(np.uint8), near)
    checks = {c.name: c for c in audit(make(folder, tmp_path)).checks}
    assert checks["footprints"].status == "fail"
    assert any("scene02" in p.first + p.second and "scene08" in p.first + p.second for p in checks["footprints"].pairs)


def test_a_scene_without_one_orbit_keeps_its_labels(folder, tmp_path):
    add_scene(folder, 10, descending=False)
    made = make(folder, tmp_path)
    chip = chips_of(made, "train")["scene10_0_256"]
    assert (chip["image"][2:] == 0).all() and (chip["image"][:2, :200] != 0).all() and (chip["mask"][:100] < 2).all()
    sample = next(s for s in ChipDataset(made, "train") if s["chip_id"] == "scene10_0_256")
    assert sample["valid"][:250].all() and not sample["valid"][250:, 144:].any()


def test_one_orbit_alone_is_a_data_set_of_two_bands(folder, tmp_path):
    add_scene(folder, 10, ascending=False)
    with pytest.raises(PartialResultError, match="scene10: no ascending image") as caught:
        make(folder, tmp_path, orbits="ascending")
    assert caught.value.exit_code == 3
    made = tmp_path / "tibet-water-ascending" / "1.0.0"
    chip = chips_of(made, "train")["scene08_0_0"]
    assert chip["image"].shape == (2, 256, 256) and (chip["mask"][:40, :60] == 255).all()


def test_polygons_of_water_do_for_a_raster(folder, tmp_path):
    (folder / "s1_truth" / "scene09_truth.tif").unlink()
    west = ORIGIN[0] + 9 * 50_000
    pond = shapely.box(west + 100, ORIGIN[1] - 1000, west + 600, ORIGIN[1] - 200)  # columns 10-59, rows 20-99
    frame = geopandas.GeoDataFrame(geometry=[pond], crs="EPSG:32645").to_crs("EPSG:4326")
    frame.to_file(folder / "s1_truth" / "scene09_truth.gpkg")
    mask = chips_of(make(folder, tmp_path), "train")["scene09_0_0"]["mask"]
    expected = np.zeros((256, 256), np.uint8)
    expected[20:100, 10:60] = 1
    np.testing.assert_array_equal(mask, expected)


ASC, DESC, TRUTH = "s1_ascend/scene09_s1_as.tif", "s1_descend/scene09_s1_des.tif", "s1_truth/scene09_truth.tif"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda f: write(f / ASC, backscatter(1).astype(np.float64), 9), "expected dtype float32"),
        (lambda f: write(f / ASC, backscatter(1), 9, crs=None), "no coordinate reference system"),
        (lambda f: write(f / DESC, backscatter(1), 9.0001), "not on the image's grid"),
        (lambda f: write(f / TRUTH, np.full(SHAPE, 7, np.uint8), 9), r"label values \[7\]"),
        (
            lambda f: write(f / TRUTH, np.zeros(SHAPE, np.uint8), 9.0001),
            "corners are 0.5 pixels off",
        ),
        (lambda f: (f / TRUTH).unlink(), "no truth raster or polygons"),
        (lambda f: (f / ASC).write_text("<VRTDataset/>"), "not a GTiff file"),
    ],
)
def test_a_bad_scene_is_left_out_and_named(folder, tmp_path, fault, words):
    fault(folder)
    with pytest.raises(PartialResultError, match=f"scene09.*{words}"):
        make(folder, tmp_path)
    manifest = load_manifest(tmp_path / "tibet-water" / "1.0.0")
    assert [s.id for s in manifest.skipped] == ["scene09"] and str(tmp_path) not in manifest.skipped[0].reason


def test_wrong_choices_name_the_right_ones(folder, tmp_path):
    with pytest.raises(InputError, match="orbits must be one of both, ascending"):
        make(folder, tmp_path, orbits="sideways")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no file has the name of a product"):
        make(tmp_path / "empty", tmp_path)


def test_the_same_bytes_from_one_and_two_workers_and_another_place(folder, tmp_path, real_workers):
    one = make(folder, tmp_path / "one")
    moved = folder.rename(tmp_path / "moved")
    two = make(moved, tmp_path / "two", {"workers": 2})
    assert (one / "dataset.json").read_bytes() == (two / "dataset.json").read_bytes()
    for path in one.rglob("*.h5"):
        assert path.read_bytes() == (two / path.relative_to(one)).read_bytes()
    assert not verify(one, deep=True).problems
    assert not [c for c in audit(one).checks if c.status == "fail"]


def test_the_parts_of_a_job_array_are_put_together(folder, tmp_path, real_workers):
    whole = make(folder, tmp_path / "whole")
    parts = tmp_path / "parts"
    make(folder, parts, {"shard": "0/2"})
    with pytest.raises(PartialResultError, match="1 of 2 shards are missing: val/scene01.*run their parts"):
        make(folder, parts, {"merge": True})
    make(folder, parts, {"shard": "1/2"})
    assert not (parts / "tibet-water/1.0.0/dataset.json").exists()
    merged = make(folder, parts, {"merge": True})
    assert (merged / "dataset.json").read_bytes() == (whole / "dataset.json").read_bytes()
    with pytest.raises(InputError, match="give one of them"):
        make(folder, parts, {"merge": True, "shard": "0/2"})


def test_a_simulated_source_says_so(folder, tmp_path):
    (folder / "simulation.json").write_text("{}")
    made = make(folder, tmp_path)
    manifest = load_manifest(made)
    assert manifest.simulated and made.parent.name == "tibet-water-sim"
    sample = ChipDataset(made, "val")[0]
    assert sample["image_x8"].shape == sample["image"].shape and tibet_water.NODATA == 0
