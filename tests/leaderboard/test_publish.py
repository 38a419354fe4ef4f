"""The Hugging Face Space, and scores in model cards, read back with huggingface_hub's own classes."""

from __future__ import annotations

import json

import pytest
import torch
from huggingface_hub import ModelCard, SpaceCard
from tidemark.benchmark.records import make_result, write_result
from tidemark.datasets.spec import Band, ClassDef
from tidemark.datasets.transforms import Preprocess
from tidemark.errors import FormatError, InputError
from tidemark.leaderboard.publish import publish, score_card
from tidemark.models.registry import ModelSpec, create_model
from tidemark.models.weights import save_pretrained


def test_a_space_is_a_folder_with_a_page_its_data_and_a_header_that_the_hub_reads(records, tmp_path):
    records.save(tmp_path / "records", records.simulated())
    folder = publish(tmp_path / "records", tmp_path / "space")
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md",
        "index.html",
        "leaderboard.json",
        "leaderboard.parquet",
    ]
    card = SpaceCard.load(folder / "README.md")
    assert (card.data.sdk, card.data.app_file, card.data.title) == ("static", "index.html", "Tidemark leaderboard")
    assert len(card.data.short_description) <= 60 and "binary-segmentation" in card.data.tags
    assert "| demo-water 1.0.0 | test | binary-segmentation | 1 |" in card.text
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert {p.name: p.read_bytes() for p in publish(tmp_path / "records", folder).iterdir()} == before


@pytest.mark.parametrize("readme", ["# My project\n", "---\nsdk: gradio\n---\n", "---\n: [\n---\n"])
def test_a_readme_of_something_else_is_never_replaced(records, tmp_path, readme):
    records.save(tmp_path / "records", records.simulated())
    (tmp_path / "README.md").write_text(readme)
    with pytest.raises(InputError, match="README.md: not the README of a static Space"):
        publish(tmp_path / "records", tmp_path)
    assert (tmp_path / "README.md").read_text() == readme and not (tmp_path / "index.html").exists()


@pytest.fixture
def weights(tmp_path):
    """A folder of weights whose card knows a validation score, and their sha256."""
    torch.manual_seed(0)
    args = {"encoder": "mobilenet_v2", "decoder_channels": [8, 8, 8, 4, 4], "encoder_weights": None}
    spec = ModelSpec({"image": 1}, 1)
    digest = save_pretrained(
        create_model("unet", spec, **args),
        tmp_path / "weights",
        name="unet",
        spec=spec,
        args=args,
        preprocess_config=Preprocess((Band(name="vv", unit="dB"),), None, [], "none", None, None).to_config(),
        classes=[ClassDef(id=i, name=name, color="#000000") for i, name in enumerate(("dry", "water"))],
        card={
            "task_kind": "segmentation",
            "scores": {"val": {"iou": 0.5, "ece": None}},
            "dataset": {
                "name": "demo-water",
                "version": "1.0.0",
                "title": "Simulated scenes",
                "content_sha256": "0" * 64,
            },
        },
    )
    return tmp_path / "weights", digest


def test_a_records_scores_enter_the_model_index_and_the_table_of_the_card(records, tmp_path, weights):
    folder, digest = weights
    raw = json.loads(records.simulated().model_dump_json())
    raw["model"]["weights_sha256"] = digest
    record = make_result(**{key: value for key, value in raw.items() if key != "id"})
    write_result(tmp_path / "result.json", record)
    before = ModelCard.load(folder / "README.md")
    assert [(r.dataset_split, r.metric_value) for r in before.data.eval_results] == [("val", 0.5)]
    for _ in range(2):  # the second time replaces, it does not add
        assert score_card(folder, [tmp_path / "result.json"]) == folder / "README.md"
    card = ModelCard.load(folder / "README.md")
    found = {(r.dataset_split, r.metric_type): r.metric_value for r in card.data.eval_results}
    iou = record.metrics["iou"].value
    assert found["val", "iou"] == 0.5 and found["test", "iou"] == iou and len(found) == len(card.data.eval_results)
    assert {r.dataset_revision for r in card.data.eval_results} == {"1.0.0"}
    low, high = record.metrics["iou"].interval.low, record.metrics["iou"].interval.high
    assert f"| demo-water 1.0.0 | test | iou | {iou:.4f} \\[{low:.4f}, {high:.4f}\\] |" in card.text
    assert card.text.count("## Scores") == 1 and "## Licence" in card.text and "Simulated scenes" in card.text


def test_scores_of_other_weights_are_refused(records, tmp_path, weights):
    folder, _ = weights
    write_result(tmp_path / "result.json", records.simulated())
    before = (folder / "README.md").read_bytes()
    with pytest.raises(FormatError, match="result.json: scores weights [0-9a-f]{16}…, these are"):
        score_card(folder, [tmp_path / "result.json"])
    assert (folder / "README.md").read_bytes() == before
