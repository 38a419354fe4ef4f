"""Searches through the real pystac-client: paging, faults of the service, hostile replies."""

import datetime
import json
import time

import pytest
from shapely.geometry import box
from tidemark.datasets.acquire.hosts import load_services
from tidemark.datasets.acquire.session import Patience, open_session
from tidemark.datasets.acquire.stac import parse_bbox, parse_days, read_item, search
from tidemark.errors import ArchiveError, InputError

AREA = box(1.0, 44.0, 2.0, 45.0)
DAYS = (datetime.date(2021, 7, 1), datetime.date(2021, 7, 31))
QUICK = Patience(attempts=3, backoff_s=0.01, longest_s=2.0, connect_s=2, silence_s=2)


@pytest.fixture
def find(service, config):
    """Search the local service's Sentinel-2 collection."""

    def found(collection="sentinel-2", name="earth-search"):
        services = load_services(config)
        return search(services, name, collection, AREA, DAYS, open_session(services, QUICK))

    return found


@pytest.fixture
def fill(service, archive_tools):
    """Put so many items without files into the service."""

    def add(count, **changes):
        for i in range(count):
            when = f"2021-07-{1 + i % 28:02d}T10:{i // 28 % 60:02d}:00Z"
            new = archive_tools["item"](
                f"S2A_T31TDJ_{i:05d}_L2A", "sentinel-2-c1-l2a", when, AREA.bounds, {"eo:cloud_cover": 5.0}, {}
            )
            service.items.append(new | changes)

    return add


@pytest.mark.parametrize("merge", [False, True])
def test_all_pages_are_read_whichever_way_the_service_links_them(service, fill, find, merge):
    fill(250)
    service.merge = merge
    scenes, malformed = find()
    assert len(scenes) == 250 and not malformed
    assert [s.time for s in scenes] == sorted(s.time for s in scenes)
    assert [method for method, path in service.seen if path.startswith("/search")] == ["POST"] * 3


def test_a_fault_that_passes_is_not_noticed(service, fill, find):
    fill(3)
    service.faults["/search"] = [(500, {}, b"oops"), (503, {}, b"")]
    assert len(find()[0]) == 3
    assert service.count("/search") == 3


def test_the_service_is_waited_for_as_long_as_it_asks(service, fill, find):
    fill(1)
    service.faults["/search"] = [(429, {"Retry-After": "1"}, b"slow down")]
    start = time.monotonic()
    assert len(find()[0]) == 1
    assert time.monotonic() - start >= 1


def test_a_fault_that_stays_is_named(service, fill, find):
    service.faults["/search"] = [(500, {}, b"<html>secret stack</html>")] * 9
    with pytest.raises(ArchiveError, match=r"fault of its own \(500\)") as caught:
        find()
    assert "secret" not in str(caught.value)


def test_pages_that_repeat_end_in_an_error(service, fill, find):
    fill(5)

    def again(matching, body, url):
        following = {"rel": "next", "method": "POST", "href": f"{url}/search", "body": body}
        return {"type": "FeatureCollection", "features": matching, "links": [following]}

    service.page = again
    with pytest.raises(ArchiveError, match="go in circles after 5 items"):
        find()


@pytest.mark.parametrize(("name", "limit"), [("MAX_ITEMS", 500), ("MAX_PAGES", 5)])
def test_pages_that_never_end_stop_at_a_limit(service, find, archive_tools, monkeypatch, name, limit):
    from tidemark.datasets.acquire import stac

    monkeypatch.setattr(stac, name, limit)
    made = iter(range(10**6))

    def endless(matching, body, url):
        new = [
            archive_tools["item"](f"X{next(made)}", "sentinel-2-c1-l2a", "2021-07-02T00:00:00Z", AREA.bounds, {}, {})
            for _ in range(100)
        ]
        following = {"rel": "next", "method": "POST", "href": f"{url}/search", "body": body}
        return {"type": "FeatureCollection", "features": new, "links": [following]}

    service.page = endless
    with pytest.raises(InputError, match=f"more than .*{limit} .*smaller area"):
        find()
    assert service.count("/search") == 6


