"""Losses ignore what has no label, tasks count in integers, and optimiser options do what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tidemark.benchmark import metrics
from tidemark.configs import make_config
from tidemark.errors import ConfigError, TidemarkError
from tidemark.models.losses import Loss
from tidemark.models.tasks import (
    Average,
    ClassificationTask,
    SegmentationTask,
    class_map,
    make_optimizer,
    make_schedule,
)

LOGITS = torch.tensor([[[[2.0, -1.0], [0.5, 3.0]]]])
LABELS = torch.tensor([[[1, 0], [1, 255]]])


def options(*overrides):
    return make_config({}, list(overrides)).TRAIN


def test_binary_cross_entropy_is_the_mean_over_labelled_pixels():
    expected = np.mean([np.log1p(np.exp(-2.0)), np.log1p(np.exp(-1.0)), np.log1p(np.exp(-0.5))])
    assert Loss("bce", 1)(LOGITS, LABELS).item() == pytest.approx(expected, rel=1e-6)


def test_pos_weight_and_label_smoothing_enter_the_cross_entropy():
    one = (LOGITS[..., :1, :1], LABELS[..., :1, :1])
    assert Loss("bce", 1, pos_weight=3.0)(*one).item() == pytest.approx(3 * np.log1p(np.exp(-2.0)), rel=1e-6)
    smooth = 0.9 * np.log1p(np.exp(-2.0)) + 0.1 * np.log1p(np.exp(2.0))
    assert Loss("bce", 1, label_smoothing=0.2)(*one).item() == pytest.approx(smooth, rel=1e-6)


def test_soft_dice_is_pooled_over_the_batch():
    p = 1 / (1 + np.exp([-2.0, 1.0, -0.5]))
    expected = 1 - (2 * (p[0] + p[2]) + 1) / (p.sum() + 2 + 1)
    assert Loss("dice", 1)(LOGITS, LABELS).item() == pytest.approx(expected, rel=1e-6)
    both = Loss("bce_dice", 1)(LOGITS, LABELS)
    assert both.item() == pytest.approx(expected + Loss("bce", 1)(LOGITS, LABELS).item(), rel=1e-6)


def test_cross_entropy_agrees_with_torch():
    torch.manual_seed(0)
    logits, labels = torch.randn(4, 3, 5, 5), torch.randint(0, 3, (4, 5, 5))
    labels[0] = 255
    weights = [1.0, 2.0, 5.0]
    expected = torch.nn.functional.cross_entropy(logits, labels, torch.tensor(weights), ignore_index=255)
    torch.testing.assert_close(Loss("ce", 3, class_weights=weights)(logits, labels), expected)
    assert Loss("auto", 3).name == "ce"


@pytest.mark.parametrize(("name", "channels"), [("bce", 1), ("dice", 1), ("bce_dice", 1), ("ce", 3), ("dice", 3)])
def test_ignored_pixels_have_no_gradient_and_an_empty_batch_no_loss_explosion(name, channels):
    logits = torch.randn(2, channels, 4, 4, requires_grad=True)
    labels = torch.ones(2, 4, 4, dtype=torch.int64)
    labels[0] = 255
    Loss(name, channels)(logits, labels).backward()
    assert logits.grad[0].abs().max() == 0
    assert logits.grad[1].abs().max() > 0
    nothing = Loss(name, channels)(logits, torch.full_like(labels, 255))
    assert nothing.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    "arguments",
    [
        {"name": "ce", "out_channels": 1},
        {"name": "bce", "out_channels": 3},
        {"name": "ce", "out_channels": 3, "class_weights": [1.0, 2.0]},
        {"name": "bce", "out_channels": 1, "class_weights": [1.0]},
        {"name": "ce", "out_channels": 3, "pos_weight": 2.0},
        {"name": "dice", "out_channels": 1, "label_smoothing": 0.2},
        {"name": "dice", "out_channels": 3, "label_smoothing": 0.2},
    ],
)
def test_a_loss_that_does_not_fit_is_refused(arguments):
    with pytest.raises(ConfigError):
        Loss(**arguments)


class Fixed(torch.nn.Module):
    """Returns its input's first channels as logits."""

    def __init__(self, channels):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(channels))

    def forward(self, image):
        return image[:, : len(self.weight)] * self.weight.view(-1, *[1] * (image.ndim - 2))


@pytest.mark.parametrize("classes", [2, 4])
def test_epoch_scores_pool_integers_over_the_batches(classes):
    channels = 1 if classes == 2 else classes
    task = SegmentationTask(Fixed(channels), options(), classes=classes, out_channels=channels)
    task.log = lambda *a, **k: None
    task.on_train_epoch_start()
    generator = torch.Generator().manual_seed(0)
    counts = np.zeros((classes, classes), np.int64)
    for step in range(3):
        image = torch.randn(2, channels, 8, 8, generator=generator)
        mask = torch.randint(0, classes, (2, 8, 8), generator=generator)
        mask[0, :2] = 255
        batch = {"image": image, "mask": mask, "index": torch.tensor([0, 1])}
        task.training_step(batch, step)
        task.validation_step(batch, step)
        counts += metrics.confusion(mask.numpy(), class_map(image).numpy(), classes)
    row = task.epoch_scores()
    expected = metrics.water_iou(counts) if classes == 2 else metrics.mean_iou(counts)
    assert row["train/iou"] == row["val/iou"] == pytest.approx(float(expected))
    assert row["train/loss"] == pytest.approx(row["val/loss"])


