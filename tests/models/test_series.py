"""Dated maps to occurrence, areas and trend: counted by hand on a few pixels, hostile input named."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.transform import from_origin
from tidemark import cli
from tidemark.benchmark.records import make_result, write_result
from tidemark.errors import ConfigError, InputError, PartialResultError, SceneError
from tidemark.models import series_maps
from tidemark.models.series import series
from tidemark.models.series_area import error_rates

# Every pixel has 1 km² or as good: on the equator, in an equal-area projection with a pixel of 1000 m.
EQUAL_AREA = "+proj=cea +lon_0=0 +datum=WGS84 +units=m"
PLACE = {"crs": EQUAL_AREA, "transform": from_origin(0, 4000, 1000, 1000)}
NAMES = "class: 0 = dry, 1 = water"
X = 255
JANUARY = [[1, 1, 0, X], [1, 0, 0, X], [0, 0, 0, 0], [1, X, 0, 0]]
ALSO_JANUARY = [[1, 0, 0, X], [1, 0, X, 0], [1, 0, 0, 0], [1, X, 0, 0]]
MARCH = [[1, 1, 1, X], [1, 0, 0, X], [1, 0, 0, 0], [1, X, 1, 1]]


def write(path: Path, values, description=NAMES, **profile) -> Path:
    array = np.array(values)
    array = array.astype(np.uint8) if array.dtype.kind in "iu" and "dtype" not in profile else array
    path.parent.mkdir(parents=True, exist_ok=True)
    options = PLACE | {"driver": "GTiff", "dtype": array.dtype, "count": 1, "height": array.shape[0],
                       "width": array.shape[1], "nodata": 255} | profile  # fmt: skip
    with rasterio.open(path, "w", **options) as file:
        file.write(array, 1)
        file.descriptions = (description,)
    return path


@pytest.fixture
def maps(tmp_path):
    folder = tmp_path / "maps"
    write(folder / "lake_20200110_water.tif", JANUARY)
    write(folder / "lake_20200122_water.tif", ALSO_JANUARY)
    write(folder / "2020-03.tif", MARCH)
    write(folder / "2020-03_probability.tif", MARCH, "probability of water, percent")
    return folder


def read(path):
    with rasterio.open(path) as file:
        return file.read(1)


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_occurrence_and_areas_by_hand(maps, tmp_path):
    found = series([maps], tmp_path / "out")
    expected = [[100, 67, 33, 255], [100, 0, 0, 0], [67, 0, 0, 0], [100, 255, 33, 33]]
    np.testing.assert_array_equal(read(tmp_path / "out" / "occurrence.tif"), expected)
    np.testing.assert_array_equal(
        read(tmp_path / "out" / "observations.tif"), [[3, 3, 3, 0], [3, 3, 2, 1], [3, 3, 3, 3], [3, 0, 3, 3]]
    )
    with rasterio.open(tmp_path / "out" / "occurrence.tif") as file:
        assert file.nodata == 255 and file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
    # January: (0,0), (0,1) by one of two, (1,0), (2,0) by one of two, (3,0) are water; two pixels were not seen
    january, march = found.months
    assert (january.month, january.maps, march.month, march.maps) == ("2020-01", 2, "2020-03", 1)
    assert (january.region_km2, january.seen_km2, january.mapped_km2) == pytest.approx((16, 14, 5), rel=1e-6)
    assert (march.seen_km2, march.mapped_km2) == pytest.approx((13, 8), rel=1e-6)
    assert march.area.value == march.mapped_km2 and np.isnan(march.area.low)
    assert found.trends["all"].months == 0  # neither month saw 95 %
    rows = table(tmp_path / "out" / "area.csv")
    assert [row["month"] for row in rows] == ["2020-01", "2020-03"] and rows[0]["low_km2"] == ""
    assert float(rows[0]["mapped_km2"]) == pytest.approx(5, rel=1e-6)
    assert float(rows[1]["seen_share"]) == pytest.approx(13 / 16)
    assert (tmp_path / "out" / "area.png").read_bytes().startswith(b"\x89PNG")


def test_regions_take_the_pixels_whose_centres_they_hold(maps, tmp_path):
    west, inside = shapely.box(-500, -500, 2100, 5000), shapely.box(900, 2900, 2100, 4100)
    frame = geopandas.GeoDataFrame({"name": ["west", "in", "=west"]}, geometry=[west, inside, west], crs=EQUAL_AREA)
    frame.to_crs("EPSG:4326").to_file(tmp_path / "r.gpkg")
    found = series([maps], tmp_path / "out", regions=tmp_path / "r.gpkg", min_seen=0)
    areas = {(m.region, m.month): (round(m.region_km2, 4), round(m.seen_km2, 4), round(m.mapped_km2, 4))
             for m in found.months}  # fmt: skip
    assert areas[("west", "2020-01")] == (8, 7, 5) and areas[("west", "2020-03")] == (8, 7, 5)
    assert areas[("in", "2020-01")] == (1, 1, 1) and areas[("in", "2020-03")] == (1, 1, 1)
    assert list(found.trends) == ["=west", "in", "west"]
    assert table(tmp_path / "out" / "area.csv")[0]["region"] == "'=west"  # no formula in a spreadsheet


def test_strips_of_any_height_give_the_same(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    values = rng.choice([0, 1, 255], (3, 70, 40)).astype(np.uint8)
    paths = [write(tmp_path / f"m2020{k + 1:02d}.tif", v) for k, v in enumerate(values)]
    geopandas.GeoDataFrame(geometry=[shapely.Point(20_000, -20_000).buffer(17_000)], crs=EQUAL_AREA).to_file(
        tmp_path / "r.gpkg"
    )
    whole = series(paths, tmp_path / "a", regions=tmp_path / "r.gpkg")
    monkeypatch.setattr("tidemark.models.series.BLOCK_PX", 16)
    cut = series(paths, tmp_path / "b", regions=tmp_path / "r.gpkg")
    for one, other in zip(whole.months, cut.months, strict=True):
        assert (one.region_km2, one.seen_km2, one.mapped_km2) == pytest.approx(
            (other.region_km2, other.seen_km2, other.mapped_km2), rel=1e-9
        )
    np.testing.assert_array_equal(read(tmp_path / "a" / "occurrence.tif"), read(tmp_path / "b" / "occurrence.tif"))
    known, water = values != 255, values == 1
    share = np.where(known.any(0), np.rint(100 * water.sum(0) / np.maximum(known.sum(0), 1)), 255)
    np.testing.assert_array_equal(read(tmp_path / "a" / "occurrence.tif"), share)


def test_a_geographic_grid_counts_square_kilometres_not_degrees(tmp_path):
    """One degree of ground at 60 N is half as wide as at the equator."""
    values = np.ones((2, 10), np.uint8)
    for name, north in (("e_202001.tif", 0.01), ("n_202001.tif", 60.01)):
        place = {"crs": "EPSG:4326", "transform": from_origin(10, north, 0.01, 0.01)}
        write(tmp_path / name, values, **place)
    found = [series([tmp_path / n], tmp_path / n[0]).months[0] for n in ("e_202001.tif", "n_202001.tif")]
    equator, north = (month.mapped_km2 for month in found)
    assert equator == pytest.approx(20 * 1.11320 * 1.10574, rel=1e-4)  # km of 0.01° of longitude and of latitude
    assert north == pytest.approx(20 * 0.55800 * 1.11412, rel=1e-3)


def test_a_map_on_another_grid_is_brought_to_the_first(tmp_path):
    write(tmp_path / "a_20200101.tif", JANUARY)
    halves = np.kron(np.array(MARCH), np.ones((2, 2), int))
    write(tmp_path / "b_20200301.tif", halves, transform=from_origin(0, 4000, 500, 500))
    write(tmp_path / "c_20200401.tif", MARCH, transform=from_origin(9e6, 4000, 1000, 1000))
    with pytest.raises(PartialResultError, match="2 of 3 maps used; not c_20200401.tif"):
        series([tmp_path], tmp_path / "out")
    both = np.array([JANUARY, MARCH])
    known = both != 255
    share = np.where(known.any(0), np.rint(100 * (both == 1).sum(0) / np.maximum(known.sum(0), 1)), 255)
    np.testing.assert_array_equal(read(tmp_path / "out" / "occurrence.tif"), share)


def test_the_errors_of_the_maps_are_taken_out(maps, tmp_path):
    units = [[[980, 20], [10, 90]]] * 6
    found = series([maps], tmp_path / "out", errors=error_rates(units, 1))
    # M = 5 of 14 km² seen: (5 - .02 · 14) / (.9 - .02)
    assert found.months[0].area.value == pytest.approx((5 - 0.28) / 0.88, rel=1e-5)
    sample = series([maps], tmp_path / "s", errors=np.array([[45, 5], [5, 45]]))
    assert sample.months[0].area.value == pytest.approx(9 * 0.1 + 5 * 0.9, rel=1e-5)
    assert sample.months[0].area.low < 5.4 < sample.months[0].area.high
    with pytest.raises(InputError, match="the sample does not do.*less than two"):
        series([maps], tmp_path / "t", errors=np.array([[45, 5], [0, 1]]))


def test_a_trend_is_found_and_drawn(tmp_path):
    for number in range(12):
        values = np.zeros((10, 12), np.uint8)
        values[:, : number + 1] = 1
        write(tmp_path / f"m_{2010 + number}07.tif", values)
    found = series([tmp_path], tmp_path / "out").trends["all"]
    assert found.slope == pytest.approx(10, rel=1e-5) and found.p < 1e-6
    row = table(tmp_path / "out" / "trend.csv")[0]
    assert (row["region"], row["months"]) == ("all", "12")
    assert float(row["slope_km2_per_year"]) == pytest.approx(10, rel=1e-5)


# --- hostile input


def test_maps_that_cannot_be_used_are_named_and_the_others_count(maps, tmp_path, capsys):
    write(maps / "undated.tif", MARCH)
    write(maps / "p_20200401.tif", MARCH, "probability of water, percent")
    write(maps / "f_20200402.tif", np.array(MARCH, np.float32))
    write(maps / "nocrs_20200403.tif", MARCH, crs=None)
    write(maps / "turned_20200404.tif", MARCH, transform=rasterio.Affine(700, 700, 0, 700, -700, 0))
    write(maps / "ice_20200405.tif", MARCH, "class: 0 = land, 1 = ice")
    (maps / "vrt_20200406.tif").write_text("<VRTDataset rasterXSize='2' rasterYSize='2'></VRTDataset>")
    broken = write(maps / "broken_20200101.tif", np.random.default_rng(0).integers(0, 2, (64, 64)), compress="deflate")
    with rasterio.open(broken) as file:
        start = int(file.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1))
    data = bytearray(broken.read_bytes())
    data[start + 20 : start + 120] = bytes(100)
    broken.write_bytes(data)
    with pytest.raises(PartialResultError, match="3 of 11 maps used") as partial:
        series([maps], tmp_path / "out")
    assert partial.value.exit_code == 3
    text = capsys.readouterr().err
    for name, what in (("undated", "no date in its name"), ("p_2020", "no class map (probability"),
                       ("f_2020", "no class map"), ("nocrs", "no coordinate reference system"),
                       ("turned", "rotated or flipped"), ("ice", "no class 'water', there is land, ice"),
                       ("vrt", "not a GTiff"), ("broken", "corrupt")):  # fmt: skip
        line = next(line for line in text.splitlines() if name in line)
        assert what in line, line
    assert len(text.splitlines()) == 8
    clean = tmp_path / "clean"
    series([maps / "lake_20200110_water.tif", maps / "lake_20200122_water.tif", maps / "2020-03.tif"], clean)
    for name in ("occurrence.tif", "area.csv", "trend.csv"):
        assert (clean / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    with pytest.raises(SceneError):
        series([maps], tmp_path / "out", strict=True)


def test_without_a_usable_map_the_old_series_stays(maps, tmp_path):
    series([maps], tmp_path / "out")
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    with pytest.raises(InputError, match="none of 1 maps can be used"):
        series([write(tmp_path / "x.tif", MARCH)], tmp_path / "out")
    with pytest.raises(InputError, match="no class map"):
        series([tmp_path / "out"][:0], tmp_path / "out")
    with pytest.raises(SceneError, match="no attribute 'basin', there is other"):
        frame = geopandas.GeoDataFrame({"other": [1]}, geometry=[shapely.box(0, 0, 1000, 1000)], crs=EQUAL_AREA)
        frame.to_file(tmp_path / "r.gpkg")
        series([maps], tmp_path / "out", regions=tmp_path / "r.gpkg", region_name="basin")
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before


@pytest.mark.parametrize(
    ("name", "date"),
    [
        ("S1A_20180116T075430_x", "2018-01-16"),
        ("water-2019-07", "2019-07-01"),
        ("map_2021_12_31_v2", "2021-12-31"),
        ("t0001_20200229", "2020-02-29"),
        ("LC08_L2SP_199030_20210705_20210712_02", "2021-07-05"),
    ],
)
def test_dates_are_found_in_names(name, date):
    found = series_maps.date_in_name(Path(f"{name}.tif"), series_maps.date_pattern(None))
    assert found.isoformat() == date


@pytest.mark.parametrize("name", ["water", "20190230", "99991301", "1202001011", "2021250T163901"])
def test_what_is_no_date_is_not_taken_for_one(name):
    with pytest.raises(SceneError, match="no date in its name; give --date-pattern or --dates"):
        series_maps.date_in_name(Path(f"{name}.tif"), series_maps.date_pattern(None))


def test_dates_come_from_a_table_or_a_pattern(maps, tmp_path):
    (tmp_path / "d.csv").write_text("file,date\nlake_20200110_water.tif,2019-05-01\nlake_20200122_water.tif,2019-06\n")
    with pytest.raises(PartialResultError, match="2 of 3"):
        series([maps], tmp_path / "out", dates=tmp_path / "d.csv")
    assert [row["month"] for row in table(tmp_path / "out" / "area.csv")] == ["2019-05", "2019-06"]
    own = write(tmp_path / "own" / "day10_y2017_m04.tif", MARCH)
    found = series([own], tmp_path / "o", pattern=r"y(?P<year>\d{4})_m(?P<month>\d\d)")
    assert found.months[0].month == "2017-04"
    for text, what in (("file,day\na,b\n", "no column date"), ("file,date\na,May\n", "line 2: no date 'May'"),
                       ("file,date\na\n", "too few columns"),
                       ("file,date\na,2020-01-01\na,2020-01\na,2020-02\n", "second date")):  # fmt: skip
        (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(ConfigError, match=what):
            series([maps], tmp_path / "out", dates=tmp_path / "bad.csv")
    for pattern, what in (("(", "no regular expression"), (r"\d+", "groups")):
        with pytest.raises(ConfigError, match=what):
            series([maps], tmp_path / "out", pattern=pattern)


# --- the command


def result_file(path, units=6):
    """A record as evaluate writes it, of a water model on so many scenes."""
    sha, confusion = "0" * 64, ((980, 20), (10, 90))
    write_result(path, make_result(
        task="binary-segmentation", seed=0, chips=units, predictions_sha256=sha,
        dataset={"name": "lakes", "version": "1.0.0", "title": "Lakes", "content_sha256": sha, "manifest_sha256": sha,
                 "split": "test", "simulated": True, "licence": None},
        model={"name": "unet", "label": "U-Net", "parameters": 1, "weights_sha256": sha, "trained": True},
        classes=[{"id": 0, "name": "dry", "color": "#000000"}, {"id": 1, "name": "water", "color": "#0000ff"}],
        metrics={"iou": {"value": 0.75}}, harness={"version": "0"},
        units=[{"id": f"s{i}", "confusion": confusion, "pixels": 1100, "scores": {}} for i in range(units)],
    ))  # fmt: skip
    return path


def test_the_command_takes_errors_from_a_record_or_a_sample(maps, tmp_path, monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["tidemark", "series", *map(str, arguments)])
        try:
            cli.main()
        except SystemExit as end:
            return end.code or 0

    record = result_file(tmp_path / "result.json")
    assert not run(maps, "--errors", record, "--out", tmp_path / "r")
    january = table(tmp_path / "r" / "area.csv")[0]
    assert float(january["area_km2"]) == pytest.approx((5 - 0.28) / 0.88, rel=1e-5) and january["low_km2"]
    assert not run(maps, "--errors", result_file(tmp_path / "few.json", 3), "--out", tmp_path / "f")
    assert "3 scenes behind the error rates, below 6" in capsys.readouterr().out
    assert table(tmp_path / "f" / "area.csv")[0]["low_km2"] == ""
    (tmp_path / "s.csv").write_text("map,truth,count\n0,0,45\n0,1,5\n1,0,5\n1,1,45\n")
    assert not run(maps, "--errors", tmp_path / "s.csv", "--out", tmp_path / "s")
    assert float(table(tmp_path / "s" / "area.csv")[0]["area_km2"]) == pytest.approx(5.4, rel=1e-5)
    assert run(maps, "--errors", record, "--class", "ice", "--out", tmp_path / "n") == 2
    assert "no class 'ice', the record has dry, water" in capsys.readouterr().err
    (tmp_path / "s.csv").write_text("map,truth,count\n2,0,45\n")
    assert run(maps, "--errors", tmp_path / "s.csv", "--out", tmp_path / "n") == 2
    assert "line 2: map and truth are 0 or 1" in capsys.readouterr().err and not (tmp_path / "n").exists()


MEMORY = """
import sys
from tidemark.models.series import series

