"""``acquire l8s2``: which pairs, in the builder's layout, only what is missing, each number the archive's own."""

import copy
import csv
import datetime
import json

import numpy as np
import pytest
import rasterio
from rasterio.warp import transform_bounds
from shapely.geometry import box
from tidemark.datasets.acquire import l8s2, report
from tidemark.datasets.acquire.commands import acquire_l8s2
from tidemark.datasets.acquire.crop import Crop, pixel_window
from tidemark.datasets.acquire.stac import read_item
from tidemark.datasets.l8_scene import find_scenes
from tidemark.datasets.l8s2_products import group, partner
from tidemark.datasets.optical import pan_gains
from tidemark.datasets.raster import Grid
from tidemark.errors import ArchiveError, InputError, PartialResultError, StorageError

BBOX = "1.755,44.205,1.795,44.235"  # 3.2 by 3.3 km within the small archive's 5.4 km
S2 = "S2A_MSIL2A_20210705T105031_N0500_R051_T31TDJ_20210705T135229"
L2, L1 = "LC08_L2SP_199030_20210706_20210713_02_T1", "LC08_L1TP_199030_20210706_20210713_02_T1"
LIMITS = l8s2.Limits()


@pytest.fixture
def acquire(config, small_archive, tmp_path, monkeypatch):
    """Run the command over the small archive; the map, two thirds of a run's time, is drawn where it is asked for."""

    def run(limits=LIMITS, draw=False, **options):
        if not draw:
            monkeypatch.setattr(report, "write_map", lambda *args: None)
        place = (options.pop("bbox", BBOX), "2021-07-01", "2021-07-31", options.pop("out", tmp_path / "out"))
        return acquire_l8s2(*place, limits, config=config, **options)

    return run


def rows(folder):
    with open(next(folder.glob("l8s2_*.csv")), newline="") as file:
        return list(csv.DictReader(file))


def test_a_pair_comes_in_the_layout_of_the_builder(acquire, small_archive, tmp_path, service):
    outcome = acquire(draw=True)
    out = tmp_path / "out"
    assert (outcome.fetched, outcome.kept) == (7 + 7 + 1 + 1, 0)
    scenes, landsat = group(out)
    assert list(scenes) == [S2]
    grid, l8 = partner(out, S2, scenes[S2], landsat, max_days=1)
    assert len(find_scenes(out)) == 1  # what `predict` maps
    assert pan_gains((out / l8["pan"]["MTL"]).read_text(), "MTL")[0] == 2e-5
    assert grid.height % 2 == 0 and min(grid.height, grid.width) >= 320
    names = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert f"{S2}.SAFE/GRANULE/L2A_T31TDJ_20210705T105031/IMG_DATA/R10m/T31TDJ_20210705T105031_B02_10m.tif" in names
    assert {f"{L2}/{L2}_SR_B7.TIF", f"{L2}/{L2}_QA_PIXEL.TIF", f"{L1}/{L1}_B8.TIF", f"{L1}/{L1}_MTL.json"} <= names
    assert not [name for name in names if "tmp" in name or ".part" in name]
    (row,) = rows(out)
    assert (row["sentinel2"], row["landsat"], row["accepted"], row["days"]) == (S2, f"{L2}_SR", "yes", "1")
    assert next(out.glob("l8s2_*.png")).read_bytes().startswith(b"\x89PNG")


def test_a_part_holds_the_archives_numbers_at_the_archives_place(acquire, small_archive, tmp_path):
    acquire()
    for path in sorted((tmp_path / "out").rglob("*.[tT][iI][fF]")):
        (original,) = small_archive.rglob(path.name)
        with rasterio.open(path) as part, rasterio.open(original) as whole:
            window = whole.window(*part.bounds)
            assert window.col_off == round(window.col_off) and (part.crs, part.res) == (whole.crs, whole.res)
            np.testing.assert_array_equal(part.read(1), whole.read(1, window=window))
            assert part.dtypes == whole.dtypes and part.nodata == whole.nodata


