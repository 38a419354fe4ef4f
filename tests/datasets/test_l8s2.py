"""l8s2: each sensor on its own grid, numbers to reflectance, clouds out, unlike and shifted pairs named."""

import json
import re
import shutil
from functools import lru_cache

import h5py
import numpy as np
import pytest
import rasterio
import shapely
from pyproj import Transformer
from rasterio.transform import from_origin
from scipy import ndimage
from tidemark.datasets import build as engine
from tidemark.datasets import l8s2_pairs, optical
from tidemark.datasets.audit import audit
from tidemark.datasets.build import build, builder_module, plan_data_set
from tidemark.datasets.builders import l8s2
from tidemark.datasets.chips import ChipDataset
from tidemark.datasets.raster import Grid
from tidemark.datasets.reader import open_split
from tidemark.datasets.spec import load_manifest
from tidemark.datasets.verify import verify
from tidemark.datasets.worker import make_shard
from tidemark.errors import InputError, LeakError, PartialResultError

SIZE = 520  # two by two chips
FINE_M = 2.5
MARGIN_M = 330.0
TILES = ("31TCJ", "31TDJ", "31TEJ", "31TFJ")
GAINS = np.array([0.3, 0.4, 0.5, 1.0, 0.8, 0.6])
MTL = {
    "LANDSAT_METADATA_FILE": {
        "IMAGE_ATTRIBUTES": {"SUN_ELEVATION": "30.0", "DATE_ACQUIRED": "2021-07-05"},
        "LEVEL1_RADIOMETRIC_RESCALING": {
            "REFLECTANCE_MULT_BAND_8": "2.0000E-05",
            "REFLECTANCE_ADD_BAND_8": "-0.100000",
        },
    }
}


@lru_cache(8)
def ground(number):
    """Brightness of the ground at 2.5 m, from 330 m north-west of the tile's corner on."""
    n = round((SIZE * 10 + 2 * MARGIN_M) / FINE_M)
    field = ndimage.gaussian_filter(
        np.random.default_rng(number).normal(size=(n, n)).astype(np.float32), 24, truncate=3
    )
    return np.clip(0.25 + 0.06 * field / field.std(), 0.02, 0.9)


def sampled(field, step, offset, size):
    """Means over pixels of ``step`` metres from ``offset`` metres (south and east of the tile's corner) on."""
    k, first = round(step / FINE_M), round((offset + MARGIN_M) / FINE_M)
    cut = field[first : first + size * k, first : first + size * k]
    return cut.reshape(size, k, size, k).mean((1, 3))


def write(path, array, west, north, step, driver="GTiff", crs="EPSG:32631"):
    path.parent.mkdir(exist_ok=True, parents=True)
    options = (
        {"QUALITY": "100", "REVERSIBLE": "YES"}
        if driver == "JP2OpenJPEG"
        else {"tiled": True, "blockxsize": 128, "blockysize": 128}
    )
    with rasterio.open(
        path, "w", driver=driver, dtype=array.dtype, count=1, height=array.shape[0], width=array.shape[1], crs=crs,
        transform=from_origin(west, north, step, step), **options,
    ) as dataset:  # fmt: skip
        dataset.write(array, 1)


