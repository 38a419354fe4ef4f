"""Real tiny runs, packed: a patch CNN (weights and predictions) and a pixel forest (predictions of maps alone)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tidemark import configs
from tidemark.benchmark.evaluate import evaluate_run
from tidemark.benchmark.records import read_result, write_result
from tidemark.datasets.files import sha256_file
from tidemark.leaderboard.entries import load_entries
from tidemark.leaderboard.pack import pack
from tidemark.leaderboard.submission import SUBMISSION_NAME, make_submission, read_submission, write_submission
from tidemark.models.predictions import Predictions, write_predictions
from tidemark.models.train import train

STATEMENT = {
    "title": "A small model",
    "team": "Fenland Water Lab",
    "contact": "lab@example.org",
    "licence": "CC-BY-4.0",
    "training_data": ["the training split"],
    "artifacts": "fenland/small@" + "0123456789" * 4,
}


def run(data: Path, out: Path, model: str, seed: int, **args) -> Path:
    """Train one seed and score it on val and test."""
    name, version = data.parts[-2:]
    values = ["DATA.ROOT", str(data.parents[1]), "DATA.NAME", name, "DATA.VERSION", version, "OUTPUT", str(out)]
    values += ["MODEL.NAME", model, "MODEL.ARGS", json.dumps(args), "SEED", str(seed), "TRAIN.EPOCHS", "1"]
    values += ["TRAIN.BATCH_SIZE", "8", "TRAIN.DEVICE", "cpu", "TRAIN.THREADS", "1"]
    folder = train(configs.make_config({}, values), progress=False)
    for split in ("val", "test"):
        evaluate_run(folder, split)
    return folder


def onto(board: Path, folder: Path) -> None:
    """A run's records as one of the house's rows, as ``tidemark reproduce --records`` writes them."""
    for split in ("val", "test"):
        result = read_result(folder / split / "result.json")
        data = result.dataset
        place = board / data.name / f"v{data.version.partition('.')[0]}" / result.model.name
        write_result(place / f"{result.config_hash}-seed{result.seed}" / f"{split}.json", result)


@pytest.fixture(scope="session")
def lab(tiny_dataset, tmp_path_factory):
    """``data`` (root of both data sets), ``patch_runs``, ``map_runs``, and ``board`` with the house's rows."""
    root, out = tmp_path_factory.mktemp("data-root"), tmp_path_factory.mktemp("runs")
    patches = tiny_dataset(
        name="polar-patch",
        version="2.0.0",
        kind="classification",
        classes=3,
        shape=(2, 16, 16),
        dtype="uint8",
        chips=9,
    )
    maps = tiny_dataset(name="maps", shape=(2, 32, 32), dtype="uint8", chips=4)
    for folder in (patches, maps):
        shutil.copytree(folder, root / folder.parts[-2] / folder.parts[-1])
    patches, maps = root / "polar-patch" / "2.0.0", root / "maps" / "1.0.0"
    board = tmp_path_factory.mktemp("board")
    for data, model in ((patches, "majority"), (maps, "all-dry"), (maps, "all-wet")):
        onto(board, run(data, out, model, 0))
    return SimpleNamespace(
        data=root,
        board=board,
        patch_runs=[run(patches, out, "patch-cnn", seed, width=4, hidden=8) for seed in range(3)],
        map_runs=[run(maps, out, "pixel-forest", seed, trees=5) for seed in range(3)],
    )


@pytest.fixture(scope="session")
def packed(lab, tmp_path_factory):
    """Folders of two submissions, ``patches`` and ``maps``: not to be changed, see ``copy``."""
    out = tmp_path_factory.mktemp("packed")
    pack(lab.patch_runs, out / "patches", **STATEMENT)
    pack(lab.map_runs, out / "maps", **STATEMENT)
    return SimpleNamespace(patches=out / "patches", maps=out / "maps")


@pytest.fixture
def copy(packed, tmp_path):
    """``copy("maps")``: a packed folder of one's own."""

    def make(which: str, name: str = "copy") -> Path:
        return Path(shutil.copytree(getattr(packed, which), tmp_path / name))

    return make


@pytest.fixture
def board(lab, tmp_path):
    """A folder with the house's rows that may be added to."""
    return Path(shutil.copytree(lab.board, tmp_path / "board"))


@pytest.fixture(scope="session")
def house(lab):
    """The house's rows as entries."""
    return load_entries(lab.board)


def edit(folder: Path, change) -> None:
    """Change the JSON of a submission and give it the id that the changed content has: a forger who knows the form."""
    path = folder / SUBMISSION_NAME
    raw = json.loads(path.read_bytes())
    change(raw)
    del raw["id"], raw["format"], raw["schema_version"]
    write_submission(path, make_submission(**raw))


def rewrite(folder: Path, number: int, split: str, change) -> None:
    """Predictions changed by ``change(chip_ids, chunks, attributes)``, with size and digest stated anew everywhere."""
    submission = read_submission(folder / SUBMISSION_NAME)
    path = folder / submission.runs[number].predictions[split].path
    old = Predictions(path)
    ids, chunks = (
        list(old.chip_ids),
        [tuple(np.array(a) if a is not None else None for a in old.read(i)) for i in old.chip_ids],
    )
    about = {"name": old.dataset, "version": old.version, "content_sha256": old.content_sha256}
    change(ids, chunks, about)
    write_predictions(path, dataset=about, split=split, model=old.model, chip_ids=ids, chunks=chunks)
    restate(folder, number, split)


def restate(folder: Path, number: int, split: str, **changes) -> None:
    """State size and digest of the predictions as they now lie there; ``changes`` go into the record."""
    from tidemark.benchmark.records import make_result

    path = folder / read_submission(folder / SUBMISSION_NAME).runs[number].predictions[split].path

    def change(raw):
        one = raw["runs"][number]
        one["predictions"][split] |= {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
        record = {**one["records"][split], "predictions_sha256": sha256_file(path), **changes}
        del record["id"]
        one["records"][split] = make_result(**record).model_dump(mode="json")

    edit(folder, change)


@pytest.fixture(scope="session")
def forge():
    """``edit``, ``rewrite`` and ``restate``: what someone would do who wants to be believed."""
    return SimpleNamespace(edit=edit, rewrite=rewrite, restate=restate)


@pytest.fixture(scope="session")
def statement():
    return dict(STATEMENT)
