import json
import socket
import subprocess
import sys

import geopandas
import numpy as np
import pytest
import rasterio
import rasterio.shutil
import shapely
from rasterio import features
from rasterio.transform import from_origin
from tidemark.datasets import polygons, raster
from tidemark.errors import InputError, SceneError

UTM = "EPSG:32633"
ORIGIN = from_origin(500_000, 5_000_000, 10, 10)


def write(path, array, crs=UTM, transform=ORIGIN, driver="GTiff", **options):
    array = np.asarray(array)
    array = array[None] if array.ndim == 2 else array
    profile = dict(driver=driver, height=array.shape[1], width=array.shape[2], count=len(array), dtype=array.dtype)
    if driver == "GTiff":
        profile |= dict(crs=crs, transform=transform)
    with rasterio.open(path, "w", **profile, **options) as dataset:
        dataset.write(array)
    return path


@pytest.fixture
def no_sockets(monkeypatch):
    def refuse(*arguments, **keywords):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)


@pytest.mark.parametrize(
    "path",
    [
        "http://127.0.0.1:9/a.tif",
        "https://example.org/a.tif",
        "s3://bucket/a.tif",
        "/vsicurl/http://127.0.0.1:9/a.tif",
        "/vsizip/a.zip/a.tif",
        "/vsimem/a.tif",
        "missing.tif",
    ],
)
def test_what_is_no_local_file_is_refused(path, no_sockets):
    with pytest.raises(InputError) as caught:
        with raster.open_raster(path):
            pass
    assert not isinstance(caught.value, SceneError) and path in str(caught.value)


def test_a_virtual_file_that_exists_in_gdal_is_refused():
    with rasterio.MemoryFile() as memory:
        with memory.open(driver="GTiff", height=1, width=1, count=1, dtype="uint8") as dataset:
            dataset.write(np.ones((1, 1, 1), np.uint8))
        with pytest.raises(InputError, match="virtual"):
            with raster.open_raster(memory.name):
                pass


def test_a_vrt_named_tif_is_refused(tmp_path):
    target = write(tmp_path / "secret.tif", np.ones((4, 4), np.uint8))
    with rasterio.open(target) as dataset:
        rasterio.shutil.copy(dataset, tmp_path / "innocent.vrt", driver="VRT")
    (tmp_path / "innocent.vrt").rename(tmp_path / "innocent.tif")
    with rasterio.open(tmp_path / "innocent.tif") as dataset:  # GDAL itself would follow it
        assert dataset.driver == "VRT"
    with pytest.raises(SceneError, match="not a GTiff"):
        with raster.open_raster(tmp_path / "innocent.tif"):
            pass


def test_a_vrt_with_a_url_opens_no_socket(tmp_path):
    """In a process whose sockets are watched below Python: GDAL's own would not be seen by a patched module."""
    (tmp_path / "a.tif").write_text(
        '<VRTDataset rasterXSize="4" rasterYSize="4"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        "<SourceFilename>/vsicurl/http://127.0.0.1:{port}/a.tif</SourceFilename></SimpleSource></VRTRasterBand>"
        "</VRTDataset>"
    )
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        server.settimeout(0.2)
        text = (tmp_path / "a.tif").read_text().format(port=server.getsockname()[1])
        (tmp_path / "a.tif").write_text(text)
        code = (
            "import sys\nfrom tidemark.datasets.raster import open_raster\nfrom tidemark.errors import InputError\n"
            "for path in sys.argv[1:]:\n"
            "    try:\n        open_raster(path).__enter__()\n        sys.exit('opened ' + path)\n"
            "    except InputError:\n        pass\n"
        )
        url = f"/vsicurl/http://127.0.0.1:{server.getsockname()[1]}/a.tif"
        subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.tif"), url, url[9:]], check=True)
        with pytest.raises(TimeoutError):
            server.accept()


def test_only_the_allowed_formats_open(tmp_path):
    png = write(tmp_path / "a.png", np.ones((4, 4), np.uint8), driver="PNG")
    with pytest.raises(SceneError, match="not a GTiff"):
        with raster.open_raster(png):
            pass
    with raster.open_raster(png, ("GTiff", "PNG")) as dataset:
        assert dataset.driver == "PNG"
        assert raster.grid_of(dataset) == raster.Grid(4, 4, None, None)


def test_sidecars_change_nothing(tmp_path):
    path = write(tmp_path / "a.tif", np.ones((4, 4), np.uint8), crs=None, transform=None)
    (tmp_path / "a.tif.aux.xml").write_text("<PAMDataset><SRS>EPSG:4326</SRS></PAMDataset>")
    (tmp_path / "a.tfw").write_text("10\n0\n0\n-10\n5\n5\n")
    with raster.open_raster(path) as dataset:
        assert raster.grid_of(dataset) == raster.Grid(4, 4, None, None)
        with pytest.raises(SceneError, match="coordinate reference system"):
            raster.check_georeferenced(dataset)


