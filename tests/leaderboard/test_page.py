"""The leaderboard page in a real browser, with and without JavaScript."""

from __future__ import annotations

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from tidemark.leaderboard.site import build_site

EVIL = "<script>window.hacked=1</script><img src=x onerror=window.hacked=1>\"'&{{7*7}}</style></script>"


def names(page, table: str = "ombria-1.0.0-test") -> list[str]:
    return page.locator(f"[id='{table}'] tbody.entry:visible .name").all_inner_texts()


def test_tables_show_order_scores_badges_and_tier(page_path, visit, records):
    page = visit(page_path)
    assert names(page) == ["U-Net, ResNet-18", "Pixel forest", "Otsu on AFTER", "All dry"]
    row = page.locator(records.row("ombria-1.0.0-test", "U-Net, ResNet-18") + " .scores")
    assert re.search(r"0\.\d{3} ± 0\.\d{3}", row.inner_text()) and "scored" in row.inner_text()
    assert page.locator("[id='ombria-1.0.0-test'] .badge", has_text="trivial").count() == 3
    assert page.locator("[id='demo-water-1.0.0'] .badge.simulated").first.inner_text().startswith("SIMULATED")
    assert page.locator("[id='ombria-official-1.0.0'] .badge.leaky").count() == 1
    assert page.locator("[id='ombria-1.0.0'] .pareto").count() == 1  # the device class with two models
    assert page.locator(".maps img").evaluate_all("images => images.map(i => i.naturalWidth)") == [1]


def test_sorting_by_click_and_by_keyboard(page_path, visit):
    page = visit(page_path)
    table = page.locator("[id='ombria-1.0.0-test']")
    model = table.locator("th", has_text="Model")
    model.locator("button").click()
    assert names(page) == ["All dry", "Otsu on AFTER", "Pixel forest", "U-Net, ResNet-18"]
    assert model.get_attribute("aria-sort") == "ascending"
    assert table.locator("th[aria-sort]").count() == 1
    speeds = table.locator("th", has_text="chips/s")
    speeds.locator("button").focus()
    page.keyboard.press("Enter")
    assert names(page) == ["All dry", "Otsu on AFTER", "U-Net, ResNet-18", "Pixel forest"]  # not measured: last
    page.keyboard.press("Space")
    assert speeds.get_attribute("aria-sort") == "ascending"
    assert names(page) == ["U-Net, ResNet-18", "Otsu on AFTER", "All dry", "Pixel forest"]
    evidence = table.locator("tbody.entry").first.locator("tr.evidence")
    assert "seeds 0–2" in evidence.inner_text()  # moved with its row


def test_filtering_by_words_and_hiding_trivial_rows(page_path, visit):
    page = visit(page_path)
    page.fill("#filter", "U-NET ombria 1.0.0 test")
    assert names(page) == ["U-Net, ResNet-18"]
    assert not page.locator("[id='polar-patch-1.0.0']").is_visible()
    assert re.match(r"\d+ of \d+ rows", page.locator("#count").inner_text())
    page.keyboard.press("Escape")
    assert len(names(page)) == 4 and page.locator("[id='polar-patch-1.0.0']").is_visible()
    page.check("#no-trivial")
    assert names(page) == ["U-Net, ResNet-18"]


def test_the_evidence_names_hashes_command_and_configuration(page_path, visit, records):
    page = visit(page_path)
    record = records.flood()[3]
    row = page.locator(records.row("ombria-1.0.0-test", "U-Net, ResNet-18"))
    assert not row.locator(".proof").is_visible()
    row.locator("summary").first.click()
    text = row.locator(".proof").inner_text()
    for part in (
        record.id[:16],
        record.predictions_sha256,
        record.model.weights_sha256,
        record.dataset.content_sha256,
        record.harness.git_commit,
        record.command,
        "torch 2.13.0",
        "ALBANIA",
    ):
        assert part in text
    row.locator(".proof summary").click()
    assert "NAME: unet" in row.locator(".proof").inner_text()


