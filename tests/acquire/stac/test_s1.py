"""``acquire s1``: slices put together, both orbits on one grid, linear power to dB, signed URLs."""

import csv
import datetime
import json

import numpy as np
import pytest
import rasterio
from rasterio.warp import transform_bounds
from shapely.geometry import box
from tidemark.datasets.acquire import report, s1
from tidemark.datasets.acquire.commands import acquire_s1
from tidemark.datasets.acquire.ledger import Ledger
from tidemark.datasets.acquire.stac import read_item
from tidemark.errors import FormatError, InputError, PartialResultError

WEST, NORTH, EPSG = 500_000.0, 3_600_000.0, 32645
BBOX = "87.005,32.518,87.016,32.528"  # about 1 by 1.1 km within the 2.4 km of the scene below
SIZE = 240


def power(seed):
    """Linear power of both polarizations, a corner without data."""
    rng = np.random.default_rng(seed)
    field = rng.gamma(4.4, 0.02 / 4.4, (2, SIZE, SIZE)).astype(np.float32)
    field[:, :40, :40] = s1.NODATA
    return field


def add_slice(service, tools, root, name, orbit, day, rows, field, **properties):
    """An item of the Planetary Computer's form that holds some rows of a field."""
    assets = {}
    for band, pixels in zip(s1.POLARIZATIONS, field, strict=True):
        path = tools["raster"](
            root / name / f"iw-{band}.rtc.tiff", pixels[slice(*rows)], EPSG, WEST, NORTH - rows[0] * 10, 10.0, s1.NODATA
        )
        url = service.add(path, f"sentinel1-grd-rtc/GRD/{name}/measurement/iw-{band}.rtc.tiff")
        assets[band] = {"href": url, "type": "image/tiff; application=geotiff; profile=cloud-optimized"}
    bounds, _ = tools["footprint"](path)
    facts = {
        "sat:orbit_state": orbit, "sat:relative_orbit": 12 if orbit == "ascending" else 121,
        "sar:instrument_mode": "IW", "sar:polarizations": ["VV", "VH"], "proj:code": f"EPSG:{EPSG}",
        "s1:processing_level": "1", "sar:product_type": "GRD",
    }  # fmt: skip
    service.items.append(tools["item"](name, "sentinel-1-rtc", f"{day}T12:00:00Z", bounds, facts | properties, assets))


@pytest.fixture
def scene(service, archive_tools, tmp_path):
    """An ascending pass in two slices and a descending one, two days apart; their files ask for a signature."""
    up, down = power(1), power(2)
    root = tmp_path / "archive"
    names = {
        "S1A_IW_GRDH_1SDV_20200710T115900_20200710T115925_033394_03DE8A_rtc": ("ascending", "2020-07-10", (0, 130), up),
        "S1A_IW_GRDH_1SDV_20200710T115925_20200710T115950_033394_03DE8A_rtc": (
            "ascending",
            "2020-07-10",
            (130, SIZE),
            up,
        ),
        "S1B_IW_GRDH_1SDV_20200712T001000_20200712T001025_022435_02A94E_rtc": (
            "descending",
            "2020-07-12",
            (0, SIZE),
            down,
        ),
    }
    for name, (orbit, day, rows, field) in names.items():
        add_slice(service, archive_tools, root, name, orbit, day, rows, field)
    service.signed = ("/files/sentinel1-grd-rtc",)
    return {"ascending": up, "descending": down}


@pytest.fixture
def acquire(config, tmp_path, monkeypatch):
    """Run the command; without the map, which takes most of a run's time."""
    monkeypatch.setattr(report, "write_map", lambda *args: None)

    def run(**options):
        place = (options.pop("bbox", BBOX), "2020-07-01", "2020-07-31", tmp_path / "out")
        return acquire_s1(*place, config=config, **options)

    return run


def test_both_orbits_lie_on_one_grid_in_decibels(acquire, scene, service, tmp_path):
    outcome = acquire()
    assert (outcome.fetched, outcome.kept) == (2, 0)
    grids = set()
    for orbit, path in (("ascending", "s1_ascend/scene40_s1_as.tif"), ("descending", "s1_descend/scene40_s1_des.tif")):
        with rasterio.open(tmp_path / "out" / path) as dataset:
            assert dataset.descriptions == ("VV", "VH") and dataset.dtypes == ("float32",) * 2
            assert dataset.tags()["ORBIT_PASS"] == orbit.upper() and dataset.nodata is None
            grids.add((dataset.crs.to_epsg(), dataset.transform, dataset.shape))
            row, column = round((NORTH - dataset.transform.f) / 10), round((dataset.transform.c - WEST) / 10)
            height, width = dataset.shape
            expected = scene[orbit][:, row : row + height, column : column + width]
            np.testing.assert_allclose(dataset.read(), 10 * np.log10(expected), rtol=1e-5)
    assert len(grids) == 1 and next(iter(grids))[0] == EPSG
    # the seam of the two slices lies inside
    assert row < 130 < row + height
    assert not (tmp_path / "out" / ".acquire-parts").exists()
    assert service.count("/token") == 1


