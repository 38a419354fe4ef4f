"""Rows over seeds, and the tables in Markdown, LaTeX and on the console."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console
from tidemark.benchmark import metrics
from tidemark.benchmark.figures import figures
from tidemark.benchmark.published import Published, load_published, published_for
from tidemark.benchmark.records import Interval, make_result, write_result
from tidemark.benchmark.render import console, html, latex, markdown, replace_between_markers
from tidemark.benchmark.rows import told_apart
from tidemark.benchmark.scores import Counts, as_metric, estimates, unit_scores
from tidemark.benchmark.tables import (
    Cell,
    cell_in_words,
    collect,
    columns,
    ranking,
    rows,
    seeds_in_words,
    table,
    tables,
)
from tidemark.errors import ConfigError, FormatError, InputError

WATER = ({"id": 0, "name": "dry", "color": "#c8b89a"}, {"id": 1, "name": "water", "color": "#1f77b4"})
ICE = ({"id": 0, "name": "water", "color": "#1f77b4"}, {"id": 1, "name": "ice", "color": "#d8ecf3"},
       {"id": 2, "name": "land", "color": "#8c6d46"})  # fmt: skip


def record(
    model="unet",
    seed=0,
    n_units=3,
    hit=80,
    task="binary-segmentation",
    name="toy",
    version="1.0.0",
    split="test",
    label=None,
    sha="a",
    ece=None,
    speed=None,
    simulated=False,
    config="",
    absent=False,
):
    """One record; ``hit`` of 100 water pixels found in every unit, and ten more in each further one."""
    binary = task == "binary-segmentation"
    classes = WATER if binary else ICE
    one = [
        [[890, 10], [100 - hit - i, hit + i]] if binary else [[hit, 100 - hit, 0], [0, 90, 10], [0, 0, i]]
        for i in range(n_units)
    ]
    if absent:
        one = [[[900, 10], [0, 0]]]
    counts, names = Counts(np.array([one])), [c["name"] for c in classes]
    found = {key: as_metric(value) for key, value in estimates(task, names, counts).items()}
    units = [
        dict(id=f"scene {i}", confusion=c, pixels=int(np.sum(c)), scores=s)
        for i, (c, s) in enumerate(zip(one, unit_scores(task, names, counts), strict=True))
    ]
    return make_result(
        task=task, seed=seed, classes=classes, units=units, metrics={**found, "ece": {"value": ece}}, chips=9,
        dataset=dict(name=name, version=version, title=name.capitalize(), content_sha256=sha * 64,
                     manifest_sha256="b" * 64, simulated=simulated, licence=None, split=split),
        model=dict(name=model, parameters=7, weights_sha256=None, trained=True, label=label or model),
        harness=dict(version="0.1.0"), predictions_sha256=f"{seed:02d}{hit:02d}" + "c" * 60, config_hash="01234567",
        config=config, speed=speed)  # fmt: skip


def test_seeds_of_one_configuration_make_one_row():
    (row,) = rows([record(seed=2, hit=82), record(seed=0, hit=78), record(seed=1, hit=80)])
    iou = [(3 * h + 3) / 330 for h in (78, 80, 82)]
    assert row.seeds == (0, 1, 2)
    assert row.headline.mean == pytest.approx(np.mean(iou))
    assert row.headline.sd == pytest.approx(np.std(iou, ddof=1))
    assert row.headline.interval is None
    assert [unit.id for unit in row.units] == ["scene 0", "scene 1", "scene 2"]
    assert row.units[0].scores["iou"] == pytest.approx(np.mean([0.78, 0.80, 0.82]) / 1.1)


def test_the_interval_of_a_row_covers_units_and_seeds():
    (one,) = rows([record(n_units=8)])
    (three,) = rows([record(n_units=8, seed=s, hit=70 + 5 * s) for s in range(3)])
    assert one.headline.interval.method == "jackknife-t" and one.headline.sd is None
    width = [r.headline.interval.high - r.headline.interval.low for r in (one, three)]
    assert width[1] > width[0]


def test_rows_are_ordered_by_headline_within_data_version_and_split():
    found = rows([record("a", hit=10), record("b", hit=90), record("c", hit=50), record("a", hit=95, split="val"),
                  record("a", version="2.0.0", sha="d"), record("a", name="alps", sha="e"),
                  record("a", version="10.0.0", sha="f")])  # fmt: skip
    assert [(r.dataset.name, r.dataset.version, r.dataset.split, r.model.name) for r in found] == [
        ("alps", "1.0.0", "test", "a"), ("toy", "1.0.0", "test", "b"), ("toy", "1.0.0", "test", "c"),
        ("toy", "1.0.0", "test", "a"), ("toy", "1.0.0", "val", "a"), ("toy", "2.0.0", "test", "a"),
        ("toy", "10.0.0", "test", "a")]  # fmt: skip


def test_a_copy_of_a_record_counts_once_and_a_contradiction_is_refused():
    (row,) = rows([record(), record()])
    assert len(row.results) == 1
    with pytest.raises(InputError, match="seed 0 of unet occurs twice with different predictions"):
        rows([record(hit=80), record(hit=81)])


def test_an_unmeasured_figure_is_none_and_no_mean_of_the_rest():
    (row,) = rows([record(seed=0, ece=0.1), record(seed=1, hit=79, ece=None)])
    assert row.metrics["ece"] == Cell(None, None)
    (row,) = rows([record(seed=0, ece=0.1), record(seed=1, hit=79, ece=0.3)])
    assert row.metrics["ece"].mean == pytest.approx(0.2) and row.metrics["ece"].sd == pytest.approx(0.2 / 2**0.5)


def test_figures_beyond_the_protocols_stand_in_the_order_of_their_names():
    extra = {f"extra_{letter}": {"value": 0.5} for letter in "hgfedcba"}
    raw = record().model_dump(mode="json", exclude={"id"})
    (row,) = rows([make_result(**{**raw, "metrics": {**raw["metrics"], **extra}})])
    assert [key for key in row.metrics if key in extra] == sorted(extra)


def test_collect_reads_run_folders_and_committed_records(tmp_path):
    write_result(tmp_path / "runs" / "unet" / "seed0" / "test" / "result.json", record())
    (tmp_path / "runs" / "unet" / "seed0" / "run.json").write_text("{}")
    write_result(tmp_path / "records" / "toy" / "v1" / "unet" / "id" / "test.json", record(seed=1))
    assert [r.seed for r in collect([tmp_path / "runs", tmp_path / "records"])] == [0, 1]
    with pytest.raises(InputError, match="no such file"):
        collect([tmp_path / "nowhere"])
    (tmp_path / "records" / "submission.json").write_text("{}")  # of a submission, read by leaderboard/entries.py
    assert [r.seed for r in collect([tmp_path / "records"])] == [1]
    (tmp_path / "records" / "bad.json").write_text("{}")
    with pytest.raises(FormatError, match="bad.json: /id"):
        collect([tmp_path / "records"])


def test_every_metric_of_the_protocol_has_a_column():
    from tidemark.datasets.spec import ClassDef

    water = [ClassDef(**c) for c in WATER]
    assert [c.key for c in columns("binary-segmentation", water)][:10] == [
        "iou", "scene_mean_iou", "worst_decile_iou", "precision", "recall", "f1", "oa", "boundary_f1",
        "dry_false_positive_rate", "ece"]  # fmt: skip
    ice = [ClassDef(**c) for c in ICE]
    for task in ("segmentation", "classification"):
        names = [c.name for c in ice]
        counts = Counts(np.ones((1, 3, 3, 3), int))
        assert set(estimates(task, names, counts)) == {c.key for c in columns(task, ice)} - {"ece", "aurc", "abstained"}
    bands = ["blue", "green", "red", "nir", "swir1", "swir2"]
    assert {f.key for f in figures("harmonization", bands)} == {c.key for c in columns("harmonization", bands)} - {
        "abstained"
    }
    assert columns("harmonization", bands)[0].key == "psnr"


def test_few_units_are_shown_one_by_one_and_many_by_their_interval():
    (few,) = tables(rows([record("a"), record("b", hit=10)]))
    assert few.headings[:3] == ("Model", "Seeds", "Water IoU")
    assert few.headings[-3:] == ("Water IoU: scene 0", "Water IoU: scene 1", "Water IoU: scene 2")
    assert few.cells[0][-3:] == ("0.727", "0.736", "0.745")
    assert "ECE" not in few.headings  # nobody has one
    (many,) = tables(rows([record("a", n_units=6)]))
    assert "[0." in many.cells[0][2] and not any("scene 0" in heading for heading in many.headings)


def test_patches_show_macro_f1_and_accuracy_by_block():
    (table,) = tables(rows([record(task="classification")]))
    assert table.headings[2:5] == ("Macro-F1", "Balanced accuracy", "Accuracy")
    assert table.headings[-6:] == tuple(f"{m}: scene {i}" for m in ("Macro-F1", "Accuracy") for i in range(3))


def test_a_class_that_no_label_has_is_named():
    (dry,) = tables(rows([record(hit=0, n_units=1, absent=True)]))
    assert "No label of this split is water." in dry.notes
    assert not any("No label" in note for note in tables(rows([record()]))[0].notes)


def test_cells_in_words():
    assert (
        cell_in_words(Cell(0.43149, 0.01249, Interval(low=0.38, high=0.47, method="bootstrap")))
        == "0.431 ± 0.012 [0.380, 0.470]"
    )
    assert cell_in_words(Cell(None)) == "–"
    assert seeds_in_words((0, 1, 2)) == "0–2" and seeds_in_words((0, 2)) == "0, 2" and seeds_in_words((None,)) == "–"


def test_markdown_has_one_line_a_row_and_escapes_what_strangers_write():
    text = markdown(tables(rows([record(label="<img src=x>|`a`\n[b](javascript:1)")]))[0])
    lines = text.splitlines()
    assert lines[2].startswith("| Model | Seeds | Water IoU |") and lines[3].startswith("|:--|:--|--:|")
    assert lines[4].count(" | ") == lines[2].count(" | ")
    assert "<" not in text.replace("&lt;", "") and r"\|\`a\` \[b\](" in lines[4]


def test_simulated_data_are_called_so():
    assert "(simulated)" in tables(rows([record(simulated=True)]))[0].title


def test_latex_escapes_and_closes():
    text = latex(tables(rows([record(label=r"a_b & 50% \input{x}")]))[0])
    assert r"a\_b \& 50\% \textbackslash{}input\{x\}" in text
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1


def test_the_console_shows_labels_as_they_are():
    out = Console(width=200, file=io.StringIO())
    out.print(console(tables(rows([record(label="[red]x[/red]")]))[0]))
    assert "[red]x[/red]" in out.file.getvalue() and "Water IoU" in out.file.getvalue()


def test_speed_is_shown_with_its_device():
    speed = dict(chips_per_s=12.34, mpx_per_s=0.8, device="Abacus, 2 cores", threads=2, precision="fp32", batch=16)
    (table,) = tables(rows([record(speed=speed), record("b", hit=1)]))
    assert table.headings[-1] == "Chips/s" and [c[-1] for c in table.cells] == ["12.3", "–"]
    assert "Abacus" in table.notes[-1]


def test_the_readme_changes_between_its_markers_only():
    text = "a\n<!-- table:x -->\nold\n<!-- /table -->\nb\n<!-- table:y -->\nkeep\n<!-- /table -->\n"
    new = replace_between_markers(text, "x", r"n\1ew" + "\n")
    assert new == text.replace("old", r"n\1ew")
    with pytest.raises(InputError, match="0 places for the table 'z'"):
        replace_between_markers(text, "z", "")


def test_a_row_pools_before_it_divides():
    (row,) = rows([record(n_units=2)])
    pooled = metrics.water_iou(sum(np.array(unit.confusion) for unit in row.results[0].units))
    assert row.headline.mean == pytest.approx(float(pooled))


def ten_units(**better):
    """Rows of models over ten units; the number is what a model finds of 100 water pixels."""
    return rows([record(model, n_units=10, hit=hit) for model, hit in better.items()])


def test_ranks_stand_in_the_table_from_nine_units_on_and_equal_models_share_one():
    found = ten_units(best=80, same=80, worse=40)
    by_key = ranking(found).ranks
    assert [by_key[row.key] for row in found] == [1, 1, 3]
    (made,) = tables(found)
    assert made.headings[2] == "Rank" and [cells[2] for cells in made.cells] == ["1", "1", "3"]
    assert any("significantly better" in note for note in made.notes)


def test_below_nine_units_the_table_says_that_there_is_no_rank():
    (made,) = tables(rows([record("a", n_units=8), record("b", n_units=8, hit=1)]))
    assert "Rank" not in made.headings
    assert any("Fewer than 9 units" in note and "no rank" in note for note in made.notes)
    (alone,) = tables(rows([record("a", n_units=8)]))
    assert not any("rank" in note for note in alone.notes)


def test_rows_of_one_name_are_told_apart_by_their_recipes():
    recipe = "DATA: {{NAME: toy, VERSION: 1.0.0, BANDS: [{}]}}\nMODEL: {{NAME: unet}}\nTRAIN: {{LOSS: {}, DEVICE: {}}}"
    settings = [("hh, hv", "bce", "cpu"), ("hh", "bce", "cuda"), ("hh, hv", "dice", "cpu")]
    records = [
        record(f"m{i}", config=recipe.format(*values), label="U-Net", hit=80 - i) for i, values in enumerate(settings)
    ]
    (made,) = tables(rows(records))
    assert [cells[0] for cells in made.cells] == ["U-Net", "U-Net; bands hh", "U-Net; loss dice"]
    (made,) = tables(rows(records[:2]))
    assert [cells[0] for cells in made.cells] == ["U-Net; bands hh, hv", "U-Net; bands hh"]
    every = record("every", config=recipe.format("", "bce", "cpu"), label="U-Net", hit=50)
    (made,) = tables(rows([records[1], every]))
    assert [cells[0] for cells in made.cells] == ["U-Net; bands hh", "U-Net; bands all"]
    (made,) = tables(rows([record("a", label="U-Net", hit=60), record("b", label="U-Net", config="[", hit=50)]))
    assert [cells[0] for cells in made.cells] == ["U-Net", "U-Net"]  # nothing is known


def test_the_settings_in_a_rows_name_are_cut():
    made = rows(
        [record(f"m{i}", config=f"TRAIN: {{LOSS: {'w' * 3000}{i}}}", label="U-Net", hit=80 - i) for i in range(2)]
    )
    assert all(row.label == f"U-Net; loss {'w' * 74}…" for row in told_apart(made))


def test_weights_from_other_data_are_called_so():
    config = "DATA: {NAME: alps, VERSION: 2.0.0}"
    (row,) = rows([record("unet", config=config, label="U-Net")])
    assert row.label == "U-Net (trained on alps 2.0.0)"
    for own in ("DATA: {NAME: toy, VERSION: 1.0.0}", "", "[", "DATA: 3", f"DATA: {{NAME: {'w' * 90}, VERSION: 1}}"):
        assert rows([record("unet", config=own, label="U-Net")])[0].label == "U-Net"


def test_published_figures_stand_beside_ours_marked_with_what_differs():
    published = load_published("tibet-water")
    made = table(rows([record("a"), record("b", hit=1)]), published)
    assert [cells[0] for cells in made.cells[:3]] == ["a", "b", "GMNet †"] and made.published == 5
    assert dict(zip(made.headings, made.cells[2], strict=True)) | {"Scene-mean IoU": "0.885", "OA": "0.981"} == dict(
        zip(made.headings, made.cells[2], strict=True)
    )
    assert made.cells[2][2] == "–"  # the pooled IoU was not published
    notes = " ".join(made.notes)
    assert "10.1080/17538947.2023.2198266" in notes
    assert all(f"{what} (" in notes for what in ("data", "split", "protocol"))


def test_the_published_figures_of_the_source_are_the_ones_in_the_file():
    found = {row.model: row.metrics for row in load_published("tibet-water").rows}
    assert found["GMNet"] == {"scene_mean_iou": 0.885, "recall": 0.905, "precision": 0.976, "oa": 0.9807}
    assert found["DeepLabv3+ (MobileNetV2)"]["scene_mean_iou"] == 0.774 and len(found) == 5


def test_a_figure_that_only_others_report_is_computed_for_our_rows_too():
    published = Published.model_validate(
        {"source": "a paper", "url": "https://example.org/1",
         "differs": dict.fromkeys(("data", "split", "protocol"), "x"),
         "rows": [{"model": "theirs", "metrics": {"mean_class_iou": 0.5}}]})  # fmt: skip
    made = table(rows([record(hit=80, n_units=1)]), published)
    assert made.headings[-2] == "Mean IoU of both classes"
    water, dry = 80 / 110, 890 / 920
    assert float(made.cells[0][-2]) == pytest.approx((water + dry) / 2, abs=5e-4)
    assert made.cells[1][-2:] == ("0.500", "–")


@pytest.mark.parametrize("name", ["tibet-water", "ombria-official", "ombria-events"])
def test_every_published_figure_names_its_source_and_a_metric_that_the_table_has(name):
    published = load_published(name)
    known = {c.key for c in columns("binary-segmentation", ["dry", "water"])} | {"mean_class_iou"}
    for row in published.rows:
        assert set(row.metrics) <= known and all(0 < value < 1 for value in row.metrics.values())
    assert published.url.startswith("https://doi.org/10.")


def test_the_tables_say_which_published_figures_belong_to_a_split():
    assert published_for("ombria-official", "1.0.0", "test").rows[0].metrics["mean_class_iou"] == 0.5734
    assert published_for("ombria", "1.0.0", "val") is None and published_for("nowhere", "1.0.0", "test") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [({"url": "javascript:alert(1)"}, "/url"), ({"rows": []}, "/rows"), ({"differs": {"data": "x"}}, "/differs/split"),
     ({"rows": [{"model": "m", "metrics": {"iou": float("nan")}}]}, "not finite")],
)  # fmt: skip
def test_published_figures_with_a_fault_are_refused_with_its_place(tmp_path, change, message):
    import yaml

    good = {"source": "s", "url": "https://example.org", "differs": dict.fromkeys(("data", "split", "protocol"), "x"),
            "rows": [{"model": "m", "metrics": {"iou": 0.5}}]}  # fmt: skip
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(good | change))
    with pytest.raises(ConfigError, match=message):
        load_published(tmp_path / "p.yaml")
    with pytest.raises(ConfigError, match="no such published figures; there is ombria-events, "):
        load_published("nowhere")


def test_html_is_one_page_that_escapes_what_strangers_write_and_sets_published_rows_off():
    strange = record(label="<script>alert(1)</script>", n_units=2)
    text = html([table(rows([strange, record("b", hit=1, n_units=2)]), load_published("tibet-water"))], "a & b")
    assert text.count("<table") == 1 and "<script" not in text and "&lt;script&gt;" in text
    assert "http" not in text.replace("https://doi.org", "") and "<title>a &amp; b</title>" in text
    assert text.count("font-style: italic") >= 5