@pytest.mark.parametrize(
    "transform", [rasterio.Affine(7, 7, 0, 7, -7, 0), rasterio.Affine(10, 0, 0, 0, 10, 0), rasterio.Affine.identity()]
)
def test_rotated_and_flipped_transforms_are_refused(tmp_path, transform):
    path = write(tmp_path / "a.tif", np.ones((4, 4), np.uint8), transform=transform)
    with raster.open_raster(path) as dataset, pytest.raises(SceneError, match="geotransform"):
        raster.check_georeferenced(dataset)


@pytest.mark.parametrize(
    ("label", "found"),
    [
        (dict(shape=(4, 5)), "4x5"),
        (dict(transform=from_origin(500_005, 5_000_000, 10, 10)), "0.5 pixels"),
        (dict(transform=from_origin(500_000, 5_000_000, 20, 20)), "4 pixels"),
        (dict(transform=rasterio.Affine(10, 0, 500_000, 0, 10, 4_999_960)), "4 pixels"),
        (dict(transform=rasterio.Affine(0, 10, 500_000, -10, 0, 5_000_000)), "4 pixels"),
        (dict(crs="EPSG:32634"), "EPSG:32634"),
        (dict(crs=None, transform=None), "not georeferenced"),
    ],
)
def test_a_label_off_the_grid_is_named(tmp_path, label, found):
    shape = label.pop("shape", (4, 4))
    path = write(tmp_path / "label.tif", np.ones(shape, np.uint8), **label)
    image = write(tmp_path / "image.tif", np.ones((4, 4), np.uint8))
    with raster.open_raster(image) as dataset:
        grid = raster.check_georeferenced(dataset)
        raster.check_same_grid(dataset, grid)
    with raster.open_raster(path) as dataset, pytest.raises(SceneError, match=found) as caught:
        raster.check_same_grid(dataset, grid)
    assert "label.tif" in str(caught.value)


def test_rounding_of_the_origin_is_no_fault(tmp_path):
    image = write(tmp_path / "a.tif", np.ones((4, 4), np.uint8), "EPSG:4326", from_origin(-0.78, 38.1, 9e-5, 9e-5))
    label = write(
        tmp_path / "b.tif", np.ones((4, 4), np.uint8), "EPSG:4326", from_origin(-0.78, 38.1, 9e-5 + 1e-17, 9e-5 - 1e-17)
    )
    with raster.open_raster(image) as dataset:
        grid = raster.grid_of(dataset)
    with raster.open_raster(label) as dataset:
        raster.check_same_grid(dataset, grid)


def test_a_wrong_dtype_says_expected_and_found(tmp_path):
    path = write(tmp_path / "a.tif", np.ones((4, 4), np.uint16))
    with raster.open_raster(path) as dataset:
        raster.check_bands(dataset, "uint16", [1])
        with pytest.raises(SceneError, match="expected dtype int16, found uint16"):
            raster.check_bands(dataset, "int16", [1])
        with pytest.raises(SceneError, match="at least 2 bands, found 1"):
            raster.check_bands(dataset, "uint16", [1, 2])


@pytest.mark.parametrize("num_threads", [1, 2])
def test_a_corrupt_tile_names_the_file_and_spares_the_others(tmp_path, num_threads):
    values = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    path = write(tmp_path / "a.tif", values, tiled=True, blockxsize=32, blockysize=32, compress="deflate")
    with rasterio.open(path) as dataset:
        offset = int(dataset.tags(1, ns="TIFF").get("BLOCK_OFFSET_1_1", 0)) or int(
            dataset.get_tag_item("BLOCK_OFFSET_1_1", "TIFF", bidx=1)
        )
    data = bytearray(path.read_bytes())
    data[offset : offset + 64] = b"\xff" * 64
    path.write_bytes(data)
    with raster.open_raster(path, num_threads=num_threads) as dataset:
        np.testing.assert_array_equal(raster.read_window(dataset, (0, 0, 32, 64), [1])[0], values[:32])
        with pytest.raises(SceneError, match=r"a\.tif.*rows 0-63"):
            raster.read_window(dataset, (0, 0, 64, 64), [1])


def test_a_truncated_file_is_a_scene_error(tmp_path):
    path = write(tmp_path / "a.tif", np.random.default_rng(0).random((64, 64)))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(SceneError, match=r"a\.tif"):
        with raster.open_raster(path) as dataset:
            raster.read_window(dataset, (0, 0, 64, 64), [1])