def add_pair(folder, number, baseline="0301", scl=None, qa=None, shift_m=0.0, jp2=False, l8_date="20210705", seed=None):
    west, north, tile = 300_000 + 100_000 * number, 4_900_020, TILES[number]
    field = ground(number if seed is None else seed)
    product = f"S2A_MSIL2A_20210705T105031_N{baseline}_R051_T{tile}_20210705T135229"
    images = folder / f"{product}.SAFE" / "GRANULE" / f"L2A_T{tile}_A031_20210705T105031" / "IMG_DATA"
    driver, ext = ("JP2OpenJPEG", "jp2") if jp2 else ("GTiff", "tif")
    offset = 1000 if int(baseline) >= 400 else 0
    for band, gain in zip(("B02", "B03", "B04", "B8A", "B11", "B12"), GAINS, strict=True):
        step = 10 if band in ("B02", "B03", "B04") else 20
        values = np.rint(sampled(field, step, 0, SIZE * 10 // step) * gain * 1e4 + offset).astype(np.uint16)
        write(images / f"R{step}m" / f"T{tile}_20210705T105031_{band}_{step}m.{ext}", values, west, north, step, driver)
    scl = np.full((SIZE // 2, SIZE // 2), 4, np.uint8) if scl is None else scl
    write(images / "R20m" / f"T{tile}_20210705T105031_SCL_20m.{ext}", scl, west, north, 20, driver)
    level2 = f"LC08_L2SP_19903{number}_{l8_date}_20210712_02_T1"
    seen = ndimage.shift(field, shift_m / FINE_M, order=1, mode="nearest") if shift_m else field
    n = 190
    for band, gain in zip(l8s2.L8_BANDS, GAINS, strict=True):
        values = np.rint((sampled(seen, 30, -255, n) * gain + 0.2) / 2.75e-5).astype(np.uint16)
        write(folder / level2 / f"{level2}_{band}.TIF", values, west - 255, north + 255, 30)
    qa = np.full((n, n), 1 << 6, np.uint16) if qa is None else qa
    write(folder / level2 / f"{level2}_QA_PIXEL.TIF", qa, west - 255, north + 255, 30)
    level1 = level2.replace("L2SP", "L1TP")
    pan = np.rint((sampled(seen, 15, -247.5, 2 * n - 1) * 0.5 + 0.1) / 2e-5).astype(np.uint16)
    write(folder / level1 / f"{level1}_B8.TIF", pan, west - 247.5, north + 247.5, 15)
    (folder / level1 / f"{level1}_MTL.json").write_text(json.dumps(MTL))
    return product, images, folder / level2


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """Four tiles; the second in JPEG 2000 with the offset of newer baselines."""
    folder = tmp_path_factory.mktemp("l8s2") / "src"
    for number in range(4):
        add_pair(folder, number, baseline="0500" if number == 1 else "0301", jp2=number == 1)
    return folder


@pytest.fixture
def folder(source, tmp_path):
    return shutil.copytree(source, tmp_path / "src")


@pytest.fixture(scope="session")
def made(source, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "run_task", make_shard)
        return make(source, tmp_path_factory.mktemp("l8s2"))


@pytest.fixture(autouse=True)
def in_this_process(request, monkeypatch):
    if "real_workers" not in request.fixturenames:
        monkeypatch.setattr(engine, "run_task", make_shard)


@pytest.fixture
def real_workers():
    pass


def make(folder, out, options=(), **parameters):
    return build(plan_data_set("l8s2", folder, **parameters), builder_module("l8s2"), out, **dict(options))


def chips_of(made):
    names = ("image", "pan", "target", "valid")
    return {
        chip: {n: shard.read(n, i) for n in names} | {f"t_{n}": shard.array_transform(n)[i] for n in names}
        for split in load_manifest(made).splits
        for shard in open_split(made, split.name)[1]
        for i, chip in enumerate(shard.chip_ids)
    }


def test_each_array_lies_on_its_own_grid_around_the_chip(made):
    chips = chips_of(made)
    assert len(chips) == 16
    chip, field = chips["T31TCJ_20210705T105031_N0301_256_0"], ground(0)
    assert tuple(chip["t_target"]) == (10, 0, 300_000, 0, -10, 4_900_020 - 2560)
    blue = sampled(field, 10, 0, SIZE)[256:512, :256] * 0.3
    np.testing.assert_allclose(chip["target"][0] * 1e-4, blue, atol=6e-5)
    for name, step, size in (("image", 30, 86), ("pan", 15, 172)):
        a, _, c, _, e, f = chip[f"t_{name}"]
        assert (a, e) == (step, -step)
        assert abs(c + size * step / 2 - (300_000 + 1280)) <= step / 2
        assert abs(f - size * step / 2 - (4_900_020 - 2560 - 1280)) <= step / 2
        row, column = (
            round((4_900_020 - f + (255 if step == 30 else 247.5)) / step),
            round((c - 300_000 + (255 if step == 30 else 247.5)) / step),
        )
        whole = sampled(field, step, -255 if step == 30 else -247.5, 190 if step == 30 else 379)
        cut = whole[row : row + size, column : column + size]
        if name == "image":
            np.testing.assert_allclose(chip["image"][3] * 2.75e-5 - 0.2, cut, atol=2e-5)
        else:
            toa = (np.rint((cut * 0.5 + 0.1) / 2e-5) * 2e-5 - 0.1) / np.sin(np.radians(30))
            np.testing.assert_allclose(chip["pan"][0] * 2.5e-5, toa, atol=1.3e-5)


def test_south_of_the_equator_landsat_counts_below_zero_in_the_northern_zone(folder, made, tmp_path):
    for path in folder.rglob("*.[tT][iI][fF]"):
        if "199031" in path.name:  # Landsat's scene of the tile in JPEG 2000, which stays in the north
            continue
        with rasterio.open(path, "r+") as dataset:
            if path.name.startswith("LC08"):
                a, b, c, d, e, f = dataset.transform[:6]
                dataset.transform = rasterio.Affine(a, b, c, d, e, f - 1e7)
            else:
                dataset.crs = "EPSG:32731"
    south = make(folder, tmp_path / "out")
    chips, north = chips_of(south), chips_of(made)
    assert chips.keys() == north.keys()
    for chip, arrays in chips.items():
        for name, values in arrays.items():
            np.testing.assert_array_equal(values, north[chip][name])
    crs = {rasterio.CRS.from_wkt(scene.crs).to_epsg() for scene in load_manifest(south).scenes}
    assert crs == {32631, 32731}
    wrong = next(folder.glob("LC08_L1TP_199030*/*_B8.TIF"))
    with rasterio.open(wrong, "r+") as dataset:
        dataset.crs = "EPSG:32630"
    with pytest.raises(PartialResultError, match="the panchromatic band is in another zone"):
        make(folder, tmp_path / "wrong")


def test_bands_are_the_same_six_in_the_same_order(made):
    manifest = load_manifest(made)
    names = ["blue", "green", "red", "nir", "swir1", "swir2"]
    assert [b.name for b in manifest.array("image").bands] == [b.name for b in manifest.array("target").bands] == names
    chip = next(iter(chips_of(made).values()))
    l8, s2 = chip["image"] * 2.75e-5 - 0.2, chip["target"] * 1e-4
    np.testing.assert_allclose(l8.mean((1, 2)) / l8[3].mean(), GAINS, rtol=0.02)
    np.testing.assert_allclose(s2.mean((1, 2)) / s2[3].mean(), GAINS, rtol=0.02)


def test_the_offset_of_newer_baselines_is_taken_off():
    assert [optical.s2_offset(b) for b in (301, 399, 400, 509)] == [0, 0, 1000, 1000]
    dn = np.array([0, 1, 999, 1000, 1001, 65535], np.uint16)
    assert optical.s2_surface(dn, 400).tolist() == [65535, 0, 0, 0, 1, 64535]
    assert optical.s2_surface(dn, 301).tolist() == [65535, 1, 999, 1000, 1001, 65534]


def test_an_offset_product_gives_the_same_reflectance(made):
    chip = chips_of(made)["T31TDJ_20210705T105031_N0500_0_0"]  # JPEG 2000, offset 1000
    np.testing.assert_allclose(chip["target"][1] * 1e-4, sampled(ground(1), 10, 0, SIZE)[:256, :256] * 0.4, atol=6e-5)
    inner = np.s_[1:-1, 1:-1]
    expected = ndimage.zoom(sampled(ground(1), 20, 0, SIZE // 2), 2, order=1, grid_mode=True, mode="nearest")[
        :256, :256
    ]
    np.testing.assert_allclose((chip["target"][3] * 1e-4)[inner], expected[inner], atol=2e-3)


def test_quality_bits_and_scene_classes():
    bits = {"fill": 0, "dilated": 1, "cirrus": 2, "cloud": 3, "shadow": 4, "snow": 5, "clear": 6, "water": 7}
    usable = {name: bool(optical.l8_usable(np.uint16(1 << bit))) for name, bit in bits.items()}
    assert [name for name, good in usable.items() if good] == ["snow", "clear", "water"]
    assert not optical.l8_usable(np.uint16(1 << 6 | 1 << 3))
    assert np.flatnonzero(~optical.s2_usable(np.arange(12))).tolist() == [0, 3, 8, 9, 10]


def test_numbers_of_landsat_to_reflectance():
    dn = np.array([0, 1, 7272, 7273, 7274, 20000], np.uint16)
    stored = optical.l8_not_negative(dn)
    assert stored.tolist() == [0, 7273, 7273, 7273, 7274, 20000]
    assert 0 <= 7273 * 2.75e-5 - 0.2 < 2.75e-5
    gains = optical.pan_gains(json.dumps(MTL), "MTL.json")
    assert gains == (2e-5, -0.1, pytest.approx(0.5))
    text = "  REFLECTANCE_MULT_BAND_8 = 2.0000E-05\n  REFLECTANCE_ADD_BAND_8 = -0.100000\n    SUN_ELEVATION = 30.0\n"
    assert optical.pan_gains(text, "MTL.txt") == gains
    assert (optical.pan_reflectance(np.array([0, 5000, 30000]), gains) * 2.5e-5).tolist() == pytest.approx(
        [0, 2.5e-5, 1.0]
    )


def test_clouds_of_either_sensor_are_not_valid(folder, tmp_path):
    scl, qa = np.full((260, 260), 4, np.uint8), np.full((190, 190), 1 << 6, np.uint16)
    scl[10:20, 30:50] = 9  # 20 x 40 pixels of 10 m
    qa[20, 20] = 1 << 3 | 1 << 6
    add_pair(folder, 0, scl=scl, qa=qa)
    valid = chips_of(make(folder, tmp_path))["T31TCJ_20210705T105031_N0301_0_0"]["valid"]
    expected = np.ones((256, 256), np.uint8)
    expected[20:40, 60:100] = 0
    edge = (20 * 30 - 255) / 10  # 34.5: the pixels whose centre the cloudy Landsat pixel holds
    rows = slice(int(np.ceil(edge - 0.5)), int(np.ceil(edge + 3 - 0.5)))
    expected[rows, rows] = 0
    np.testing.assert_array_equal(valid, expected)


def test_cloudy_unlike_and_shifted_pairs_are_left_out_and_say_why(folder, tmp_path):
    cloudy = np.full((260, 260), 4, np.uint8)
    cloudy[:, ::5] = 8
    add_pair(folder, 0, scl=cloudy)
    with pytest.raises(PartialResultError, match="T31TCJ.*none of 4 chips .*4 not clear, 0 not alike"):
        make(folder, tmp_path / "cloudy")
    product, images, level2 = add_pair(folder, 0)
    for path in level2.glob("*SR_B*"):
        with rasterio.open(path, "r+") as opened:
            opened.write(np.random.default_rng(0).permuted(opened.read(1)), 1)
    with pytest.raises(PartialResultError, match="T31TCJ.*none of 4 chips .*(0 not clear, 4 not alike)"):
        make(folder, tmp_path / "unlike")
    add_pair(folder, 0, shift_m=20.0)
    with pytest.raises(PartialResultError, match=r"T31TCJ.*Landsat lies (19|20)\.\d m south and (19|20)\.\d m east"):
        make(folder, tmp_path / "shifted")
    assert not [c for c in chips_of(tmp_path / "shifted/l8s2/1.0.0") if c.startswith("T31TCJ")]


@pytest.mark.parametrize("moved", [(0.0, 0.0), (2.0, 0.0), (1.0, -3.0), (4.0, 5.0)])
def test_the_registration_check_finds_a_planted_shift_within_a_tenth_of_a_pixel(moved):
    fine = ground(9)  # 2.5 m
    down, right = (round(m * 10 / 3 / FINE_M) for m in moved)  # moved: thirds of a Sentinel-2 pixel
    start = 200
    reference = fine[start : start + 1024, start : start + 1024].reshape(256, 4, 256, 4).mean((1, 3))
    other = fine[start - down : start - down + 1032, start - right : start - right + 1032]
    coarse = other.reshape(86, 12, 86, 12).mean((1, 3))
    onto = optical.resample(coarse[None], (30, 0, 0, 0, -30, 0), (10, 0, 0, 0, -10, 0), 256)[0]
    found = optical.registration_shift(reference, onto)
    assert found == pytest.approx((down / 4, right / 4), abs=0.1)


def test_similarity_is_that_of_scikit_image():
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    rng = np.random.default_rng(0)
    one = rng.random((3, 64, 64)).astype(np.float32)
    two = np.clip(one + rng.normal(0, 0.1, one.shape), 0, 1).astype(np.float32)
    everywhere = np.ones((64, 64), bool)
    assert optical.psnr(one, two, everywhere) == pytest.approx(
        peak_signal_noise_ratio(one, two, data_range=1), abs=1e-4
    )
    inner = np.zeros((64, 64), bool)
    inner[8:-8, 8:-8] = True
    theirs = [
        structural_similarity(
            a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1, full=True
        )[1]
        for a, b in zip(one, two, strict=True)
    ]
    assert optical.ssim(one, two, inner) == pytest.approx(np.mean([t[inner].mean() for t in theirs]), abs=1e-4)


@pytest.mark.parametrize("noise", [0.005, 0.03, 0.06, 0.12])
def test_alikeness_by_matrix_products_is_that_of_the_filter(noise):
    rng = np.random.default_rng(1)
    one = ndimage.gaussian_filter(rng.random((6, 256, 256)), (0, 3, 3)).astype(np.float32)
    two = (one + rng.normal(0, noise, one.shape)).astype(np.float32)
    valid = rng.random((256, 256)) > 0.05
    similarity, ratio = optical.ssim(one, two, valid), optical.psnr(one, two, valid)
    for step in (-0.01, -1e-7, 0, 1e-7, 0.01):  # also where rounding decides
        assert optical.alike(one, two, valid, ratio - 1, similarity + step) == (step <= 0)
    assert not optical.alike(one, two, valid, ratio, 0.0)  # PSNR must lie above its limit


def test_a_chip_of_a_tile_one_chip_wide_outlasts_the_next_strip(folder, monkeypatch):
    job = plan_data_set("l8s2", folder).shards[0].scenes[0]
    refs = l8s2.index(job)
    wide = {ref.id: chip for ref, chip in zip(refs, l8s2.read(job, refs), strict=True)}
    every = l8s2.windows
    monkeypatch.setattr(l8s2, "windows", lambda height, width: [w for w in every(height, width) if w[1] == 0])
    narrow = l8s2.index(job)
    assert len(narrow) == len({ref.window[0] for ref in refs}) > 1
    for ref, chip in zip(narrow, list(l8s2.read(job, narrow)), strict=True):
        assert np.array_equal(chip["target"], wide[ref.id]["target"])


def test_the_nearest_landsat_scene_is_taken(folder):
    add_pair(folder, 0, l8_date="20210706")
    plan = plan_data_set("l8s2", folder)
    names = [source.path for source in plan.scenes[0].sources]
    assert len(names) == 16 and not [n for n in names if "LC08" in n and "_20210705_" not in n]
    with pytest.raises(InputError, match="max_days must be 0 to 30"):
        plan_data_set("l8s2", folder, max_days=31)


def test_tiles_are_not_parted_and_the_next_tiles_ground_is_left_out(made):
    manifest = load_manifest(made)
    assert {s.split for s in manifest.scenes} == {"train", "val", "test"}
    full = l8s2.windows(10980, 10980)
    assert len(full) == 39 * 39 and max(w[0] for w in full) + 256 <= 9996  # tiles begin every 99 960 m
    assert len(l8s2.windows(520, 600)) == 4


def test_tiles_whose_chips_show_the_same_ground_stay_together(folder):
    def part(east, size=520):
        return Grid(size, size, (10, 0, 300_000 + east, 0, -10, 4_900_020), "EPSG:32631")

    # two chips are 5 120 m wide, the part of the tile that they lie in 5 200 m
    found = {"a": ("31TCJ", part(0)), "b": ("31TDJ", part(5_110)), "c": ("31TDJ", part(90_000)),
             "d": ("31TEJ", part(95_120)), "e": ("31TFJ", part(90_000, 200))}  # fmt: skip
    keys = l8s2._places(found)
    assert keys == {"a": "31TCJ", "b": "31TCJ", "c": "31TCJ", "d": "31TEJ", "e": "31TFJ"}
    for path in [*folder.rglob("T31TDJ_*"), *folder.glob("LC08_L*_199031_*/*.TIF")]:
        with rasterio.open(path) as opened:
            values, at = opened.read(1), opened.transform
        write(path, values, at.c - 100_000, at.f, at.a, opened.driver)
    split_of = {s.id[39:44]: s.split for s in plan_data_set("l8s2", folder).scenes}
    assert split_of["31TCJ"] == split_of["31TDJ"] and len(set(split_of.values())) == 3


def test_the_later_of_two_products_of_one_image_is_taken(folder):
    first = next(folder.glob("S2A*T31TCJ*.SAFE"))
    later = first.name.replace("135229", "150000")
    shutil.copytree(first, folder / later)
    plan = plan_data_set("l8s2", folder)
    assert [s.id for s in plan.scenes if "31TCJ" in s.id] == [later.removesuffix(".SAFE")]
    assert [(s.id, s.reason.split(": ")[1]) for s in plan.skipped] == [
        (first.stem, "a later product of the same image is there")
    ]


def test_too_few_tiles_say_why_others_were_left_out(folder):
    for tile in TILES[:2]:
        next(folder.rglob(f"T{tile}_*_B02_10m.*")).unlink()
    with pytest.raises(InputError, match="2 scenes or blocks cannot fill 3 splits; .*31TCJ.*B02 missing; .*31TDJ.*B02"):
        plan_data_set("l8s2", folder)


def test_a_landsat_product_with_an_impossible_date_is_no_product(folder):
    level2 = next(folder.glob("LC08_L2SP_199030*"))
    shutil.copytree(level2, folder / level2.name.replace("20210705", "20211399"))
    for path in (folder / level2.name.replace("20210705", "20211399")).iterdir():
        path.rename(path.with_name(path.name.replace("20210705", "20211399")))
    assert len(plan_data_set("l8s2", folder).scenes) == 4


def misdated(folder):
    for path in list(folder.rglob("T31TCJ_20210705T105031_*")):
        path.rename(path.with_name(path.name.replace("20210705", "20211399")))


def processed_again(folder):
    path = next(folder.rglob("LC08_L2SP_199030_*_SR_B3.TIF"))
    shutil.copy(path, path.with_name(path.name.replace("20210712", "20220101")))


def drop(pattern):
    def act(folder):
        for path in folder.rglob(pattern):
            path.unlink()

    return act


def replaced(pattern, change):
    def act(folder):
        path = next(folder.rglob(pattern))
        with rasterio.open(path) as opened:
            values, transform = opened.read(1), opened.transform
        change(path, values, transform)

    return act


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (drop("T31TCJ_*_B11_20m.tif"), "B11 missing"),
        (drop("LC08_L1TP_199030_*_B8.TIF"), "no complete Landsat scene"),
        (drop("LC08_L1TP_199030_*_MTL.json"), "no complete Landsat scene"),
        (replaced("T31TCJ*B03*", lambda p, v, t: write(p, v.astype(np.int16), t.c, t.f, 10)), "expected dtype uint16"),
        (replaced("T31TCJ*B8A*", lambda p, v, t: write(p, v, t.c + 20, t.f, 20)), "B8A is not on the product's grid"),
        (replaced("*199030*SR_B4*", lambda p, v, t: write(p, v, t.c + 15, t.f, 30)), "not on the image's grid"),
        (replaced("*199030*QA*", lambda p, v, t: write(p, v, t.c, t.f, 30, crs="EPSG:32630")), "no complete Landsat"),
        (misdated, "no date: 20211399T105031"),
        (processed_again, "two processings of one Landsat scene: LC08_.*_20210712_02_T1, LC08_.*_20220101_"),
        (replaced("T31TCJ*SCL*", lambda p, v, t: p.write_text("<VRTDataset/>")), "not a GTiff or JP2OpenJPEG file"),
    ],
)  # fmt: skip
def test_a_bad_product_is_left_out_and_named(folder, fault, words):
    fault(folder)
    plan = plan_data_set("l8s2", folder)
    assert len(plan.scenes) == 3 and len(plan.skipped) == 1 and "T31TCJ" in plan.skipped[0].id
    assert re.search(words, plan.skipped[0].reason) and str(folder) not in plan.skipped[0].reason


def pair_row(number, tile="31TCJ", kind="Train", date="2021-07-05", ssim=0.9, psnr=30.0):
    west, north = 300_000 + 2560 * number, 4_900_020
    place = Transformer.from_crs("EPSG:32631", "EPSG:4326", always_xy=True)
    x, y = place.transform([west, west + 2560, west + 2560, west], [north, north, north - 2560, north - 2560])
    outline = shapely.Polygon(zip(x, y, strict=True)).wkt
    return f'p{number:03d},any/pair,{tile},{date},"{outline}",{kind},{ssim},{psnr}'


def write_pair(path, number, **changes):
    rng = np.random.default_rng(number)
    arrays = {
        "s2_image": rng.integers(1, 5000, (6, 256, 256)).astype(np.uint16),
        "l8_image": rng.integers(7300, 20000, (6, 86, 86)).astype(np.uint16),
        "l8_pan": rng.uniform(0.01, 0.5, (172, 172)).astype(np.float32),
    } | changes
    path.parent.mkdir(exist_ok=True, parents=True)
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            if isinstance(values, h5py.ExternalLink | h5py.SoftLink):
                file[name] = values
            else:
                file[name] = values
    return arrays


def write_table(folder, rows):
    folder.mkdir(exist_ok=True, parents=True)
    head = "patch_id,pair_path,location,date,geometry,pair_type,ssim,psnr\n"
    (folder / "train_test_validation_patch.csv").write_text(head + "\n".join(rows) + "\n")


@pytest.fixture
def pairs(tmp_path):
    kinds = {
        0: ("31TCJ", "Train"),
        1: ("31TCJ", "Train"),
        2: ("31TDJ", "Validation"),
        3: ("31TEJ", "Test"),
        4: ("31TCJ", "Train"),
    }
    rows = [pair_row(n, tile, kind, ssim=0.80 if n == 4 else 0.81) for n, (tile, kind) in kinds.items()]
    write_table(tmp_path / "pairs", rows)
    for n in kinds:
        write_pair(tmp_path / "pairs" / "patches" / "a" / f"p{n:03d}_2021.h5", n)
    return tmp_path / "pairs"


def test_the_authors_pairs_keep_their_filter_split_and_numbers(pairs, tmp_path):
    made = make(pairs, tmp_path)
    manifest = load_manifest(made)
    assert made.parent.name == "l8s2-pairs" and {s.name: s.chips for s in manifest.splits} == {
        "train": 2,
        "val": 1,
        "test": 1,
    }
    chip, arrays = chips_of(made)["p001"], write_pair(tmp_path / "again.h5", 1)
    np.testing.assert_array_equal(chip["target"], arrays["s2_image"])
    np.testing.assert_array_equal(chip["image"], arrays["l8_image"])
    np.testing.assert_allclose(chip["pan"][0] * 2.5e-5, arrays["l8_pan"], atol=1.3e-5)
    assert tuple(chip["t_target"]) == (10, 0, 302_560, 0, -10, 4_900_020)
    assert tuple(chip["t_image"]) == (30, 0, 302_550, 0, -30, 4_900_030)
    assert not verify(made, deep=True).problems


def test_a_patch_is_not_found_under_another_patchs_number(tmp_path):
    stems = [
        ("10_2021", "10_2021.h5"),
        ("1_2021", "1_2021.h5"),
        ("2", "2.h5"),
        ("20", "20.h5"),
        ("30_2021", "30_2021.h5"),
    ]
    found = {
        patch: l8s2_pairs._file(stems, {"patch_id": patch}, tmp_path) for patch in ("1", "10", "2", "20", "30_2021")
    }
    assert found == {"1": "1_2021.h5", "10": "10_2021.h5", "2": "2.h5", "20": "20.h5", "30_2021": "30_2021.h5"}
    with pytest.raises(InputError, match="no HDF5 file for patch 3;"):
        l8s2_pairs._file(stems, {"patch_id": "3"}, tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("any/pair", "x" * 140_000), "cannot be read .*field larger than field limit"),
        (("2021-07-05", "2021-07-05 10:50:31"), "is not a pair .*date '2021-07-05 10:50:31', expected YYYY-MM-DD"),
        (("2021-07-05", ""), "is not a pair .*date '', expected"),
        (("31TCJ", "x" * 300), "is not a pair .*location of 300 characters"),
    ],
)
def test_a_row_of_the_table_that_is_no_pair_is_named(pairs, change, words):
    table = pairs / "train_test_validation_patch.csv"
    table.write_text(table.read_text().replace(*change, 1))
    with pytest.raises(InputError, match=f"line 2 {words}"):
        plan_data_set("l8s2", pairs)


def test_a_tile_in_two_splits_is_a_leak_that_names_both(pairs, tmp_path):
    write_table(pairs, [pair_row(0), pair_row(1, kind="Test"), pair_row(2, "31TDJ"), pair_row(3, "31TEJ")])
    with pytest.raises(LeakError, match=r"tile 31TCJ is in two splits: patch p000 \(Train\) and patch p001 \(Test\)"):
        make(pairs, tmp_path)
    manifest = load_manifest(make(pairs, tmp_path, split="by-tile"))
    assert manifest.version == "2.0.0" and len({s.split for s in manifest.scenes}) == 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"l8_pan": h5py.ExternalLink("other.h5", "/x")}, "l8_pan is a link"),
        ({"s2_image": h5py.SoftLink("/l8_image")}, "s2_image is a link"),
        ({"l8_image": np.zeros((6, 60, 86), np.uint16)}, r"l8_image has the shape \(6, 60, 86\), expected about 86"),
        ({"l8_image": np.zeros((5, 86, 86), np.uint16)}, r"l8_image has the shape"),
        ({"s2_image": np.zeros((6, 256, 256), np.float32)}, "s2_image is of float32, expected whole numbers"),
    ],
)  # fmt: skip
def test_a_pair_that_is_not_plain_leaves_its_scene_out(pairs, tmp_path, changes, words):
    write_pair(pairs / "patches" / "a" / "p002_2021.h5", 2, **changes)
    with pytest.raises(PartialResultError, match=f"31TDJ_2021-07-05.*{words}"):
        make(pairs, tmp_path)


