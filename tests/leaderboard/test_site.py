"""The leaderboard's files: what is on the page, what is refused, and what is never shown."""

from __future__ import annotations

import json
import re

import pyarrow.parquet as pq
import pytest
from tidemark.benchmark.records import make_result
from tidemark.datasets.files import write_atomic
from tidemark.datasets.spec import canonical_json
from tidemark.errors import FormatError, InputError
from tidemark.leaderboard import site, view
from tidemark.leaderboard.site import build_site
from tidemark.leaderboard.submission import make_withdrawn, read_submission


def test_the_page_is_one_small_file_that_needs_no_network(page_path):
    html = page_path.read_text()
    assert len(html.encode()) < 3_000_000
    assert set(re.findall(r"""src=["']([^"',:]*[,:]?)""", html)) == {"data:"}
    links = set(re.findall(r"""href=["']([^"'#][^"']*)""", html))
    assert links - {u for u in links if u.startswith("https://doi.org/")} == {
        "data:,",
        "leaderboard.json",
        "leaderboard.parquet",
    }
    assert "default-src 'none'" in html and not re.search(r"@import|url\(", html)


def test_the_same_records_give_the_same_bytes_in_any_order(records, tmp_path):
    paths = records.save(tmp_path / "records", *records.flood())
    first, second = build_site(paths, tmp_path / "a"), build_site(paths[::-1], tmp_path / "b")
    for name in ("index.html", "leaderboard.json", "leaderboard.parquet"):
        assert (first.parent / name).read_bytes() == (second.parent / name).read_bytes()


def test_an_html_path_names_the_page_itself(records, tmp_path):
    records.save(tmp_path / "records", records.simulated())
    assert build_site(tmp_path / "records", tmp_path / "board.html") == tmp_path / "board.html"
    assert (tmp_path / "leaderboard.json").exists()