def test_a_slice_of_the_neighbouring_zone_is_brought_onto_the_grid(acquire, service, archive_tools, tmp_path):
    # the archive keeps each scene in a zone of its own: here 44, whose grid is turned by three degrees at 87 E
    wide = transform_bounds("EPSG:4326", "EPSG:32644", 86.99, 32.50, 87.03, 32.55)
    assets = {}
    for band, level in (("vv", 0.05), ("vh", 0.01)):
        pixels = np.full((round((wide[3] - wide[1]) / 10), round((wide[2] - wide[0]) / 10)), level, np.float32)
        path = archive_tools["raster"](tmp_path / f"{band}.tif", pixels, 32644, wide[0], wide[3], 10.0, s1.NODATA)
        assets[band] = {"href": service.add(path, f"zone44/{band}.tif")}
    facts = {"sat:orbit_state": "ascending", "sat:relative_orbit": 12, "sar:instrument_mode": "IW"}
    name = "S1A_IW_GRDH_1SDV_20200710T115900_20200710T115925_033394_03DE8A_rtc"
    service.items.append(
        archive_tools["item"](
            name, "sentinel-1-rtc", "2020-07-10T12:00:00Z", (86.99, 32.5, 87.03, 32.55), facts, assets
        )
    )
    assert acquire(orbits="ascending").fetched == 1
    with rasterio.open(tmp_path / "out/s1_ascend/scene40_s1_as.tif") as dataset:
        assert dataset.crs.to_epsg() == EPSG
        np.testing.assert_allclose(dataset.read(1), 10 * np.log10(0.05), rtol=1e-5)
        np.testing.assert_allclose(dataset.read(2), -20, rtol=1e-5)


def test_no_signature_is_kept_or_shown(acquire, scene, tmp_path, capsys):
    acquire()
    written = "".join(p.read_text() for p in (tmp_path / "out").iterdir() if p.suffix in (".json", ".csv"))
    assert "sig=" not in written + "".join(capsys.readouterr())
    assert {r.archive for r in Ledger(tmp_path / "out").records.values()} == {"planetary-computer"}


def test_a_second_run_reads_nothing_and_a_later_pair_gets_the_next_number(
    acquire, scene, service, tmp_path, archive_tools
):
    acquire()
    before = service.count("/files/")
    again = acquire()
    assert (again.fetched, again.kept) == (0, 2) and service.count("/files/") == before
    for name, orbit, day in (
        ("S1A_IW_GRDH_1SDV_20200703T115900_20200703T115925_033300_03DE00_rtc", "ascending", "2020-07-03"),
        ("S1B_IW_GRDH_1SDV_20200704T001000_20200704T001025_022300_02A900_rtc", "descending", "2020-07-04"),
    ):
        add_slice(service, archive_tools, tmp_path / "archive", name, orbit, day, (0, SIZE), power(3))
    third = acquire()
    assert (third.fetched, third.kept) == (2, 2)
    listed = json.loads((tmp_path / "out" / "s1_scenes.json").read_text())["scenes"]
    assert [(entry["number"], entry["ascending"][0][17:25]) for entry in listed] == [(40, "20200710"), (41, "20200703")]


def test_a_broken_slice_leaves_the_other_orbit_and_comes_next_time(acquire, scene, service, tmp_path):
    name = "/files/sentinel1-grd-rtc/GRD/S1B_IW_GRDH_1SDV_20200712T001000"
    service.faults[name] = [(404, {}, b"")]
    with pytest.raises(PartialResultError, match=r"1 files fetched.*1 failed.*not there \(404\)"):
        acquire()
    assert (tmp_path / "out/s1_ascend/scene40_s1_as.tif").is_file()
    assert not (tmp_path / "out/s1_descend").exists()
    ascending = service.count("S1A_IW_GRDH")
    assert acquire().fetched == 1 and service.count("S1A_IW_GRDH") == ascending
    assert (tmp_path / "out/s1_descend/scene40_s1_des.tif").is_file()


def test_one_orbit_alone(acquire, scene, tmp_path):
    assert acquire(orbits="descending").fetched == 1
    assert [p.name for p in (tmp_path / "out").glob("s1_*/*.tif")] == ["scene40_s1_des.tif"]
    with pytest.raises(InputError, match="orbits must be"):
        acquire(orbits="sideways")


