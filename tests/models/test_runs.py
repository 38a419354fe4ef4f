"""run.json and the folder of a run: what changes the result changes the folder, what does not, does not."""

from __future__ import annotations

import shlex
import subprocess

import pytest
from tidemark.configs import dump, make_config
from tidemark.datasets.spec import load_manifest
from tidemark.errors import FormatError
from tidemark.models import runs
from tidemark.models.runs import (
    RunInfo,
    config_hash,
    dataset_of,
    device_in_words,
    git_state,
    provenance,
    read_run,
    run_folder,
    without_folders,
    write_run,
)

CONTENT = "0" * 64


def config(**changes):
    return make_config({"MODEL": {"NAME": "otsu"}, "DATA": {"NAME": "tiny"}} | changes)


def test_only_what_can_change_the_result_changes_the_hash():
    first = config_hash(config(), CONTENT)
    for place in ({"SEED": 5}, {"OUTPUT": "x"}, {"TRAIN": {"DEVICE": "cpu", "THREADS": 1, "RESUME": False}},
                  {"DATA": {"NAME": "tiny", "ROOT": "/elsewhere"}}):  # fmt: skip
        assert config_hash(config(**place), CONTENT) == first
    for change in ({"TRAIN": {"LR": 0.5}}, {"MODEL": {"NAME": "otsu", "ARGS": {"method": "per_chip"}}}):
        assert config_hash(config(**change), CONTENT) != first
    assert config_hash(config(), "1" * 64) != first


def test_a_key_that_came_later_changes_the_hash_only_away_from_its_default(monkeypatch):
    assert config_hash(config(), CONTENT) == "55212d97"  # as 0.1 made it: committed ids stay
    grown = config() | {"LOADER": {"KIND": "plain"}}
    grown["TRAIN"] = config()["TRAIN"] | {"FREEZE": 0}
    assert config_hash(grown, CONTENT) != "55212d97"
    later = {("LOADER", "KIND"): "plain", ("TRAIN", "FREEZE"): 0, ("MODEL", "ARGS", "depth"): 3}
    monkeypatch.setattr(runs, "LATER_KEYS", runs.LATER_KEYS | later)
    assert config_hash(grown, CONTENT) == config_hash(config(), CONTENT) == "55212d97"
    grown["TRAIN"]["FREEZE"] = 5
    assert config_hash(grown, CONTENT) != "55212d97"


def test_hashing_leaves_the_configuration_as_it_was():
    cfg = config(SEED=7)
    before = dump(cfg)
    config_hash(cfg, CONTENT)
    assert dump(cfg) == before


def test_the_folder_names_data_version_model_configuration_and_seed(tiny_dataset):
    manifest = load_manifest(tiny_dataset(chips=1))
    cfg = config(SEED=2, OUTPUT="out")
    digest = config_hash(cfg, manifest.content_sha256)
    assert str(run_folder(cfg, manifest)) == f"out/tiny-1.0.0/otsu-{digest}/seed2"


def test_a_run_reads_back_as_it_was_written(tiny_dataset, tmp_path):
    folder = tiny_dataset(chips=1)
    info = RunInfo(dataset=dataset_of(load_manifest(folder), folder.parents[1]), model="unet", arguments={"depth": 3},
                   label="U-Net", trained=True, seed=1, parameters=10, weights_sha256="a" * 64, selected_epoch=4,
                   train_seconds=1.5, provenance=provenance())  # fmt: skip
    write_run(tmp_path, info, dump(config()))
    assert read_run(tmp_path) == info and info.dataset.folder == folder
    assert info.provenance.packages["torch"] and info.provenance.threads >= 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ('{"model": "x"}', "/dataset: Field required"),
        ("[" * 100_000, "not valid JSON"),
        (None, "no finished run here"),
    ],
)
def test_a_damaged_or_absent_run_is_named(tmp_path, text, message):
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(FormatError, match=message) as error:
        read_run(tmp_path)
    assert "run.json" in str(error.value)


def test_git_state_tells_commit_and_changes_but_not_of_a_repository_around_it(tmp_path):
    def git(*arguments):
        subprocess.run(["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments],
                       check=True, capture_output=True)  # fmt: skip

    assert git_state(tmp_path) == (None, None)
    git("init", "-q")
    record = tmp_path / "leaderboard/submissions/record.json"
    record.parent.mkdir(parents=True)
    record.write_text("1")
    (tmp_path / "a").write_text("1")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    commit, dirty = git_state(tmp_path)
    assert len(commit) == 40 and dirty is False
    record.write_text("2")  # a sweep replaces its own records
    assert git_state(tmp_path) == (commit, False)
    (tmp_path / "a").write_text("2")
    assert git_state(tmp_path) == (commit, True)
    (tmp_path / "site-packages").mkdir()
    assert git_state(tmp_path / "site-packages") == (None, None)


def test_the_device_is_named_in_words():
    assert device_in_words("cpu").endswith("cores")


@pytest.mark.parametrize(
    "word, left",
    [
        ("/home/me/data", "data"),
        ("--records=/home/me/r", "--records=r"),
        ("~/runs", "runs"),
        (r"C:\Users\me\runs", "runs"),
        ("data/l8s2", "data/l8s2"),
        ("TRAIN.LR", "TRAIN.LR"),
        ("{depth: 3}", "{depth: 3}"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("hf://org/name@1.0.0", "hf://org/name@1.0.0"),
        ("l1+0.5*ssim", "l1+0.5*ssim"),
        ("/", ""),
    ],
)
def test_a_published_command_tells_no_folders(word, left, monkeypatch):
    assert without_folders(word) == left
    monkeypatch.setattr("sys.argv", ["/usr/bin/tidemark", "train", word])
    assert provenance().command == f"tidemark train {shlex.quote(left)}"
