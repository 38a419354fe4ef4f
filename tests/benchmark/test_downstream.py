"""Downstream tables: counted by hand, on farmland whose truth is known, and better for a better image."""

from __future__ import annotations

import json

import numpy as np
import pytest
import rasterio
from tidemark.benchmark import downstream as tables
from tidemark.benchmark import reflectance as reflectance_metrics
from tidemark.benchmark.downstream import Location, Settings
from tidemark.benchmark.downstream_run import downstream, read_location, read_parcels, read_series
from tidemark.benchmark.uncertainty import Estimate
from tidemark.datasets.simulate import l8s2_series
from tidemark.datasets.simulate.world import CROPS, SOIL
from tidemark.errors import InputError
from tidemark.models.l8_models import open_model
from tidemark.models.parcels import find_parcels, train_parcels

SMALL = Settings(size=96, train=1, test=2, dates=3, steps=2, seeds=(0,))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(l8s2_series, "DRAWS", 1)
        out = tmp_path_factory.mktemp("downstream")
        return downstream(out, [], SMALL)


def reflectance(ndvi):
    """Six bands of which red and nir have this NDVI, their sum 0.5."""
    ndvi = np.asarray(ndvi, np.float32)
    bands = np.full((*ndvi.shape[:-2], 6, *ndvi.shape[-2:]), 0.1, np.float32)
    bands[..., tables.NIR, :, :], bands[..., tables.RED, :, :] = 0.25 * (1 + ndvi), 0.25 * (1 - ndvi)
    return bands


def test_a_series_in_turns_is_measured_against_the_line_between_its_neighbours():
    season = np.array([0.2, 0.4, 0.6, 0.8])[:, None, None] * np.ones((4, 20, 20))  # straight: no noise of its own
    s2 = reflectance(season)
    location = Location(s2, {"same": s2, "low": reflectance(season - 0.1)}, np.zeros((20, 20), np.uint8))
    assert tables.series_noise(tables.series_sums(location, "same")) == pytest.approx(0, abs=1e-6)
    assert tables.series_noise(tables.series_sums(location, "low")) == pytest.approx(0.1, abs=1e-6)
    assert tables.series_noise(tables.series_sums(location, tables.SENTINEL2)) == pytest.approx(0, abs=1e-6)
    bumpy = reflectance(season + np.array([0, 0.12, 0, 0])[:, None, None])
    noise = np.sqrt(np.mean(np.square([0.12, 0, 0, 0.06])))  # Landsat's days in the middle, then Sentinel-2's
    sums = tables.series_sums(Location(s2, {"bumpy": bumpy}, location.parcels), "bumpy")
    assert tables.series_noise(sums) == pytest.approx(noise, abs=1e-6)


def test_the_sums_of_a_day_are_those_of_the_protocol():
    rng = np.random.default_rng(0)
    s2, l8 = rng.uniform(0, 0.4, (2, 2, 6, 40, 40)).astype(np.float32)
    s2[0, :, 20:, :] = 0.004  # too dark
    border = np.s_[..., reflectance_metrics.BORDER_PX : -reflectance_metrics.BORDER_PX]
    inner = [x[border].swapaxes(-1, -2)[border].swapaxes(-1, -2) for x in (s2, l8)]
    whole = sum(
        reflectance_metrics.chip_sums(t, p, np.ones((40, 40), bool), {"ndvi": (tables.NIR, tables.RED)})["ndvi"]
        for t, p in zip(s2, l8, strict=True)
    )
    own = tables.same_day_sums(Location(inner[0], {"l8": inner[1]}, np.zeros((24, 24))), "l8")
    np.testing.assert_allclose(own, whole, rtol=1e-6)


def test_dark_pixels_do_not_count():
    s2 = reflectance(np.full((3, 20, 20), 0.5))
    s2[1, :, 4:7, 4:7] = 0.001
    sums = tables.series_sums(Location(s2, {"l8": s2}, np.zeros((20, 20))), "l8")
    assert sums[0] == 2 * (400 - 9)


def test_parcels_are_counted_by_hand():
    truth, found = np.zeros((2, 12, 12), np.uint8)
    truth[2:6, 2:6], found[2:6, 3:7] = 1, 1
    counts = tables.parcel_counts(truth, found)
    assert counts[:3].tolist() == [12, 4, 4] and tables.parcel_iou(counts) == pytest.approx(12 / 20)
    assert tables.parcel_boundary(counts) == 1  # all within two pixels


def test_the_gain_is_the_difference_of_the_scores_and_its_interval_is_paired():
    rng = np.random.default_rng(0)
    base = rng.integers(50, 100, (2, 10, 7)).astype(float)
    better = base + np.array([20, -10, -10, 0, 0, 0, 0])
    found = tables.score({"same_day": {}, "series": {}, "parcels": {"bicubic": base, "net": better}})
    own = found["net"]
    assert own["parcel_iou_gain"].mean == pytest.approx(own["parcel_iou"].mean - found["bicubic"]["parcel_iou"].mean)
    width = own["parcel_iou"].high - own["parcel_iou"].low
    assert 0 < own["parcel_iou_gain"].high - own["parcel_iou_gain"].low < width
    assert "net" in tables.as_markdown(found)


