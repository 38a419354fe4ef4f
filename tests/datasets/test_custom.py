import copy
import json

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
import yaml
from rasterio.transform import from_origin
from tidemark.datasets import build as engine
from tidemark.datasets import build_spec
from tidemark.datasets.build import build, builder_module, plan_data_set
from tidemark.datasets.chips import ChipDataset
from tidemark.datasets.plan import slug
from tidemark.datasets.reader import open_split
from tidemark.datasets.spec import load_manifest
from tidemark.datasets.worker import make_shard
from tidemark.errors import ConfigError, InputError, PartialResultError

SIZE = 24  # scenes are 40 x 56: two by three chips, the last of each row and column reaching beyond
SPEC = {
    "name": "ponds",
    "version": "1.0.0",
    "title": "Ponds",
    "description": "Tiny scenes.",
    "licence": "CC0-1.0",
    "provenance": "Made by a test.",
    "known_label_defects": "None.",
    "images": {"pattern": "images/{id}_{date}.tif", "format": "GTiff", "dtype": "int16"},
    "bands": [
        {"name": "VV", "sensor": "S1", "unit": "dB", "scale": 0.01, "nodata": -32768},
        {"name": "VH", "sensor": "S1", "unit": "dB", "scale": 0.01, "nodata": -32768},
    ],
    "classes": [{"name": "dry", "color": "#ffffff"}, {"name": "water", "color": "#0000ff"}],
    "labels": {"kind": "mask", "pattern": "masks/{id}.tif", "ignore": [255]},
    "chips": {"size": SIZE, "min_valid_share": 0.05},
    "splits": {"scenes": {"train": ["a", "b"], "val": ["c"], "test": ["d"]}},
}


def change(**changes):
    spec = copy.deepcopy(SPEC)
    for key, value in changes.items():
        *parents, last = key.split("__")
        node = spec
        for part in parents:
            node = node[part]
        if value is None:
            del node[last]
        else:
            node[last] = value
    return spec


def write_spec(root, **changes):
    path = root / "spec.yaml"
    path.write_text(yaml.safe_dump(change(**changes), sort_keys=False))
    return path


def write_tiff(path, array, number=0, crs="EPSG:32633", **profile):
    path.parent.mkdir(exist_ok=True)
    array = array[None] if array.ndim == 2 else array
    profile = dict(crs=crs, transform=from_origin(500_000 + 10_000 * number, 5_000_000, 10, 10)) | profile
    with rasterio.open(
        path, "w", driver="GTiff", dtype=array.dtype, count=len(array), height=array.shape[1], width=array.shape[2],
        tiled=True, blockxsize=16, blockysize=16, compress="deflate", **profile,
    ) as dataset:  # fmt: skip
        dataset.write(array)


