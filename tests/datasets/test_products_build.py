"""From simulated products through the builders to chips: what was simulated is what the data set holds."""

import numpy as np
import pytest
from tidemark.datasets import build as engine
from tidemark.datasets.audit import audit
from tidemark.datasets.build import build, builder_module, plan_data_set
from tidemark.datasets.reader import open_split
from tidemark.datasets.simulate import alos_dswe
from tidemark.datasets.simulate.products import simulate_product
from tidemark.datasets.spec import load_manifest
from tidemark.datasets.verify import verify
from tidemark.datasets.worker import make_shard
from tidemark.errors import PartialResultError


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    monkeypatch.setattr(engine, "run_task", make_shard)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Simulated products, made once for all tests that ask for the same."""
    root = tmp_path_factory.mktemp("products")

    def folder(name, scenes, size):
        path = root / f"{name}-{scenes}-{size}"
        if not path.exists():
            simulate_product(name, path, seed=5, scenes=scenes, size=size)
        return path

    return folder


def made_from(name, source, out, **parameters):
    """The data set that a builder makes of a folder of products."""
    return build(plan_data_set(name, source, **parameters), builder_module(name), out)


def sound(folder, name, left_out=0):
    """The manifest of a data set that is called simulated, verifies chip by chip and passes the audit."""
    manifest = load_manifest(folder)
    assert manifest.simulated and manifest.name == f"{name}-sim"
    assert len(manifest.skipped) == left_out
    assert not verify(folder, deep=True).problems
    report = audit(folder)
    assert not report.failed, report.text()
    return manifest


def chips_of(folder, *arrays):
    """{chip id: (split, window, array…)}."""
    found = {}
    for split in (split.name for split in load_manifest(folder).splits):
        for shard in open_split(folder, split)[1]:
            for i, chip in enumerate(shard.chip_ids):
                found[chip] = (split, tuple(shard.window[i]), *(shard.read(name, i) for name in arrays))
    return found


def agreement(label, water):
    """IoU of labelled water with the truth, where there is a label."""
    known = label != 255
    return ((label == 1) & water & known).sum() / (((label == 1) | water) & known).sum()


def test_alos_dswe_labels_lie_on_the_simulated_water(source, tmp_path):
    products = source("alos-dswe", 3, 530)
    folder = made_from("alos-dswe", products, tmp_path)
    manifest = sound(folder, "alos-dswe")
    bands = [band.name for band in manifest.array("image").bands]
    assert bands == ["hh", "hv", "red", "nir", "swir1", "swir2", "dem", "hand"]
    chips = chips_of(folder, "image", "mask")
    scenes = sorted({chip.rsplit("_", 2)[0] for chip in chips})
    assert len(scenes) == 3
    by_orbit = {path.name: path for path in (products / "alos").iterdir()}
    assert scenes == sorted(by_orbit)
    for index in range(3):
        _, world = alos_dswe.ground_of(5, index, 530)
        inside = slice(alos_dswe.MARGIN_PX, alos_dswe.MARGIN_PX + 512)
        water, hand = world.water[inside, inside], world.hand_m[inside, inside]
        matching = [
            (image, mask)
            for _, window, image, mask in chips.values()
            if window[:2] == (0, 0) and np.corrcoef(np.nan_to_num(image[7]).ravel(), hand.ravel())[0, 1] > 0.9
        ]
        (image, mask) = matching[0]
        # one pixel (12.5 m, less than half of a 30 m label) to any side fits worse
        best = agreement(mask, water)
        assert best > 0.75
        moved = [agreement(np.roll(mask, shift, axis), water) for axis in (0, 1) for shift in (-1, 1)]
        assert best > max(moved)
        seen = image[0] != manifest.array("image").bands[0].nodata
        assert (mask[~seen] == 255).all() and 0.7 < seen.mean() < 0.95
        land = (mask == 0) & (hand > 1)
        assert np.median(image[1][mask == 1]) < np.median(image[1][land]) - 5  # HV in dB
        near_infrared = manifest.array("image").bands[3]
        reflectance = image[3] * near_infrared.scale + near_infrared.offset
        assert np.median(reflectance[mask == 1]) < 0.05 and 0.2 < np.median(reflectance[land]) < 0.5


def test_tibet_water_holds_both_orbits_and_the_drawn_water(source, tmp_path):
    products = source("tibet-water", 3, 300)
    folder = made_from("tibet-water", products, tmp_path)
    manifest = sound(folder, "tibet-water")
    assert {s.id: s.split for s in manifest.scenes} == {"scene01": "val", "scene08": "train", "scene09": "train"}
    import geopandas
    from rasterio import features
    from tidemark.datasets import raster

    chips = chips_of(folder, "image", "mask", "valid")
    assert len(chips) >= 3 * 3
    for scene in ("scene01", "scene08", "scene09"):
        with raster.open_raster(products / "s1_ascend" / f"{scene}_s1_as.tif") as dataset:
            ascending, transform = dataset.read(), dataset.transform
        truth = geopandas.read_file(products / "s1_truth" / f"{scene}_truth.gpkg").geometry
        water = features.rasterize(truth, ascending.shape[1:], transform=transform) == 1
        _, window, image, mask, valid = chips[f"{scene}_0_0"]
        np.testing.assert_array_equal(image[:2], ascending[:, :256, :256])
        np.testing.assert_array_equal(valid == 1, (image != 0).any(0))
        np.testing.assert_array_equal((mask == 1)[valid == 1], water[:256, :256][valid == 1])


def test_l8s2_pairs_show_the_planted_shift(source, tmp_path):
    from tidemark.datasets import optical, raster
    from tidemark.datasets.builders.l8s2 import reflectances

    products = source("l8s2", 4, 256)
    with pytest.raises(PartialResultError, match=r"1 scenes were left out: .*T30SUG.* not clear"):  # clouds over 13 %
        made_from("l8s2", products, tmp_path)
    folder = tmp_path / "l8s2-sim" / "1.0.0"
    manifest = sound(folder, "l8s2", left_out=1)
    assert [s.name for s in manifest.splits] == ["train", "val", "test"]
    planted = {}
    for path in products.glob("LC08_L2SP_*/*_SR_B4.TIF"):
        with raster.open_raster(path) as dataset:
            tags, epsg = dataset.tags(), dataset.crs.to_epsg()
        # content that lies south of where it says appears further north
        planted[epsg] = [-float(tags[f"SIMULATED_SHIFT_{side}_M"]) for side in ("SOUTH", "EAST")]
    seen = 0
    for split in (s.name for s in manifest.splits):
        for shard in open_split(folder, split)[1]:
            for i, chip in enumerate(shard.chip_ids):
                arrays = {name: shard.read(name, i) for name in ("image", "pan", "target", "valid")}
                own = {"image": tuple(shard.array_transform("image")[i])}
                landsat, sentinel = reflectances(arrays, own, tuple(shard.transform[i]))
                valid = arrays["valid"] != 0
                found = np.multiply(optical.registration_shift(sentinel[3], landsat[3]), 10)
                tolerance = 1.0 if valid.all() else 3.0  # a tenth of a Sentinel-2 pixel where no cloud confuses it
                np.testing.assert_allclose(found, planted[32600 + int(chip[1:3])], atol=tolerance)
                assert optical.psnr(landsat, sentinel, valid) > 28
                seen += valid.all()
    assert seen


@pytest.mark.parametrize("form", ["maps", "random"])
def test_polar_ice_labels_are_the_polygons_around_them(source, tmp_path, form):
    import geopandas
    import shapely

    parameters = {} if form == "maps" else {"form": form, "quota": 8}
    products = source("polar-ice", 4, 320)
    folder = made_from("polar-ice", products, tmp_path, **parameters)
    manifest = sound(folder, "polar-ice" if form == "maps" else "polar-ice-random")
    names = {c.id: c.name for c in manifest.task.classes}
    assert sorted(names.values()) == ["ice", "land", "water"]
    charts = {path.stem.rsplit("_", 1)[1]: geopandas.read_file(path).to_crs(3413) for path in products.glob("*.shp")}
    array, checked = ("mask" if form == "maps" else "label"), {name: [] for name in names.values()}
    for split in (s.name for s in manifest.splits):
        for shard in open_split(folder, split)[1]:
            for i, chip in enumerate(shard.chip_ids):
                chart = charts[chip.split("_")[0].lower()]
                label, image = shard.read(array, i), shard.read("image", i)
                side, transform = image.shape[-1], shard.transform[i]
                for row, column in [(side // 2, side // 2)] if form != "maps" else np.ndindex(side // 16, side // 16):
                    row, column = (row, column) if form != "maps" else (16 * row + 8, 16 * column + 8)
                    code = int(label if form != "maps" else label[row, column])
                    if code == 255:
                        continue
                    at = 0.5 if form == "maps" else 0.0  # a patch of an even side has its centre between pixels
                    x, y = transform[2] + (column + at) * transform[0], transform[5] + (row + at) * transform[4]
                    around = chart[chart.geometry.buffer(40).contains(shapely.Point(x, y))]
                    assert names[code][0].upper() in set(around.poly_type), (chip, row, column)
                    checked[names[code]].append(np.median(image[0, row - 8 : row + 8, column - 8 : column + 8]))
    assert all(len(values) >= 8 for values in checked.values()), checked
    # HH in 8 bits: water darkest, land brightest
    assert np.median(checked["water"]) < np.median(checked["ice"]) < np.median(checked["land"])
