"""The leaderboard page in a real browser, with and without JavaScript."""

from __future__ import annotations

import re

from tidemark.benchmark.records import make_result
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
    assert page.locator(val + " .proof").is_visible()
    page.locator(".pareto a", has_text="Otsu on AFTER").click()
    assert page.locator(records.row("ombria-1.0.0-test", "Otsu on AFTER") + " .proof").is_visible()


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
    evil = [
        records.simulated(
            seed=k,
            label=EVIL[:100],
            title=EVIL,
            note=EVIL,
            command=EVIL,
            config=EVIL,
            device=EVIL,
            packages={EVIL: EVIL},
            arguments={EVIL: EVIL},
            speed=records.speed(50 + k, EVIL),
            units=2,
            config_hash=f"{k:08d}",
            licence=EVIL,
            classes=classes,
        )
        for k in range(2)
    ]
    raw = [r.model_dump(mode="json", exclude={"id"}) for r in evil]
    for r in raw:
        for i, unit in enumerate(r["units"]):
            unit["id"] = EVIL + str(i)
    records.save(tmp_path / "records", *(make_result(**r) for r in raw))
    path = build_site(tmp_path / "records", tmp_path / "site")
    page = visit(path)
    page.locator("details summary").evaluate_all("nodes => nodes.forEach(n => { n.parentElement.open = true })")
    page.locator(".compare select.a").first.select_option(index=1)
    assert page.evaluate("window.hacked") is None
    assert page.locator("script").count() == 2  # the page's own, and the units' scores as data
    assert page.locator("img").count() == 0
    text = page.locator("main").inner_text()
    assert text.count("<script>window.hacked=1</script>") > 10 and "{{7*7}}" in text
