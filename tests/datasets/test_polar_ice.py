"""polar-ice: rows are rows, polygons lie where they lie, both samplers keep to their rules."""

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.transform import from_origin
from tidemark.datasets import build as engine
from tidemark.datasets.audit import audit
from tidemark.datasets.build import build, builder_module, plan_data_set
from tidemark.datasets.builders import polar_ice
from tidemark.datasets.reader import open_split
from tidemark.datasets.spec import load_manifest
from tidemark.datasets.verify import verify
from tidemark.datasets.worker import make_shard
from tidemark.errors import ConfigError, InputError, PartialResultError

SHAPE = (300, 560)  # more columns than rows: exchanging them shows
CRS = "EPSG:3413"
STAMPS = ("20180116T075430", "20180213T175444", "20180313T181225")


def origin(number):
    return 300_000.0 + 60_000 * number, -1_200_000.0


def pixels(number, dtype=np.uint8):
    """Every pixel tells its place: HH is its row, HV its column (modulo 200), both above 0."""
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    image = np.stack([rows % 200 + 1 + number, columns % 200 + 1, rows * 0 + 7]).astype(dtype)
    image[:, :10, 500:] = 0
    return image


def write_image(path, image, number, crs=CRS, transform=None):
    path.parent.mkdir(exist_ok=True, parents=True)
    with rasterio.open(
        path, "w", driver="GTiff", dtype=image.dtype, count=len(image), height=image.shape[1], width=image.shape[2],
        tiled=True, blockxsize=128, blockysize=128, compress="deflate", crs=crs,
        transform=from_origin(*origin(number), 40, 40) if transform is None else transform,
    ) as dataset:  # fmt: skip
        dataset.write(image)


def box(number, top, left, bottom, right):
    west, north = origin(number)
    return shapely.box(west + 40 * left, north - 40 * bottom, west + 40 * right, north - 40 * top)


def write_polygons(folder, number, shapes, crs="EPSG:4326", **columns):
    frame = geopandas.GeoDataFrame(
        columns or {"poly_type": [kind for kind, _ in shapes]}, geometry=[shape for _, shape in shapes], crs=CRS
    ).to_crs(crs)
    frame.to_file(folder / f"seaice_s1_{STAMPS[number].lower()}.shp")


def image_path(folder, number):
    return folder / f"S1B_EW_GRDM_1SDH_{STAMPS[number]}_20180116T075530_009198_010766_A1B2.tif"


def shapes(number):
    """Water left, ice in the middle, land right; ice and land overlap in columns 380 to 400, nothing from 540 on."""
    parts = (("W", (0, 0, 300, 200)), ("I", (0, 200, 300, 400)), ("L", (0, 380, 300, 540)))
    return [(kind, box(number, *place)) for kind, place in parts]


@pytest.fixture
def folder(tmp_path):
    for number in range(3):
        write_image(image_path(tmp_path / "src", number), pixels(number), number)
        write_polygons(tmp_path / "src", number, shapes(number))
    return tmp_path / "src"


@pytest.fixture(autouse=True)
def in_this_process(request, monkeypatch):
    if "real_workers" not in request.fixturenames:
        monkeypatch.setattr(engine, "run_task", make_shard)


@pytest.fixture
def real_workers():
    pass


def make(folder, out, options=(), **parameters):
    return build(plan_data_set("polar-ice", folder, **parameters), builder_module("polar-ice"), out, **dict(options))


def chips_of(made):
    arrays = [a.name for a in load_manifest(made).arrays]
    return {
        chip: {n: shard.read(n, i) for n in arrays}
        | {"transform": tuple(shard.transform[i]), "window": shard.window[i]}
        for split in load_manifest(made).splits
        for shard in open_split(made, split.name)[1]
        for i, chip in enumerate(shard.chip_ids)
    }


def classes(rows, columns):
    """What the polygons say of a pixel whose centre lies there."""
    return np.select(
        [columns < 200, columns < 380, columns < 400, columns < 540], [0, 1, 255, 2], 255
    ) + 0 * np.asarray(rows)


def test_maps_have_pixels_and_classes_of_the_same_place(folder, tmp_path):
    chips = chips_of(make(folder, tmp_path))
    assert [c for c in chips if c.startswith(STAMPS[0])] == [f"{STAMPS[0]}_{r}_{c}" for r, c in
        ((0, 0), (0, 256), (0, 512), (256, 0), (256, 256))]  # fmt: skip
    chip = chips[f"{STAMPS[0]}_0_256"]
    np.testing.assert_array_equal(chip["image"], pixels(0)[:2, :256, 256:512])
    rows, columns = np.mgrid[:256, 256:512]
    expected = np.where((rows < 10) & (columns >= 500), 255, classes(rows, columns))
    np.testing.assert_array_equal(chip["mask"], expected)
    np.testing.assert_array_equal(chip["valid"], (pixels(0)[:2, :256, 256:512] != 0).any(0))
    west, north = origin(0)
    assert chip["transform"] == (40, 0, west + 256 * 40, 0, -40, north)
    beyond = chips[f"{STAMPS[0]}_256_256"]
    assert (beyond["mask"][44:] == 255).all() and not beyond["valid"][44:].any()


