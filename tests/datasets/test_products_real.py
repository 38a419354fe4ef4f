"""Simulated products against real files of the same kind: codes, ranges, grids and the relations between bands."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from tidemark.datasets import raster
from tidemark.datasets.simulate import dswe, landsat8, polar
from tidemark.datasets.simulate.products import simulate_product

DATA = Path(os.environ.get("TIDEMARK_DATA", Path(__file__).parents[3] / "shared" / "data"))


def needs(name):
    reason = f"no {name} in {DATA} (TIDEMARK_DATA names another folder)"
    return pytest.mark.skipif(not (DATA / name).exists(), reason=reason)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """Two scenes of each product, made when asked for."""
    root = tmp_path_factory.mktemp("products")

    def folder(name, size, scenes=2):
        path = root / name
        if not path.exists():
            simulate_product(name, path, seed=11, scenes=scenes, size=size)
        return path

    return folder


def read(path, *bands):
    with raster.open_raster(path) as dataset:
        return dataset.read(list(bands) or None)


@needs("hls-dswx")
def test_dswe_tests_and_codes_are_those_of_a_real_product():
    """PROTEUS 0.1 made these layers, with 0.0124 as the limit of the first test."""
    bands = [
        next((DATA / "hls-dswx" / "input_dir").glob(f"*.{b}.tif")) for b in ("B02", "B03", "B04", "B8A", "B11", "B12")
    ]
    image = np.concatenate([read(path) for path in bands]).astype(np.float64)
    valid = (image > -9000).all(0)
    found = dswe.diagnostic_tests(image * 1e-4, wetness_limit=0.0124)
    diagnostic, water = (
        read(next((DATA / "hls-dswx" / "ref_dir").glob(f"*_{layer}.tif")))[0] for layer in ("DIAG", "WTR-1")
    )
    assert (found == diagnostic)[valid].mean() > 0.9999  # ties with a limit are decided by rounding
    np.testing.assert_array_equal(dswe.INTERPRETATION[diagnostic][valid], water[valid])


@needs("hls-dswx")
def test_simulated_dswe_has_the_codes_of_a_real_one(simulated):
    real = set(np.unique(read(next((DATA / "hls-dswx" / "ref_dir").glob("*_B01_WTR.tif")))).tolist())
    codes = [read(path) for path in simulated("alos-dswe", 192).glob("dswe/*/*.TIF")]
    assert set(np.unique(np.concatenate([c.ravel() for c in codes])).tolist()) == real | {4, 9, 255}


LANDSAT = sorted((DATA / "landsat8-pan" / "L8").glob("*.tif"))


def landsat_bands(folder):
    """[(six SR bands as DN, QA, pan DN, sun elevation)] of simulated scenes."""
    import json

    scenes = []
    for level2 in sorted(folder.glob("LC08_L2SP_*")):
        level1 = level2.with_name(level2.name.replace("L2SP", "L1TP"))
        bands = np.concatenate([read(level2 / f"{level2.name}_SR_B{b}.TIF") for b in range(2, 8)])
        facts = json.loads((level1 / f"{level1.name}_MTL.json").read_text())["LANDSAT_METADATA_FILE"]
        elevation = float(facts["IMAGE_ATTRIBUTES"]["SUN_ELEVATION"])
        qa = read(level2 / f"{level2.name}_QA_PIXEL.TIF")[0]
        scenes.append((bands, qa, read(level1 / f"{level1.name}_B8.TIF")[0], elevation))
    return scenes


@needs("landsat8-pan")
def test_landsat_numbers_lie_where_real_ones_do(simulated):
    """Medians of all six bands within the real ones' 2nd to 98th percentile, widened by 0.08 reflectance."""
    real = np.stack([np.percentile(read(path)[:6].reshape(6, -1), (2, 98), axis=1) for path in LANDSAT])
    low, high = real.min(0)[0] - 0.08 / 2.75e-5, real.max(0)[1] + 0.08 / 2.75e-5
    for bands, qa, pan, _ in landsat_bands(simulated("l8s2", 256)):
        clear = (qa & 0b111111) == 0
        medians = np.median(bands[:, clear], axis=1)
        assert (low < medians).all() and (medians < high).all(), (low, medians, high)
        assert 7000 < np.median(pan) < 14_000  # real: 10 171 to 11 476