def test_cuts_of_almost_the_size_are_brought_to_it():
    values = np.arange(88)[None, :, None] * np.ones((1, 88, 87))
    assert l8s2_pairs._cut(values, 86).shape == (1, 86, 86) and l8s2_pairs._cut(values, 86)[0, -1, 0] == 86
    assert l8s2_pairs.tile_crs("33UUU") == l8s2_pairs.CRS.from_epsg(32633).to_wkt()
    assert l8s2_pairs.tile_crs("33HUU") == l8s2_pairs.CRS.from_epsg(32733).to_wkt() and l8s2_pairs.tile_crs("x") is None


def test_the_same_bytes_from_one_and_two_workers(folder, tmp_path, real_workers):
    one = make(folder, tmp_path / "one")
    two = make(folder.rename(tmp_path / "moved"), tmp_path / "two", {"workers": 2})
    assert (one / "dataset.json").read_bytes() == (two / "dataset.json").read_bytes()
    for path in one.rglob("*.h5"):
        assert path.read_bytes() == (two / path.relative_to(one)).read_bytes()
    assert not verify(one, deep=True).problems
    assert not [c for c in audit(one).checks if c.status == "fail"]
    sample = ChipDataset(one, "train")[0]
    assert sample["pan"].shape == (1, 172, 172) and sample["target"].shape == sample["valid"].expand(6, 256, 256).shape
