"""``availability``: dates counted once, covered by clear scenes, a month's and a year's gain."""

import csv
import datetime

import pytest
from shapely.geometry import box
from tidemark.datasets.acquire.availability import availability, clear_dates, words
from tidemark.datasets.acquire.commands import availability as command
from tidemark.datasets.acquire.stac import read_item
from tidemark.errors import InputError

AREA = box(1.0, 44.0, 1.2, 44.1)
WEST, EAST = box(0.9, 43.9, 1.1, 44.2), box(1.1, 43.9, 1.3, 44.2)


def scene(day, cloud=5.0, outline=AREA, name=None, number=0):
    properties = {"datetime": f"{day}T10:00:00Z", "eo:cloud_cover": cloud}
    properties["s2:product_uri"] = (
        f"S2A_MSIL2A_{day.replace('-', '')}T105031_N0500_R051_T31TDJ_20210705T13522{number}.SAFE"
    )
    name = name or f"LC08_L2SP_199030_{day.replace('-', '')}_20220101_02_T1_SR"
    return read_item({"id": name, "geometry": outline.__geo_interface__, "properties": properties, "assets": {}})


def dates(scenes, cloud=10.0, share=0.9):
    return [d.day for d in clear_dates(scenes, AREA, cloud, share)]


def test_a_date_counts_by_cloud_and_cover():
    assert dates([scene("2021-07-01", 10.0), scene("2021-07-02", 10.1), scene("2021-07-03", None)]) == [1]
    assert dates([scene("2021-07-01", outline=WEST)]) == []
    assert dates([scene("2021-07-01", outline=WEST)], share=0.5) == [1]


def test_the_clear_scenes_of_a_day_count_together_and_the_day_once():
    both = [scene("2021-07-01", outline=WEST), scene("2021-07-01", outline=EAST)]
    assert dates(both) == [1] and dates([*both, scene("2021-07-01")]) == [1]
    assert dates([both[0], scene("2021-07-01", 80.0, EAST)]) == []


def test_united_dates_are_those_of_either_and_the_gain_is_over_one():
    landsat = [scene(f"2021-07-{d:02d}") for d in (1, 2, 3)] + [scene("2021-08-01", name="LC09_L2SP_x")]
    sentinel = [scene(f"2021-07-{d:02d}") for d in (3, 4, 5, 6, 7)] + [scene("2021-08-09")]
    found = availability(2021, landsat, sentinel, AREA, 10.0, 0.9)
    assert found.monthly()[6:8].tolist() == [[3, 5, 7], [0, 1, 1]] and found.monthly().sum() == 3 + 6 + 8
    assert found.gain("sentinel2") == pytest.approx(8 / 6 - 1) and found.gain("landsat8") == pytest.approx(8 / 3 - 1)
    assert "gain over Sentinel-2 alone: +33%" in words(found)
    assert availability(2021, [], [], AREA, 10.0, 0.9).gain("sentinel2") is None


def test_the_command_asks_both_catalogues_and_writes_table_and_plot(service, config, archive_tools, tmp_path, capsys):
    def add(collection, name, day, cloud, uri=""):
        properties = {"eo:cloud_cover": cloud, "s2:product_uri": uri}
        when = f"{day}T10:00:00.5Z"
        service.items.append(archive_tools["item"](name, collection, when, AREA.bounds, properties, {}))

    for number in range(1, 29):  # more than a page of each
        day = f"2021-{1 + number % 12:02d}-{number:02d}"
        add("landsat-c2l2-sr", f"LC08_L2SP_199030_{day.replace('-', '')}_20220101_02_T1_SR", day, number)
        for minute in range(5):
            other = (datetime.date.fromisoformat(day) - datetime.timedelta(days=minute)).isoformat()
            uri = f"S2A_MSIL2A_{other.replace('-', '')}T1050{minute:02d}_N0500_R051_T31TDJ_20210705T135229.SAFE"
            add("sentinel-2-c1-l2a", f"S2A_{number}_{minute}", other, 5.0 if minute else 90.0, uri)
    found = command("1.0,44.0,1.2,44.1", 2021, tmp_path / "out", config=config)
    assert len(found.dates["landsat8"]) == 10  # 1 % to 10 %
    with open(next((tmp_path / "out").glob("availability_*.csv")), newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 13 and rows[-1]["month"] == "2021"
    for kind in ("landsat8", "sentinel2", "united"):
        assert int(rows[-1][kind]) == sum(int(r[kind]) for r in rows[:-1]) == len(found.dates[kind])
    assert next((tmp_path / "out").glob("availability_*.png")).read_bytes().startswith(b"\x89PNG")
    assert "gain over Sentinel-2 alone: +" in capsys.readouterr().out
    assert service.count("/files/") == 0


def test_an_area_without_height_is_refused(config, tmp_path):
    with pytest.raises(InputError, match="--bbox"):
        command("1.0,44.0,1.2,44.0", 2021, tmp_path, config=config)