def test_a_bad_record_is_refused_with_its_file_and_nothing_is_written(records, tmp_path):
    (path,) = records.save(tmp_path / "records", records.simulated())
    raw = json.loads(path.read_text())
    raw["units"][0]["pixels"] += 1
    path.write_text(json.dumps(raw))
    with pytest.raises(FormatError, match=re.escape(str(path)) + ".*pixels"):
        build_site(tmp_path / "records", tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_records_of_other_pixels_under_the_same_version_are_refused(records, tmp_path):
    one = records.make()
    other = records.make(seed=1).model_dump(mode="json", exclude={"id"})
    other["dataset"]["content_sha256"] = "f" * 64
    records.save(tmp_path / "records", one, make_result(**other))
    with pytest.raises(FormatError, match="ombria 1.0.0: .*differ in content_sha256"):
        build_site(tmp_path / "records", tmp_path / "site")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        build_site(tmp_path / "nowhere", tmp_path / "site")


def test_no_records_make_a_page_that_says_so(tmp_path):
    (tmp_path / "records").mkdir()
    assert "There is no result yet" in build_site(tmp_path / "records", tmp_path / "site").read_text()


def test_json_and_parquet_hold_the_figures_of_the_page(page_path):
    tables = json.loads(page_path.with_name("leaderboard.json").read_text())["tables"]
    table = next(t for t in tables if (t["dataset"], t["split"]) == ("ombria", "test"))
    unet = next(r for r in table["rows"] if r["model"]["name"] == "unet")
    assert unet["seeds"] == [0, 1, 2] and len(unet["records"]) == 3 and unet["order"] == 1
    lines = pq.read_table(page_path.with_name("leaderboard.parquet")).to_pylist()
    wanted = {"dataset": "ombria", "split": "test", "model": "unet", "headline": True}
    (line,) = [r for r in lines if wanted.items() <= r.items()]
    assert (line["mean"], line["low"]) == (unet["metrics"]["iou"]["mean"], None)
    assert f"<b>{line['mean']:.3f}</b>" in page_path.read_text()


def test_maps_are_shown_only_where_the_licence_is_known_to_be_open(records, tmp_path):
    closed = records.make(licence="not stated")
    opened = records.make(name="other", licence="CC BY 4.0")
    for path in records.save(tmp_path / "records", closed, opened):
        (path.parent / "example-test-1-worst-chip.png").write_bytes(records.png)
    html = build_site(tmp_path / "records", tmp_path / "site").read_text()
    assert html.count("data:image/png;base64") == 1
    assert "No example maps: the licence of this data set is not stated." in html


@pytest.mark.parametrize(
    ("licence", "shown"),
    [
        ("CC-BY-4.0", True),
        ("CC0-1.0", True),
        ("MIT", True),
        ("Apache-2.0", True),
        ("cc by-sa 4.0", True),
        ("not stated", False),
        (None, False),
        ("", False),
        ("CC-BY-NC-4.0", False),
        ("CC BY-ND 4.0", False),
        ("all rights reserved", False),
        ("mitigated", False),
    ],
)
def test_licences(licence, shown):
    assert view.may_show_maps(False, licence) is shown
    assert view.may_show_maps(True, licence)


def test_a_map_that_is_no_png_is_refused_by_name(records, tmp_path):
    (path,) = records.save(tmp_path / "records", records.simulated())
    (path.parent / "example-1.png").write_bytes(b"<svg onload=alert(1)>")
    with pytest.raises(FormatError, match="example-1.png"):
        build_site(tmp_path / "records", tmp_path / "site")


def test_maps_beyond_the_size_of_the_page_are_counted_out(records, tmp_path, monkeypatch):
    (path,) = records.save(tmp_path / "records", records.simulated())
    for i in range(3):
        (path.parent / f"example-test-{i}.png").write_bytes(records.png + bytes(60_000))
    bare = len(build_site(path, tmp_path / "bare").read_bytes()) - 3 * 80_000
    monkeypatch.setattr(site, "MAX_PAGE_BYTES", bare + 100_000)
    page = build_site(path.parent, tmp_path / "site")
    assert page.stat().st_size <= bare + 100_000
    assert "2 example maps were left out" in page.read_text()


def test_evidence_is_shortened_and_said_to_be_before_a_page_grows_too_large(records, tmp_path, monkeypatch):
    path, *_ = records.save(tmp_path / "records", records.simulated(units=40, config="KEY: value\n" * 300))
    whole = build_site(path, tmp_path / "whole").read_text()
    assert "shortened" not in whole and "KEY: value" in whole and ">Units, worst first<" in whole
    monkeypatch.setattr(site, "MAX_PAGE_BYTES", len(whole.encode()) - 3000)
    short = build_site(path, tmp_path / "short").read_text()
    assert "the evidence here is shortened to 15 units a row and no configurations" in short
    assert "KEY: value" not in short and "The 15 worst of 40 units" in short
    assert "KEY: value" in (tmp_path / "short" / "leaderboard.json").read_text()
    monkeypatch.setattr(site, "MAX_PAGE_BYTES", 1000)
    with pytest.raises(FormatError, match="over the limit of 1000; build a page per data set"):
        build_site(path, tmp_path / "none")


def largest(records, folder, number):
    """A claim of as many and as long words as a submission may have, of a letter that HTML writes as five."""
    return records.submit(
        folder,
        "claimed",
        label="'" * 98 + str(number),
        team=f"Team {number}",
        seeds=20,
        of_seed=lambda seed: {"command": "'" * 3990 + str(seed), "note": "'" * 1990 + str(seed)},
        statement={"title": "'" * 200, "training_data": ["'" * 500] * 50, "note": "'" * 2000},
        model=f"net-{number}",
        config="'" * 20_000,
        packages={f"{i:02d}" + "'" * 490: "'" * 500 for i in range(100)},
        arguments={f"{i}" + "'" * 490: "'" * 400 for i in range(10)},
        speed=records.speed(50, "'" * 500),
        **records.demo(2),
    )


def test_the_largest_claims_leave_the_page_whole(records, tmp_path):
    records.save(tmp_path / "records", records.simulated(units=2, note="a note of the house"))
    for number in range(5):
        largest(records, tmp_path / "records", number)
    page = build_site(tmp_path / "records", tmp_path / "site")
    html = page.read_text()
    assert page.stat().st_size < 2_000_000 and "shortened" not in html and "a note of the house" in html
    assert html.count("Command, the first of 20") == 10 and "&#39;" * 5000 not in html


def test_the_last_page_that_is_tried_cuts_words_and_leaves_claims_out(records, tmp_path, monkeypatch):
    records.save(tmp_path / "records", records.simulated(units=2, note="a note of the house " + "w" * 1000))
    for number in range(3):
        records.submit(tmp_path / "records", "claimed", label=f"Net {number}", model=f"n{number}", **records.demo(2))
    monkeypatch.setattr(site, "DETAILS", site.DETAILS[-1:])
    html = build_site(tmp_path / "records", tmp_path / "site").read_text()
    assert "a note of the house" in html and "w" * 500 not in html and "its words are cut" in html
    assert html.count("2 more in leaderboard.json") == 2 and len(re.findall(r'class="name">Net \d<', html)) == 2
    data = (tmp_path / "site" / "leaderboard.json").read_text()
    assert all(f"Net {number}" in data for number in range(3))


def test_a_small_file_that_unpacks_into_gigabytes_is_no_map(records, tmp_path):
    (path,) = records.save(tmp_path / "records", records.simulated())
    bomb = bytearray(records.png)
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2
    (path.parent / "example-1.png").write_bytes(bomb)
    with pytest.raises(FormatError, match="example-1.png: a PNG of 60000 x 60000 pixels"):
        build_site(tmp_path / "records", tmp_path / "site")


def test_what_was_withdrawn_is_on_no_page(records, tmp_path):
    records.save(tmp_path / "records", records.simulated())
    folder = records.submit(tmp_path / "records", "scored", label="Regretted net", model="net", **records.demo())
    assert "Regretted net" in build_site(tmp_path / "records", tmp_path / "site").read_text()
    submission = read_submission(folder / "submission.json")
    write_atomic(folder / "withdrawn.json", canonical_json(make_withdrawn(submission, "trained on the test split")))
    for name in ("index.html", "leaderboard.json"):
        build_site(tmp_path / "records", tmp_path / "site")
        assert "Regretted net" not in (tmp_path / "site" / name).read_text()


def test_throughput_that_a_submitter_states_is_said_so_and_shares_no_front_with_what_was_measured(records, tmp_path):
    house = [
        records.simulated(model=f"net-{i}", label=f"House {i}", draw=i, speed=records.speed(10.0 + i)) for i in range(2)
    ]
    records.save(tmp_path / "records", *house)
    records.submit(
        tmp_path / "records", "scored", label="Fast net", model="fast", speed=records.speed(9999), **records.demo()
    )
    html = build_site(tmp_path / "records", tmp_path / "site").read_text()
    (figure,) = re.findall(r'<figure class="pareto.*?</figure>', html, re.S)
    assert "House 0" in figure and "Fast net" not in figure
    assert "Slanted</i> throughput is as submitters state it" in html
    tables = json.loads((tmp_path / "site" / "leaderboard.json").read_text())["tables"]
    measured = {r["label"]: r["speed_measured_here"] for r in tables[0]["rows"]}
    assert measured == {"House 0": True, "House 1": True, "Fast net": False}


def test_a_class_that_occurs_nowhere_is_named(records, tmp_path):
    raw = json.loads(records.make(task="segmentation", units=("a", "b")).model_dump_json(exclude={"id"}))
    for unit in raw["units"]:
        unit["confusion"] = [[40, 10, 0], [10, 40, 0], [0, 0, 0]]
        unit["pixels"] = 100
    records.save(tmp_path / "records", make_result(**raw))
    html = build_site(tmp_path / "records", tmp_path / "site").read_text()
    assert "No score of land: absent from labels and predictions." in html and "IoU, land" not in html


@pytest.mark.parametrize(("units", "interval", "separable"), [(5, False, False), (6, True, False), (9, True, True)])
def test_few_units_give_scores_and_no_separation(records, tmp_path, units, interval, separable):
    records.save(tmp_path / "records", records.simulated(units=units))
    html = build_site(tmp_path / "records", tmp_path / "site").read_text()
    assert ('class="range"' in html) is interval
    assert ("each unit's score instead of an interval" in html) is not interval
    assert html.count('<td class="number unit"') == (0 if interval else units)
    assert ("with fewer than 9 units models can't be separated." in html) is not separable


def test_a_note_about_a_leak_marks_the_table(records, tmp_path):
    records.save(tmp_path / "records", records.make(note="Leaky: chips touch training chips."))
    html = build_site(tmp_path / "records", tmp_path / "site").read_text()
    assert "LEAKY SPLIT" in html and "Leaky split: its chips share ground with training" in html


def test_what_a_submitter_says_about_leaks_marks_no_table(records, tmp_path):
    records.save(tmp_path / "records", records.simulated())
    words = "nothing can leak from training"
    records.submit(tmp_path / "records", "claimed", label="Clean net", model="net", note=words, **records.demo())
    html = build_site(tmp_path / "records", tmp_path / "site").read_text()
    assert words in html and "LEAKY SPLIT" not in html


def test_colours_have_enough_contrast(page_path):
    def luminance(colour: str) -> float:
        colour = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
        linear = [
            v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4
            for v in (int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4))
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    css = page_path.read_text()
    pairs = {
        "ink": "page card raised soft",
        "muted": "page card raised soft",
        "accent": "page card raised",
        "simulated": "simulated-soft",
        "leaky": "leaky-soft page",
    }
    for theme in (r":root", r':root\[data-theme="dark"\]'):
        colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{3,6})", re.search(theme + r" \{(.*?)\}", css, re.S)[1]))
        for text, grounds in pairs.items():
            for ground in grounds.split():
                a, b = sorted((luminance(colours[text]), luminance(colours[ground])))
                assert (b + 0.05) / (a + 0.05) >= 4.5, (text, ground)
