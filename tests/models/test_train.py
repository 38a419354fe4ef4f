"""A training learns, leaves a complete run folder, is never done twice and says what does not fit."""

from __future__ import annotations

import csv
import os
import shutil

import numpy as np
import pytest
import torch
from tidemark import configs
from tidemark.datasets.spec import load_manifest
from tidemark.errors import DeviceError, TidemarkError, WeightsError
from tidemark.models import train
from tidemark.models.runs import read_run, run_folder
from tidemark.models.weights import from_pretrained


def history(run):
    with open(run / "logs" / "metrics.csv") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def weights_of(run):
    return (run / "weights" / "model.safetensors").read_bytes()


def test_a_unet_learns_and_the_run_folder_is_complete(config, discs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cfg = config(
        discs,
        "runs",
        "TRAIN.EPOCHS",
        6,
        "TRAIN.LR",
        "3e-3",
        "DATA.DERIVED",
        "[b0-b1]",
        "AUGMENT.FLIP",
        "true",
        "DATA.NORMALIZATION",
        "per_chip",
        "TRAIN.LOSS",
        "bce_dice",
        "TRAIN.EMA",
        "0.5",
        "TRAIN.SCHEDULER",
        "onecycle",
        "TRAIN.WARMUP",
        "0.3",
        "AUGMENT.CROP",
        48,
        model="unet",
        args="{encoder: mobilenet_v2, decoder_channels: [32, 16, 16, 8, 8]}",
    )
    run = train.train(cfg, progress=False)
    rows = history(run)
    assert max(float(row["val/iou"]) for row in rows) > 0.7
    assert float(rows[-1]["train/loss"]) < float(rows[0]["train/loss"])

    assert sorted(path.name for path in run.iterdir()) == [
        "config.yaml",
        "curves.png",
        "last.ckpt",
        "logs",
        "run.json",
        "weights",
    ]
    assert run == run_folder(cfg, load_manifest(discs))
    assert configs.to_dict(configs.load_config(run / "config.yaml")) == configs.to_dict(cfg)
    assert (run / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert any(path.name.startswith("events") for path in (run / "logs" / "tensorboard").iterdir())
    assert os.listdir(tmp_path) == ["runs"]

    info, pretrained = read_run(run), from_pretrained(run)
    best = max(range(len(rows)), key=lambda i: float(rows[i]["val/iou"]))
    assert (info.selected_epoch, info.weights_sha256) == (best, pretrained.weights_sha256)
    assert info.parameters == sum(p.numel() for p in pretrained.model.parameters())
    assert info.train_seconds > 0
    assert pretrained.preprocess.channel_names == ["b0", "b1", "b0-b1"]
    assert f"{float(rows[best]['val/iou']):.4f}" in (run / "weights" / "README.md").read_text()
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 6 and "epoch 6/6" in output.err

    from tidemark.benchmark.metrics import confusion, water_iou
    from tidemark.datasets.loader import ChipLoader
    from tidemark.models.tasks import class_map

    counts = 0
    for batch in ChipLoader(discs, "val", 8):
        image, valid = pretrained.preprocess(batch["image"])
        with torch.no_grad():
            said = class_map(pretrained.model(image=image)).numpy()
        counts = counts + confusion(np.where(valid, batch["mask"], 255), said, 2)
    assert float(water_iou(counts)) == pytest.approx(float(rows[best]["val/iou"]), abs=2e-3)


def test_the_patch_cnn_learns(config, patches, tmp_path):
    run = train.train(
        config(
            patches,
            tmp_path,
            "TRAIN.EPOCHS",
            30,
            "TRAIN.LR",
            "4e-3",
            "TRAIN.LOSS",
            "ce",
            args="{width: 8, hidden: 32, dropout: 0.0}",
        ),
        False,
    )
    assert max(float(row["val/macro_f1"]) for row in history(run)) > 0.8
    own, card = configs.load_config(run / "config.yaml"), (run / "weights" / "README.md").read_text()
    assert "EPOCHS: 30" in card and own.OUTPUT not in card and own.DATA.ROOT not in card  # a card is published


def test_a_finished_run_is_returned_without_training(config, patches, tmp_path, monkeypatch):
    cfg = config(patches, tmp_path, "TRAIN.EPOCHS", 1)
    run = train.train(cfg, False)
    monkeypatch.setattr(train, "_train_network", lambda *args: pytest.fail("trained again"))
    assert train.train(cfg, False) == run
    moved = configs.make_config(configs.to_dict(cfg), ["TRAIN.THREADS", "2"])
    assert train.train(moved, False) == run


def test_another_seed_or_rate_is_another_run(config, patches, tmp_path):
    cfg = config(patches, tmp_path, "TRAIN.EPOCHS", 1)
    manifest = load_manifest(patches)
    folders = {
        run_folder(configs.make_config(configs.to_dict(cfg), change), manifest)
        for change in ([], ["SEED", "1"], ["TRAIN.LR", "0.5"])
    }
    assert len(folders) == 3
    assert len({folder.parent.name for folder in folders}) == 2  # seeds of one configuration lie together


def test_the_runs_folder_depends_on_what_is_computed_not_on_where(config, patches, tmp_path):
    cfg, manifest = config(patches, tmp_path), load_manifest(patches)
    plain = configs.to_dict(cfg)
    turned = {
        group: dict(reversed(value.items())) if isinstance(value, dict) else value
        for group, value in reversed(plain.items())
    }
    places = [
        "TRAIN.DEVICE",
        "auto",
        "TRAIN.THREADS",
        "7",
        "TRAIN.RESUME",
        "false",
        "TRAIN.CHECKPOINT_EVERY",
        "3",
        "DATA.ROOT",
        "elsewhere",
    ]
    assert run_folder(configs.make_config(turned, places), manifest) == run_folder(cfg, manifest)


def test_training_stops_when_patience_ends_and_keeps_the_best_epoch(config, patches, tmp_path):
    cfg = config(
        patches,
        tmp_path,
        "TRAIN.EPOCHS",
        50,
        "TRAIN.PATIENCE",
        2,
        "TRAIN.LR",
        "1e-12",
        "TRAIN.OPTIMIZER",
        "sgd",
        "TRAIN.MONITOR",
        "val/macro_f1",
    )
    run = train.train(cfg, False)
    assert len(history(run)) == 3
    assert read_run(run).selected_epoch == 0


def test_fine_tuning_starts_from_given_weights(config, patches, tmp_path):
    first = train.train(config(patches, tmp_path, "TRAIN.EPOCHS", 1), False)
    still = train.train(
        config(
            patches,
            tmp_path,
            "TRAIN.EPOCHS",
            1,
            "TRAIN.OPTIMIZER",
            "sgd",
            "TRAIN.LR",
            "1e-12",
            "TRAIN.INIT",
            first,
            "SEED",
            5,
        ),
        False,
    )
    shutil.copytree(first / "weights", tmp_path / "start")
    start = ("TRAIN.EPOCHS", 1, "TRAIN.INIT", tmp_path / "start")
    tuned = train.train(config(patches, tmp_path, *start), False)
    assert train.train(config(patches, tmp_path, *start), False) == tuned
    assert train.train(configs.load_config(tuned / "config.yaml"), False) == tuned
    shutil.copytree(tuned / "weights", tmp_path / "start", dirs_exist_ok=True)
    with pytest.raises(WeightsError, match="TRAIN.INIT_SHA256 says"):
        train.train(configs.load_config(tuned / "config.yaml"), False)
    assert train.train(config(patches, tmp_path, *start), False) != tuned  # other weights, another run
    mine, theirs = from_pretrained(first).model.state_dict(), from_pretrained(still).model.state_dict()
    for key, value in mine.items():
        torch.testing.assert_close(value, theirs[key], rtol=0, atol=1e-8)
    with pytest.raises(WeightsError, match="does not fit this model"):
        train.train(config(patches, tmp_path, "TRAIN.INIT", first, args="{width: 8, hidden: 16}"), False)
    with pytest.raises(WeightsError, match="channels"):
        train.train(config(patches, tmp_path, "TRAIN.INIT", first, "DATA.BANDS", "[b0]"), False)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["MODEL.NAME", "unet", "MODEL.ARGS", "{}"], "unet is for segmentation"),
        (["DATA.VAL_SPLIT", "validation"], "no split 'validation'.*train, val, test"),
        (["TRAIN.MONITOR", "val/iou"], "has no val/iou"),
        (["TRAIN.PRECISION", "16-mixed"], "needs a GPU"),
        (["TRAIN.LOSS", "bce"], "does not go with 3 logits"),
        (["DATA.BANDS", "[b9]"], "no band 'b9'"),
        (["MODEL.NAME", "patch-cn"], "did you mean patch-cnn"),
        (["DATA.NAME", "''"], "no DATA.NAME"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(config, patches, tmp_path, overrides, message):
    with pytest.raises(TidemarkError, match=message):
        train.train(config(patches, tmp_path, *overrides), False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named(config, patches, tmp_path):
    with pytest.raises(DeviceError, match="a GPU is asked for.*auto or cpu"):
        train.train(config(patches, tmp_path, "TRAIN.DEVICE", "cuda"), False)


def test_a_gpu_without_room_says_what_to_change(config, patches, tmp_path, monkeypatch):
    from tidemark.models import tasks

    def full(*args):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(tasks.Task, "training_step", full)
    with pytest.raises(DeviceError, match="out of GPU memory.*TRAIN.BATCH_SIZE .now 8.*TRAIN.ACCUMULATE 2"):
        train.train(config(patches, tmp_path), False)


def test_bf16_and_gradient_clipping_train(config, patches, tmp_path):
    run = train.train(config(patches, tmp_path, "TRAIN.PRECISION", "bf16-mixed", "TRAIN.CLIP_NORM", "1.0"), False)
    assert np.isfinite([float(row["train/loss"]) for row in history(run)]).all()


def test_a_trivial_row_runs_by_the_same_command_and_once(config, discs, tmp_path, monkeypatch):
    cfg = config(discs, tmp_path, model="all-dry", args="{}")
    run = train.train(cfg, False)
    assert read_run(run).model == "all-dry"
    assert (run / "test" / "predictions.h5").exists()
    from tidemark.models import baselines

    monkeypatch.setattr(baselines, "fit_predict", lambda *args: pytest.fail("fitted again"))
    assert train.train(cfg, False) == run


def test_the_progress_bar_shows_loss_and_score(config, patches, tmp_path, capsys):
    train.train(config(patches, tmp_path, "TRAIN.EPOCHS", 1), True)
    output = capsys.readouterr().out
    assert "Epoch 0" in output and "loss:" in output and "val/macro_f1:" in output


def test_starting_weights_do_not_depend_on_what_was_drawn_before(config, patches, tmp_path):
    runs = []
    for name in ("a", "b"):
        torch.rand(ord(name))
        runs.append(train.train(config(patches, tmp_path / name, "TRAIN.EPOCHS", 1), False))
    assert weights_of(runs[0]) == weights_of(runs[1])
    shutil.rmtree(tmp_path / "a")
