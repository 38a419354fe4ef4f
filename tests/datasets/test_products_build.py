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


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    monkeypatch.setattr(engine, "run_task", make_shard)


def made_from(name, root, scenes, size, seed=5, **parameters):
    """The data set that a builder makes of simulated products."""
    simulate_product(name, root / "source", seed=seed, scenes=scenes, size=size)
    return build(plan_data_set(name, root / "source", **parameters), builder_module(name), root / "data")


def sound(folder, name):
    """The manifest of a data set that is called simulated, verifies chip by chip and passes the audit."""
    manifest = load_manifest(folder)
    assert manifest.simulated and manifest.name == f"{name}-sim" and not manifest.skipped
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


def test_alos_dswe_labels_lie_on_the_simulated_water(tmp_path):
    folder = made_from("alos-dswe", tmp_path, scenes=3, size=540)
    manifest = sound(folder, "alos-dswe")
    bands = [band.name for band in manifest.array("image").bands]
    assert bands == ["hh", "hv", "red", "nir", "swir1", "swir2", "dem", "hand"]
    chips = chips_of(folder, "image", "mask")
    scenes = sorted({chip.rsplit("_", 2)[0] for chip in chips})
    assert len(scenes) == 3
    by_orbit = {path.name: path for path in (tmp_path / "source" / "alos").iterdir()}
    assert scenes == sorted(by_orbit)
    for index in range(3):
        _, world = alos_dswe.ground_of(5, index, 540)
        inside = slice(alos_dswe.MARGIN_PX, alos_dswe.MARGIN_PX + 512)
        water, hand = world.water[inside, inside], world.hand_m[inside, inside]
        matching = [
            (image, mask)
            for _, window, image, mask in chips.values()
            if window[:2] == (0, 0) and np.corrcoef(np.nan_to_num(image[7]).ravel(), hand.ravel())[0, 1] > 0.9
        ]
        (image, mask) = matching[0]
        # 30 m labels on 12.5 m pixels: the shore is known to a pixel, anywhere else they agree
        best = agreement(mask, water)
        assert best > 0.75
        moved = [agreement(np.roll(mask, shift, axis), water) for axis in (0, 1) for shift in (-3, 3)]
        assert best > max(moved)
        seen = image[0] != manifest.array("image").bands[0].nodata
        assert (mask[~seen] == 255).all() and 0.7 < seen.mean() < 0.95
        land = (mask == 0) & (hand > 1)
        assert np.median(image[1][mask == 1]) < np.median(image[1][land]) - 5  # HV in dB
        near_infrared = manifest.array("image").bands[3]
        reflectance = image[3] * near_infrared.scale + near_infrared.offset
        assert np.median(reflectance[mask == 1]) < 0.05 and 0.2 < np.median(reflectance[land]) < 0.5


def test_tibet_water_holds_both_orbits_and_the_drawn_water(tmp_path):
    folder = made_from("tibet-water", tmp_path, scenes=3, size=300)
    manifest = sound(folder, "tibet-water")
    assert {s.id: s.split for s in manifest.scenes} == {"scene01": "val", "scene08": "train", "scene09": "train"}
    import geopandas
    from rasterio import features
    from tidemark.datasets import raster

    chips = chips_of(folder, "image", "mask", "valid")
    assert len(chips) >= 3 * 3
    for scene in ("scene01", "scene08", "scene09"):
        with raster.open_raster(tmp_path / "source" / "s1_ascend" / f"{scene}_s1_as.tif") as dataset:
            ascending, transform = dataset.read(), dataset.transform
        truth = geopandas.read_file(tmp_path / "source" / "s1_truth" / f"{scene}_truth.gpkg").geometry
        water = features.rasterize(truth, ascending.shape[1:], transform=transform) == 1
        _, window, image, mask, valid = chips[f"{scene}_0_0"]
        np.testing.assert_array_equal(image[:2], ascending[:, :256, :256])
        np.testing.assert_array_equal(valid == 1, (image != 0).any(0))
        np.testing.assert_array_equal((mask == 1)[valid == 1], water[:256, :256][valid == 1])
