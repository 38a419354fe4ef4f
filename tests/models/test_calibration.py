"""Temperatures make overconfident probabilities honest, are kept with the weights and never move a class map."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tidemark.benchmark.metrics import confusion, water_iou
from tidemark.datasets.loader import ChipLoader
from tidemark.datasets.spec import Band
from tidemark.models.calibration import Calibration, calibrate, fit_temperature
from tidemark.models.inference import Inference, predict_split
from tidemark.models.predictions import Predictions
from tidemark.models.train import train
from tidemark.models.weights import from_pretrained

SCALES = ("image_x2", "image_x8")


def answers(classes, factor, n=40_000):
    """Logits that are ``factor`` times too large for the labels drawn from them."""
    rng = np.random.default_rng(0)
    true = rng.normal(0, 2, (n, classes))
    if classes == 1:
        labels = (rng.random(n) < 1 / (1 + np.exp(-true[:, 0]))).astype(int)
    else:
        labels = (true + rng.gumbel(size=true.shape)).argmax(1)
    return (factor * true).astype(np.float32), labels


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_a_wrong_scale(classes, factor):
    found = fit_temperature(*answers(classes, factor), "val")
    assert found.temperature == pytest.approx(factor, rel=0.05)
    assert found.ece_after < 0.01 and found.nll_after <= found.nll_before
    assert found.ece_before > 0.05 or factor == 1.0
    assert found.answers == 40_000


def test_labels_that_do_not_count_and_surplus_ones_are_left_out(monkeypatch):
    from tidemark.models import calibration

    monkeypatch.setattr(calibration, "MAX_ANSWERS", 5_000)
    logits, labels = (torch.from_numpy(x) for x in answers(1, 3.0))
    batches = [
        {"image": x.view(-1, 1, 100, 100), "mask": y.view(-1, 100, 100)}
        for x, y in zip(logits.chunk(2), labels.chunk(2), strict=True)
    ]
    batches[0]["mask"][:, :50] = 255
    network = torch.nn.Module()
    network.forward = lambda image: image
    found = calibrate(network, batches, ("image",), label="mask", split="val", answers=40_000)
    assert found.answers == 3_750  # every eighth, a quarter of them without a label
    assert found.temperature == pytest.approx(3.0, rel=0.15)
    batches[0]["mask"][:], batches[1]["mask"][:] = 255, 255
    assert calibrate(network, batches, ("image",), label="mask", split="val", answers=40_000) is None


@pytest.fixture(scope="module")
def run(tiny_dataset, config, tmp_path_factory):
    bands = tuple(Band(name=name, nodata=0, scale=0.5) for name in ("vv_asc", "vv_desc"))
    folder = tiny_dataset(name="lakes", shape=(2, 64, 64), bands=bands, contexts=SCALES, chips=2)
    options = ["DATA.NORMALIZATION", "range", "DATA.PARTIAL", "true", "TRAIN.CALIBRATE", "true", "TRAIN.LR", "3e-3"]
    for key in ("LINES", "REGIONS", "ORBITS", "BAND_DROP"):
        options += [f"AUGMENT.{key}", "0.25"]
    cfg = config(folder, tmp_path_factory.mktemp("runs"), *options, "TRAIN.EPOCHS", 1, model="gmnet", args="{}")
    return folder, train(cfg, False)


def test_a_network_with_contexts_is_trained_calibrated_and_predicts(run):
    folder, path = run
    pretrained = from_pretrained(path)
    assert dict(pretrained.spec.in_channels) == {"image": 2, "image_x2": 2, "image_x8": 2}
    assert pretrained.preprocess.partial and pretrained.preprocess.clip == (0.0, 1.0)
    found = pretrained.calibration
    assert found.nll_after <= found.nll_before
    assert found.answers == 4 * (64 * 64 - 2)  # two pixels of a chip have no label
    card = (path / "weights" / "README.md").read_text()
    assert f"from {found.ece_before:.4f} to {found.ece_after:.4f}" in card
    predictions = Predictions(predict_split(path, "val"))
    counts, chips = 0, iter(predictions.chip_ids)
    for batch in ChipLoader(folder, "val", 4):
        for mask in batch["mask"].numpy():
            counts = counts + confusion(mask, predictions.read(next(chips))[0], 2)
    assert water_iou(counts) == pytest.approx(best(path))


def best(path):
    rows = [line.split(",") for line in (path / "logs" / "metrics.csv").read_text().splitlines()]
    return max(float(row[rows[0].index("val/iou")] or "nan") for row in rows[1:])


def test_logits_are_divided_by_the_temperature(run):
    folder, path = run
    pretrained = from_pretrained(path)
    batch = next(iter(ChipLoader(folder, "val", 2)))
    contexts = {name: batch[name] for name in SCALES}
    warm = Calibration(**{**pretrained.calibration.model_dump(), "temperature": 4.0})
    logits = []
    for calibration in (None, warm):
        changed = type(pretrained)(**{**pretrained.__dict__, "calibration": calibration})
        chances, _ = Inference(changed, changed.preprocess, "cpu")(batch["image"], **contexts)
        logits.append(chances.logit())
    torch.testing.assert_close(logits[1], logits[0] / 4, rtol=1e-3, atol=1e-4)


def test_weights_without_a_calibration_keep_their_bytes(run, tmp_path):
    from tidemark.models.weights import save_pretrained

    _, path = run
    pretrained = from_pretrained(path)
    save_pretrained(
        pretrained.model,
        tmp_path,
        name="gmnet",
        spec=pretrained.spec,
        args={},
        preprocess_config=pretrained.preprocess.to_config(),
        classes=pretrained.classes,
        card={"task_kind": "segmentation", "dataset": pretrained.dataset},
    )
    assert "calibration" not in json.loads((tmp_path / "config.json").read_text())
    assert from_pretrained(tmp_path).calibration is None