def test_a_second_run_fetches_nothing_and_a_lost_file_alone(acquire, tmp_path, service):
    acquire()
    before = service.count("/files/")
    again = acquire()
    assert (again.fetched, again.kept) == (0, 16)
    assert service.count("/files/") == before
    (tmp_path / "out" / L2 / f"{L2}_SR_B4.TIF").unlink()
    third = acquire()
    assert (third.fetched, third.kept) == (1, 15)
    assert {p for _, p in service.seen[-1:]} == {f"/files/collection02/level-2/standard/oli-tirs/{L2}/{L2}_SR_B4.TIF"}


def test_a_dry_run_tells_sizes_and_fetches_no_file(acquire, tmp_path, service, capsys):
    assert acquire(dry_run=True) is None
    said = capsys.readouterr().out
    assert "1 of 1 accepted" in said and "16 files, at most 1." in said
    assert service.count("/files/") == 0
    assert not list((tmp_path / "out").rglob("*.tif"))
    announced = int(rows(tmp_path / "out")[0]["bytes"])
    assert 0.5 * announced < acquire().bytes < announced  # random numbers hardly shrink


def test_whole_files_are_the_archives_own(acquire, small_archive, tmp_path):
    acquire(whole=True)
    for original in small_archive.rglob("*.[tT][iI][fF]"):
        (copied,) = (tmp_path / "out").rglob(original.name)
        assert copied.read_bytes() == original.read_bytes()


