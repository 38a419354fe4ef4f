"""alos-dswe: every layer at its place on the SAR grid, the pair rule, the label codes, the tenth of known labels."""

import re
import shutil

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin
from rasterio.warp import transform as warp_points
from tidemark.datasets import build as engine
from tidemark.datasets import dswe
from tidemark.datasets.audit import audit
from tidemark.datasets.build import build, builder_module, plan_data_set
from tidemark.datasets.builders import alos_dswe
from tidemark.datasets.chips import ChipDataset
from tidemark.datasets.reader import open_split
from tidemark.datasets.spec import load_manifest
from tidemark.datasets.verify import verify
from tidemark.datasets.worker import make_shard
from tidemark.errors import InputError, PartialResultError, SceneError

ALBERS = (
    "+proj=aea +lat_0=23 +lon_0=-96 +lat_1=29.5 +lat_2=45.5 +x_0=0 +y_0=0 +datum=WGS84 +units=m +no_defs"  # ARD tiles
)
UTM = "EPSG:32615"
SHAPE = (560, 700)  # two by two chips, the lower and the right ones reaching beyond the scene
ISO = "<a><gml:beginPosition>{}T16:47:59Z</gml:beginPosition><gml:endPosition>later</gml:endPosition></a>"


def origin(number):
    return 500_000.09375 + 60_000 * number, 3_900_000.0


def write(path, array, crs, transform, **profile):
    path.parent.mkdir(exist_ok=True, parents=True)
    array = array[None] if array.ndim == 2 else array
    with rasterio.open(
        path, "w", driver="GTiff", dtype=array.dtype, count=len(array), height=array.shape[1], width=array.shape[2],
        tiled=True, blockxsize=128, blockysize=128, compress="deflate", crs=crs, transform=transform, **profile,
    ) as dataset:  # fmt: skip
        dataset.write(array)


def in_crs(number, crs, step, margin=0.02):
    """Grid of ``step`` in ``crs`` that covers scene ``number``: transform, rows, columns."""
    west, north = origin(number)
    xs, ys = [west, west + 12.5 * SHAPE[1]] * 2, [north, north, north - 12.5 * SHAPE[0], north - 12.5 * SHAPE[0]]
    x, y = (np.array(v) for v in warp_points(UTM, crs, xs, ys))
    pad = margin if crs == "EPSG:4326" else margin * 1e5
    left, top = np.floor((x.min() - pad) / step) * step, np.ceil((y.max() + pad) / step) * step
    shape = int((top - y.min() + pad) / step), int((x.max() + pad - left) / step)
    return from_origin(left, top, step, step), shape


def ground(transform, shape, crs):
    """Longitude and latitude of every pixel's centre."""
    columns, rows = np.meshgrid(np.arange(shape[1]) + 0.5, np.arange(shape[0]) + 0.5)
    x, y = transform.c + columns * transform.a, transform.f + rows * transform.e
    lon, lat = warp_points(crs, "EPSG:4326", x.ravel(), y.ravel())
    return np.array(lon).reshape(shape), np.array(lat).reshape(shape)


def add_dswe(folder, number, codes=None, date="20070710", tile="018010", sensor="LE07"):
    """DSWE whose code depends on the longitude alone: 0, 1, 2, 3, 9 in stripes of 0.01 degrees."""
    transform, shape = in_crs(number, ALBERS, 30)
    if codes is None:
        lon, _ = ground(transform, shape, ALBERS)
        codes = np.array([0, 1, 2, 3, 9, 0, 0, 0], np.uint8)[(lon * 100).astype(int) % 8]
    elif np.ndim(codes) == 0:
        codes = np.full(shape, codes, np.uint8)
    name = f"{sensor}_CU_{tile}_{date}_20210502_02"
    path = folder / "dswe" / f"{name}_DSWE" / f"{name}_INWAM.TIF"
    write(path, codes, ALBERS, transform, nodata=255)
    return path