def test_a_figure_that_is_not_defined_is_null():
    found = {"bicubic": {"ndvi_r": Estimate(np.array([np.nan])), "ndvi_rmse": Estimate(np.array([0.25, np.nan]))}}
    written = json.loads(tables.as_json(found, SMALL, {}), parse_constant=pytest.fail)["rows"]["bicubic"]
    assert written["ndvi_r"] == {"mean": None, "sd": None, "low": None, "high": None, "seeds": [None]}
    assert written["ndvi_rmse"] == {"mean": None, "sd": None, "low": None, "high": None, "seeds": [0.25, None]}


def test_the_inside_of_a_parcel_keeps_ten_metres_from_its_edge():
    size = 40
    cover = np.full((size, size), SOIL, np.uint8)
    cover[4:36, 4:36] = CROPS
    field = np.where(np.arange(size) < 20, 0.25, 0.75).astype(np.float32) * np.ones((size, 1), np.float32)
    ground = type("World", (), {"cover": cover, "field": field})
    inside = np.zeros((size, size), bool)
    inside[6:34, 6:18] = inside[6:34, 22:34] = True
    np.testing.assert_array_equal(l8s2_series.parcels(ground), inside)


def test_crops_grow_and_ripen_each_in_its_time(run):
    world = l8s2_series.make_world(np.random.default_rng(1), 64, 5.0, "plain", 0.01)
    season = [l8s2_series.on_day(world, day, 0.0) for day in range(0, 110, 5)]
    vigour = np.stack([w.field for w in season])
    assert (vigour.max(0) > 0.9 * world.field).all() and (vigour <= world.field).all()
    assert all((w.cover == world.cover).all() for w in season)


def test_the_command_makes_three_tables_from_landsats_own_products(run):
    found = json.loads(run.with_suffix(".json").read_text())
    assert set(found["rows"]) == {"nearest", "bilinear", "bicubic", "Sentinel-2"}
    rows = found["rows"]
    assert rows["bicubic"]["ndvi_r"]["mean"] > rows["nearest"]["ndvi_r"]["mean"] > 0.7
    assert rows["Sentinel-2"]["series_noise"]["mean"] < rows["bicubic"]["series_noise"]["mean"]
    assert rows["nearest"]["ndvi_r_gain"]["mean"] < 0 and "bicubic" in run.read_text()
    assert found["settings"]["test"] == 2


def test_landsat_is_cut_to_what_sentinel_2_saw(run):
    folder = sorted((run.parent / "products").glob("*l8-s2-*"))[0]
    models = {"bicubic": (open_model([], "bicubic", device="cpu"), False)}
    location = read_location(folder, run.parent / "again", models)
    assert location.s2.shape == location.l8["bicubic"].shape == (3, 6, 96, 96)
    assert location.parcels.shape == (96, 96)
    nir = [x[:, 3].ravel() for x in (location.s2, location.l8["bicubic"])]
    moved = np.roll(location.l8["bicubic"][:, 3], 3, 2).ravel()
    assert np.corrcoef(*nir)[0, 1] > np.corrcoef(nir[0], moved)[0, 1] + 0.05
    with rasterio.open(next(folder.glob("*/GRANULE/*/IMG_DATA/R10m/*_B04_*"))) as file:
        surface = next(iter(read_series(folder)))
        assert surface.grid.transform == tuple(file.transform)[:6]
        np.testing.assert_allclose(surface.image[2], (file.read(1).astype(float) - 1000).clip(0) / 1e4, atol=1e-6)


def test_a_weights_option_without_a_label_is_refused(tmp_path):
    for given in ("runs/x", "bicubic=runs/x", "=runs/x"):
        with pytest.raises(InputError, match="LABEL=FOLDER"):
            downstream(tmp_path, [given], SMALL)


def test_the_parcel_network_learns_and_repeats_itself(run):
    folder = sorted((run.parent / "products").glob("*-s2-*"))[0]
    mask = np.zeros((96, 96), np.uint8)
    mask[:, 20:60] = 1
    image = np.repeat(mask[None].astype(np.float32) * 0.3, 6, 0)
    image += np.random.default_rng(0).normal(0, 0.05, image.shape).astype(np.float32)
    nets = [train_parcels([image], [mask], seed, 4) for seed in (0, 0, 1)]
    weights = [net.head.weight.detach().numpy() for net in nets]
    np.testing.assert_array_equal(weights[0], weights[1])
    assert np.abs(weights[0] - weights[2]).max() > 1e-3
    assert (find_parcels(train_parcels([image], [mask], 0, 25), image) == mask).mean() > 0.9
    assert find_parcels(nets[0], image[:, :77, :81]).shape == (77, 81)
    assert read_parcels(folder).shape == (96, 96)