def pixels(number, shape=(40, 56)):
    rng = np.random.default_rng(number)
    image = rng.integers(-3000, 0, (2, *shape)).astype(np.int16)
    return image, (image[0] < -1500).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Four scenes a to d; scene a has an ignored corner and a wedge without data."""
    for number, name in enumerate("abcd"):
        image, mask = pixels(number)
        if name == "a":
            image[:, :24, :20] = -32768
            mask[30:, 50:] = 255
        write_tiff(tmp_path / "images" / f"{name}_2021060{number + 1}.tif", image, number)
        write_tiff(tmp_path / "masks" / f"{name}.tif", mask, number)
    return tmp_path


@pytest.fixture(autouse=True)
def in_this_process(request, monkeypatch):
    """Shards are made here, without a child process each, except where a test asks for the real thing."""
    if "real_workers" not in request.fixturenames:
        monkeypatch.setattr(engine, "run_task", make_shard)


@pytest.fixture
def real_workers():
    pass


def make(spec, out, **options):
    return build(plan_data_set("custom", spec), builder_module("custom"), out, **options)


def chips_of(folder, split):
    _, shards = open_split(folder, split)
    return {
        chip_id: (shard.read("image", i), shard.read("mask", i), shard.transform[i], tuple(shard.window[i]))
        for shard in shards
        for i, chip_id in enumerate(shard.chip_ids)
    }


def test_chips_hold_the_files_pixels_at_their_place(folder, tmp_path):
    made = make(write_spec(folder), tmp_path / "out")
    chips = chips_of(made, "train")
    assert list(chips)[:2] == ["a_0_0", "a_0_24"] and len(chips) == 12
    image, mask, transform, window = chips["a_0_24"]
    source, truth = pixels(0)
    np.testing.assert_array_equal(image, source[:, :24, 24:48])
    np.testing.assert_array_equal(mask, truth[:24, 24:48])
    assert tuple(transform) == (10, 0, 500_240, 0, -10, 5_000_000) and window == (0, 24, 24, 24)
    image, mask, _, _ = chips["a_0_0"]
    assert (image[:, :, :20] == -32768).all() and (mask[:, :20] == 255).all() and (mask[:, 20:] < 2).all()
    image, mask, _, window = chips["a_24_48"]  # beyond the image: no data, ignored
    assert (image[:, 16:] == -32768).all() and (image[:, :, 8:] == -32768).all() and (mask[16:] == 255).all()
    assert (mask[6:16, 2:8] == 255).all() and (mask[:6, :8] == truth[24:30, 48:]).all()


def test_the_manifest_says_what_the_specification_said(folder, tmp_path):
    manifest = load_manifest(make(write_spec(folder, simulated=True), tmp_path / "out"))
    assert manifest.simulated and manifest.task.binary and manifest.licence == "CC0-1.0"
    assert [b.name for b in manifest.array("image").bands] == ["VV", "VH"]
    assert [(s.id, s.split, s.date) for s in manifest.scenes[:2]] == [
        ("a", "train", "2021-06-01"), ("b", "train", "2021-06-02"),
    ]  # fmt: skip
    scene = manifest.scenes[0]
    assert "UTM zone 33N" in scene.crs and scene.bounds[0] == pytest.approx(15, abs=1e-6)
    assert [s.path for s in scene.sources] == ["images/a_20210601.tif", "masks/a.tif"]
    assert manifest.builder.parameters["spec"]["chips"]["size"] == SIZE
    assert str(folder) not in (tmp_path / "out/ponds/1.0.0/dataset.json").read_text()


def test_two_builds_elsewhere_and_with_other_workers_give_the_same_bytes(folder, tmp_path, real_workers):
    one = make(write_spec(folder), tmp_path / "one")
    moved = folder.rename(folder.with_name("moved"))
    two = make(moved / "spec.yaml", moved / "two", workers=2)
    one = moved / one.relative_to(folder)
    files = sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file())
    assert files and files == sorted(p.relative_to(two) for p in two.rglob("*") if p.is_file())
    assert all((one / f).read_bytes() == (two / f).read_bytes() for f in files)


def test_sparse_and_blank_chips_are_dropped(folder, tmp_path):
    for number, name in enumerate("bcd", start=1):  # leave only scene a with valid chips in train
        image, mask = pixels(number)
        if name == "b":
            image[:] = 7
        write_tiff(folder / "images" / f"{name}_2021060{number + 1}.tif", image, number)
    made = make(write_spec(folder, chips__min_valid_share=0.3), tmp_path / "out")
    # a_0_0 has 4 of 24 columns with data, a_0_48 8 of 24, a_24_48 16 x 8 minus the ignored corner
    assert list(chips_of(made, "train")) == ["a_0_24", "a_0_48", "a_24_0", "a_24_24"]
    made = make(write_spec(folder, chips__drop_blank=False), tmp_path / "kept")
    assert sum(name.startswith("b_") for name in chips_of(made, "train")) == 6


def test_small_images_become_single_chips_in_shared_shards(tmp_path):
    for number, name in enumerate(["p", "q", "r", "s"]):
        for kind, array in zip(("images", "masks"), pixels(number, (SIZE, SIZE)), strict=True):
            (tmp_path / kind).mkdir(exist_ok=True)
            values = (array[0] // -16).astype(np.uint8) if kind == "images" else array * 200
            with rasterio.open(tmp_path / kind / f"{name}.png", "w", driver="PNG", dtype="uint8", count=1,
                               height=SIZE, width=SIZE) as dataset:  # fmt: skip
                dataset.write(values[None])
    spec = write_spec(
        tmp_path, images={"pattern": "images/{id}.png", "format": "PNG", "dtype": "uint8"}, bands=[{"name": "grey"}],
        labels={"kind": "mask", "pattern": "masks/{id}.png", "format": "PNG"},
        classes=[{"name": "dry", "color": "#ffffff"}, {"name": "water", "color": "#0000ff", "values": [200]}],
        splits={"fractions": {"train": 0.5, "val": 0.25, "test": 0.25}, "seed": 1},
    )  # fmt: skip
    made = make(spec, tmp_path / "out")
    manifest = load_manifest(made)
    assert {s.name: s.chips for s in manifest.splits} == {"train": 2, "val": 1, "test": 1}
    assert len(manifest.shards) == 3 and manifest.scenes[0].crs is None and manifest.scenes[0].bounds is None
    chips = chips_of(made, "train") | chips_of(made, "val") | chips_of(made, "test")
    assert sorted(chips) == ["p_0_0", "q_0_0", "r_0_0", "s_0_0"]
    np.testing.assert_array_equal(chips["q_0_0"][1], pixels(1, (SIZE, SIZE))[1])
    assert np.isnan(chips["q_0_0"][2]).all()


def test_polygons_label_scenes(folder, tmp_path):
    for number, name in enumerate("abcd"):
        west = 500_000 + 10_000 * number
        boxes = [
            shapely.box(west + 100, 4_999_800, west + 200, 4_999_900),
            shapely.box(west, 4_999_990, west + 20, 5e6),
        ]
        frame = geopandas.GeoDataFrame({"kind": ["lake", "cloud"]}, geometry=boxes, crs="EPSG:32633")
        frame.to_crs("EPSG:4326").to_file(folder / f"{name}.gpkg", layer="water")
    classes = [dict(c, values=[v]) for c, v in zip(SPEC["classes"], ("bog", "lake"), strict=True)]
    labels = {"kind": "polygons", "pattern": "{id}.gpkg", "attribute": "kind", "outside": "dry"}
    with pytest.raises(InputError, match="without a class: cloud"):
        make(write_spec(folder, labels=labels, classes=classes), tmp_path / "out")
    classes[0]["values"].append("cloud")
    made = make(write_spec(folder, labels=labels, classes=classes), tmp_path / "out")
    mask = chips_of(made, "test")["d_0_0"][1]
    assert mask.sum() == 100 and mask[10:20, 10:20].all()
    inside = {"kind": "polygons", "pattern": "{id}.gpkg", "inside": "water", "outside": "ignore"}
    made = make(write_spec(folder, labels=inside), tmp_path / "inside")
    mask = chips_of(made, "test")["d_0_0"][1]
    assert set(np.unique(mask)) == {1, 255} and (mask == 1).sum() == 102


def test_blocks_of_ground_keep_their_guard_distance(tmp_path):
    image, mask = pixels(0, (240, 240))
    write_tiff(tmp_path / "images" / "big_20210601.tif", image)
    write_tiff(tmp_path / "masks" / "big.tif", mask)
    rule = {"fractions": {"train": 0.5, "val": 0.25, "test": 0.25}, "seed": 3,
            "blocks": {"size_m": 800, "guard_m": 100}}  # fmt: skip
    made = make(write_spec(tmp_path, splits=rule), tmp_path / "out")
    manifest = load_manifest(made)
    assert manifest.guard_distance_m == 100 and {s.name for s in manifest.splits} == {"train", "val", "test"}
    assert all("/block-" in s.id for s in manifest.scenes)
    boxes = {
        split: [shapely.box(w[1], w[0], w[1] + w[3], w[0] + w[2]) for *_, w in chips_of(made, split).values()]
        for split in ("train", "val", "test")
    }
    for a in boxes:
        for b in boxes:
            if a < b:
                assert min(x.distance(y) for x in boxes[a] for y in boxes[b]) * 10 >= 100
    assert 40 < sum(map(len, boxes.values())) < 100


def test_a_group_is_never_parted(folder, tmp_path):
    for name in "abcd":
        for kind, pattern in (("images", f"{name}_*.tif"), ("masks", f"{name}.tif")):
            for path in folder.joinpath(kind).glob(pattern):
                path.rename(path.with_name(f"{'xy'['cd'.count(name)]}-{path.name}"))
    named = {"images__pattern": "images/{group}-{id}_{date}.tif", "labels__pattern": "masks/{group}-{id}.tif"}
    rule = {"fractions": {"train": 0.5, "test": 0.5}}
    manifest = load_manifest(make(write_spec(folder, splits=rule, **named), tmp_path / "out"))
    split = {s.id: s.split for s in manifest.scenes}
    assert split["a"] == split["b"] != split["c"] == split["d"]
    with pytest.raises(ConfigError, match="'a' .* and 'b' .* are of one group"):
        plan_data_set(
            "custom", write_spec(folder, splits={"scenes": {"train": ["a"], "test": ["b", "c", "d"]}}, **named)
        )


def test_a_group_is_not_parted_by_folders_that_name_the_splits_either(folder):
    for kind in ("images", "masks"):
        for path in sorted(folder.joinpath(kind).iterdir()):
            home = folder / ("train" if path.name[0] in "ab" else "test") / kind
            home.mkdir(parents=True, exist_ok=True)
            path.rename(home / f"lake-{path.name}")
    named = {"images__pattern": "{split}/images/{group}-{id}_{date}.tif",
             "labels__pattern": "{split}/masks/{group}-{id}.tif"}  # fmt: skip
    with pytest.raises(ConfigError, match="are of one group"):
        plan_data_set("custom", write_spec(folder, splits=None, **named))


@pytest.mark.parametrize(("nodata", "size", "stored"), [(None, SIZE, True), (None, 8, False), (-32768, SIZE, False)])
def test_whole_numbers_without_nodata_say_where_a_chip_leaves_its_image(folder, tmp_path, nodata, size, stored):
    bands = [dict(band, nodata=nodata) for band in SPEC["bands"]]
    built = make(write_spec(folder, bands=bands, chips__size=size), tmp_path / "out")
    manifest, shards = open_split(built, "val")
    assert ("valid" in [array.name for array in manifest.arrays]) == stored
    beyond = next(i for i, chip in enumerate(shards[0].chip_ids) if chip.endswith("_24_48")) if size == SIZE else 0
    sample = ChipDataset(built, "val")[beyond]
    assert int(sample["valid"].sum()) == (16 * 8 if size == SIZE else 64)
    assert all(band.pixels <= 2 * 40 * 56 for band in manifest.statistics)


def test_folders_may_name_the_splits(folder, tmp_path):
    for kind in ("images", "masks"):
        for path in sorted(folder.joinpath(kind).iterdir()):
            split = "train" if path.name[0] in "ab" else "test"
            (folder / split / kind).mkdir(parents=True, exist_ok=True)
            path.rename(folder / split / kind / path.name)
    spec = write_spec(folder, splits=None, images__pattern="{split}/images/{id}_{date}.tif",
                      labels__pattern="{split}/masks/{id}.tif")  # fmt: skip
    manifest = load_manifest(make(spec, tmp_path / "out"))
    assert [(s.id, s.split) for s in manifest.scenes] == [
        ("test/c", "test"), ("test/d", "test"), ("train/a", "train"), ("train/b", "train"),
    ]  # fmt: skip


def spoil(folder, case):
    image, mask = pixels(1)
    path, label = folder / "images" / "b_20210602.tif", folder / "masks" / "b.tif"
    if case == "corrupt tile":
        with rasterio.open(path) as dataset:
            offset = int(dataset.get_tag_item("BLOCK_OFFSET_2_1", "TIFF", bidx=1))
        data = bytearray(path.read_bytes())
        data[offset : offset + 40] = b"\xff" * 40
        path.write_bytes(data)
    elif case == "no CRS":
        write_tiff(path, image, 1, crs=None)
    elif case == "rotated":
        write_tiff(path, image, 1, transform=rasterio.Affine(7, 7, 5e5, 7, -7, 5e6))
    elif case == "label off the grid":
        write_tiff(label, mask, 2)
    elif case == "wrong dtype":
        write_tiff(path, image.view(np.uint16), 1)
    elif case == "no label":
        label.unlink()
    elif case == "foreign label value":
        write_tiff(label, mask + 7, 1)
    elif case == "VRT":
        path.write_text("<VRTDataset rasterXSize='4' rasterYSize='4'/>")
    elif case == "too few bands":
        write_tiff(path, image[:1], 1)


BAD = {
    "corrupt tile": "cannot be read", "no CRS": "coordinate reference system", "rotated": "geotransform",
    "label off the grid": "not on the image's grid", "wrong dtype": "expected dtype int16, found uint16",
    "no label": "masks/b.tif is missing", "foreign label value": "belong to no class", "VRT": "not a GTiff",
    "too few bands": "expected at least 2 bands",
}  # fmt: skip


@pytest.mark.parametrize(("case", "message"), BAD.items())
def test_a_bad_scene_is_left_out_and_named(folder, tmp_path, case, message):
    spoil(folder, case)
    with pytest.raises(PartialResultError, match=message) as caught:
        make(write_spec(folder), tmp_path / "out")
    assert "b (" in str(caught.value)
    manifest = load_manifest(tmp_path / "out/ponds/1.0.0")
    assert [s.id for s in manifest.skipped] == ["b"] and str(folder) not in manifest.skipped[0].reason
    assert {i[0] for i in chips_of(tmp_path / "out/ponds/1.0.0", "train")} == {"a"}
    with pytest.raises(InputError, match=message):
        make(write_spec(folder), tmp_path / "strict", strict=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"titel": "x"}, "/titel: unknown key 'titel'; did you mean 'title'"),
        ({"images__patern": "x"}, "did you mean 'pattern'"),
        ({"bands": [{"name": "VV", "unti": "dB"}]}, "/bands/0/unti: unknown key 'unti'; did you mean 'unit'"),
        ({"splits__blocks": {"size_m": 1, "gaurd_m": 2}}, "did you mean 'guard_m'"),
        ({"licence": None}, "missing: licence"),
        ({"images__pattern": "images/{name}.tif"}, "no placeholder {name}"),
        ({"images__pattern": "images/x.tif"}, "needs {id}"),
        ({"images__pattern": "../{id}.tif"}, "relative path"),
        ({"images__pattern": "/etc/{id}.tif"}, "relative path"),
        ({"labels__pattern": "{id}_{group}.tif"}, "no {group}"),
        ({"labels__attribute": "x"}, "does not belong to labels"),
        ({"labels": {"kind": "polygons", "pattern": "{id}.gpkg", "inside": "water"}}, "polygons need `outside`"),
        (
            {"labels": {"kind": "polygons", "pattern": "{id}.gpkg", "inside": "watr", "outside": "dry"}},
            "no class 'watr'",
        ),
        ({"classes": [{"name": "dry", "color": "#ffffff"}]}, "/classes"),
        ({"classes": [dict(c, values=[1]) for c in SPEC["classes"]]}, "belongs to two classes"),
        (
            {
                "classes": [dict(c, values=[v]) for c, v in zip(SPEC["classes"], (1, "1"), strict=True)],
                "labels": {"kind": "polygons", "pattern": "{id}.gpkg", "attribute": "kind", "outside": "dry"},
            },
            "belongs to two classes",
        ),
        ({"classes": [dict(c, values=[bool(i)]) for i, c in enumerate(SPEC["classes"])]}, "/classes/0/values"),
        ({"bands": [{"name": "VV", "nodata": -99999}]}, "int16 cannot hold nodata -99999 of 'VV'"),
        ({"bands": [{"name": "VV", "nodata": 0.5}]}, "int16 cannot hold nodata 0.5 of 'VV'"),
        ({"bands": [{"name": "VV", "scale": 1e308}]}, "/bands/0/scale"),
        ({"bands": [{"name": "VV"}, {"name": "VV", "index": 1}]}, "band names repeat"),
        ({"bands": [{"name": f"b{i}"} for i in range(40)], "chips__size": 8192}, "a chip of"),
        ({"splits": {"fractions": {"train": 0.5, "test": 0.4}}}, "sum to 1"),
        ({"splits": {"scenes": {"train": ["a", "b"], "test": ["b"]}}}, "'b' is listed twice"),
        ({"splits": None}, "splits: name a rule"),
        ({"splits": {"scenes": {"train": ["a"]}, "seed": 1}}, "go with `fractions`"),
        ({"bands": [{"name": "VV", "nodata": float("inf")}]}, "finite"),
        ({"chips__size": 1}, "/chips/size"),
    ],
)
def test_a_faulty_specification_is_refused(folder, changes, message):
    with pytest.raises(ConfigError) as caught:
        plan_data_set("custom", write_spec(folder, **changes))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"splits__scenes": {"train": ["a", "b", "e"], "test": ["c", "d"]}}, "no scene 'e'"),
        ({"splits__scenes": {"train": ["a", "b"], "test": ["d"]}}, "scene 'c' is in none"),
        ({"images__pattern": "pictures/{id}.tif", "labels__pattern": "masks/{id}.tif"}, "no file matches"),
        ({"folder": "elsewhere"}, "no such folder"),
        ({"splits": {"fractions": {f"s{i}": 0.2 for i in range(5)}}}, "cannot fill"),
    ],
)
def test_a_specification_that_does_not_fit_the_files_is_refused(folder, changes, message):
    with pytest.raises(ConfigError) as caught:
        plan_data_set("custom", write_spec(folder, **changes))
    assert message in str(caught.value)


def test_a_label_outside_of_the_folder_is_refused(folder):
    (folder / "images" / "a_20210601.tif").rename(folder / "images" / "...tif")
    spec = write_spec(folder, images__pattern="images/{id}.tif", labels__pattern="{id}/m.tif")
    with pytest.raises(ConfigError, match="would lie outside of the folder"):
        plan_data_set("custom", spec)


@pytest.mark.parametrize(
    "text",
    [
        "name: !!python/object/apply:os.system ['touch canary']\n",
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
        "name: " + "x" * (2 << 20) + "\n",
    ],
)
def test_yaml_that_is_more_than_data_is_refused(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spec.yaml").write_text(text)
    with pytest.raises(ConfigError):
        build_spec.load_spec(tmp_path / "spec.yaml")
    assert not (tmp_path / "canary").exists()


def test_leaving_out_is_said(folder, tmp_path):
    rule = {"scenes": {"train": ["a", "b"], "test": ["d"]}, "leave_out": ["c"]}
    manifest = load_manifest(make(write_spec(folder, splits=rule), tmp_path / "out"))
    assert [s.id for s in manifest.scenes] == ["a", "b", "d"]


def test_long_and_foreign_scene_names_give_usable_chip_ids():
    slugs = [slug(t) for t in ("a" * 200, "a" * 201, "März/1", "März 1", "ok-1.5")]
    assert len(set(slugs)) == 5 and all(s.isascii() and len(s) <= 30 and "/" not in s for s in slugs)
    assert slugs[-1] == "ok-1.5"


def test_the_payload_is_json(folder):
    plan = plan_data_set("custom", write_spec(folder))
    for shard in plan.shards:
        for scene in shard.scenes:
            assert json.loads(json.dumps(scene.payload)) == scene.payload