def test_a_whole_file_whose_bytes_are_not_the_catalogues_is_set_aside(acquire, small_archive, tmp_path):
    path = next(small_archive.rglob("*_B11_20m.tif"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(PartialResultError, match="15 files fetched.*1 failed.*B11_20m.tif.*sha256"):
        acquire(whole=True)
    assert not list((tmp_path / "out").rglob("*_B11_20m.tif"))


def test_another_area_of_the_same_product_does_not_take_its_place(acquire, tmp_path):
    acquire()
    with pytest.raises(InputError, match="asked for is .*--out of its own"):
        acquire(bbox="1.76,44.205,1.8,44.235")


def test_a_limit_on_bytes_holds_before_anything_is_read(acquire, tmp_path, service):
    with pytest.raises(InputError, match="--max-bytes allows 0.1 MB"):
        acquire(max_bytes=100_000)
    assert service.count("/files/") == 0


def test_an_asset_on_a_host_outside_the_list_is_not_asked_for(acquire, service, tmp_path):
    for item in service.items:
        if item["collection"] == "sentinel-2-c1-l2a":
            item["assets"]["red"]["href"] = "https://evil.example/B04.tif"
    with pytest.raises(PartialResultError, match="15 files fetched.*1 failed.*evil.example is not on the list"):
        acquire()


@pytest.mark.parametrize(
    "url",
    ["/vsicurl/http://127.0.0.1/B04.tif", "file:///etc/passwd", "http://evil.example/a.tif", "s3://usgs-landsat/x"],
)
def test_nothing_but_https_to_a_listed_host_is_opened(acquire, service, url):
    service.items[-1]["assets"]["red"]["href"] = url
    with pytest.raises(PartialResultError, match="15 files fetched.*1 failed"):
        acquire()


def test_a_raster_that_is_a_vrt_is_refused(acquire, service, small_archive):
    path = next(small_archive.rglob("*_B04_10m.tif"))
    path.write_text('<VRTDataset rasterXSize="1" rasterYSize="1"></VRTDataset>')
    with pytest.raises(PartialResultError, match="not a GeoTIFF"):
        acquire()


def test_files_that_fail_are_named_and_come_with_the_next_run(acquire, service, tmp_path):
    service.faults[f"/files/collection02/level-1/standard/oli-tirs/{L1}/{L1}_B8"] = [(404, {}, b"")]
    with pytest.raises(PartialResultError, match=r"15 files fetched.*1 failed; first .*_B8.TIF.*not there \(404\)"):
        acquire()
    assert acquire().fetched == 1


def test_a_file_that_cannot_be_written_stops_all_and_names_the_disk(acquire, tmp_path):
    (tmp_path / "out" / L2 / f"{L2}_SR_B4.TIF").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"_SR_B4.TIF: cannot write \(.*MB free"):
        acquire()


def test_an_area_without_pairs_ends_quietly_with_its_reasons(acquire, tmp_path, capsys):
    assert acquire(limits=l8s2.Limits(s2_cloud_percent=0.5)) is None
    assert "0 of 1 accepted" in capsys.readouterr().out
    assert rows(tmp_path / "out")[0]["reason"] == "Sentinel-2 too cloudy: 1.0 %"


def test_no_answer_to_the_search_is_an_error(acquire, service):
    service.faults["/"] = [(404, {}, b"")] * 3
    with pytest.raises(ArchiveError, match=r"not there \(404\)"):
        acquire()


AREA = box(1.0, 44.0, 1.1, 44.1)


def s2_scene(**changes):
    properties = {"datetime": "2021-07-05T10:50:31Z", "eo:cloud_cover": 2.0, "proj:epsg": 32631}
    properties |= {"s2:product_uri": f"{S2}.SAFE"} | changes.pop("properties", {})
    assets = {asset: {"href": f"https://h/{asset}.tif"} for asset in l8s2.S2_BANDS}
    whole = {"id": "S2A_T31TDJ_20210705T105031_L2A", "geometry": box(0.9, 43.9, 1.2, 44.2).__geo_interface__}
    return read_item({**whole, "properties": properties, "assets": assets, **changes})


def l8_scene(name=f"{L2}_SR", day="2021-07-06", **changes):
    properties = {"datetime": f"{day}T10:40:00Z", "eo:cloud_cover": 2.0, "proj:epsg": 32631}
    properties |= changes.pop("properties", {})
    wanted = l8s2.L8_BANDS if "_L2" in name else ("pan", "MTL.json")
    assets = {asset: {"href": f"https://h/{asset}"} for asset in wanted}
    whole = {"id": name, "geometry": box(0.9, 43.9, 1.2, 44.2).__geo_interface__}
    return read_item({**whole, "properties": properties, "assets": assets, **changes})


def reason(s2=None, l8=None, pan=None, limits=LIMITS):
    """Why a pair is refused, empty where it is accepted."""
    pairs, decisions = l8s2.decide(
        [s2 or s2_scene()], [] if l8 is False else [l8 or l8_scene()], [] if pan is False else [pan or l8_scene(L1)],
        AREA, limits,
    )  # fmt: skip
    assert bool(pairs) == decisions[-1].accepted
    return decisions[-1].reason


def test_a_pair_that_keeps_every_limit_is_taken():
    assert reason() == ""


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"s2": s2_scene(properties={"eo:cloud_cover": 10.0})}, ""),
        ({"s2": s2_scene(properties={"eo:cloud_cover": 10.1})}, "Sentinel-2 too cloudy: 10.1 %"),
        ({"s2": s2_scene(properties={"eo:cloud_cover": None})}, "Sentinel-2 cloud cover is not told"),
        ({"l8": l8_scene(properties={"eo:cloud_cover": 10.0})}, ""),
        ({"l8": l8_scene(properties={"eo:cloud_cover": 10.1})}, "Landsat too cloudy: 10.1 %"),
        ({"l8": l8_scene(day="2021-07-06")}, ""),
        ({"l8": l8_scene(day="2021-07-07")}, "no Landsat-8 within 1 days"),
        ({"l8": l8_scene(day="2021-07-03")}, "no Landsat-8 within 1 days"),
        ({"l8": False}, "no Landsat-8 within 1 days"),
        ({"pan": False}, "no Level-1 of precision terrain correction"),
        ({"pan": l8_scene(L1.replace("L1TP", "L1GT"))}, "no Level-1 of precision terrain correction"),
        ({"l8": l8_scene(f"{L2}_SR".replace("LC08", "LC09"))}, "not Landsat-8 Level-2"),
        ({"l8": l8_scene(f"{L2}_SR".replace("_T1", "_RT"))}, "not Landsat-8 Level-2"),
        ({"l8": l8_scene(properties={"proj:epsg": 32630})}, "another UTM zone: EPSG:32631 and EPSG:32630"),
        ({"l8": l8_scene(properties={"proj:epsg": None, "proj:code": "EPSG:32631"})}, ""),
        ({"s2": s2_scene(properties={"proj:epsg": 32731})}, ""),  # south of the equator Landsat keeps the northern zone
        ({"s2": s2_scene(properties={"proj:epsg": 32732})}, "another UTM zone: EPSG:32732 and EPSG:32631"),
        ({"s2": s2_scene(properties={"earthsearch:boa_offset_applied": True})}, "its numbers are shifted"),
        ({"s2": s2_scene(properties={"s2:product_uri": "../../S2A.SAFE"})}, "not a Sentinel-2 L2A product name"),
        ({"s2": s2_scene(assets={"blue": {"href": "https://h/b"}})}, "assets missing: green"),
        ({"s2": s2_scene(geometry=box(0.9, 43.9, 1.05, 44.2).__geo_interface__)}, ""),
        ({"s2": s2_scene(geometry=box(0.9, 43.9, 1.04, 44.2).__geo_interface__)}, "sees too little of the area: 40%"),
        ({"l8": l8_scene(geometry=box(1.06, 43.9, 1.2, 44.2).__geo_interface__)}, "both see too little of the area"),
    ],
)
def test_each_limit_just_met_and_just_missed(arguments, expected):
    found = reason(**arguments)
    assert found.startswith(expected) and bool(found) == bool(expected)


