"""Weights come back as they were saved, or are refused in words; nothing in them is ever executed."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from tidemark.datasets.spec import Band, ClassDef
from tidemark.datasets.transforms import Preprocess
from tidemark.errors import WeightsError
from tidemark.models.registry import ModelSpec, create_model
from tidemark.models.weights import from_pretrained, load_weights, save_pretrained

BANDS = (Band(name="before", sensor="S1", unit="dB", nodata=0), Band(name="after", sensor="S1", unit="dB", nodata=0))
CLASSES = [ClassDef(id=0, name="dry", color="#aa8844"), ClassDef(id=1, name="wet | <b>", color="#0044aa")]
ARGS = {"encoder": "mobilenet_v2", "decoder_channels": [8, 8, 8, 4, 4], "encoder_weights": None}
SPEC = ModelSpec({"image": 3}, 1)
CARD = {
    "task_kind": "segmentation",
    "licence": "MIT",
    "scores": {"val": {"iou": 0.5, "f1": None}},
    "training": "SEED: 0",
    "dataset": {
        "name": "toy",
        "version": "1.0.0",
        "content_sha256": "0" * 64,
        "title": "Toy",
        "licence": None,
        "simulated": True,
    },
}


def preprocess() -> Preprocess:
    return Preprocess(BANDS, None, ["after-before"], "manifest", [1.0, 2.0, 3.0], [1.0, 2.0, 4.0])


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> tuple[torch.nn.Module, Path]:
    torch.manual_seed(0)
    model = create_model("unet", SPEC, **ARGS).eval()
    folder = tmp_path_factory.mktemp("weights")
    save_pretrained(
        model,
        folder,
        name="unet",
        spec=SPEC,
        args=ARGS,
        preprocess_config=preprocess().to_config(),
        classes=CLASSES,
        card=CARD,
    )
    return model, folder


@pytest.fixture
def copy(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved[1], tmp_path / "copy"))


def change_tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_saved_model_gives_the_same_logits(saved):
    model, folder = saved
    again = from_pretrained(folder)
    image = torch.randn(2, 3, 40, 50)
    with torch.no_grad():
        assert torch.equal(again.model(image=image), model(image=image))
    assert not again.model.training
    assert (again.name, again.task_kind, again.dataset["version"]) == ("unet", "segmentation", "1.0.0")
    assert again.preprocess.to_config() == preprocess().to_config()
    assert again.classes == [c.model_dump() for c in CLASSES]
    assert again.spec.out_channels == 1


def test_the_same_weights_give_the_same_bytes(saved, tmp_path):
    model, folder = saved
    digest = save_pretrained(
        model,
        tmp_path,
        name="unet",
        spec=SPEC,
        args=ARGS,
        classes=CLASSES,
        card=CARD,
        preprocess_config=preprocess().to_config(),
    )
    assert digest == from_pretrained(folder).weights_sha256
    for name in ("model.safetensors", "config.json", "README.md"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_the_folder_of_a_run_stands_for_its_weights(saved, tmp_path):
    shutil.copytree(saved[1], tmp_path / "run" / "weights")
    assert from_pretrained(tmp_path / "run").name == "unet"


def test_loading_never_asks_for_the_encoders_starting_weights(saved, tmp_path):
    save_pretrained(
        saved[0],
        tmp_path,
        name="unet",
        spec=SPEC,
        args=ARGS | {"encoder_weights": "imagenet"},
        preprocess_config=preprocess().to_config(),
        classes=CLASSES,
        card=CARD,
    )
    assert "encoder_weights" not in from_pretrained(tmp_path).args


class Plant:
    """A pickle that leaves a file behind when it is loaded."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return Path.touch, (self.canary,)


