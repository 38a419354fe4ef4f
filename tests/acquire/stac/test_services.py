"""The configuration of archives, signatures, and reports."""

import csv
import datetime
import json

import pytest
import yaml
from shapely.geometry import box
from tidemark.datasets.acquire.hosts import load_services, origin, without_query
from tidemark.datasets.acquire.report import Decision, human_bytes, summary, write_csv, write_map
from tidemark.datasets.acquire.session import Patience, open_session
from tidemark.datasets.acquire.sign import Signer
from tidemark.errors import ArchiveError, ConfigError, InputError


def test_the_configuration_that_comes_along_lists_every_host_it_uses():
    services = load_services()
    assert {
        "landsatlook.usgs.gov",
        "earth-search.aws.element84.com",
        "planetarycomputer.microsoft.com",
    } <= services.hosts
    assert services.collection("earth-search", "sentinel-2") == "sentinel-2-c1-l2a"
    for service in services.services.values():
        assert service.url.startswith("https://")
        assert not service.login or set(service.login.hosts) <= set(service.hosts)
        assert not service.sign or set(service.sign.hosts) <= set(service.hosts)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"url": "http://evil.example"}, "accepted for this machine only"),
        ({"url": "ftp://evil.example"}, "not a plain"),
        ({"url": "https://user:pass@evil.example"}, "not a plain"),
        ({"hots": []}, "services.usgs.hots: Extra inputs"),
        ({"hosts": "landsatlook.usgs.gov"}, "services.usgs.hosts"),
    ],
)
def test_a_configuration_is_strict(tmp_path, change, fault):
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({"services": {"usgs": {"url": "https://a.example", "hosts": []} | change}}))
    with pytest.raises(ConfigError, match=fault) as caught:
        load_services(path)
    assert "pass@" not in str(caught.value)


def test_an_unknown_service_or_collection_is_named(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({"services": {"usgs": {"url": "https://a.example", "hosts": []}}}))
    services = load_services(path)
    with pytest.raises(ConfigError, match="names no service asf; there is usgs"):
        services.service("asf")
    with pytest.raises(ConfigError, match="names no landsat-l2"):
        services.collection("usgs", "landsat-l2")


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://A.Example/x", "a.example"), ("https://a.example:443/x", "a.example"),
        ("https://a.example:8443", "a.example:8443"), ("http://127.0.0.1:80/x", "127.0.0.1"),
    ],
)  # fmt: skip
def test_a_host_is_compared_in_one_form(url, host):
    assert origin(url) == host


@pytest.mark.parametrize(
    "url",
    [
        "http://a.example",
        "//a.example",
        "/vsicurl/https://a.example",
        "https://a.example@evil.example",
        "https://[",
        "",
    ],
)
def test_what_is_no_plain_https_has_no_host(url):
    with pytest.raises(InputError):
        origin(url)


def test_no_secret_of_a_url_is_shown():
    assert without_query("https://me:pw@a.example/x.tif?sig=abc#f") == "https://a.example/x.tif"


@pytest.fixture
def signer(service, config):
    services = load_services(config)
    return Signer(services.service("planetary-computer"), open_session(services, Patience(attempts=1)))


def test_a_signature_goes_to_its_own_host_and_is_fetched_once(service, signer):
    signed = signer(f"{service.url}/files/a.tif")
    assert signed.startswith(f"{service.url}/files/a.tif?") and signer(f"{service.url}/files/b.tif")
    assert signer("https://a.example/c.tif") == "https://a.example/c.tif" and signer(signed) == signed
    assert service.count("/token") == 1


def test_a_signature_that_runs_out_is_renewed(service, signer):
    soon = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=4)).isoformat()
    service.faults["/token"] = [(200, {}, json.dumps({"token": "sig=old", "msft:expiry": soon}).encode())]
    assert signer(f"{service.url}/files/a.tif").endswith("?sig=old")
    assert not signer(f"{service.url}/files/a.tif").endswith("?sig=old") and service.count("/token") == 2


@pytest.mark.parametrize(
    "answer",
    [b"[]", b"{}", b'{"token": "a b", "msft:expiry": "2099-01-01T00:00:00Z"}', b'{"token": "a", "msft:expiry": 7}'],
)
def test_an_odd_answer_is_no_signature(service, signer, answer):
    service.faults["/token"] = [(200, {}, answer)]
    with pytest.raises(ArchiveError, match="signature"):
        signer(f"{service.url}/files/a.tif")


def test_the_subscription_key_does_not_follow_a_redirect(service, signer, monkeypatch):
    monkeypatch.setenv("PC_KEY", "s3cret")
    signer._sign = signer._sign.model_copy(update={"key": "PC_KEY"})
    service.faults["/token"] = [(302, {"Location": f"{service.url}/elsewhere"}, b"")]
    with pytest.raises(ArchiveError):
        signer(f"{service.url}/files/a.tif")
    assert service.count("/elsewhere") == 0


DECISIONS = [
    Decision({"scene": "=HYPERLINK(1)", "days": 2}, False, "too cloudy: 12 %", box(0, 0, 1, 1)),
    Decision({"scene": "B", "days": 1}, True, footprint=box(0, 0, 1, 1).union(box(3, 3, 4, 4)), size=1_500_000_000),
    Decision({"scene": "C", "share": 0.123456789}, True),
]


def test_a_report_puts_accepted_first_and_runs_nothing_in_a_spreadsheet(tmp_path):
    write_csv(tmp_path / "r.csv", DECISIONS)
    rows = list(csv.DictReader((tmp_path / "r.csv").open(newline="")))
    assert [row["scene"] for row in rows] == ["B", "C", "'=HYPERLINK(1)"]
    assert rows[0]["bytes"] == "1500000000" and rows[1]["share"] == "0.123457" and rows[2]["accepted"] == "no"


def test_a_summary_counts_reasons_and_bytes():
    again = Decision({"scene": "D"}, False, "too cloudy: 99 %")
    assert summary([*DECISIONS, again]) == ("2 of 4 accepted, 1.5 GB and 1 of unknown size\n  2 refused: too cloudy")
    assert human_bytes(999) == "999 bytes" and human_bytes(12_300) == "12.3 kB"


def test_a_map_is_drawn_of_several_parts_and_of_nothing(tmp_path):
    for name, decisions in (("some", DECISIONS), ("none", [])):
        write_map(tmp_path / f"{name}.png", decisions, box(-0.5, 0, 0.5, 1), "title")
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
