"""The files of a submission: tampering and oddities are refused, each by its own message."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from tidemark.errors import FormatError, InputError, WeightsError
from tidemark.leaderboard.artifacts import check_folder, prediction_content, weights_content
from tidemark.leaderboard.submission import SUBMISSION_NAME, read_submission
from tidemark.models.predictions import Predictions


class Canary:
    """A pickle that would write a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def flip(path):
    """Flip one predicted pixel of the first chip, in place."""
    with h5py.File(path, "r+") as file:
        chip = file["prediction"][0]
        chip[5, 5] ^= 1
        file["prediction"][0] = chip


def test_one_flipped_pixel_changes_the_digest(copy):
    folder = copy("maps")
    flip(folder / "seed1" / "test" / "predictions.h5")
    with pytest.raises(
        FormatError, match="seed1/test/predictions.h5: /runs/1/predictions/test/(sha256|bytes): expected"
    ):
        check_folder(folder)


def test_one_flipped_byte_and_a_cut_file_are_told_apart(copy):
    path = copy("patches") / "seed2" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(FormatError, match="/runs/2/weights/sha256: expected"):
        check_folder(path.parents[1])
    path.write_bytes(data[:-1])
    with pytest.raises(FormatError, match=f"/runs/2/weights/bytes: expected {len(data)}, found {len(data) - 1}"):
        check_folder(path.parents[1])


def test_a_renamed_chip_is_named_with_the_counts(copy, forge, lab):
    folder = copy("maps")

    def rename(ids, chunks, about):
        ids[3] = "another-chip"

    forge.rewrite(folder, 0, "test", rename)
    with pytest.raises(
        FormatError, match=r"of the 8 chips of maps test: 1 missing \(test-0-003\), 1 extra \(another-chip\)"
    ):
        check_folder(folder, lab.data)


def test_a_missing_and_a_repeated_chip_are_refused(copy, forge, lab):
    folder = copy("maps")

    def drop(ids, chunks, about):
        del ids[0], chunks[0]

    forge.rewrite(folder, 0, "val", drop)
    with pytest.raises(FormatError, match="7 chips, its record has 8"):
        check_folder(folder)
    forge.restate(folder, 0, "val", chips=7)
    with pytest.raises(FormatError, match="of the 8 chips of maps val: 1 missing"):
        check_folder(folder, lab.data)
    folder = copy("maps", "again")
    with h5py.File(folder / "seed0" / "test" / "predictions.h5", "r+") as file:
        file["chip_id"][1] = file["chip_id"][0]
    forge.restate(folder, 0, "test")
    with pytest.raises(FormatError, match="1 chips are repeated: test-0-000"):
        check_folder(folder)


@pytest.mark.parametrize("key, value", [("version", "2.0.0"), ("content_sha256", "0" * 64), ("name", "other")])
def test_predictions_for_other_data_are_refused(copy, forge, key, value):
    folder = copy("maps")
    forge.rewrite(folder, 1, "test", lambda ids, chunks, about: about.update({key: value}))
    with pytest.raises(FormatError, match=f"predictions for another .*: expected .*, found {value}"):
        check_folder(folder)


def test_another_data_set_under_the_same_name_is_refused(copy, lab, tmp_path):
    data = Path(shutil.copytree(lab.data, tmp_path / "data"))
    manifest = data / "maps" / "1.0.0" / "dataset.json"
    content = read_submission(copy("maps") / SUBMISSION_NAME).dataset.content_sha256
    manifest.write_text(manifest.read_text().replace(content, "f" * 64))
    with pytest.raises(FormatError, match="/dataset/content_sha256: maps 1.0.0 has ffff"):
        check_folder(tmp_path / "copy", data)
    with pytest.raises(InputError, match="the data set is not there.*build or pull maps 1.0.0"):
        check_folder(tmp_path / "copy", tmp_path / "nowhere")