def test_a_pickle_is_refused_under_any_name_and_not_executed(copy, tmp_path):
    canary = tmp_path / "canary"
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Plant(canary)))
    torch.save({"net": Plant(canary)}, tmp_path / "zip.pth")
    torch.save({"net": Plant(canary)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert zipfile.is_zipfile(tmp_path / "zip.pth")
    for name in ("plain.pkl", "zip.pth", "old.pt"):
        with pytest.raises(WeightsError, match="is a pickle"):
            from_pretrained(tmp_path / name)
        shutil.copy(tmp_path / name, copy / "model.safetensors")
        with pytest.raises(WeightsError, match="is a pickle"):
            from_pretrained(copy)
    shutil.rmtree(copy)
    copy.mkdir()
    shutil.copy(tmp_path / "zip.pth", copy / "model.pth")
    with pytest.raises(WeightsError, match="model.pth.*is a pickle"):
        from_pretrained(copy)
    assert not canary.exists()


def test_the_first_five_missing_keys_are_named(copy):
    keys = sorted(load_file(copy / "model.safetensors"))
    change_tensors(copy, lambda t: [t.pop(key) for key in keys[:7]])
    with pytest.raises(WeightsError, match="7 missing: ") as caught:
        from_pretrained(copy)
    assert sum(key in str(caught.value) for key in keys[:7]) == 5


def test_extra_and_misshapen_tensors_are_named(copy):
    def change(tensors):
        tensors["intruder"] = torch.zeros(1)
        tensors["net.segmentation_head.0.bias"] = torch.zeros(2)
        tensors["net.segmentation_head.0.weight"] = tensors["net.segmentation_head.0.weight"].half()

    change_tensors(copy, change)
    with pytest.raises(WeightsError, match=r"1 unexpected: intruder.*bias \[2\] instead of \[1\].*1 of another type"):
        from_pretrained(copy)


def test_weights_that_are_not_finite_are_refused_and_never_saved(saved, copy, tmp_path):
    change_tensors(copy, lambda t: t["net.segmentation_head.0.bias"].fill_(float("nan")))
    with pytest.raises(WeightsError, match="not finite: net.segmentation_head.0.bias"):
        from_pretrained(copy)
    broken = create_model("unet", SPEC, **ARGS)
    with torch.no_grad():
        next(broken.parameters()).fill_(float("inf"))
    with pytest.raises(WeightsError, match="not finite"):
        save_pretrained(
            broken,
            tmp_path / "new",
            name="unet",
            spec=SPEC,
            args=ARGS,
            classes=CLASSES,
            card=CARD,
            preprocess_config=preprocess().to_config(),
        )
    assert not (tmp_path / "new" / "model.safetensors").exists()


def test_a_refused_file_leaves_the_model_as_it_was(saved, copy):
    change_tensors(copy, lambda t: t["net.segmentation_head.0.bias"].fill_(float("nan")))
    model = create_model("unet", SPEC, **ARGS)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(WeightsError):
        load_weights(model, copy / "model.safetensors")
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "no-such"}, "no model 'no-such'"),
        ({"args": {"encoder": "no-such"}}, "no encoder 'no-such'"),
        ({"args": {"engine": 1}}, "no argument 'engine'"),
        ({"args": {"decoder_channels": [10**7] * 5}}, "do not fit|make no unet"),
        ({"args": {"decoder_channels": "abcde"}}, "make no unet|cannot be made"),
        ({"in_channels": {"image": 5}}, "of another shape"),
        ({"out_channels": 0}, "out_channels"),
        ({"format_version": "9.0"}, "format_version"),
        ({"surprise": 1}, "surprise"),
        ({"preprocess": {}}, "preprocess"),
        ({"preprocess": preprocess().to_config() | {"derived": [5]}}, "preprocess derived must be names"),
        ({"preprocess": preprocess().to_config() | {"mean": [10**400, 0, 0]}}, "lists of numbers"),
        ({"args": {"encoder": 5}}, "name without a colon, found 5"),
        ({"args": {"encoder": "tu-hf-hub:owner/name"}}, "name without a colon"),
        ({"args": {"encoder_weights": "imagenet"}}, "encoder_weights is for a fresh network"),
        ({"args": {"name": "x", "spec": 1}}, "no argument 'name'"),
        ({"in_channels": {"image": 3, "image_x2": 3}}, "its preprocessing gives {'image': 3}"),
        ({"classes": []}, "at least two"),
        ({"classes": [c.model_dump() for c in CLASSES[::-1]]}, "ids 0, 1, … in order"),
        ({"out_channels": 2}, "2 classes need 1 out_channels, found 2"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused_in_one_line(copy, changes, message):
    change_config(copy, **changes)
    with pytest.raises(WeightsError, match=message) as caught:
        from_pretrained(copy)
    assert "\n" not in str(caught.value)


def test_a_configuration_takes_no_memory_before_it_fits(copy, monkeypatch):
    tensors = []
    made = torch.nn.Conv2d.reset_parameters
    monkeypatch.setattr(
        torch.nn.Conv2d, "reset_parameters", lambda self: (tensors.append(self.weight.device.type), made(self))
    )
    for args in ({"encoder": "mit_b0"}, {"encoder": "tu-convnext_atto"}):
        change_config(copy, args=args)
        with pytest.raises(WeightsError, match="do not fit"):
            from_pretrained(copy)
    assert set(tensors) == {"meta"}


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_folder_in_place_of_a_file_is_refused(copy, name):
    (copy / name).unlink()
    (copy / name).mkdir()
    with pytest.raises(WeightsError, match=rf"{name}: (is a folder|cannot be read)"):
        from_pretrained(copy)


def test_a_name_that_is_too_long_is_no_folder():
    with pytest.raises(WeightsError, match="no such folder"):
        from_pretrained("a" * 5000)


def test_broken_files_are_refused(copy, tmp_path):
    (copy / "model.safetensors").write_bytes((copy / "model.safetensors").read_bytes()[:-4])
    with pytest.raises(WeightsError, match="not a safetensors file"):
        from_pretrained(copy)
    (copy / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="missing"):
        from_pretrained(copy)
    (copy / "config.json").write_text("{" * 100_000)
    with pytest.raises(WeightsError, match="not valid JSON"):
        from_pretrained(copy)
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match=r"config.json is missing"):
        from_pretrained(tmp_path / "empty")
    with pytest.raises(WeightsError, match="no such folder"):
        from_pretrained(tmp_path / "absent")