def test_a_link_to_a_row_opens_its_evidence_even_in_a_closed_split(page_path, visit, records):
    val = records.row("ombria-1.0.0-val", "U-Net, ResNet-18")
    anchor = visit(page_path).locator(val).get_attribute("id")
    page = visit(page_path, f"#{anchor}")
    page.locator(val + " .proof").wait_for(state="visible", timeout=10_000)  # the browser tells of a new hash later
    page.locator(".pareto a", has_text="Otsu on AFTER").click()
    page.locator(records.row("ombria-1.0.0-test", "Otsu on AFTER") + " .proof").wait_for(
        state="visible", timeout=10_000
    )


def test_dark_follows_the_system_and_the_button(page_path, visit):
    def ground(page) -> float:
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", colour)))

    assert ground(visit(page_path, color_scheme="dark")) < 200
    page = visit(page_path, color_scheme="light")
    assert ground(page) > 600
    page.click("#theme")
    assert ground(page) < 200 and page.get_attribute("#theme", "aria-pressed") == "true"
    page.reload()
    assert ground(page) < 200


def test_two_models_compared_unit_by_unit(page_path, visit):
    page = visit(page_path)
    box = page.locator("[id='ombria-1.0.0'] .compare")
    box.locator("select.b").select_option(label="All dry")
    assert "A is better on 3, B on 0 of 3 units" in box.inner_text()
    assert box.locator(".pair tbody tr").count() == 3


def test_two_ticked_rows_are_compared_whole_and_the_comparison_has_an_address(page_path, visit, records):
    page = visit(page_path)
    ids = []
    for label in ("Proven net", "GMNet"):
        entry = page.locator(records.row("demo-water-1.0.0-test", label))
        entry.get_by_role("checkbox", name=f"compare {label}").check()
        ids.append(entry.get_attribute("id"))
    box = page.locator("[id='demo-water-1.0.0-test-compare']")
    shown = box.inner_text()
    assert [box.locator(f"select.{k} option:checked").inner_text() for k in "ab"] == ["Proven net", "GMNet"]
    assert "of 10 units" in shown and "Scene-mean IoU" in shown and "Configuration: lines only in A 1" in shown
    assert box.locator(".scatter circle").count() == 10
    assert page.evaluate("location.hash") == f"#compare={','.join(ids)}"
    again = visit(page_path, f"#compare={ids[1]},{ids[0]}").locator("[id='demo-water-1.0.0-test-compare']")
    assert [again.locator(f"select.{k} option:checked").inner_text() for k in "ab"] == ["GMNet", "Proven net"]
    assert again.locator(".result").is_visible()


def test_in_errors_the_lower_figure_wins_a_comparison(page_path, visit):
    page = visit(page_path)
    page.check("#all-metrics")
    box = page.locator("[id='l8s2-1.0.0'] .compare")
    a, b = (box.locator(f"select.{k} option:checked").inner_text() for k in "ab")
    assert (a, b) == ("AUNet", "Bicubic")
    assert box.locator("tr", has_text="RMSE ↓").first.locator(".better").evaluate("n => n.cellIndex") == 1
    assert re.search(r"PSNR \(dB\)\s+\d\d\.\d\d\s+\d\d\.\d\d\s+[+−]\d+\.\d\d\n", box.inner_text())


def test_tiers_stand_apart_and_only_what_was_recomputed_is_ranked(page_path, visit):
    page = visit(page_path)
    test = page.locator("[id='demo-water-1.0.0'] .board").first
    assert test.locator("thead th").first.inner_text().startswith("Rank")
    assert set(test.locator("tbody.entry .order").all_inner_texts()) <= {"1", "2", "3"}
    assert test.locator(".tier.reproduced").count() == 1 and test.locator(".tier.claimed").count() == 0
    claimed = page.locator("[id='demo-water-1.0.0'] .board.claimed").first
    assert "Claimed, not ranked" in claimed.locator("> caption").inner_text()
    assert claimed.locator(".name").all_inner_texts() == ["Claimed net"]
    assert "Rank" not in claimed.locator("> thead").inner_text()
    claimed.locator("summary").first.click()
    proof = claimed.locator(".proof").first.inner_text()
    assert "the training split" in proof and "CC-BY-4.0" in proof and "Verified" not in proof
    test.locator("tbody:has(.tier.reproduced) summary").first.click()
    assert "Verified: reproduced by tidemark 0.1.0" in test.locator("tbody:has(.tier.reproduced) .proof").inner_text()