def test_a_patch_has_the_pixels_and_the_class_of_its_own_place(folder, tmp_path):
    patches = chips_of(make(folder, tmp_path, form="consecutive"))
    assert len(patches) > 60
    for name, patch in patches.items():
        row, column, *_ = (int(v) for v in patch["window"])
        number = STAMPS.index(name.split("_")[0])
        np.testing.assert_array_equal(patch["image"], pixels(number)[:2, row : row + 64, column : column + 64])
        assert int(patch["label"]) == classes(row + 32, column + 32)
        west, north = origin(number)
        assert patch["transform"] == (40, 0, west + 40 * column, 0, -40, north - 40 * row)


def test_consecutive_patches_lie_on_a_grid_up_to_the_quota(folder, tmp_path):
    everything = chips_of(make(folder, tmp_path / "all", form="consecutive"))
    places = [tuple(p["window"][:2]) for n, p in everything.items() if n.startswith(STAMPS[0])]
    expected = [
        (r, c) for r in range(0, 237, 64) for c in range(0, 497, 64)
        if classes(r + 32, c + 32) != 255 and not (r < 10 and c + 64 > 500)
    ]  # fmt: skip
    assert places == expected
    few = chips_of(make(folder, tmp_path / "few", form="consecutive", quota=3))
    for stamp in STAMPS:
        labels = [int(p["label"]) for n, p in few.items() if n.startswith(stamp)]
        assert sorted(labels) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
        kept = [n for n, p in everything.items() if n.startswith(stamp) and int(p["label"]) == 1][:3]
        assert kept == [n for n, p in few.items() if n.startswith(stamp) and int(p["label"]) == 1]


def test_random_patches_keep_to_quota_and_tries_and_depend_on_the_seed(folder, tmp_path):
    made = make(folder, tmp_path / "one", form="random", quota=5, max_tries=400)
    patches = chips_of(made)
    assert len(patches) == 3 * 3 * 5
    places = {tuple(p["window"][:2]) for p in patches.values()}
    assert len({r % 64 for r, _ in places}) > 10  # on no grid
    for name, patch in patches.items():
        row, column, *_ = (int(v) for v in patch["window"])
        assert int(patch["label"]) == classes(row + 32, column + 32)
        assert (patch["image"] != 0).any(0).all()
        np.testing.assert_array_equal(
            patch["image"], pixels(STAMPS.index(name.split("_")[0]))[:2, row : row + 64, column : column + 64]
        )
    other = chips_of(make(folder, tmp_path / "two", form="random", quota=5, max_tries=400, seed=1))
    assert set(other) != set(patches)
    rare = chips_of(make(folder, tmp_path / "three", form="random", quota=400, max_tries=30))
    assert 30 < len(rare) <= 90


def test_overlaps_of_different_classes_have_no_label_whatever_the_order(folder, tmp_path):
    straight = chips_of(make(folder, tmp_path / "one"))
    for number in range(3):
        write_polygons(folder, number, shapes(number)[::-1])
    turned = chips_of(make(folder, tmp_path / "two"))
    assert all(np.array_equal(straight[c]["mask"], turned[c]["mask"]) for c in straight)
    assert (straight[f"{STAMPS[0]}_0_256"]["mask"][:, 380 - 256 : 400 - 256] == 255).all()


def test_a_rare_kind_of_pixels_is_allowed_but_only_one_in_a_data_set(folder, tmp_path):
    for number in range(3):
        write_image(image_path(folder, number), pixels(number, np.float32), number)
    made = make(folder, tmp_path / "float")
    assert {b.unit for b in load_manifest(made).array("image").bands} == {"dB"}
    write_image(image_path(folder, 1), pixels(1), 1)
    with pytest.raises(ConfigError, match="2 scenes or blocks cannot fill 3 splits"):
        make(folder, tmp_path / "mixed")