def add_scene(folder, number, date="2007-07-10"):
    granule = f"AP_{15742 + number}_FBD_F0290_RT1"
    rng = np.random.default_rng(number)
    west, north = origin(number)
    transform = from_origin(west, north, 12.5, 12.5)
    sar = rng.uniform(0.001, 0.5, (2, *SHAPE)).astype(np.float32)
    sar[:, :30, :40] = 0
    sar[1, 100, 200] = np.nan
    dem = np.add.outer(np.arange(SHAPE[0]), np.arange(SHAPE[1])).astype(np.int16)
    base = folder / "alos" / granule
    for layer, array in (("_HH", sar[0]), ("_HV", sar[1]), (".dem", dem)):
        write(base / f"{granule}{layer}.tif", array, UTM, transform)
    (base / f"{granule}.iso.xml").write_text(ISO.format(date))
    return granule, sar, dem


def add_terrain(folder, numbers):
    for number in numbers:
        transform, shape = in_crs(number, "EPSG:4326", 0.00025)
        lon, lat = ground(transform, shape, "EPSG:4326")
        gfc = np.stack(
            [50 + 400 * (lon - lon.min()), 50 + 400 * (lat - lat.min()), np.full(shape, 90), np.full(shape, 30)]
        )
        gfc[:, : shape[0] // 2, : shape[1] // 4] = 0 if number == 0 else gfc[:, : shape[0] // 2, : shape[1] // 4]
        write(
            folder / "gfc" / f"Hansen_GFC-2020-v1.8_first_40N_{90 - 10 * number:03d}W.tif",
            gfc.astype(np.uint8),
            "EPSG:4326",
            transform,
        )
        transform, shape = in_crs(number, "EPSG:4326", 1 / 3600)
        lon, lat = ground(transform, shape, "EPSG:4326")
        hand = (100 * (lon - lon.min()) + 50 * (lat - lat.min())).astype(np.float32)
        name = f"Copernicus_DSM_COG_10_N35_00_W{91 - number:03d}_00_HAND.tif"
        write(folder / "hand" / name, hand, "EPSG:4326", transform, nodata=np.nan)


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alos") / "src"
    for number in range(3):
        add_scene(folder, number)
        add_dswe(folder, number, tile=f"01801{number}")
    add_terrain(folder, range(3))
    return folder


@pytest.fixture
def folder(source, tmp_path):
    return shutil.copytree(source, tmp_path / "src")


@pytest.fixture(scope="session")
def built(source, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "run_task", make_shard)
        return make(source, tmp_path_factory.mktemp("alos"))


@pytest.fixture(autouse=True)
def in_this_process(request, monkeypatch):
    if "real_workers" not in request.fixturenames:
        monkeypatch.setattr(engine, "run_task", make_shard)


@pytest.fixture
def real_workers():
    pass


def make(folder, out, options=(), **parameters):
    return build(plan_data_set("alos-dswe", folder, **parameters), builder_module("alos-dswe"), out, **dict(options))


def chips_of(made):
    manifest = load_manifest(made)
    return {
        chip: (shard.read("image", i), shard.read("mask", i), shard.transform[i])
        for split in manifest.splits
        for shard in open_split(made, split.name)[1]
        for i, chip in enumerate(shard.chip_ids)
    }


def test_layers_lie_on_the_sar_grid_in_their_order(built, tmp_path):
    made = built
    bands = load_manifest(made).array("image").bands
    assert [b.name for b in bands] == ["hh", "hv", "red", "nir", "swir1", "swir2", "dem", "hand"]
    assert [b.unit for b in bands] == ["dB"] * 2 + ["reflectance"] * 4 + ["m"] * 2
    granule, sar, dem = add_scene(tmp_path / "again", 1)
    image, mask, transform = chips_of(made)[f"{granule}_0_512"]
    assert tuple(transform) == (12.5, 0, origin(1)[0] + 512 * 12.5, 0, -12.5, origin(1)[1])
    inside = np.s_[:512, : SHAPE[1] - 512]
    np.testing.assert_allclose(image[0][inside], 10 * np.log10(sar[0, :512, 512:]), rtol=1e-5)
    np.testing.assert_array_equal(image[6][inside], dem[:512, 512:])
    assert (image[:, :, SHAPE[1] - 512 :] == alos_dswe.NODATA).all() and (mask[:, SHAPE[1] - 512 :] == 255).all()
    # continuous layers: a plane in longitude and latitude comes out as that plane
    utm = rasterio.Affine(*transform)
    lon, lat = ground(utm, (512, 512), UTM)
    _, (height, width) = in_crs(1, "EPSG:4326", 1 / 3600)
    place, shape = in_crs(1, "EPSG:4326", 1 / 3600)
    tile_lon, tile_lat = ground(place, shape, "EPSG:4326")
    expected = 100 * (lon - tile_lon.min()) + 50 * (lat - tile_lat.min())
    np.testing.assert_allclose(image[7][inside], expected[inside], atol=2e-3)
    physical = image[4] * bands[4].scale + bands[4].offset
    np.testing.assert_allclose(physical[inside], (90 - 1) / 363, rtol=1e-5)


def test_labels_are_the_codes_of_the_nearest_dswe_pixel(built, tmp_path):
    made = built
    granule, sar, _ = add_scene(tmp_path / "again", 1)
    _, mask, transform = chips_of(made)[f"{granule}_0_0"]
    lon, _ = ground(rasterio.Affine(*transform), (512, 512), UTM)
    codes = np.array([0, 1, 2, 3, 9, 0, 0, 0])[(lon * 100).astype(int) % 8]
    expected = np.select([codes == 0, codes < 3], [0, 1], 255)
    expected[:30, :40] = 255  # no SAR
    expected[100, 200] = 255
    off = mask != expected
    assert off.mean() < 0.02  # within half a DSWE pixel of the stripes' edges only
    edge = np.abs((lon * 100) % 1 - 0.5) > 0.5 - 15 * 1.2 / (111_320 * 0.82 * 0.01)
    assert not off[~edge].any()
    composite_gap = chips_of(made)[f"AP_{15742}_FBD_F0290_RT1_0_0"]
    assert ((composite_gap[0][2] == alos_dswe.NODATA) <= (composite_gap[1] == 255)).all()
    assert (composite_gap[0][2] == alos_dswe.NODATA).mean() > 0.05


def test_label_codes():
    codes = np.array([0, 1, 2, 3, 4, 9, 255], np.uint8)
    assert dswe.water_labels(codes).tolist() == [0, 1, 1, 255, 255, 255, 255]
    with pytest.raises(SceneError, match=r"codes \[7, 100\] are not defined"):
        dswe.water_labels(np.array([0, 100, 7], np.uint8))


@pytest.mark.parametrize(
    ("cloud", "valid", "water", "fault"),
    [
        (0.29, 500, 50, None),
        (0.30, 900, 500, "30% cloud"),
        (0.0, 499, 300, "50% of the SAR footprint valid"),
        (0.0, 500, 49, "4.9% of the SAR footprint water"),
        (0.0, 0, 0, "0% of the SAR footprint valid"),
    ],
)
def test_the_pair_rule(cloud, valid, water, fault):
    counts = np.zeros(256, np.int64)
    counts[1], counts[2] = water // 2, water - water // 2
    counts[0], counts[9], counts[255] = valid - water, (1000 - valid) // 2, 1000 - valid - (1000 - valid) // 2
    found = dswe.pair_fault(cloud, counts)
    assert found is None if fault is None else fault in found
    assert dswe.pair_fault(0.0, np.zeros(256, np.int64)) == "the SAR image has no data"


def test_cloud_is_that_of_the_whole_tile_without_its_fill(tmp_path):
    codes = np.full((600, 40), 255, np.uint8)
    codes[:550] = 0
    codes[540:550, :20] = 9
    path = tmp_path / "tile.tif"
    write(path, codes, ALBERS, from_origin(0, 0, 30, 30), nodata=255)
    assert dswe.share_of_cloud([path]) == pytest.approx(200 / (550 * 40))


def test_the_nearest_date_that_will_do_wins(folder, tmp_path):
    add_dswe(folder, 1, codes=1, date="20070709", tile="018011", sensor="LT05")
    add_dswe(folder, 1, codes=0, date="20070712", tile="018011", sensor="LT05")  # two days off
    granule = "AP_15743_FBD_F0290_RT1"
    chips = chips_of(make(folder, tmp_path / "same-day"))
    assert set(np.unique(chips[f"{granule}_0_0"][1])) == {0, 1, 255}  # the day's own stripes
    add_dswe(folder, 1, codes=9, tile="018011")  # the same day is cloudy: the day before counts
    mask = chips_of(make(folder, tmp_path / "day-before"))[f"{granule}_0_0"][1]
    assert (mask[40:90] == 1).all()


def test_a_scene_without_usable_labels_is_left_out_and_says_why(folder, tmp_path):
    add_dswe(folder, 1, codes=0, tile="018011")
    with pytest.raises(PartialResultError, match="AP_15743.*LE07_CU_018011_20070710: 0.0% of the SAR footprint water"):
        make(folder, tmp_path)
    manifest = load_manifest(tmp_path / "alos-dswe" / "1.0.0")
    assert [s.id for s in manifest.skipped] == ["AP_15743_FBD_F0290_RT1"]


def test_tiles_of_one_date_are_mosaicked(built, folder, tmp_path):
    path = next((folder / "dswe").rglob("LE07_CU_018011_*_INWAM.TIF"))
    with rasterio.open(path) as opened:
        codes, transform, shape = opened.read(1), opened.transform, opened.shape
    half = shape[1] // 2
    whole = chips_of(built)
    write(path, codes[:, :half], ALBERS, transform, nodata=255)
    other = path.with_name(path.name.replace("018011", "019011"))
    write(other, codes[:, half:], ALBERS, transform * rasterio.Affine.translation(half, 0), nodata=255)
    parts = chips_of(make(folder, tmp_path / "parts"))
    assert all(np.array_equal(whole[c][1], parts[c][1]) for c in whole) and set(whole) == set(parts)


def test_a_chip_with_less_than_a_tenth_of_labels_is_dropped(built):
    chips = chips_of(built)
    # of the lower right chip, 48 x 188 pixels lie inside the scene: 3.4 %
    assert f"{'AP_15743_FBD_F0290_RT1'}_512_512" not in chips
    for image, mask, _ in chips.values():
        assert (mask != 255).mean() >= 0.1 and image.shape == (8, 512, 512)


def test_a_tenth_of_known_labels_is_enough_and_a_pixel_less_is_not(folder, tmp_path):
    granule = add_scene(folder, 1)[0]
    add_dswe(folder, 1, codes=1, tile="018011")
    power = np.zeros(SHAPE, np.float32)
    power[10:62, :512].flat[:26_215] = 1  # a tenth of 512 x 512 is 26 214.4
    power[:174, 512:].flat[:26_214] = 1
    west, north = origin(1)
    for layer in ("_HH", "_HV"):
        path = folder / "alos" / granule / f"{granule}{layer}.tif"
        write(path, power, UTM, from_origin(west, north, 12.5, 12.5))
    chips = chips_of(make(folder, tmp_path))
    kept = {chip: (mask != 255).sum() for chip, (_, mask, _) in chips.items() if chip.startswith(granule)}
    assert kept == {f"{granule}_0_0": 26_215}


def test_sar_only_is_a_selection_of_bands(built):
    sample = ChipDataset(built, "train", bands=["hh", "hv", "dem", "hand"])[0]
    assert sample["image"].shape == (4, 512, 512) and sample["image"].isfinite().all()


def test_smoothing_flattens_speckle_and_leaves_the_rest(built, folder, tmp_path):
    rough, smooth = built, make(folder, tmp_path, despeckle=0.35)  # the authors' weight
    assert smooth.parent.name == "alos-dswe-smoothed" and load_manifest(smooth).builder.parameters == {
        "despeckle": 0.35
    }
    one, two = chips_of(rough), chips_of(smooth)
    for chip in one:
        known = one[chip][0][0] != alos_dswe.NODATA
        assert two[chip][0][0][known].std() < 0.6 * one[chip][0][0][known].std()
        assert (two[chip][0][0][~known] == alos_dswe.NODATA).all()
        np.testing.assert_array_equal(one[chip][0][2:], two[chip][0][2:])
        np.testing.assert_array_equal(one[chip][1], two[chip][1])
    with pytest.raises(InputError, match="despeckle must be above 0"):
        make(folder, tmp_path, despeckle=0)


GRANULE = "alos/AP_15743_FBD_F0290_RT1/AP_15743_FBD_F0290_RT1"


def rotated(folder):
    with rasterio.open(folder / f"{GRANULE}_HH.tif", "r+") as opened:
        opened.transform = opened.transform * rasterio.Affine.rotation(5)


def corrupt(folder):
    path = folder / f"{GRANULE}_HV.tif"
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 60_000] = b"\xff" * 60_000  # more than a tile: its header too
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (rotated, "rotated or flipped geotransform"),
        (lambda f: (f / f"{GRANULE}_HV.tif").unlink(), "AP_15743_FBD_F0290_RT1_HV.tif is missing"),
        (lambda f: (f / f"{GRANULE}.iso.xml").write_text("<a/>"), "no acquisition date"),
        (
            lambda f: (f / f"{GRANULE}.iso.xml").write_text(ISO.format("2009-01-01")),
            "no DSWE within 1 day tile reaches it",
        ),
        (lambda f: (f / f"{GRANULE}_HH.tif").write_text("<VRTDataset/>"), "not a GTiff file"),
        (lambda f: next((f / "hand").glob("*W090*")).unlink(), "no HAND tile reaches it"),
    ],
)
def test_a_bad_scene_is_planned_without_and_named(folder, fault, words):
    add_further(folder)
    fault(folder)
    plan = plan_data_set("alos-dswe", folder)
    assert len(plan.scenes) == 3 and [s.id for s in plan.skipped] == ["AP_15743_FBD_F0290_RT1"]
    assert re.search(words, plan.skipped[0].reason) and str(folder) not in plan.skipped[0].reason