def test_windows_beyond_the_edge_are_filled(tmp_path):
    values = np.arange(2 * 5 * 7, dtype=np.int16).reshape(2, 5, 7)
    path = write(tmp_path / "a.tif", values)
    with raster.open_raster(path) as dataset:
        found = raster.read_window(dataset, (-1, 4, 4, 4), [2, 1], fill=[-5, -6])
        assert found.dtype == np.int16
        np.testing.assert_array_equal(found[:, 1:, :3], values[[1, 0], 0:3, 4:])
        assert (found[0, 0] == -5).all() and (found[1, 0] == -6).all() and (found[0, :, 3] == -5).all()
        assert (raster.read_window(dataset, (9, 9, 2, 2), [1], fill=3) == 3).all()


def test_tiles_cover_every_pixel_once():
    covered = np.zeros((10, 7), int)
    for row, column, height, width in raster.tiles(10, 7, 4):
        assert height == width == 4
        covered[row : row + height, column : column + width] += 1
    assert (covered == 1).all()


def test_window_transform_and_bounds_follow_the_grid():
    grid = raster.Grid(100, 200, (10, 0, 500_000, 0, -10, 5_000_000), rasterio.CRS.from_epsg(32633).to_wkt())
    assert grid.window_transform((3, 5, 10, 10)) == (10, 0, 500_050, 0, -10, 4_999_970)
    assert grid.bounds((3, 5, 10, 20)) == (500_050, 4_999_870, 500_250, 4_999_970)
    west, south, east, north = raster.wgs84_bounds(grid)
    assert west == pytest.approx(15, abs=1e-4) and 45.1 < south < north < 45.2 and east > 15.02
    assert raster.wgs84_bounds(raster.Grid(1, 1)) is None
    engineering = 'LOCAL_CS["site",UNIT["metre",1],AXIS["Easting",EAST],AXIS["Northing",NORTH]]'
    assert raster.wgs84_bounds(raster.Grid(4, 4, (10, 0, 0, 0, -10, 0), engineering)) is None


GRID = raster.Grid(60, 50, (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0), rasterio.CRS.from_epsg(32633).to_wkt())


def vectorise(mask):
    shapes = features.shapes(mask.astype(np.uint8), mask=mask, transform=rasterio.Affine(*GRID.transform))
    return [shapely.geometry.shape(geometry) for geometry, _ in shapes]


@pytest.fixture(scope="module")
def water():
    rng = np.random.default_rng(1)
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(rng.standard_normal((60, 50)), 2) > 0.02


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".shp"])
def test_polygons_window_by_window_give_the_mask_they_came_from(tmp_path, water, suffix):
    path = tmp_path / f"water{suffix}"
    frame = geopandas.GeoDataFrame(geometry=vectorise(water), crs=UTM)
    if suffix == ".geojson":
        path.write_text(json.dumps({**json.loads(frame.to_json()), "crs": {"properties": {"name": UTM}}}))
    else:
        frame.to_file(path)
    found = np.zeros((64, 64), np.uint8)
    layer = polygons.read_polygons(path, GRID, value=1)
    for row, column, height, width in raster.tiles(60, 50, 16):
        found[row : row + height, column : column + width] = layer.rasterise(GRID, (row, column, height, width))
    np.testing.assert_array_equal(found[:60, :50], water)
    assert not found[60:].any() and not found[:, 50:].any()


def test_polygons_are_reprojected(tmp_path):
    box = shapely.box(500_100, 4_999_700, 500_300, 4_999_900)
    frame = geopandas.GeoDataFrame(geometry=[box], crs=UTM).to_crs("EPSG:4326")
    (tmp_path / "water.geojson").write_text(frame.to_json())
    found = polygons.read_polygons(tmp_path / "water.geojson", GRID, value=1).rasterise(GRID, (0, 0, 60, 50))
    assert found.sum() == 400 and found[10:30, 10:30].all()


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".shp"])
def test_polygons_that_reach_around_the_earth_cover_the_scene(tmp_path, suffix):
    for name, world in {"box": shapely.box(-180, -90, 180, 90), "half": shapely.box(-75, -60, 105, 80)}.items():
        path = tmp_path / f"{name}{suffix}"
        geopandas.GeoDataFrame(geometry=[world], crs="EPSG:4326").to_file(path)
        assert polygons.read_polygons(path, GRID, value=1).rasterise(GRID, (0, 0, 60, 50)).all()


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".shp"])
def test_metres_called_degrees_are_refused(tmp_path, suffix):
    path = tmp_path / f"water{suffix}"
    box = shapely.box(500_100, 4_999_700, 500_300, 4_999_900)
    geopandas.GeoDataFrame(geometry=[box], crs="EPSG:4326").to_file(path)
    with pytest.raises(SceneError, match="water.*: coordinates beyond 360 degrees"):
        polygons.read_polygons(path, GRID, value=1)


