"""A training that is killed, interrupted or broken loses nothing and ends as if it had not been."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch
from tidemark import configs
from tidemark.datasets.spec import load_manifest
from tidemark.errors import BusyError, FormatError, TidemarkError
from tidemark.models import keeper, session, train
from tidemark.models.runs import run_folder


def history(run):
    with open(run / "logs" / "metrics.csv") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def weights_of(run):
    return (run / "weights" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(config, tmp_path_factory):
    """Runs that were never cut short, by their options."""
    runs = {}

    def run(folder, options):
        if options not in runs:
            runs[options] = train.train(config(folder, tmp_path_factory.mktemp("straight"), *options), False)
        return runs[options]

    return run


class Killed(BaseException):
    """Stands for SIGKILL where a real one would end the test run too."""


def kill_in_checkpoint(monkeypatch):
    save, done = torch.save, []

    def half(checkpoint, path):
        done.append(path)
        if len(done) < 3:
            return save(checkpoint, path)
        path.write_bytes(b"PK\x03\x04 half a checkpoint")
        raise Killed

    monkeypatch.setattr(keeper.torch, "save", half)


def kill_between_best_and_checkpoint(monkeypatch):
    save = keeper.AtomicCheckpointIO.save_checkpoint

    def save_checkpoint(self, checkpoint, path, storage_options=None):
        if checkpoint["epoch"] >= 2:
            raise Killed
        return save(self, checkpoint, path, storage_options)

    monkeypatch.setattr(keeper.AtomicCheckpointIO, "save_checkpoint", save_checkpoint)


def kill_between_epochs(monkeypatch):
    end = keeper.Keeper.on_train_epoch_end

    def on_train_epoch_end(self, trainer, task):
        end(self, trainer, task)
        if trainer.current_epoch == 1:
            raise Killed

    monkeypatch.setattr(keeper.Keeper, "on_train_epoch_end", on_train_epoch_end)


def kill_in_epoch(monkeypatch):
    from tidemark.models import tasks

    step = tasks.Task.training_step

    def training_step(self, batch, batch_idx):
        if (self.current_epoch, batch_idx) == (2, 1):
            raise Killed
        return step(self, batch, batch_idx)

    monkeypatch.setattr(tasks.Task, "training_step", training_step)


def kill_before_the_results(monkeypatch):
    from tidemark.models import weights

    def save_pretrained(*args, **kwargs):
        raise Killed

    monkeypatch.setattr(weights, "save_pretrained", save_pretrained)


HARD = (
    "SEED",
    3,
    "AUGMENT.FLIP",
    "true",
    "AUGMENT.NOISE",
    "0.1",
    "TRAIN.ACCUMULATE",
    2,
    "TRAIN.EMA",
    "0.9",
    "TRAIN.SCHEDULER",
    "onecycle",
    "TRAIN.WARMUP",
    "0.3",
    "TRAIN.LR",
    "1e-2",
)
PLATEAU = ("TRAIN.SCHEDULER", "plateau", "TRAIN.PLATEAU_PATIENCE", 1, "TRAIN.OPTIMIZER", "sgd", "TRAIN.EPOCHS", 6)


RARE = ("TRAIN.CHECKPOINT_EVERY", 2, "TRAIN.EPOCHS", 6, "TRAIN.SCHEDULER", "cosine", "TRAIN.LR", "3e-3")


@pytest.mark.parametrize("options", [HARD, PLATEAU, RARE], ids=["onecycle", "plateau", "rare"])
@pytest.mark.parametrize(
    "kill",
    [kill_in_checkpoint, kill_between_best_and_checkpoint, kill_between_epochs, kill_in_epoch, kill_before_the_results],
)
def test_a_killed_training_ends_with_the_same_weights(
    config, patches, undisturbed, tmp_path, monkeypatch, kill, options
):
    straight = undisturbed(patches, options)
    cfg = config(patches, tmp_path / "killed", *options)
    with monkeypatch.context() as patch:
        kill(patch)
        with pytest.raises(Killed):
            train.train(cfg, False)
    assert not list((tmp_path / "killed").rglob("run.json"))
    run = train.train(cfg, False)
    assert history(run) == history(straight)
    assert weights_of(run) == weights_of(straight)
    assert not list(run.glob("*.tmp-*")) and not list(run.glob("best-*"))


def test_a_training_killed_by_the_system_in_a_checkpoint_resumes(config, patches, undisturbed, tmp_path):
    straight = undisturbed(patches, HARD)
    cfg = config(patches, tmp_path / "killed", *HARD)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(configs.dump(cfg))
    script = textwrap.dedent("""
        import os, signal, sys, torch
        from tidemark import configs
        from tidemark.models import keeper, session, train
        save, done = torch.save, []
        def half(checkpoint, path):
            done.append(path)
            if len(done) < 3:
                return save(checkpoint, path)
            path.write_bytes(b"half a checkpoint")
            os.kill(os.getpid(), signal.SIGKILL)
        keeper.torch.save = half
        train.train(configs.load_config(sys.argv[1]), False)
    """)
    child = subprocess.run([sys.executable, "-c", script, str(recipe)], capture_output=True, timeout=300)
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    killed = next((tmp_path / "killed").rglob("last.ckpt")).parent
    assert list(killed.glob("last.ckpt.tmp-*"))
    run = train.train(cfg, False)
    assert weights_of(run) == weights_of(straight)
    assert not list(run.glob("*.tmp-*"))


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_an_interrupted_training_says_so_and_goes_on(config, patches, undisturbed, tmp_path, monkeypatch, number, name):
    from tidemark.models import tasks

    start = tasks.Task.on_train_epoch_start

    def signalled(self):
        start(self)
        if self.current_epoch == 2:
            os.kill(os.getpid(), number)

    cfg = config(patches, tmp_path, *HARD)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore SIGINT
    try:
        with monkeypatch.context() as patch:
            patch.setattr(tasks.Task, "on_train_epoch_start", signalled)
            with pytest.raises(TidemarkError, match=rf"interrupted \({name}\); the same command goes on"):
                train.train(cfg, False)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert weights_of(train.train(cfg, False)) == weights_of(undisturbed(patches, HARD))


def test_plateau_lowers_the_rate_when_the_score_stands_still(config, patches, tmp_path):
    run = train.train(config(patches, tmp_path, *PLATEAU, "TRAIN.LR", "1e-6", "TRAIN.PLATEAU_FACTOR", "0.1"), False)
    assert [float(row["lr"]) for row in history(run)] == pytest.approx([1e-6, 1e-6, 1e-6, 1e-7, 1e-7, 1e-8])


def test_a_run_of_a_checkpoint_is_of_that_recipe_alone_when_resume_is_off(config, patches, tmp_path):
    cfg = config(patches, tmp_path, "TRAIN.EPOCHS", 2)
    run = train.train(cfg, False)
    first = weights_of(run)
    (run / "last.ckpt").write_bytes(b"broken")
    (run / "val").mkdir()
    assert train.train(configs.make_config(configs.to_dict(cfg), ["TRAIN.RESUME", "false"]), False) == run
    assert weights_of(run) == first
    assert not (run / "val").exists()


def test_a_checkpoint_that_is_no_checkpoint_is_refused_and_not_executed(config, patches, tmp_path):
    cfg = config(patches, tmp_path / "runs")
    folder = run_folder(cfg, load_manifest(patches))
    folder.mkdir(parents=True)

    class Plant:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "canary"),)

    torch.save({"callbacks": Plant()}, folder / "last.ckpt")
    with pytest.raises(FormatError, match="last.ckpt: cannot be read as a checkpoint.*start this run again"):
        train.train(cfg, False)
    assert not (tmp_path / "canary").exists()


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(config, patches, tmp_path, monkeypatch):
    from tidemark.models import tasks

    loss, calls = tasks.Loss.__call__, []

    def broken(self, logits, labels):
        calls.append(1)
        return loss(self, logits, labels) * (float("nan") if len(calls) == 13 else 1)  # 3 + 3 steps per epoch

    cfg = config(patches, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(tasks.Loss, "__call__", broken)
        with pytest.raises(TidemarkError, match=r"epoch 2, step 0, chips (train-\d-\d{3}(, )?){8}: the loss is nan"):
            train.train(cfg, False)
    run = run_folder(cfg, load_manifest(patches))
    checkpoint = keeper.read_checkpoint(run / "last.ckpt")
    assert checkpoint["epoch"] == 1
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())
    assert not (run / "run.json").exists()
    train.train(cfg, False)
    assert len(history(run)) == 4


def test_weights_that_are_not_finite_never_replace_a_checkpoint(config, patches, tmp_path, monkeypatch):
    from tidemark.models import tasks

    def poison(self, *args):
        if self.current_epoch == 1:
            with torch.no_grad():
                next(self.network.parameters()).fill_(float("inf"))

    monkeypatch.setattr(tasks.Task, "on_train_batch_end", poison)
    cfg = config(patches, tmp_path, "TRAIN.BATCH_SIZE", 24)
    with pytest.raises(TidemarkError, match="not finite after epoch 1"):
        train.train(cfg, False)
    assert keeper.read_checkpoint(run_folder(cfg, load_manifest(patches)) / "last.ckpt")["epoch"] == 0


def test_a_full_disk_is_named_and_the_last_checkpoint_stays(config, patches, tmp_path):
    script = textwrap.dedent("""
        import resource, sys
        from tidemark import configs, errors
        from tidemark.models import keeper, session, train
        save = keeper.AtomicCheckpointIO.save_checkpoint
        def save_checkpoint(self, checkpoint, path, storage_options=None):
            if checkpoint["epoch"] == 1:
                resource.setrlimit(resource.RLIMIT_FSIZE, (5000, -1))
            save(self, checkpoint, path, storage_options)
        keeper.AtomicCheckpointIO.save_checkpoint = save_checkpoint
        try:
            train.train(configs.load_config(sys.argv[1]), False)
        except errors.StorageError as error:
            print(error)
    """)
    cfg = config(patches, tmp_path / "runs")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(configs.dump(cfg))
    child = subprocess.run([sys.executable, "-c", script, str(recipe)], capture_output=True, text=True, timeout=300)
    assert "last.ckpt: cannot write" in child.stdout and "free on the disk" in child.stdout, child.stderr
    folder = run_folder(cfg, load_manifest(patches))
    assert keeper.read_checkpoint(folder / "last.ckpt")["epoch"] == 0
    assert not list(folder.glob("*.tmp-*"))


def test_two_trainings_of_one_run_do_not_meet(config, patches, tmp_path):
    cfg = config(patches, tmp_path)
    folder = run_folder(cfg, load_manifest(patches))
    with session.alone(folder), pytest.raises(BusyError, match="another process trains this run"):
        train.train(cfg, False)