def test_links_and_files_that_are_not_named_are_refused(copy, tmp_path):
    folder = copy("patches")
    (folder / "notes.txt").write_text("hello")
    with pytest.raises(FormatError, match="notes.txt: a file that the submission does not name"):
        check_folder(folder)
    (folder / "notes.txt").unlink()
    path = folder / "seed0" / "model.safetensors"
    path.rename(tmp_path / "elsewhere")
    with pytest.raises(FormatError, match="/runs/0/weights: the file is missing"):
        check_folder(folder)
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FormatError, match="model.safetensors: is a link"):
        check_folder(folder)
    with pytest.raises(FormatError, match="is not a folder"):
        (tmp_path / "link").symlink_to(folder)
        check_folder(tmp_path / "link")


def test_a_pickle_is_refused_and_never_loaded(copy, forge, tmp_path):
    folder, canary = copy("patches"), tmp_path / "canary"
    (folder / "seed0" / "model.pth").write_bytes(pickle.dumps(Canary(canary)))
    with pytest.raises(WeightsError, match="model.pth: is a pickle"):
        check_folder(folder)
    (folder / "seed0" / "model.pth").unlink()
    path = folder / "seed0" / "model.safetensors"
    path.write_bytes(pickle.dumps(Canary(canary)))
    restate_weights(forge, folder, path)
    with pytest.raises(WeightsError, match="model.safetensors: is a pickle"):
        check_folder(folder)
    assert not canary.exists()


def restate_weights(forge, folder, path):
    """The digest of changed weights, stated in the reference and in both records."""
    from tidemark.benchmark.records import make_result
    from tidemark.datasets.files import sha256_file

    def change(raw):
        run, digest = raw["runs"][0], sha256_file(path)
        run["weights"] |= {"bytes": path.stat().st_size, "sha256": digest}
        for split, record in run["records"].items():
            record = {**record, "model": {**record["model"], "weights_sha256": digest}}
            del record["id"]
            run["records"][split] = make_result(**record).model_dump(mode="json")

    forge.edit(folder, change)


def test_weights_that_are_not_finite_are_refused(copy, forge):
    import torch
    from safetensors.torch import load_file, save_file

    folder = copy("patches")
    path = folder / "seed0" / "model.safetensors"
    tensors = load_file(path)
    name = next(iter(tensors))
    tensors[name] = torch.full_like(tensors[name], torch.nan)
    save_file(tensors, path)
    restate_weights(forge, folder, path)
    with pytest.raises(WeightsError, match=f"1 tensors with values that are not finite: {name}"):
        check_folder(folder)


def test_weights_of_another_model_are_refused(copy, forge):
    from tidemark.benchmark.records import make_result

    folder = copy("patches")

    def claim(raw):
        raw["model"]["arguments"] = {"width": 64, "hidden": 64}
        for run in raw["runs"]:
            for split, record in run["records"].items():
                record = {**record, "model": {**record["model"], "arguments": {"width": 64, "hidden": 64}}}
                del record["id"]
                run["records"][split] = make_result(**record).model_dump(mode="json")

    forge.edit(folder, claim)
    with pytest.raises(FormatError, match=r"/runs/0/weights: another argument: expected .*64.*found .*8"):
        check_folder(folder)


def test_content_digests_ignore_the_bytes_around_the_content(copy):
    from safetensors.torch import load_file, save_file

    folder = copy("patches")
    path = folder / "seed0" / "model.safetensors"
    before, size = weights_content(path), path.stat().st_size
    save_file(load_file(path), path, metadata={"format": "pt", "made": "elsewhere"})
    assert weights_content(path) == before and path.stat().st_size != size

    path = folder / "seed0" / "test" / "predictions.h5"
    before = prediction_content(Predictions(path))
    with h5py.File(path, "r+") as file:
        file.attrs.modify("model", np.bytes_("another"))
        answers = file["prediction"][:]
    assert prediction_content(Predictions(path)) == before
    assert (before is None) == (len(np.unique(answers)) == 1)