def test_a_corrupt_scene_is_left_out_and_named(folder, tmp_path):
    add_further(folder)
    corrupt(folder)
    with pytest.raises(PartialResultError, match="AP_15743.*corrupt: rows") as caught:
        make(folder, tmp_path)
    assert caught.value.exit_code == 3
    skipped = load_manifest(tmp_path / "alos-dswe" / "1.0.0").skipped
    assert [s.id for s in skipped] == ["AP_15743_FBD_F0290_RT1"] and str(tmp_path) not in skipped[0].reason


def add_further(folder):
    """A fourth scene, so that three are left for the three splits."""
    add_scene(folder, 5)
    add_dswe(folder, 5, tile="018015")
    add_terrain(folder, [5])


def test_a_tile_that_is_no_geotiff_is_named_and_not_used(folder, tmp_path):
    (folder / "gfc" / "Hansen_GFC-2020-v1.8_first_50N_080W.tif").write_text("<VRTDataset/>")
    with pytest.raises(PartialResultError, match="Hansen_GFC-2020-v1.8_first_50N_080W.tif .*not a GTiff"):
        make(folder, tmp_path)


def test_a_dswe_tile_of_another_type_is_named_and_not_used(folder):
    path = add_dswe(folder, 0, codes=np.zeros((900, 900), np.uint16), date="20070711", tile="018099")
    plan = plan_data_set("alos-dswe", folder)
    assert len(plan.scenes) == 3 and [s.id for s in plan.skipped] == [path.name]
    assert "expected dtype uint8, found uint16" in plan.skipped[0].reason
    shutil.rmtree(next(folder.glob("dswe/*_018010_*")))
    with pytest.raises(InputError, match="2 scenes or blocks cannot fill 3 splits; .*found uint16; .*no DSWE"):
        plan_data_set("alos-dswe", folder)


def test_the_same_bytes_from_one_and_two_workers(folder, tmp_path, real_workers):
    one = make(folder, tmp_path / "one")
    moved = folder.rename(tmp_path / "moved")
    two = make(moved, tmp_path / "two", {"workers": 2})
    assert (one / "dataset.json").read_bytes() == (two / "dataset.json").read_bytes()
    for path in one.rglob("*.h5"):
        assert path.read_bytes() == (two / path.relative_to(one)).read_bytes()
    assert not verify(one, deep=True).problems
    assert not [c for c in audit(one).checks if c.status == "fail"]