@needs("landsat8-pan")
def test_quality_codes_are_real_ones(simulated):
    real = set(np.unique(np.concatenate([read(path, 7).ravel() for path in LANDSAT])).astype(int).tolist())
    assert real == {landsat8.QA_CLEAR, landsat8.QA_WATER, landsat8.QA_DILATED, landsat8.QA_CLOUD}
    found = set(np.unique(np.stack([qa for _, qa, _, _ in landsat_bands(simulated("l8s2", 256))])).tolist())
    # shadow and fill do not occur in the real crops
    assert {landsat8.QA_CLEAR, landsat8.QA_WATER} <= found <= real | {landsat8.QA_SHADOW, landsat8.QA_FILL}


def pan_relation(green, red, pan, elevation):
    """Slope, offset and correlation of top-of-atmosphere pan reflectance over the mean of the visible bands."""
    toa = (pan * 2e-5 - 0.1) / np.sin(np.deg2rad(elevation))
    surface = (landsat8.PAN_GREEN * green + landsat8.PAN_RED * red).ravel()
    slope, offset = np.polyfit(surface, toa.ravel(), 1)
    return slope, offset, np.corrcoef(surface, toa.ravel())[0, 1]


@needs("landsat8-pan")
def test_pan_relates_to_the_visible_bands_as_in_real_scenes(simulated):
    """Real pan grids start 22.5 m inside the real 30 m crops, the half pixels undone that both are said to lie off.

    So 2 x 2 blocks from half a pixel on cover inner pixels.
    """
    import json

    real = []
    for path in LANDSAT:
        date = path.name.split("_")[3]
        pan = read(next((DATA / "landsat8-pan" / "L8_pan").glob(f"*{date}*")))[0]
        facts = json.loads(next((DATA / "landsat8-pan" / "mtl").glob(f"*{date}*")).read_text())["LANDSAT_METADATA_FILE"]
        bands = read(path)[:6] * 2.75e-5 - 0.2
        halfway = (pan[:-1, :-1] + pan[:-1, 1:] + pan[1:, :-1] + pan[1:, 1:]) / 4
        blocks = halfway[:350, :346].reshape(175, 2, 173, 2).mean((1, 3))
        inner = bands[:, 1:176, 1:174]
        real.append(pan_relation(inner[1], inner[2], blocks, float(facts["IMAGE_ATTRIBUTES"]["SUN_ELEVATION"])))
    found = []
    for bands, _, pan, elevation in landsat_bands(simulated("l8s2", 256)):
        rho = bands * 2.75e-5 - 0.2
        # the same centre of the first pixels: pan columns 1 to 2 lie half in the first and half in the second pixel
        at_30m = pan[::2, ::2]
        found.append(pan_relation(rho[1], rho[2], at_30m, elevation))
    real, found = np.array(real), np.array(found)
    assert (found[:, 2] > 0.9).all() and (real[:, 2] > 0.97).all()
    np.testing.assert_allclose(found[:, 0].mean(), real[:, 0].mean(), rtol=0.25)
    np.testing.assert_allclose(found[:, 1].mean(), real[:, 1].mean(), atol=0.03)


@needs("landsat8-sentinel2-pair")
def test_landsat_and_sentinel_2_agree_as_much_as_a_real_pair(simulated):
    """Block-averaged correlation of red, green and blue: 0.96, 0.95 and 0.91 in the real pair, ten days apart."""
    import rasterio
    from rasterio.vrt import WarpedVRT

    correlation = []
    folder = simulated("l8s2", 256)
    for safe in sorted(folder.glob("*.SAFE")):
        day = safe.name[11:19]
        level2 = min(folder.glob("LC08_L2SP_*"), key=lambda p: abs(int(p.name[17:25]) - int(day)))
        with rasterio.open(level2 / f"{level2.name}_QA_PIXEL.TIF") as dataset:
            qa, grid = dataset.read(1), dict(crs=dataset.crs, transform=dataset.transform)
            grid |= dict(width=dataset.width, height=dataset.height)
        for name, number in (("B04", 4), ("B03", 3), ("B02", 2)):
            landsat = read(level2 / f"{level2.name}_SR_B{number}.TIF")[0]
            with rasterio.open(next(safe.glob(f"GRANULE/*/IMG_DATA/R10m/*_{name}_10m.jp2"))) as dataset:
                with WarpedVRT(dataset, **grid, resampling=rasterio.enums.Resampling.average, nodata=0) as view:
                    sentinel = view.read(1)
            scl = next(safe.glob("GRANULE/*/IMG_DATA/R20m/*_SCL_20m.jp2"))
            with rasterio.open(scl) as dataset, WarpedVRT(dataset, **grid) as view:
                usable = np.isin(view.read(1), (4, 5, 6)) & ((qa & 0b111111) == 0) & (sentinel > 0)
            correlation.append(np.corrcoef(landsat[usable], sentinel[usable])[0, 1])
    assert 0.85 < np.mean(correlation) < 0.995, correlation