@pytest.mark.parametrize(("epsg", "north"), [(32733, 6_300_000.0), (32633, -3_700_000.0)])
def test_a_part_south_of_the_equator_is_cut_at_the_same_ground_in_either_zone(epsg, north):
    grid = Grid(400, 400, (30.0, 0.0, 300_000.0, 0.0, -30.0, north), rasterio.CRS.from_epsg(epsg).to_wkt())
    wanted = transform_bounds("EPSG:32733", "EPSG:4326", 303_000, 6_294_000, 306_000, 6_297_000)
    row, column, height, width = pixel_window(grid, Crop("https://h/b", "b.tif", wanted))
    assert row in range(95, 101) and column in range(95, 101) and row + height > 199 and column + width > 199
    assert height < 115 and width < 115


def test_the_nearest_date_wins_then_the_larger_ground():
    same_day = l8_scene("LC08_L2SP_199030_20210705_20210713_02_T1_SR", "2021-07-05")
    small = box(1.0, 44.0, 1.2, 44.08).__geo_interface__
    south = l8_scene("LC08_L2SP_199031_20210705_20210713_02_T1_SR", "2021-07-05", geometry=small)
    pans = [l8_scene(L1)] + [
        l8_scene(f"LC08_L1TP_{row}_20210705_20210713_02_T1", "2021-07-05") for row in ("199030", "199031")
    ]
    pairs, decisions = l8s2.decide([s2_scene()], [l8_scene(), south, same_day], pans, AREA, LIMITS)
    assert [p.l8.id for p in pairs] == [same_day.id] and pairs[0].pan.id == pans[1].id
    assert [d.reason for d in decisions if not d.accepted] == [f"{same_day.id} is nearer"] * 2


def test_of_two_processings_of_one_sensing_the_later_is_taken():
    newer = S2.replace("N0500", "N0510").replace("135229", "235959")
    second = s2_scene(id="S2A_second", properties={"s2:product_uri": f"{newer}.SAFE"})
    pairs, decisions = l8s2.decide([s2_scene(), second], [l8_scene()], [l8_scene(L1)], AREA, LIMITS)
    assert [l8s2.product_name(p.s2) for p in pairs] == [newer]
    assert decisions[0].reason == f"processed again: {newer}"


def test_landsat_is_looked_for_around_the_days():
    days = (datetime.date(2021, 7, 1), datetime.date(2021, 7, 31))
    assert l8s2.wanted_days(days, l8s2.Limits(max_days=3)) == (datetime.date(2021, 6, 28), datetime.date(2021, 8, 3))


def test_names_from_the_catalogue_cannot_leave_the_folder(service, acquire, tmp_path):
    evil = copy.deepcopy(service.items[-1])
    evil["properties"]["s2:product_uri"] = "../../../S2A_MSIL2A_20210705T105031_N0500_R051_T31TDJ_20210705T135229.SAFE"
    service.items[-1] = evil
    assert acquire() is None
    assert json.loads(json.dumps(rows(tmp_path / "out")))[0]["reason"] == "not a Sentinel-2 L2A product name"
