"""Windows of remote rasters: only the blocks that are needed, from the listed hosts only."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window
from tidemark.datasets.acquire.hosts import load_services
from tidemark.datasets.acquire.ranges import BLOCK, RangeFile, open_remote
from tidemark.datasets.acquire.session import Patience, open_session
from tidemark.errors import ArchiveError, InputError, SceneError

PIXELS = np.random.default_rng(0).integers(0, 255, (1500, 1500), np.uint8)


@pytest.fixture(scope="module")
def cog(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("cog") / "a.tif"
    profile = {"driver": "GTiff", "count": 1, "height": 1500, "width": 1500, "dtype": "uint8", "crs": "EPSG:5070",
               "transform": rasterio.Affine(30, 0, 0, 0, -30, 0), "tiled": True, "blockxsize": 256,
               "blockysize": 256}  # fmt: skip
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(PIXELS, 1)
    return path.read_bytes()


@pytest.fixture
def session(archive, write_config):
    services = load_services(write_config(usgs={"url": archive.url, "hosts": []}))
    return open_session(services, Patience(attempts=2, backoff_s=0.01))


def test_a_window_costs_its_blocks_and_not_the_file(archive, session, cog):
    with open_remote(archive.put("/a.tif", cog), session) as dataset:
        window = dataset.read(1, window=Window(700, 700, 200, 100))
    np.testing.assert_array_equal(window, PIXELS[700:800, 700:900])
    ranges = [range.removeprefix("bytes=").split("-") for range in archive.headers("/a.tif", "Range")]
    sent = sum(min(int(last), len(cog) - 1) - int(first) + 1 for first, last in ranges)
    assert sent < len(cog) / 2
    assert len(ranges) == len({tuple(r) for r in ranges})  # nothing twice


def test_reads_like_a_file(archive, session):
    data = np.random.default_rng(1).bytes(5 * BLOCK + 17)
    file = RangeFile(archive.put("/a.bin", data), session)
    assert file.size == len(data) and file.read(10) == data[:10]
    file.seek(-30, 2)
    assert file.tell() == len(data) - 30 and file.read() == data[-30:] and file.read(1) == b""
    file.seek(BLOCK - 5)
    assert file.read(3 * BLOCK) == data[BLOCK - 5 : 4 * BLOCK - 5]
    assert file.requests == 3


def test_a_file_that_changes_between_two_reads_is_refused(archive, session, cog):
    with pytest.raises(ArchiveError, match="changed while it was being read"):
        with open_remote(archive.put("/a.tif", cog), session) as dataset:
            archive.put("/a.tif", cog[:-1] + b"x")
            dataset.read(1)


def test_a_refusal_in_the_midst_of_reading_keeps_its_own_words(archive, session, cog):
    with pytest.raises(ArchiveError, match="403"):
        with open_remote(archive.put("/a.tif", cog), session) as dataset:
            archive.says("/a.tif", 403, times=50)
            dataset.read(1)


def test_a_redirect_to_another_host_is_refused_while_reading(archive, new_archive, session, cog):
    stranger = new_archive()
    archive.leads("/a.tif", stranger.put("/a.tif", cog))
    with pytest.raises(InputError, match="not on the list"):
        with open_remote(archive.url + "/a.tif", session):
            pass
    assert not stranger.seen


def test_a_server_without_ranges_may_send_a_small_file_whole(archive, session, cog):
    archive.put("/a.tif", cog)
    archive.answers["/a.tif"] = lambda h, body: h.send_file(archive.files["/a.tif"], ranges=False)
    with open_remote(archive.url + "/a.tif", session) as dataset:
        np.testing.assert_array_equal(dataset.read(1), PIXELS)
    assert len(archive.seen) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"<VRTDataset rasterXSize='1' rasterYSize='1'><VRTRasterBand dataType='Byte' band='1'/></VRTDataset>",
        b"<html>login</html>",
        b"II*\0" + bytes(100),
    ],
    ids=["VRT", "HTML", "damaged"],
)
def test_only_a_geotiff_is_opened(archive, session, data):
    with pytest.raises(SceneError):
        with open_remote(archive.put("/a.tif", data), session):
            pass