def test_a_huge_page_is_not_read_to_its_end(service, find, monkeypatch):
    from tidemark.datasets.acquire import stac

    monkeypatch.setattr(stac, "MAX_PAGE_BYTES", 100_000)
    service.faults["/search"] = [(200, {"Content-Type": "application/json"}, b"[" + b" " * 300_000)]
    with pytest.raises(ArchiveError, match="over 100000 bytes"):
        find()


def test_a_next_page_on_another_host_is_not_asked_for(service, fill, find):
    fill(1)

    def elsewhere(matching, body, url):
        following = {"rel": "next", "method": "POST", "href": "https://evil.example/search", "body": body}
        return {"type": "FeatureCollection", "features": matching, "links": [following]}

    service.page = elsewhere
    with pytest.raises(InputError, match="evil.example is not on the list"):
        find()


@pytest.mark.parametrize(
    "text", [b"<html>maintenance</html>", b'{"type": "FeatureCollection"', b'{"features": 7}', b"[]"]
)
def test_an_answer_that_is_not_stac_is_one_clear_line(service, find, text):
    service.faults["/search"] = [(200, {"Content-Type": "application/json"}, text)]
    with pytest.raises(ArchiveError, match="does not answer as a STAC API"):
        find()


def test_a_collection_that_is_not_there_differs_from_one_without_items(service, find, config):
    assert find() == ([], [])
    text = config.read_text().replace("sentinel-2-c1-l2a", "sentinel-2-c9-l2a")
    config.write_text(text)
    with pytest.raises(ArchiveError, match="no collection sentinel-2-c9-l2a"):
        find()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"id": "../../etc/passwd"}, "no usable id"),
        ({"id": None}, "no usable id"),
        ({"geometry": None}, "no geometry"),
        ({"geometry": {"type": "Polygon", "coordinates": [[[0, "x"]]]}}, "no geometry"),
        ({"geometry": {"type": "Point", "coordinates": [1.5, 44.5]}}, "an empty geometry"),
        ({"properties": {"datetime": "yesterday"}}, "no geometry or time"),
        ({"properties": {"datetime": "2021-07-02T00:00:00Z", "eo:cloud_cover": "few"}}, "eo:cloud_cover 'few'"),
        ({"properties": {"datetime": "2021-07-02T00:00:00Z", "eo:cloud_cover": float("nan")}}, "eo:cloud_cover 'nan'"),
        ({"properties": []}, "no properties"),
        ({"assets": ["blue"]}, "no properties or assets"),
    ],
)
def test_a_malformed_item_is_left_out_by_name(archive_tools, change, fault):
    good = archive_tools["item"]("S2A_X", "c", "2021-07-02T00:00:00Z", AREA.bounds, {"eo:cloud_cover": 5}, {})
    assert read_item(good).cloud_percent == 5
    with pytest.raises(ValueError, match=fault):
        read_item(json.loads(json.dumps(good | change)))


def test_the_others_are_kept_beside_a_malformed_item(service, fill, find):
    fill(2)
    service.items.append(service.items[0] | {"id": "S2A_BAD", "assets": None})
    scenes, malformed = find()
    assert len(scenes) == 2
    assert malformed == ["S2A_BAD: no properties or assets"]


@pytest.mark.parametrize("text", ["1,2,3", "2,44,1,45", "1,45,2,44", "1,44,2,91", "a,b,c,d", "nan,44,2,45"])
def test_a_bad_area_is_refused(text):
    with pytest.raises(InputError, match="--bbox"):
        parse_bbox(text)


def test_dates_are_checked():
    assert parse_days("2021-07-01", "2021-07-31") == DAYS
    with pytest.raises(InputError, match="after the last"):
        parse_days("2021-08-01", "2021-07-31")
    with pytest.raises(InputError, match="not two dates"):
        parse_days("July", "2021-07-31")