def real_backscatter():
    """[(name, image in dB, water, land)] of real Sentinel-1 chips."""
    chips = []
    label = read(DATA / "sen1floods11" / "Spain_7370579_LabelHand.tif")[0]
    chips.append((read(DATA / "sen1floods11" / "Spain_7370579_S1Hand.tif"), label == 1, label == 0))
    for path in sorted((DATA / "terramesh" / "S1RTC").glob("*.tif")):
        cover = read(DATA / "terramesh" / "LULC" / path.name)[0]
        water = (cover == 1) & (path.stem == "282D_485L_3_3")
        chips.append((read(path), water, np.isin(cover, (2, 3, 4, 5))))
    return chips


@needs("sen1floods11")
@needs("terramesh")
def test_sentinel_1_levels_lie_where_real_ones_do(simulated):
    """Medians of water and of land in dB within the range of the real chips, widened by 4 dB; all values plausible."""
    import geopandas
    from rasterio import features

    folder = simulated("tibet-water", 256, 4)
    for band in range(2):
        for what in (1, 2):
            real = [np.nanmedian(chip[0][band][chip[what]]) for chip in real_backscatter() if chip[what].sum() > 2000]
            found = []
            for path in sorted(folder.glob("s1_*cend/*.tif")):
                with raster.open_raster(path) as dataset:
                    image, transform = dataset.read(), dataset.transform
                truth = geopandas.read_file(folder / "s1_truth" / f"{path.name[:7]}_truth.gpkg").geometry
                water = features.rasterize(truth, image.shape[1:], transform=transform) == 1
                where = (water if what == 1 else ~water) & (image[0] != 0)
                if where.sum() > 500:
                    found.append(np.median(image[band][where]))
            assert min(real) - 4 < np.median(found) < max(real) + 4, (band, what, real, found)
    everything = np.concatenate([chip[0][np.isfinite(chip[0])] for chip in real_backscatter()])
    values = np.concatenate([read(path).ravel() for path in folder.glob("s1_*cend/*.tif")])
    assert everything.min() < values.min() and values.max() < everything.max()  # -47 to 26 dB


@needs("polar-patch.zip")
def test_sea_ice_levels_are_those_of_real_patches(simulated):
    """Medians of HH and HV in 8 bits by class: within a factor of two of the repaired real patches' medians."""
    import csv

    import geopandas
    from PIL import Image
    from rasterio import features

    with open(DATA / "polar-audit" / "derived_relabel.csv") as opened:
        labels = {row["id"]: row["relabel"] for row in csv.DictReader(opened)}
    real = {"W": [], "I": [], "L": []}
    with zipfile.ZipFile(DATA / "polar-patch.zip") as archive:
        for number in range(0, 10_000, 11):
            if labels.get(str(number)) in real:
                patch = np.asarray(
                    Image.open(io.BytesIO(archive.read(f"polar-patch/images/{number}.png"))).convert("RGB")
                )
                real[labels[str(number)]].append((np.median(patch[..., 2]), np.median(patch[..., 1])))
    found = {"W": [], "I": [], "L": []}
    folder = simulated("polar-ice", 320, 6)
    for path in sorted(folder.glob("*.tif")):
        with raster.open_raster(path) as dataset:
            image, transform, crs = dataset.read(), dataset.transform, dataset.crs
        chart = next(folder.glob(f"*{path.name[17:32].lower()}.shp"))
        frame = geopandas.read_file(chart).to_crs(crs)
        for kind, part in frame.groupby("poly_type"):
            inside = features.rasterize(part.geometry, image.shape[1:], transform=transform) == 1
            inside &= (image[:2] > 0).any(0)
            if inside.sum() > 1000:
                found[kind].append((np.median(image[0][inside]), np.median(image[1][inside])))
    for kind, patches in real.items():
        ratio = np.median(found[kind], 0) / np.median(patches, 0)
        assert ((0.5 < ratio) & (ratio < 2)).all(), (kind, np.median(patches, 0), np.median(found[kind], 0))
    assert polar.STRETCH == 360