def status(key):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key))

series([{small!r}], {out!r} + "0")  # everything is loaded
before = status("VmRSS")
series([{maps!r}], {out!r})
print(status("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from /proc")
def test_large_maps_are_read_strip_by_strip(tmp_path):
    """Six maps of 20 000 x 20 000 px (2.4 GB) in less than 1 GiB."""
    profile = PLACE | {"driver": "GTiff", "dtype": "uint8", "count": 1, "height": 20_000, "width": 20_000,
                       "tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "nodata": 255,
                       "sparse_ok": True, "transform": from_origin(0, 200_000, 10, 10)}  # fmt: skip
    (tmp_path / "maps").mkdir()
    for month in range(1, 7):
        with rasterio.open(tmp_path / "maps" / f"m_2020{month:02d}.tif", "w", **profile) as file:
            for row in range(0, 20_000 - 512, 4096):
                values = np.full((512, 2048), month % 2, np.uint8)
                file.write(values, 1, window=rasterio.windows.Window(2048, row, 2048, 512))
    small = write(tmp_path / "small_202001.tif", JANUARY)
    script = MEMORY.format(small=str(small), maps=str(tmp_path / "maps"), out=str(tmp_path / "out"))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    assert int(done.stdout.split()[-1]) * 1024 < 1 << 30
    with rasterio.open(tmp_path / "out" / "occurrence.tif") as file:
        window = rasterio.windows.Window(2040, 0, 16, 16)
        assert (file.read(1, window=window) == np.repeat([[255] * 8 + [50] * 8], 16, 0)).all()