def fourth(folder):
    """A further scene, so that three are left when one is unusable."""
    stamp = "20180417T074606"
    path = folder / f"S1A_EW_GRDM_1SDH_{stamp}_20180417T074706_009198_010766_A1B2.tif"
    write_image(path, pixels(0), 4)
    frame = geopandas.GeoDataFrame(
        {"poly_type": ["W", "I"]}, geometry=[box(4, 0, 0, 300, 300), box(4, 0, 300, 300, 560)], crs=CRS
    )
    frame.to_file(folder / f"seaice_s1_{stamp.lower()}.shp")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda f: write_polygons(f, 1, shapes(1), poly_type=["W", "X", "L"]), "values without a class: X"),
        (lambda f: write_polygons(f, 1, shapes(1), kind=["W", "I", "L"]), "no attribute 'poly_type'"),
        (lambda f: (f / f"seaice_s1_{STAMPS[1].lower()}.prj").unlink(), "the shapefile lacks its .prj"),
        (lambda f: image_path(f, 1).unlink(), "0 GeoTIFFs have 20180213T175444 in their name"),
        (lambda f: write_image(image_path(f, 1), pixels(1), 1, crs=None), "no coordinate reference system"),
        (lambda f: write_image(image_path(f, 1), pixels(1)[:1], 1), "expected at least 2 bands, found 1"),
        (lambda f: write_image(image_path(f, 1), pixels(1, np.int16), 1), "expected dtype uint8, found int16"),
        (lambda f: image_path(f, 1).write_text("<VRTDataset/>"), "not a GTiff file"),
    ],
)  # fmt: skip
def test_a_bad_scene_is_left_out_and_named(folder, tmp_path, fault, words):
    fourth(folder)
    fault(folder)
    with pytest.raises(PartialResultError, match=f"(?i)20180213t175444.*{words}") as caught:
        make(folder, tmp_path)
    assert caught.value.exit_code == 3
    skipped = load_manifest(tmp_path / "polar-ice" / "1.0.0").skipped
    assert len(skipped) == 1 and str(tmp_path) not in skipped[0].reason


def test_a_name_that_is_not_ascii_gives_usable_chip_ids(folder, tmp_path):
    write_image(folder / "grönland.tif", pixels(0), 4)
    frame = geopandas.GeoDataFrame({"poly_type": ["W"]}, geometry=[box(4, 0, 0, 300, 560)], crs=CRS)
    frame.to_file(folder / "seaice_grönland.shp")
    made = make(folder, tmp_path)
    assert "GRÖNLAND" in {s.id for s in load_manifest(made).scenes}
    assert {c.split("_")[0][:7] for c in chips_of(made)} == {"2018011", "2018021", "2018031", "GR-NLAN"}


def test_a_stray_image_in_deep_folders_is_named(folder):
    write_image(folder / ("x" * 120) / ("y" * 120) / "other.tif", pixels(0), 4)
    (skipped,) = plan_data_set("polar-ice", folder).skipped
    assert skipped.id.endswith("y/other.tif") and skipped.reason.endswith(
        "x/" + "y" * 120 + "/other.tif: no shapefile ends in its id"
    )


def test_scenes_of_one_place_stay_together_unless_asked(folder, tmp_path):
    fourth(folder)
    move = from_origin(origin(0)[0] + 4000, origin(0)[1], 40, 40)
    write_image(image_path(folder, 1), pixels(1), 1, transform=move)
    write_polygons(folder, 1, shapes(0))
    split_of = {s.id: s.split for s in load_manifest(make(folder, tmp_path)).scenes}
    assert split_of[STAMPS[0]] == split_of[STAMPS[1]] and len(set(split_of.values())) == 3
    manifest = load_manifest(make(folder, tmp_path, split="by-scene"))
    assert manifest.version == "2.0.0" and "may overlap" in manifest.known_label_defects


def test_wrong_choices_name_the_right_ones(folder, tmp_path):
    with pytest.raises(InputError, match="form must be one of maps, consecutive, random"):
        make(folder, tmp_path, form="patches")
    with pytest.raises(InputError, match="quota must be a whole number from 1 on"):
        make(folder, tmp_path, form="random", quota=0)
    assert polar_ice.CODES == {"W": 0, "I": 1, "L": 2}


@pytest.mark.parametrize("form", ["maps", "random"])
def test_the_same_bytes_from_one_and_two_workers(folder, tmp_path, real_workers, form):
    one = make(folder, tmp_path / "one", form=form)
    two = make(folder.rename(tmp_path / "moved"), tmp_path / "two", {"workers": 2}, form=form)
    assert (one / "dataset.json").read_bytes() == (two / "dataset.json").read_bytes()
    for path in one.rglob("*.h5"):
        assert path.read_bytes() == (two / path.relative_to(one)).read_bytes()
    assert not verify(one, deep=True).problems
    checks = {c.name: c.status for c in audit(one).checks}
    assert checks["scenes"] == checks["footprints"] == checks["classes"] == "pass"
