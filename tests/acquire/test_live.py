"""Against the real archives: `pytest --live -m live tests/acquire/test_live.py`, some with logins of docs/acquire.md.

They ask for little: searches, one window of a few kilobytes, no scene. What they show is that the services still answer
as the local ones of the other tests do.
"""

import os

import pytest
from tidemark.datasets.acquire import l8s2, s1
from tidemark.datasets.acquire.commands import availability
from tidemark.datasets.acquire.hosts import load_services
from tidemark.datasets.acquire.ranges import open_remote
from tidemark.datasets.acquire.session import open_session
from tidemark.datasets.acquire.sign import Signer
from tidemark.datasets.acquire.stac import parse_bbox, parse_days, search

pytestmark = pytest.mark.live
BBOX = "1.30,43.50,1.36,43.54"  # Toulouse
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
