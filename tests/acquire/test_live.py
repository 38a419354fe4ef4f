"""Against the real archives: `pytest --live -m live tests/acquire/test_live.py`, some with logins that README names.

They ask for little, searches and windows of a few kilobytes, and with an Earthdata login for one granule of 300 MB.
What they show is that the services still answer as the local ones of the other tests do.
"""

import os
from pathlib import Path

import pytest
from tidemark.datasets.acquire import asf, dswe, l8s2, s1, tiles
from tidemark.datasets.acquire.commands import availability
from tidemark.datasets.acquire.hosts import load_services
from tidemark.datasets.acquire.ranges import open_remote
from tidemark.datasets.acquire.session import open_session
from tidemark.datasets.acquire.sign import Signer
from tidemark.datasets.acquire.stac import parse_bbox, parse_days, search
from tidemark.datasets.acquire.transport import download, remote_bytes
from tidemark.datasets.acquire.unpack import unpack

pytestmark = pytest.mark.live
BBOX = "1.30,43.50,1.36,43.54"  # Toulouse
DELTA = "-90.60,35.20,-90.50,35.30"  # Mississippi, Arkansas
DAYS = ("2021-07-01", "2021-07-31")


@pytest.fixture
def services():
    return load_services()


@pytest.fixture
def find(services):
    """Scenes of a collection, and the session."""

    def found(service, collection, bbox=BBOX):
        session = open_session(services)
        scenes, malformed = search(services, service, collection, parse_bbox(bbox), parse_days(*DAYS), session)
        assert scenes and not malformed
        return scenes, session

    return found


def test_sentinel2_items_have_names_assets_and_readable_windows(find):
    scenes, session = find("earth-search", "sentinel-2")
    assert all(l8s2.product_name(s) and set(l8s2.S2_BANDS) <= set(s.assets) for s in scenes)
    with open_remote(scenes[0].assets["scl"], session) as dataset:
        assert dataset.res == (20, 20) and dataset.read(1, window=((0, 16), (0, 16))).shape == (16, 16)


def test_landsat_items_of_both_levels_belong_together(find):
    level2 = [s for s in find("usgs", "landsat-l2")[0] if l8s2.landsat_name(s)]
    level1 = {l8s2.landsat_name(s)["date"]: s for s in find("usgs", "landsat-l1")[0] if l8s2.landsat_name(s)}
    assert level2 and all(set(l8s2.L8_BANDS) <= set(s.assets) for s in level2)
    assert all({"pan", "MTL.json"} <= set(level1[l8s2.landsat_name(s)["date"]].assets) for s in level2)


@pytest.mark.skipif(not os.environ.get("USGS_ERS_USERNAME"), reason="needs USGS_ERS_USERNAME and USGS_ERS_PASSWORD")
def test_a_landsat_file_opens_with_a_login(find):
    scenes, session = find("usgs", "landsat-l2")
    with open_remote(next(s for s in scenes if l8s2.landsat_name(s)).assets["qa_pixel"], session) as dataset:
        assert dataset.res == (30, 30)


def test_sentinel1_opens_with_a_token_that_anyone_may_fetch(find, services):
    scenes, session = find("planetary-computer", "sentinel-1")
    passes, _ = s1.passes(scenes)
    assert {p.orbit for p in passes} == {"ascending", "descending"}
    sign = Signer(services.service("planetary-computer"), session)
    with open_remote(sign(passes[0].slices[0].assets["vv"]), session) as dataset:
        assert dataset.res == (10, 10) and dataset.nodata == s1.NODATA


def test_a_year_is_counted(tmp_path):
    found = availability(BBOX, 2021, tmp_path)
    assert len(found.dates["united"]) > max(len(found.dates["landsat8"]), len(found.dates["sentinel2"])) > 5


def test_palsar_granules_state_length_checksum_and_place(services):
    found, malformed = asf.search(services, parse_bbox(DELTA), parse_days("2007-07-01", "2007-08-31"))
    assert found and not malformed and all(g.bytes and g.md5 for g in found)
    assert asf.look_up(services, [found[0].name])[0] == found[:1]
    if os.environ.get("EARTHDATA_TOKEN"):
        assert remote_bytes(found[0].url, open_session(services)) == found[0].bytes


def test_dswe_of_a_granules_days_has_the_layer_and_a_name_that_the_builder_knows(services):
    session, days = open_session(services), parse_days("2007-07-01", "2007-07-31")
    scenes, malformed = search(services, "usgs", "dswe", parse_bbox(DELTA), days, session)
    assert scenes and not malformed and sum(map(len, dswe.by_date(scenes).values())) == len(scenes)


@pytest.mark.skipif(not os.environ.get("USGS_ERS_USERNAME"), reason="needs USGS_ERS_USERNAME and USGS_ERS_PASSWORD")
def test_a_window_of_dswe_is_measured(services):
    session, days = open_session(services), parse_days("2007-07-01", "2007-07-31")
    scenes, _ = search(services, "usgs", "dswe", parse_bbox(DELTA), days, session)
    first = next(iter(dswe.by_date(scenes).values()))
    shown = dswe.measure(first[:1], parse_bbox(DELTA), lambda url: open_remote(url, session))
    assert shown.counts.sum() > 0 and 0 <= shown.cloud <= 1


@pytest.mark.parametrize("service, names", [("gfc", tiles.gfc_tiles), ("hand", tiles.hand_tiles)])
def test_tiles_of_the_global_layers_are_where_their_names_say(services, service, names):
    session = open_session(services)
    for box in ((-90.5, 35.2, -90.4, 35.3), (25.2, -12.8, 25.3, -12.7)):  # both are land
        for name in names(box):
            with open_remote(f"{services.service(service).url}/{name}", session) as dataset:
                west, south, east, north = dataset.bounds
                assert west <= box[0] and box[2] <= east and south <= box[1] and box[3] <= north


def test_a_granule_unpacks_to_what_the_builder_needs(services, tmp_path):
    if not (os.environ.get("EARTHDATA_TOKEN") or os.environ.get("EARTHDATA_USERNAME")):
        pytest.skip("needs EARTHDATA_TOKEN, or EARTHDATA_USERNAME and EARTHDATA_PASSWORD; fetches 300 MB")
    granule = asf.search(services, parse_bbox(DELTA), parse_days("2007-07-01", "2007-08-31"))[0][0]
    download(granule.item, tmp_path, open_session(services))
    names = {Path(f.path).name for f in unpack(tmp_path / granule.item.path, tmp_path / "alos", tmp_path)}
    assert {granule.name + end for end in ("_HH.tif", "_HV.tif", ".dem.tif", ".iso.xml")} <= names