def test_a_dry_run_reads_no_pixel(acquire, scene, service, capsys):
    assert acquire(dry_run=True) is None
    assert service.count("/files/") == 0 and service.count("/token") == 0
    assert "2 of 2 accepted" in capsys.readouterr().out


def test_a_spoilt_list_of_scenes_is_not_overwritten(acquire, scene, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "s1_scenes.json").write_text('{"scenes": [{"number": "first"}]}')
    with pytest.raises(FormatError, match="not a list of scenes"):
        acquire()


def test_an_area_without_data_is_named(acquire, scene):
    corner = transform_bounds(f"EPSG:{EPSG}", "EPSG:4326", WEST + 100, NORTH - 300, WEST + 300, NORTH - 100)
    with pytest.raises(PartialResultError, match="no pixel of the area has data"):
        acquire(bbox=",".join(map(str, corner)), orbits="descending")


def pass_item(name, orbit, day, **properties):
    facts = {"datetime": f"{day}T12:00:00Z", "sat:orbit_state": orbit, "sar:instrument_mode": "IW"}
    facts |= {"sat:relative_orbit": 12} | properties
    assets = {band: {"href": f"https://h/{band}"} for band in s1.POLARIZATIONS}
    outline = box(86, 32, 88, 33).__geo_interface__
    return read_item({"id": name, "geometry": outline, "properties": facts, "assets": assets})


AREA = box(87.0, 32.5, 87.1, 32.6)


def test_passes_pair_with_the_nearest_of_the_other_orbit_once():
    found, refused = s1.passes([
        pass_item("S1A_a_b_c_1_x", "ascending", "2020-07-01"), pass_item("S1A_a_b_c_2_x", "ascending", "2020-07-03"),
        pass_item("S1A_a_b_c_3_x", "descending", "2020-07-02"), pass_item("S1A_a_b_c_4_x", "descending", "2020-07-15"),
        pass_item("S1A_a_b_c_5_x", "descending", "2020-07-16"),
    ])  # fmt: skip
    scenes, decisions = s1.decide(found, AREA, "both", 12, 0.9)
    days = [{orbit: p.day.day for orbit, p in scene.items()} for scene in scenes]
    assert days == [{"ascending": 1, "descending": 2}, {"ascending": 3, "descending": 15}]
    assert not refused and [d.reason for d in decisions if not d.accepted] == [
        "no ascending pass within 12 days that is not taken"
    ]


def test_what_is_not_iw_dual_polarization_is_refused():
    lacking = pass_item("S1A_hh", "ascending", "2020-07-01")
    lacking.assets.pop("vh")
    found, refused = s1.passes([
        pass_item("S1A_ew", "ascending", "2020-07-01", **{"sar:instrument_mode": "EW"}), lacking,
        pass_item("S1A_x", "sideways", "2020-07-01"),
    ])  # fmt: skip
    assert not found
    assert [d.reason for d in refused] == [
        "not an IW scene: EW, ascending", "polarization missing: vh", "not an IW scene: IW, sideways",
    ]  # fmt: skip


def test_of_two_processings_of_one_slice_one_is_used():
    twice = [pass_item(f"S1A_IW_GRDH_1SDV_20200701T115900_20200701T115925_033300_03DE00_{v}", "ascending", "2020-07-01")
             for v in ("AAAA_rtc", "BBBB_rtc")]  # fmt: skip
    (only,) = s1.passes(twice)[0]
    assert [s.id[-8:] for s in only.slices] == ["BBBB_rtc"] and only.day == datetime.date(2020, 7, 1)


def test_a_pass_that_misses_the_area_is_refused(acquire):
    far = box(80.0, 32.5, 80.1, 32.6)
    found, _ = s1.passes([pass_item("S1A_1", "ascending", "2020-07-01")])
    scenes, decisions = s1.decide(found, far, "ascending", 12, 0.9)
    assert not scenes and decisions[0].reason == "sees too little of the area: 0%"


def test_decibels_keep_no_data_apart_from_zero_decibel():
    given = np.array([1.0, 10.0, 0.01, 0.0, -32768.0, np.nan, np.inf], np.float32)
    db = s1.decibels(given)
    np.testing.assert_allclose(db[:3], [0, 10, -20], atol=1e-6)
    assert db[0] != 0 and (db[3:] == 0).all() and db.dtype == np.float32


def test_the_report_names_every_pass(acquire, scene, tmp_path):
    acquire()
    with open(next((tmp_path / "out").glob("s1_2*.csv")), newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["orbit"], r["slices"], r["days"], r["accepted"]) for r in rows] == [
        ("ascending", "2", "2", "yes"), ("descending", "1", "-2", "yes"),
    ]  # fmt: skip