def test_polygons_without_a_place_in_the_images_crs_are_a_scene_error(tmp_path, monkeypatch):
    def refuse(geometries):
        raise shapely.errors.GEOSException("side location conflict")

    geopandas.GeoDataFrame(geometry=[shapely.box(14, 45, 16, 46)], crs="EPSG:4326").to_file(tmp_path / "a.gpkg")
    monkeypatch.setattr(polygons, "_valid", refuse)
    with pytest.raises(SceneError, match="a.gpkg: .*no place in the image's CRS"):
        polygons.read_polygons(tmp_path / "a.gpkg", GRID, value=1)


@pytest.mark.parametrize("transform", [(10.0, 0.0, 5e5, 0.0, 10.0, 4_999_400.0), (0.0, 10.0, 5e5, -10.0, 0.0, 5e6)])
def test_polygons_on_an_image_that_is_not_north_up_are_refused(tmp_path, transform):
    geopandas.GeoDataFrame(geometry=[shapely.box(14, 45, 16, 46)], crs="EPSG:4326").to_file(tmp_path / "a.gpkg")
    with pytest.raises(SceneError, match="the image of .*a.gpkg: rotated or flipped"):
        polygons.read_polygons(tmp_path / "a.gpkg", raster.Grid(60, 60, transform, GRID.crs), value=1)


def test_polygons_of_two_classes_that_overlap_are_ignored_there(tmp_path):
    boxes = [shapely.box(500_000, 4_999_800, 500_200, 5_000_000), shapely.box(500_100, 4_999_800, 500_300, 5_000_000)]
    for order in (1, -1):
        path = tmp_path / f"order_{order > 0}.gpkg"
        frame = geopandas.GeoDataFrame({"kind": ["I", "W"][::order]}, geometry=boxes[::order], crs=UTM)
        frame.to_file(path)
        layer = polygons.read_polygons(path, GRID, attribute="kind", values={"I": 1, "W": 2})
        found = layer.rasterise(GRID, (0, 0, 60, 50), background=0)
        assert (found[:20, :10] == 1).all() and (found[:20, 10:20] == 255).all() and (found[:20, 20:30] == 2).all()
        assert not found[20:].any()


def test_a_self_crossing_polygon_is_repaired(tmp_path):
    bow = shapely.Polygon([(500_000, 5_000_000), (500_200, 4_999_800), (500_200, 5_000_000), (500_000, 4_999_800)])
    geopandas.GeoDataFrame(geometry=[bow], crs=UTM).to_file(tmp_path / "bow.gpkg")
    found = polygons.read_polygons(tmp_path / "bow.gpkg", GRID, value=1).rasterise(GRID, (0, 0, 20, 20))
    assert found[10, 2] and found[10, 18] and not found[2, 10] and not found[18, 10]


def test_faulty_polygons_say_what_is_wrong(tmp_path):
    def read(name, **keywords):
        return polygons.read_polygons(tmp_path / name, keywords.pop("grid", GRID), **({"value": 1} | keywords))

    box = shapely.box(500_100, 4_999_700, 500_300, 4_999_900)
    geopandas.GeoDataFrame({"kind": ["X"]}, geometry=[box], crs=UTM).to_file(tmp_path / "a.gpkg")
    geopandas.GeoDataFrame(geometry=[box.centroid], crs=UTM).to_file(tmp_path / "points.gpkg")
    with pytest.warns(UserWarning, match="crs"):
        geopandas.GeoDataFrame(geometry=[box]).to_file(tmp_path / "nocrs.gpkg")
    (tmp_path / "vrt.gpkg").write_text("<OGRVRTDataSource/>")
    (tmp_path / "stac.json").write_text('{"type": "FeatureCollection", "features": [{"assets": {"href": "http://x"}}]}')
    cases = [
        ("a.gpkg", dict(attribute="class"), "no attribute 'class', there is kind"),
        ("a.gpkg", dict(attribute="kind", values={"Y": 1}), "without a class: X"),
        ("a.gpkg", dict(layer="other"), "unreadable"),
        ("a.gpkg", dict(grid=raster.Grid(4, 4)), "georeferenced"),
        ("points.gpkg", {}, "found Point"),
        ("nocrs.gpkg", {}, "coordinate reference system"),
        ("vrt.gpkg", {}, "whatever its name says"),
        ("stac.json", {}, "not valid GeoJSON"),
    ]
    for name, keywords, message in cases:
        with pytest.raises(SceneError, match=message):
            read(name, **keywords)
    with pytest.raises(InputError):
        polygons.read_polygons("/vsicurl/http://127.0.0.1:9/a.gpkg", GRID, value=1)
