"""Pairs in, scores out: networks and trivial rows are trained, predicted and scored, and refuse what does not fit."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from tidemark.benchmark.evaluate import evaluate_run
from tidemark.benchmark.measuring import Span
from tidemark.benchmark.records import read_result
from tidemark.benchmark.speed import measure_speed
from tidemark.benchmark.subject import find_subject
from tidemark.datasets.reader import open_split
from tidemark.errors import ConfigError, TidemarkError, WeightsError
from tidemark.models import keeper, train
from tidemark.models.harmonization import rows
from tidemark.models.harmonization.resample import resample
from tidemark.models.inference import open_inference, predict_split
from tidemark.models.predictions import Predictions
from tidemark.models.runs import read_run
from tidemark.models.weights import from_pretrained

SMALL = "{depth: 2, channels: 8, residual: true}"
FAST = (
    "TRAIN.LR",
    "1e-2",
    "TRAIN.BATCH_SIZE",
    "4",
    "AUGMENT.FLIP",
    "true",
    "AUGMENT.ROTATE90",
    "true",
    "AUGMENT.CROP",
    "48",
)


def history(run):
    with open(run / "logs" / "metrics.csv") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def trained(config, pairs, out):
    cfg = config(pairs, out, *FAST, "TRAIN.EPOCHS", 6, "AUGMENT.GAIN", "0.01", model="srunet", args=SMALL)
    return train.train(cfg, progress=False)


@pytest.fixture(scope="module")
def bicubic(config, pairs, out):
    return train.train(config(pairs, out, model="bicubic", args="{}"))


def headline(run, split="test"):
    return read_result(evaluate_run(run, split)).metrics["psnr"].value


def test_a_network_learns_and_is_scored_as_it_was_validated(trained, bicubic):
    rows, info = history(trained), read_run(trained)
    best = max(float(row["val/psnr"]) for row in rows)
    assert float(rows[info.selected_epoch]["val/psnr"]) == best and best > float(rows[0]["val/psnr"])
    assert info.label == "SRUNet, residual" and info.trained
    result = read_result(evaluate_run(trained, "val"))
    assert result.task == "harmonization" and result.bands[3] == "nir" and len(result.units) == 2
    # float16, and nothing else, lies between the training's score and the evaluator's
    assert result.metrics["psnr"].value == pytest.approx(best, abs=0.02)
    assert headline(trained) > headline(bicubic) + 3
    assert json.loads((trained / "weights" / "config.json").read_text())["task_kind"] == "regression"


def test_the_weights_say_what_goes_in_and_what_comes_out(trained):
    pretrained = from_pretrained(trained)
    meaning = pretrained.harmonization
    assert [b.name for b in meaning.target][-1] == "swir2" and (meaning.loss, meaning.residual) == ("l1", True)
    assert pretrained.model.residual and meaning.pan_preprocess().channel_names == ["pan"]
    card = (trained / "weights" / "README.md").read_text()
    assert "| swir2 | Sentinel-2 MSI | reflectance |" in card and "is added to the bicubic image" in card
    assert "image-to-image" in card and "HarmonizationInference" in card


def test_predictions_are_float16_and_nan_where_nobody_saw_clearly(trained, pairs):
    path = predict_split(trained, "val", batch_size=3)
    again = predict_split(trained, "val", batch_size=1, out=trained / "again.h5")
    chip = Predictions(path).chip_ids[5]
    first, second = (Predictions(p).read(chip)[0] for p in (path, again))
    assert first.dtype == np.float16 and first.shape == (6, 64, 64)
    assert np.isnan(first[:, -12:]).all() and np.isfinite(first[:, :-12]).all()
    np.testing.assert_allclose(first[:, :-12].astype(float), second[:, :-12].astype(float), atol=1e-3)


def test_an_interrupted_training_ends_with_the_weights_of_an_undisturbed_one(config, pairs, tmp_path, monkeypatch):
    overrides = (*FAST, "TRAIN.EPOCHS", 3, "TRAIN.EMA", "0.5", "AUGMENT.SHIFT", "0.3")
    args = "{depth: 2, channels: 4, residual: true, dropout: 0.1}"
    whole = train.train(config(pairs, tmp_path / "whole", *overrides, model="srunet", args=args), progress=False)
    finish = keeper.Keeper.on_train_epoch_end

    def stop(self, trainer, task):
        finish(self, trainer, task)
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt

    cfg = config(pairs, tmp_path / "cut", *overrides, model="srunet", args=args)
    with monkeypatch.context() as patch, pytest.raises(TidemarkError, match="interrupted"):
        patch.setattr(keeper.Keeper, "on_train_epoch_end", stop)
        train.train(cfg, progress=False)
    cut = train.train(cfg, progress=False)
    assert (cut / "weights" / "model.safetensors").read_bytes() == (
        whole / "weights" / "model.safetensors"
    ).read_bytes()
    assert read_run(cut).label == "SRUNet, residual, dropout 0.1"


def test_a_gaussian_network_is_trained_by_its_likelihood_and_answers_its_mean(config, pairs, out):
    args = "{depth: 2, channels: 4, residual: true}"
    cfg = config(pairs, out, *FAST, "TRAIN.EPOCHS", 1, "TRAIN.LOSS", "gaussian-nll", model="aunet-gaussian", args=args)
    run = train.train(cfg, progress=False)
    assert from_pretrained(run).harmonization.loss == "gaussian-nll" and headline(run) > 15
    with pytest.raises(ConfigError, match=r"TRAIN.LOSS: the network answers a variance, and the loss is l1"):
        train.train(config(pairs, out, *FAST, "TRAIN.EPOCHS", 1, model="aunet-gaussian", args=args), progress=False)


def test_a_training_starts_from_weights_of_the_same_bands(config, pairs, out, trained):
    start = ("TRAIN.INIT", trained, "TRAIN.EPOCHS", 1, "TRAIN.LOSS", "l1+0.5*ssim", "TRAIN.LR", "1e-9")
    fine = train.train(config(pairs, out, *start, model="srunet", args=SMALL), progress=False)
    best = max(float(row["val/psnr"]) for row in history(trained))
    assert float(history(fine)[0]["val/psnr"]) == pytest.approx(best, abs=1e-3)


def test_the_trivial_rows_are_interpolation_and_what_the_training_split_teaches(config, pairs, out, bicubic):
    chips = list(rows.PairArrays(pairs, "test"))
    answers = Predictions(bicubic / "test" / "predictions.h5")
    pair = chips[3]
    image, grid = torch.from_numpy(pair.image)[None], torch.from_numpy(pair.grid)[None]
    expected = resample(image, grid, (64, 64), "bicubic")[0].numpy()
    np.testing.assert_allclose(answers.read(pair.id)[0][:, :-12].astype(float), expected[:, :-12], atol=5e-4)
    assert not pair.valid[-12:].any() and pair.valid[:-12].all()
    scores = {
        name: headline(train.train(config(pairs, out, model=name, args="{}")))
        for name in ("nearest", "bilinear", "band-linear", "histogram-matching")
    } | {"bicubic": headline(bicubic)}
    # the image is a fifth darker than the target: that is worth more than any interpolation
    assert min(scores["band-linear"], scores["histogram-matching"]) > max(scores["bicubic"], scores["nearest"]) + 3
    assert scores["band-linear"] > scores["histogram-matching"]
    assert len(set(scores.values())) == 5
    run = train.train(config(pairs, out, model="band-linear", args="{}"))
    assert (read_run(run).trained, read_run(bicubic).trained) == (True, False)


def test_a_line_and_quantiles_by_hand():
    x, y = np.array([[0.0, 1, 2, 3]]), np.array([[1.0, 3, 5, 7]])
    sums = (np.array([4]), x.sum(1), y.sum(1), (x * x).sum(1), (x * y).sum(1))
    assert [v.tolist() for v in rows.line(*sums)] == [[2.0], [1.0]]
    constant = (np.array([4]), np.array([2.0]), np.array([3.0]), np.array([1.0]), np.array([1.5]))
    assert [v.tolist() for v in rows.line(*constant)] == [[1.0], [0.0]]
    found = rows.quantiles(np.array([0, 2, 0, 2]), np.linspace(0, 1, 5))
    assert [found[0], found[500], found[1000], found[1500], found[-1]] == pytest.approx([0.25, 0.375, 0.5, 0.75, 1.0])


def test_speed_of_pairs_is_measured_end_to_end(trained):
    speed = measure_speed(trained, "val", repeats=1, before=Span(1, 0.0), timed=Span(1, 0.1))
    assert speed.kind == "end-to-end" and speed.chips_per_s > 0
    assert speed.mpx_per_s == pytest.approx(speed.chips_per_s * 64 * 64 / 1e6)


def test_a_run_is_timed_on_the_pairs_it_learned_from(trained, pairs, tmp_path):
    found = find_subject(str(trained), tmp_path, channels=2, arguments={})
    assert found.data == pairs and found.pretrained.harmonization is not None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("DATA.BANDS", "[red]"), "DATA.BANDS: pairs of reflectance are taken as they are"),
        (("DATA.NORMALIZATION", "per_chip"), "DATA.NORMALIZATION: the networks take reflectance itself"),
        (("AUGMENT.NOISE", "0.1"), "AUGMENT.NOISE: pairs of reflectance are not changed like this"),
        (("TRAIN.CALIBRATE", "true"), "TRAIN.CALIBRATE: there are no logits"),
        (("TRAIN.LOSS", "bce"), "TRAIN.LOSS: no loss 'bce'"),
        (("TRAIN.POS_WEIGHT", "5.0"), "TRAIN.POS_WEIGHT: reflectance has no classes"),
        (("TRAIN.CLASS_WEIGHTS", "[1, 2]"), "TRAIN.CLASS_WEIGHTS: reflectance has no classes"),
        (("TRAIN.LABEL_SMOOTHING", "0.1"), "TRAIN.LABEL_SMOOTHING: reflectance has no classes"),
        (("TRAIN.MONITOR", "val/iou"), "TRAIN.MONITOR: a regression has no val/iou"),
    ],
)
def test_what_does_not_go_with_pairs_is_said_before_training(config, pairs, tmp_path, overrides, message):
    with pytest.raises(ConfigError, match=message):
        train.train(config(pairs, tmp_path, *overrides, model="srunet", args=SMALL), progress=False)


def test_models_of_another_task_are_refused(config, pairs, discs, tmp_path):
    with pytest.raises(ConfigError, match="is for segmentation, tiny-pairs is a regression"):
        train.train(config(pairs, tmp_path, model="unet", args="{}"), progress=False)
    with pytest.raises(ConfigError, match="is for regression, discs is a segmentation"):
        train.train(config(discs, tmp_path, model="srunet", args=SMALL), progress=False)
    with pytest.raises(ConfigError, match="AUGMENT.SHIFT: only the registration of pairs"):
        cfg = config(discs, tmp_path, "AUGMENT.SHIFT", "1", model="unet", args="{encoder: mobilenet_v2}")
        train.train(cfg, progress=False)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("pan", {"unit": "radiance"}, "band 'pan': unit 'radiance' expected"),
        ("target", {"name": "coastal"}, "the weights answer coastal"),
        ("image", {"sensor": "Landsat-9 OLI-2"}, "band 'blue': sensor 'Landsat-9 OLI-2' expected"),
    ],
)
def test_weights_for_other_bands_are_refused(trained, pairs, tmp_path, part, change, message):
    folder = shutil.copytree(trained / "weights", tmp_path / "weights")
    stated = json.loads((folder / "config.json").read_text())
    pan = stated["harmonization"]["pan"]
    bands = {"pan": pan["bands"], "target": stated["harmonization"]["target"], "image": stated["preprocess"]["bands"]}
    bands[part][0].update(change)
    (folder / "config.json").write_text(json.dumps(stated))
    with pytest.raises(WeightsError, match=message):
        open_inference(from_pretrained(folder), pairs, "val", device="cpu")


def test_weights_of_reflectance_without_their_meaning_are_refused(trained, tmp_path):
    folder = shutil.copytree(trained / "weights", tmp_path / "weights")
    stated = json.loads((folder / "config.json").read_text())
    del stated["harmonization"]
    (folder / "config.json").write_text(json.dumps(stated))
    with pytest.raises(WeightsError, match="harmonization belongs to a regression"):
        from_pretrained(folder)


def test_every_chip_of_the_split_is_answered_in_its_order(bicubic, pairs):
    chips = [chip for shard in open_split(pairs, "val")[1] for chip in shard.chip_ids]
    assert Predictions(bicubic / "val" / "predictions.h5").chip_ids == chips
