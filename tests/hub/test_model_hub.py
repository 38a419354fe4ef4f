"""Weights through the Hub: loaded before they go, compared when they come."""

from __future__ import annotations

import hashlib

import pytest
import torch
from huggingface_hub import ModelCard, constants
from tidemark.datasets.transforms import Preprocess
from tidemark.errors import HubError, InputError, WeightsError
from tidemark.models.hub import pull_model, push_model
from tidemark.models.registry import ModelSpec, create_model
from tidemark.models.weights import WEIGHTS_NAME, from_pretrained, save_pretrained


@pytest.fixture
def weights(tmp_path, tiny_dataset):
    from tidemark.datasets.spec import load_manifest

    manifest = load_manifest(tiny_dataset(chips=2))
    spec = ModelSpec({"image": 2}, 1)
    args = {"encoder": "resnet18", "decoder_channels": [16, 8, 8, 8, 8]}
    save_pretrained(
        create_model("unet", spec, **args),
        tmp_path / "weights",
        name="unet",
        spec=spec,
        args=args,
        preprocess_config=Preprocess(manifest.arrays[0].bands, None, normalization="per_chip").to_config(),
        classes=manifest.task.classes,
        card={"task_kind": "segmentation", "licence": "MIT"},
    )
    return tmp_path / "weights"


def test_pushed_weights_come_back_and_are_the_same(hub, weights, tmp_path):
    done = push_model(weights, "org/net", tag="v1")
    back = from_pretrained("org/net", revision="v1")
    assert back.weights_sha256 == done.weights_sha256
    x = torch.rand(1, 2, 64, 64)
    with torch.inference_mode():
        assert torch.equal(back.model(x), from_pretrained(weights).model(x))
    assert pull_model("org/net", tmp_path / "models", revision=done.commit) == tmp_path / "models/net"
    card = ModelCard(hub.repo("org/net", "model").commits[done.commit]["README.md"].decode())
    assert card.data.library_name == "tidemark" and card.data.license == "mit"


def test_scores_go_into_the_card_with_their_intervals(hub, weights, tmp_path):
    from tidemark.models.card import add_scores, eval_results

    data = {"name": "tiny", "version": "1.0.0"}
    scores, intervals = {"test": {"iou": 0.5, "oa": 0.75}}, {"test": {"iou": (0.4, 0.625)}}
    add_scores(weights / "README.md", eval_results("segmentation", data, scores, intervals))
    done = push_model(weights, "org/net")
    card = ModelCard(hub.repo("org/net", "model").commits[done.commit]["README.md"].decode())
    found = {r.metric_type: (r.metric_value, r.metric_args) for r in card.data.eval_results}
    assert found == {"iou": (0.5, {"interval_95": [0.4, 0.625]}), "oa": (0.75, None)}
    assert "| iou | 0.5000 \\[0.4000, 0.6250\\] |" in card.text and "| oa | 0.7500 |" in card.text
    assert "## Limits" in card.text and "## Licence" in card.text and "from_pretrained" in card.text


def test_only_weights_configuration_and_card_are_sent(hub, weights):
    (weights / "notes.pkl").write_bytes(b"\x80")
    done = push_model(weights, "org/net")
    files = hub.repo("org/net", "model").commits[done.commit]
    assert set(files) - {".gitattributes"} == {WEIGHTS_NAME, "config.json", "README.md"}


def test_wrong_bytes_are_set_aside(hub, weights):
    push_model(weights, "org/net")
    data = (weights / WEIGHTS_NAME).read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    wrong = data[:-1] + bytes([data[-1] ^ 1])
    hub.fault = lambda method, path: {"body": wrong} if path == f"/cdn/{digest}" else None
    with pytest.raises(WeightsError, match=f"sha256 expected {digest}, found .*not used"):
        from_pretrained("org/net")
    hub.fault = lambda method, path: None
    assert from_pretrained("org/net").weights_sha256 == digest


def test_refusals_are_told_apart(hub, weights):
    with pytest.raises(WeightsError, match=r"no such repository, or it is private \(404\)"):
        from_pretrained("org/none")
    push_model(weights, "org/net")
    with pytest.raises(WeightsError, match=r"no such version or revision \(404\)"):
        from_pretrained("org/net", revision="v9")
    gated = {"status": 403, "headers": {"X-Error-Code": "GatedRepo"}}
    hub.fault = lambda method, path: gated if "/resolve/" in path else None
    with pytest.raises(WeightsError, match="access to this repository must be granted"):
        from_pretrained("org/net")
    hub.fault = lambda method, path: 403 if path == "/api/repos/create" else None
    with pytest.raises(HubError, match=r"\(403\)"):
        push_model(weights, "org/other")
    with pytest.raises(InputError, match="ORG/NAME"):
        push_model(weights, "net")


def test_only_the_configuration_and_the_tensors_are_fetched(hub, weights):
    push_model(weights, "org/net")
    hub.requests.clear()
    from_pretrained("org/net")
    asked = {path.rsplit("/", 1)[1] for _, path, _ in hub.requests if "/resolve/" in path}
    assert asked == {"config.json", WEIGHTS_NAME}


def test_a_hub_that_is_not_there_is_told(hub, weights, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsError, match="the hub cannot be reached"):
        from_pretrained("org/net")


def test_broken_weights_are_not_sent(hub, weights):
    (weights / WEIGHTS_NAME).write_bytes(b"\x80\x04")
    with pytest.raises(WeightsError, match="pickle"):
        push_model(weights, "org/net")
    assert hub.repos == {}