def test_uncommitted_changes_are_said_in_words(page_path, visit, records):
    page = visit(page_path)
    dirty = page.locator(records.row("demo-water-1.0.0-test", "unet"))
    assert "with uncommitted changes" in dirty.locator("summary").first.inner_text()
    assert page.get_by_text("with uncommitted changes").count() == 1


def test_published_figures_say_what_differs_and_have_no_rank(page_path, visit):
    published = visit(page_path).locator("[id='ombria-official-1.0.0'] .published")
    text = published.inner_text()
    assert "Published by others, not ranked" in text and "0.573" in text and "Protocol" in text
    assert published.locator(".badge", has_text="published").count() == 3 and published.locator(".order").count() == 0


def test_units_that_separate_the_models_come_first(page_path, visit):
    units = visit(page_path).locator("[id='demo-water-1.0.0'] .units")
    apart = [float(text) for text in units.locator("tbody td.number").all_inner_texts()]
    assert len(apart) == 10 and apart == sorted(apart, reverse=True)


def test_a_filter_in_the_address_is_applied(page_path, visit):
    page = visit(page_path, "#filter=GMNet%20demo-water%20test")
    assert page.locator("tbody.entry:visible .name").all_inner_texts() == ["GMNet"]
    assert not page.locator("#task-harmonization").is_visible()


@pytest.fixture(scope="module")
def small_page(records, tmp_path_factory):
    """Every kind of row once, so that a check of every node takes seconds."""
    folder = tmp_path_factory.mktemp("small")
    paths = records.save(
        folder / "records",
        records.make(name="ombria-official", units=("OmbriaS1-test",), skill=0.9),  # with published figures
        records.simulated(trained=False, seed=None, speed=records.speed(900)),
        records.simulated(model="gmnet", label="GMNet", skill=0.9, speed=records.speed(90)),
    )
    (paths[-1].parent / "example-test-1-worst-scene-03~chip-7.png").write_bytes(records.png)
    for tier in ("claimed", "reproduced"):
        records.submit(folder / "records", tier, label=tier, model=tier, **records.demo())
    return build_site(folder / "records", folder / "site")


@pytest.mark.parametrize(
    ("scheme", "rules"), [("light", None), pytest.param("dark", ["color-contrast"], marks=pytest.mark.slow)]
)
def test_axe_finds_no_serious_fault(small_page, visit, scheme, rules):
    page = visit(small_page, color_scheme=scheme)
    page.locator("details").evaluate_all("nodes => nodes.forEach(n => { n.open = true })")
    page.check("#all-metrics")
    found = Axe().run(page, options={"runOnly": rules} if rules else None).response
    assert len(found["passes"]) >= (1 if rules else 25)
    faults = [(v["id"], v["nodes"][0]["html"]) for v in found["violations"] if v["impact"] in ("serious", "critical")]
    assert faults == []


def test_tooltips_come_with_pointer_and_keyboard(page_path, visit, records):
    page = visit(page_path)
    page.locator(".pareto a").first.focus()
    assert "chips/s" in page.locator("#tip").inner_text()
    page.locator(records.row("ombria-1.0.0-test", "U-Net, ResNet-18") + " circle.unit").first.hover()
    assert re.match(r"(ALBANIA|GUYANA|TIMOR): 0\.\d{3}", page.locator("#tip").inner_text())


def test_all_metrics_on_request(page_path, visit):
    page = visit(page_path)
    head = page.locator("[id='ombria-1.0.0-test'] th[data-sort]", has_text="OA")
    assert not head.is_visible()
    page.check("#all-metrics")
    assert head.is_visible()


def test_everything_is_readable_without_javascript(page_path, visit, records):
    page = visit(page_path, java_script_enabled=False)
    assert not page.locator(".controls").is_visible() and not page.locator("#theme").is_visible()
    assert len(names(page)) == 4
    assert page.locator("[id='ombria-1.0.0-test'] th[data-sort]", has_text="OA").is_visible()
    assert page.locator(".pareto svg").first.is_visible()
    row = page.locator(records.row("ombria-1.0.0-test", "U-Net, ResNet-18"))
    row.locator("summary").first.click()
    assert row.locator(".proof").is_visible()