def test_only_an_input_with_the_same_bands_and_units_is_taken(saved):
    pretrained = from_pretrained(saved[1])
    before, after = BANDS
    swapped = pretrained.check_input([after, before])
    stored = torch.randint(1, 200, (1, 2, 32, 32))
    torch.testing.assert_close(swapped(stored.flip(1))[0], pretrained.preprocess(stored)[0])
    with pytest.raises(WeightsError, match="needs band 'after'"):
        pretrained.check_input([before])
    with pytest.raises(WeightsError, match="unit 'dB' expected, the input has 'linear power'"):
        pretrained.check_input([before, after.model_copy(update={"unit": "linear power"})])


def test_the_card_states_bands_units_data_licence_and_scores(saved):
    _, header, body = (saved[1] / "README.md").read_text().split("---\n", 2)
    fields = yaml.safe_load(header)
    assert (fields["license"], fields["pipeline_tag"], fields["library_name"]) == (
        "mit",
        "image-segmentation",
        "tidemark",
    )
    assert fields["model-index"][0]["results"][0]["metrics"] == [{"type": "iou", "value": 0.5}]
    for text in (
        "| before | S1 | dB |",
        "| after-before | 3 | 4 |",
        "Toy, version 1.0.0",
        "simulated",
        "0.5000",
        "SEED: 0",
        "wet \\| &lt;b&gt;",
    ):
        assert text in body


def test_a_local_folder_has_no_revision(saved):
    with pytest.raises(WeightsError, match="no revision"):
        from_pretrained(saved[1], revision="main")
