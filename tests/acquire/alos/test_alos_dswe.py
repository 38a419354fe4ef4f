"""From an area and dates to the folder that the builder reads, with the archives' own client libraries."""

from __future__ import annotations

import csv
import datetime
import json
import sys

import numpy as np
import pytest
import shapely
from tidemark import doctor
from tidemark.cli import app
from tidemark.datasets.acquire import alos_command, asf
from tidemark.datasets.acquire.alos_command import acquire_alos_dswe, read_area
from tidemark.datasets.acquire.alos_dswe import read_list
from tidemark.datasets.acquire.hosts import load_services
from tidemark.datasets.acquire.progress import parse_bytes
from tidemark.datasets.acquire.session import Patience, open_session
from tidemark.datasets.builders import alos_dswe as builder
from tidemark.errors import ArchiveError, InputError, PartialResultError
from typer.testing import CliRunner

AREA, DAYS = "-90.5,35.0,-89.5,36.0", {"start": "2007-07-01", "end": "2007-07-31"}
QUICK = Patience(attempts=2, backoff_s=0.01)
JULY = (datetime.date(2007, 7, 1), datetime.date(2007, 7, 31))
PLACE = shapely.box(-90.5, 35.0, -89.5, 36.0)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The patience of tests where a command makes its own session."""
    monkeypatch.setattr(alos_command, "open_session", lambda services: open_session(services, QUICK))


@pytest.fixture
def pair(world):
    """One granule with its tiles; the name of the granule and of its DSWE."""
    world.add_layers()
    return world.add_granule(0, "2007-07-10"), world.add_dswe(0, "2007-07-10")


def report(out):
    with open(out / "alos-dswe.csv", newline="") as file:
        return list(csv.DictReader(file))


def files(out):
    return sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file() and not p.name.startswith("."))


def gets(archive, end):
    return [path for _, path, _ in archive.seen if path.endswith(end)]


def test_a_search_asks_for_dual_polarization_at_high_resolution_and_reads_every_page(world, config):
    for index in range(5):
        world.add_granule(index, f"2007-07-1{index}")
    found, malformed = asf.search(load_services(config), PLACE, JULY, QUICK)
    assert [g.time.day for g in found] == [10, 11, 12, 13, 14] and not malformed
    assert found[0].product == "ALPSRP074390700-RTC_HI_RES" and found[0].item.checksum.startswith("md5:")
    assert len(world.searches) == 3
    asked = world.searches[0]
    assert asked["attribute[]"] == ["string,BEAM_MODE,FBD"] and asked["shortName"] == ["ALOS_PSR_RTC_HIGH"]
    assert asked["bounding_box"] == ["-90.5,35.0,-89.5,36.0"]
    assert asked["temporal"] == ["2007-07-01T00:00:00Z,2007-07-31T23:59:59Z,"]


def test_granules_beside_the_area_or_in_another_form_are_left_out(world, config):
    world.add_granule(0, "2007-07-10")
    for change in (
        lambda u: u["RelatedUrls"][0].update(URL="https://example.org/other.zip"),
        lambda u: u["TemporalExtent"]["RangeDateTime"].update(BeginningDateTime="long ago"),
        lambda u: u.update(SpatialExtent={}),
    ):
        world.add_granule(1, "2007-07-10")
        change(world.granules[-1]["umm"])
    world.add_granule(2, "2007-07-10")
    world.granules[-1]["umm"]["AdditionalAttributes"][-1]["Values"] = ["HH"]
    found, malformed = asf.search(load_services(config), PLACE, JULY, QUICK)
    assert [g.name for g in found] == ["AP_07439_FBD_F0700_RT1"] and len(malformed) == 3
    assert asf.search(load_services(config), shapely.box(10, 10, 11, 11), JULY, QUICK)[0] == []


@pytest.mark.parametrize(
    "status, words", [(400, "answered 400"), (429, "too many requests"), (503, "fault of its own")]
)
def test_a_refused_search_says_so_and_tells_nobody_else(world, archive, config, status, words, monkeypatch):
    import requests

    monkeypatch.setattr(requests, "post", lambda *a, **k: pytest.fail("asf_search reported to a host of its own"))
    archive.says("/search/granules.umm_json", status, times=9)
    with pytest.raises(ArchiveError, match=words):
        asf.search(load_services(config), PLACE, JULY, QUICK)


@pytest.mark.parametrize(
    "body", [b"<html>", b"[]", b'{"hits": 1}', b'{"hits": 1, "items": [{}]}', b'{"hits": 9, "items": []}']
)
def test_an_answer_in_another_form_is_an_error_and_no_result(world, archive, config, body):
    archive.answers["/search/granules.umm_json"] = lambda h, _: h.reply(200, body)
    with pytest.raises(ArchiveError):
        asf.search(load_services(config), PLACE, JULY, QUICK)


def test_the_folder_is_what_the_builder_reads(world, archive, config, tmp_path, capsys):
    world.add_layers()
    granules = [world.add_granule(n, f"2007-07-1{n}") for n in range(3)]
    tiles = [world.add_dswe(n, f"2007-07-1{n}", tile=f"01{n}010") for n in range(3)]
    out = tmp_path / "products"
    acquire_alos_dswe(out, aoi=AREA, **DAYS, config=config)
    ends = ("_HH.tif", "_HV.tif", ".dem.tif", ".iso.xml")
    assert files(out) == sorted(
        [
            "acquired.json",
            "alos-dswe.csv",
            "alos-dswe.png",
            *(f"alos/{name}/{name}{end}" for name in granules for end in ends),
            *(f"dswe/{name}_DSWE/{name}_INWAM.TIF" for name in tiles),
            "gfc/Hansen_GFC-2020-v1.8_first_40N_090W.tif",
            "gfc/Hansen_GFC-2020-v1.8_first_40N_100W.tif",
            "hand/Copernicus_DSM_COG_10_N35_00_W091_00_HAND.tif",  # that of W090 does not exist
        ]
    )
    assert (out / "alos-dswe.png").read_bytes().startswith(b"\x89PNG")
    plan = builder.plan(out)
    assert [scene.id for scene in plan.scenes] == granules and not plan.skipped
    digests = {f.path: f.sha256 for scene in plan.scenes for f in scene.sources}
    book = json.loads((out / "acquired.json").read_text())["fetched"]
    kept = {f["path"]: f["sha256"] for record in book.values() for f in record["files"]}
    assert digests and digests.items() <= kept.items()
    assert "Fetched by tidemark acquire: 3 from asf, 2 from gfc, 1 from hand, 3 from usgs" in plan.header.provenance


def test_a_second_run_fetches_only_what_is_missing(world, archive, config, pair, tmp_path, capsys):
    granule, dswe = pair
    acquire_alos_dswe(tmp_path, aoi=AREA, **DAYS, config=config)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.tif")}
    archive.seen.clear()
    (tmp_path / f"alos/{granule}/{granule}_HV.tif").unlink()
    acquire_alos_dswe(tmp_path, aoi=AREA, **DAYS, config=config)
    assert len(gets(archive, ".zip")) == 1 and not gets(archive, "90W.tif") and not gets(archive, "HAND.tif")
    assert "1 files to fetch" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in tmp_path.glob("hand/*")}.items() <= before.items()
    archive.seen.clear()
    acquire_alos_dswe(tmp_path, aoi=AREA, **DAYS, config=config)
    assert not gets(archive, ".zip") and "0 files to fetch" in capsys.readouterr().out


def test_every_granule_is_in_the_report_with_the_reason(world, archive, config, pair, tmp_path, capsys):
    water = np.zeros((120, 120), np.uint8)
    dry, cloudy = water.copy(), water.copy()
    cloudy[:40], cloudy[40:, ::4] = 9, 1
    world.add_granule(1, "2007-07-11")
    world.add_dswe(1, "2007-07-11", cloudy, tile="019010")
    world.add_dswe(1, "2007-07-12", dry, tile="019010")
    world.add_granule(2, "2007-07-20")
    world.add_dswe(2, "2007-07-18", tile="020010")
    pairs = acquire_alos_dswe(tmp_path, aoi=AREA, **DAYS, config=config, dry_run=True)
    rows = {row["granule"]: row for row in report(tmp_path)}
    assert len(pairs) == len(rows) == 3
    assert rows[pair[0]]["accepted"] == "yes" and rows[pair[0]]["tiles"] == pair[1]
    assert float(rows[pair[0]]["water_share"]) == pytest.approx(0.2, abs=0.01)
    assert "33% cloud" in rows["AP_07440_FBD_F0710_RT1"]["reason"]
    assert "0.0% of the SAR footprint water" in rows["AP_07440_FBD_F0710_RT1"]["reason"]
    assert rows["AP_07441_FBD_F0720_RT1"]["reason"] == "no DSWE within 1 day"
    assert "1 of 3 accepted" in capsys.readouterr().out


def test_a_dry_run_fetches_no_product_and_shows_sizes(world, archive, config, pair, tmp_path, capsys):
    out = tmp_path / "products"
    acquire_alos_dswe(out, aoi=AREA, **DAYS, config=config, dry_run=True)
    assert not gets(archive, ".zip") and files(out) == ["alos-dswe.csv", "alos-dswe.png"]
    shown = capsys.readouterr().out
    size = len(archive.files[f"/RTC_HI_RES/A3/{pair[0]}.zip"].data)
    assert f"{size / 1e3:.3g} kB  alos/{pair[0]}.zip" in shown and "4 files to fetch" in shown


def test_nothing_large_comes_for_a_pair_that_is_refused(world, archive, config, tmp_path):
    world.add_layers()
    world.add_granule(0, "2007-07-10")
    world.add_dswe(0, "2007-07-10", np.zeros((120, 120), np.uint8))
    acquire_alos_dswe(tmp_path, aoi=AREA, **DAYS, config=config)
    assert not gets(archive, ".zip") and not gets(archive, "W.tif")
    assert gets(archive, "INWAM.TIF")


def test_a_report_is_a_list_that_takes_its_pairs_without_looking_again(world, archive, config, pair, tmp_path):
    acquire_alos_dswe(tmp_path / "a", aoi=AREA, **DAYS, config=config, dry_run=True)
    world.granules.append({"umm": {"GranuleUR": "another"}})
    archive.seen.clear()
    acquire_alos_dswe(tmp_path / "b", listed=tmp_path / "a/alos-dswe.csv", config=config)
    assert world.searches[-1]["granule_ur[]"] == ["ALPSRP074390700-RTC_HI_RES"]
    assert len(gets(archive, "INWAM.TIF")) == 1  # the file itself
    assert files(tmp_path / "b")[3] == f"alos/{pair[0]}/{pair[0]}.dem.tif"


def test_what_a_list_names_and_the_archives_lack_is_refused(world, config, pair, tmp_path, capsys):
    listed = tmp_path / "list.csv"
    lacking = "LE07_CU_018010_20070711_20210502_02"
    listed.write_text(f"granule,tiles\n{pair[0]},{pair[1]} {lacking}\nAP_00001_FBD_F0001_RT1,{pair[1]}\n")
    acquire_alos_dswe(tmp_path / "out", listed=listed, config=config)
    assert report(tmp_path / "out")[0]["reason"] == f"not in the USGS catalogue: {lacking}"
    assert "AP_00001_FBD_F0001_RT1: not in ASF's catalogue" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "names no pair"),
        ("a,b\n1,2\n", "needs the columns"),
        ("granule,tiles\nAP_1,x\n", "line 2: not a granule"),
        ("granule,tiles\nAP_07439_FBD_F0700_RT1,\n", "line 2: not a granule with its tiles: no DSWE tile"),
        ("granule,tiles\nAP_07439_FBD_F0700_RT1,../../etc\n", "line 2"),
        ("granule,tiles,accepted\nAP_07439_FBD_F0700_RT1,x,no\n", "names no pair"),
    ],
)
def test_a_list_in_another_form_is_refused_with_its_line(tmp_path, text, words):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        read_list(tmp_path / "list.csv")


def test_a_product_that_fails_is_named_and_the_others_come(world, archive, config, pair, tmp_path):
    other = world.add_granule(1, "2007-07-11")
    world.add_dswe(1, "2007-07-11", tile="019010")
    archive.says(f"/RTC_HI_RES/A3/{other}.zip", 403)
    with pytest.raises(PartialResultError, match=f"1 files did not come: alos/{other}.zip.*403") as caught:
        acquire_alos_dswe(tmp_path, aoi=AREA, **DAYS, config=config)
    assert caught.value.exit_code == 3 and (tmp_path / f"alos/{pair[0]}/{pair[0]}_HH.tif").is_file()
    acquire_alos_dswe(tmp_path, aoi=AREA, **DAYS, config=config)
    assert (tmp_path / f"alos/{other}/{other}_HH.tif").is_file()


def test_a_zip_that_lacks_a_layer_is_no_granule(world, config, tmp_path):
    world.add_layers()
    name = "AP_07439_FBD_F0700_RT1"
    world.add_granule(0, "2007-07-10", without=(f"{name}_HV.tif",))
    world.add_dswe(0, "2007-07-10")
    with pytest.raises(PartialResultError, match=f"lacks {name}_HV.tif"):
        acquire_alos_dswe(tmp_path, aoi=AREA, **DAYS, config=config)


def test_a_zip_with_other_bytes_than_the_catalogue_says_is_set_aside(world, archive, config, pair, tmp_path):
    stored = archive.files[f"/RTC_HI_RES/A3/{pair[0]}.zip"]
    stored.data = stored.data[:-1] + b"x"
    with pytest.raises(PartialResultError, match="expected md5"):
        acquire_alos_dswe(tmp_path, aoi=AREA, **DAYS, config=config)
    assert (tmp_path / f"alos/{pair[0]}.zip.quarantined").is_file() and not list(tmp_path.glob("alos/AP*/"))


def test_dswe_that_cannot_be_read_costs_one_granule(world, archive, config, pair, tmp_path):
    world.add_granule(1, "2007-07-11")
    bad = world.add_dswe(1, "2007-07-11", tile="019010")
    for path in archive.files:
        if bad in path:
            archive.files[path].data = b"<html>sign in</html>"
    pairs = acquire_alos_dswe(tmp_path, aoi=AREA, **DAYS, config=config, dry_run=True)
    assert [p.accepted for p in pairs] == [True, False] and "not a GeoTIFF" in pairs[1].reason


def test_without_a_login_nothing_is_refused_but_said(world, archive, config, pair, tmp_path):
    for path in [path for path in archive.files if path.endswith("INWAM.TIF")]:
        archive.says(path, 401)
    with pytest.raises(ArchiveError, match="401"):
        acquire_alos_dswe(tmp_path, aoi=AREA, **DAYS, config=config)
    assert not (tmp_path / "alos-dswe.csv").exists()


def test_a_granule_that_could_not_be_looked_at_ends_in_a_partial_result(world, archive, config, pair, tmp_path):
    world.add_granule(1, "2007-07-11")
    name = world.add_dswe(1, "2007-07-11", tile="019010")
    archive.says(next(path for path in archive.files if name in path), 500, times=2)
    with pytest.raises(PartialResultError, match="1 granules could not be looked at, first AP_07440_FBD_F0710_RT1"):
        acquire_alos_dswe(tmp_path, aoi=AREA, **DAYS, config=config)
    assert (tmp_path / f"alos/{pair[0]}/{pair[0]}_HH.tif").is_file()
    assert report(tmp_path)[1]["reason"].startswith("not looked at: ")
    assert all(p.accepted for p in acquire_alos_dswe(tmp_path, aoi=AREA, **DAYS, config=config))


def test_the_limit_stops_before_the_first_product(world, archive, config, pair, tmp_path):
    with pytest.raises(InputError, match="--max-bytes allows"):
        acquire_alos_dswe(tmp_path, aoi=AREA, **DAYS, config=config, max_bytes=1000)
    assert not gets(archive, ".zip")


def test_an_area_is_a_box_or_the_polygons_of_a_file(tmp_path):
    assert read_area("-90.5,35,-89.5,36").bounds == (-90.5, 35, -89.5, 36)
    path = tmp_path / "area.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [
        {"type": "Feature", "properties": {}, "geometry": shapely.geometry.mapping(shapely.box(x, 1, x + 1, 2))}
        for x in (3, 4)]}))  # fmt: skip
    assert read_area(str(path)).bounds == (3, 1, 5, 2)
    (tmp_path / "other.geojson").write_text("{}")
    for text in ("1,2,3", str(tmp_path / "other.geojson"), "nowhere.gpkg"):
        with pytest.raises(InputError):
            read_area(text)


def test_without_a_wish_there_is_a_hint(config, tmp_path):
    with pytest.raises(InputError, match="--aoi, --start and --end, or --from-list"):
        acquire_alos_dswe(tmp_path, aoi=AREA, config=config)


def test_the_command_line_takes_sizes_and_prints_where_the_report_is(world, config, pair, tmp_path):
    run = ["acquire", "alos-dswe", "--aoi", AREA, "--start", DAYS["start"], "--end", DAYS["end"]]
    run += ["--out", str(tmp_path / "raw"), "--config", str(config), "--dry-run", "--max-bytes", "1.5 GB"]
    result = CliRunner().invoke(app, run)
    assert result.exit_code == 0 and f"{tmp_path / 'raw' / 'alos-dswe.csv'}" in result.stdout
    assert "1 of 1 accepted" in result.stdout


@pytest.mark.parametrize(
    "text, size", [("50GB", 50 * 10**9), ("1.5 tb", 1_500_000_000_000), ("1000", 1000), ("2K", 2000), (None, None)]
)
def test_numbers_of_bytes(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "-1", "GB", "5 apples", "1e9"])
def test_what_is_no_number_of_bytes_is_refused(text):
    with pytest.raises(InputError, match="not a number of bytes"):
        parse_bytes(text)


def test_a_missing_extra_is_named_by_search_and_doctor(config, monkeypatch):
    monkeypatch.setitem(sys.modules, "asf_search", None)
    with pytest.raises(InputError, match=r"pip install 'tidemark\[acquire\]'"):
        asf.search(load_services(config), PLACE, JULY, QUICK)
    for name in ("asf_search", "pystac-client", "odc-stac"):
        assert "pip install 'tidemark[acquire]'" in doctor.OPTIONAL[name]