def test_a_phone_scrolls_the_table_and_not_the_page(page_path, visit):
    page = visit(page_path, viewport={"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.evaluate("document.querySelector('.scroll').scrollWidth") > 390


def test_no_string_is_long_enough_to_make_the_page_scroll_sideways(records, tmp_path, visit):
    word = "w" * 490
    long = dict(title=word, licence=word, note=word, device=word, command=word, config=word, label=word[:100])
    long |= dict(units=("u" * 190, "v" * 190), speed=records.speed(9, word))
    rows = [records.make(**{**records.demo(), **long}, draw=i, config_hash=f"{i:08d}") for i in (0, 1)]
    records.save(tmp_path / "records", *rows)
    page = visit(build_site(tmp_path / "records", tmp_path / "site"))
    page.locator("details").evaluate_all("nodes => nodes.forEach(n => { n.open = true })")
    for width in (320, 768, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_controls_and_tables_have_names_for_screen_readers(page_path, visit):
    page = visit(page_path)
    for selector in ("button", "input", "select", "[role=region]", "[role=group]", "a"):
        for node in page.locator(f"{selector}:visible").all():
            assert node.evaluate("""n => n.innerText?.trim() || n.textContent.trim() || n.getAttribute("aria-label")
                || n.labels?.length || document.getElementById(n.getAttribute("aria-labelledby"))""")
    assert page.locator("table:not(:has(caption))").count() == 0
    assert page.locator("th:not([scope])").count() == 0
    ids = page.locator("[id]").evaluate_all("nodes => nodes.map(n => n.id)")
    assert len(ids) == len(set(ids))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"


def test_markup_in_every_string_shows_as_text(records, tmp_path, visit):
    classes = ({"id": 0, "name": EVIL[:64], "color": "#000000"}, {"id": 1, "name": EVIL[:60], "color": "#ffffff"})
    strings = dict(
        title=EVIL,
        note=EVIL,
        command=EVIL,
        config=EVIL,
        device=EVIL,
        packages={EVIL: EVIL},
        arguments={EVIL: EVIL},
        licence=EVIL,
        classes=classes,
    )
    demo = records.demo(2) | {"units": (EVIL + "0", EVIL + "1")}
    submitted = dict(label=EVIL[:100], config_hash="0" * 8, **{**demo, **strings})
    stated = dict(title=EVIL, team=EVIL[:100], training_data=(EVIL,), note=EVIL)
    for tier, skill in (("claimed", 0.9), ("scored", 0.8)):
        records.submit(
            tmp_path / "records", tier, skill=skill, statement=stated, speed=records.speed(50, EVIL), **submitted
        )
    path = build_site(tmp_path / "records", tmp_path / "site")
    page = visit(path)
    page.locator("details summary").evaluate_all("nodes => nodes.forEach(n => { n.parentElement.open = true })")
    page.locator(".compare select.a").first.select_option(index=1)
    assert page.evaluate("window.hacked") is None
    assert page.locator("script").count() == 2  # the page's own, and the units' scores as data
    assert page.locator("img").count() == 0
    text = page.locator("main").inner_text()
    assert text.count("<script>window.hacked=1</script>") > 20 and "{{7*7}}" in text


def test_a_board_of_200_rows_stays_small_and_the_phone_does_not_scroll_sideways(records, tmp_path, visit):
    config = "".join(f"KEY_{i}: {i}\n" for i in range(60))
    packages = {f"package-{i}": "1.2.3" for i in range(12)}
    rows = [
        records.simulated(label=f"Model {i}", skill=0.3 + 0.003 * i, draw=i, config=config, packages=packages)
        for i in range(200)
    ]
    records.save(tmp_path / "records", *rows)
    path = build_site(tmp_path / "records", tmp_path / "site")
    assert path.stat().st_size < 3_000_000
    page = visit(path, viewport={"width": 390, "height": 844})
    assert page.locator("tbody.entry").count() == 200
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.fill("#filter", "Model 199")
    assert page.locator("tbody.entry:visible").count() == 1