def test_the_loss_of_an_epoch_does_not_depend_on_the_batches():
    image, mask = torch.randn(5, 1, 4, 4), torch.randint(0, 2, (5, 4, 4))
    mask[0] = 255
    mask[1, :3] = 255
    found = []
    for size in (5, 3, 1):
        task = SegmentationTask(Fixed(1), options())
        task.on_train_epoch_start()
        for step, first in enumerate(range(0, 5, size)):
            chosen = slice(first, first + size)
            task.validation_step({"image": image[chosen], "mask": mask[chosen], "index": torch.arange(5)[chosen]}, step)
        found.append(task.epoch_scores()["val/loss"])
    assert found == pytest.approx([task.loss(image, mask).item()] * 3)


def test_classification_is_scored_by_macro_f1():
    task = ClassificationTask(Fixed(3), options(), classes=3, out_channels=3)
    task.on_train_epoch_start()
    logits = torch.eye(3)[[0, 1, 2, 2]]
    task.validation_step({"image": logits, "label": torch.tensor([0, 1, 2, 1]), "index": torch.arange(4)}, 0)
    assert task.epoch_scores()["val/macro_f1"] == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)


def test_a_loss_that_is_not_finite_names_the_step_and_its_chips():
    task = SegmentationTask(Fixed(1), options())
    task.log = lambda *a, **k: None
    task._trainer = type(
        "Trainer",
        (),
        {
            "train_dataloader": type("Loader", (), {"chip_ids": ["aa", "bb", "cc"]}),
            "current_epoch": 4,
            "barebones": False,
        },
    )()
    task.on_train_epoch_start()
    batch = {
        "image": torch.full((2, 1, 2, 2), float("nan")),
        "mask": torch.zeros(2, 2, 2, dtype=torch.int64),
        "index": torch.tensor([2, 0]),
    }
    with pytest.raises(TidemarkError, match="epoch 4, step 7, chips cc, aa: the loss is nan"):
        task.training_step(batch, 7)


def test_the_running_mean_of_the_weights_follows_and_can_be_saved():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    average = Average(network, 0.5)
    first = network[0].weight.detach().clone()
    with torch.no_grad():
        network[0].weight.add_(1)
        network[1].num_batches_tracked.add_(3)
    average.update(network)
    decay = min(0.5, 2 / 11)
    torch.testing.assert_close(average.mean[0].weight, decay * first + (1 - decay) * network[0].weight)
    assert average.mean[1].num_batches_tracked == 3
    assert not average.train().mean[1].training
    assert not any(p.requires_grad for p in average.parameters())
    other = Average(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)), 0.5)
    other.load_state_dict(average.state_dict())
    assert other.updates == 1


def test_the_running_mean_is_what_is_validated():
    task = SegmentationTask(Fixed(1), options("TRAIN.EMA", "0.9"))
    with torch.no_grad():
        task.network.weight.fill_(-1)
    task.on_train_epoch_start()
    mask = torch.tensor([[[1, 0], [1, 255]]])
    task.validation_step({"image": LOGITS, "mask": mask, "index": torch.tensor([0])}, 0)
    assert task.epoch_scores()["val/iou"] == 1.0
    assert task.best_network is task.averaged.mean


@pytest.mark.parametrize(
    ("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)]
)
def test_optimisers_take_rate_decay_and_momentum(name, kind):
    optimizer = make_optimizer(
        [torch.nn.Parameter(torch.zeros(1))],
        options("TRAIN.OPTIMIZER", name, "TRAIN.LR", "0.02", "TRAIN.WEIGHT_DECAY", "0.1"),
    )
    group = optimizer.param_groups[0]
    assert type(optimizer) is kind
    assert (group["lr"], group["weight_decay"]) == (0.02, 0.1)
    assert name != "sgd" or group["momentum"] == 0.9


def rates(*overrides, steps=20):
    chosen = options(*overrides)
    optimizer = make_optimizer([torch.nn.Parameter(torch.zeros(1))], chosen)
    schedule = make_schedule(optimizer, chosen, steps)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_schedules_rise_in_the_warm_up_and_fall_after_it():
    cosine = rates("TRAIN.SCHEDULER", "cosine", "TRAIN.LR", "1.0", "TRAIN.WARMUP", "0.25")
    assert cosine[:5] == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6])
    assert cosine[5] == 1.0
    assert cosine[5:] == sorted(cosine[5:], reverse=True)
    assert cosine[-1] < 0.02
    onecycle = rates("TRAIN.SCHEDULER", "onecycle", "TRAIN.LR", "1.0", "TRAIN.WARMUP", "0.3")
    assert onecycle[0] == pytest.approx(1 / 25)
    assert max(onecycle) == pytest.approx(1.0)
    assert np.argmax(onecycle) == 5
    assert onecycle[-1] < 1e-3
    flat = options("TRAIN.SCHEDULER", "none")
    assert make_schedule(make_optimizer([torch.nn.Parameter(torch.zeros(1))], flat), flat, 20) is None
    for kind in ("cosine", "onecycle"):
        assert len(rates("TRAIN.SCHEDULER", kind, "TRAIN.WARMUP", "0.0", steps=3)) == 3


def test_onecycle_takes_a_warm_up_of_one_step_and_leaves_the_momentum_alone():
    found = rates("TRAIN.SCHEDULER", "onecycle", "TRAIN.LR", "1.0", "TRAIN.WARMUP", "0.2", steps=5)
    assert found[0] == pytest.approx(1 / 25) and found[1:] == sorted(found[1:], reverse=True) and found[1] > 0.8
    chosen = options("TRAIN.SCHEDULER", "onecycle", "TRAIN.OPTIMIZER", "sgd", "TRAIN.MOMENTUM", "0.5")
    optimizer = make_optimizer([torch.nn.Parameter(torch.zeros(1))], chosen)
    make_schedule(optimizer, chosen, 10)
    assert optimizer.param_groups[0]["momentum"] == 0.5
