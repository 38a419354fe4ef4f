"""The authors' checkpoints are imported by their documented names, or refused in words."""

from __future__ import annotations

import zipfile

import pytest
import torch
from safetensors.torch import save_file
from tidemark.errors import ConfigError, WeightsError
from tidemark.models.harmonization.harmonizer import Harmonizer
from tidemark.models.harmonization.released import arguments, released_to_ours
from tidemark.models.import_weights import import_weights
from tidemark.models.layouts import layout
from tidemark.models.registry import ModelSpec, create_model
from tidemark.models.weights import from_pretrained
from torch.nn import functional
from typer.testing import CliRunner

RELEASED = [(5, "upsample"), (5, "shuffle"), (6, "upsample"), (6, "shuffle")]


def released_shapes(depth, up_mode, first=64):
    """Names and shapes of a released state dict, written out from the printed module of the authors' example."""
    widths, shapes = [first << i for i in range(depth)], {}

    def conv(key, inputs, outputs, kernel):
        shapes[f"{key}.weight"], shapes[f"{key}.bias"] = (outputs, inputs, kernel, kernel), (outputs,)

    def block(key, inputs, outputs):
        conv(f"{key}.block.0", inputs, outputs, 3)
        conv(f"{key}.block.2", outputs, outputs, 3)
        shapes[f"{key}.block.1.weight"] = shapes[f"{key}.block.3.weight"] = (1,)

    for i, (inputs, outputs) in enumerate(zip([7, *widths], widths, strict=False)):
        block(f"model.encoding_module.{i}", inputs, outputs)
    for i, outputs in enumerate(reversed(widths[:-1])):
        up = f"model.decoding_module.{i}.Upsize"
        if up_mode == "upsample":
            conv(f"{up}.1", 2 * outputs, outputs, 1)
        else:
            conv(f"{up}.0", 2 * outputs, 4 * outputs, 3)
            shapes[f"{up}.1.weight"] = (1,)
            conv(f"{up}.3", outputs, outputs, 3)
        block(f"model.decoding_module.{i}.conv", 2 * outputs, outputs)
    conv("model.final", widths[0], 6, 1)
    return shapes


def released_state(depth, up_mode, first=4):
    generator = torch.Generator().manual_seed(0)
    return {
        key: torch.randn(shape, generator=generator) * (0.5 if len(shape) == 1 else 1 / shape[1:].numel() ** 0.5)
        for key, shape in ((k, torch.Size(s)) for k, s in released_shapes(depth, up_mode, first).items())
    }


def released_forward(state, x, depth):
    """The released network over its own state dict: no module, no shared code."""

    def conv(x, key):
        weight = state[f"model.{key}.weight"]
        return functional.conv2d(x, weight, state[f"model.{key}.bias"], padding=weight.shape[-1] // 2)

    def prelu(x, key):
        return torch.where(x > 0, x, x * state[f"model.{key}.weight"])

    def block(x, key):
        return prelu(conv(prelu(conv(x, f"{key}.0"), f"{key}.1"), f"{key}.2"), f"{key}.3")

    skips = []
    for i in range(depth):
        x = block(x, f"encoding_module.{i}.block")
        if i < depth - 1:
            skips.append(x)
            x = x.unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2))
    for i in range(depth - 1):
        up = f"decoding_module.{i}.Upsize"
        if f"model.{up}.3.weight" in state:
            x = prelu(conv(x, f"{up}.0"), f"{up}.1")
            x = conv(functional.pixel_shuffle(x, 2), f"{up}.3")
        else:
            x = conv(functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False), f"{up}.1")
        x = block(torch.cat([x, skips[-1 - i]], 1), f"decoding_module.{i}.conv.block")
    return conv(x, "final")


@pytest.mark.parametrize(("depth", "up_mode"), RELEASED)
def test_the_networks_of_the_released_names_have_those_tensors_and_no_others(depth, up_mode):
    shapes = released_shapes(depth, up_mode)
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in shapes.items()}
        network = create_model("srunet", ModelSpec({"image": 6, "pan": 1}, 6), **arguments(state, "test"))
    found = {key: shape for key, (shape, _) in layout(network).items()}
    assert found == {released_to_ours(key): shape for key, shape in shapes.items()}


@pytest.mark.parametrize(("depth", "up_mode"), RELEASED)
@pytest.mark.parametrize("kind", ["safetensors", "pth"])
def test_imported_weights_answer_as_the_released_network_on_a_stretched_chip(depth, up_mode, kind, tmp_path):
    state = released_state(depth, up_mode)
    file = tmp_path / f"model.{kind}"
    (save_file if kind == "safetensors" else torch.save)(state, file)
    found = import_weights("srunet", file, tmp_path / "out")
    pretrained = from_pretrained(found.folder)
    assert pretrained.args == {"depth": depth, "channels": 4, "up_mode": up_mode, "stretch": True}
    assert found.parameters == sum(value.numel() for value in state.values())
    assert pretrained.model.stretch
    image, pan = torch.rand(1, 6, 43, 43), torch.rand(1, 1, 86, 86)
    grids = torch.tensor([[1 / 3, 0.2, 1 / 3, 0.2]]), torch.tensor([[2 / 3, 0.4, 2 / 3, 0.4]])
    stretched = [functional.interpolate(x, (128, 128), mode="bicubic", align_corners=False) for x in (image, pan)]
    with torch.no_grad():
        ours = Harmonizer(pretrained.model)(image, pan, *grids, (128, 128))
        theirs = released_forward(state, torch.cat(stretched, 1), depth)
    assert theirs.std() > 1e-3
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_the_card_says_what_the_released_weights_expect(tmp_path):
    save_file(released_state(5, "upsample"), tmp_path / "model.safetensors")
    import_weights("srunet", tmp_path / "model.safetensors", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "stretched to 256 × 256" in card
    assert "0.3 to 1 dB" in card
    pretrained = from_pretrained(tmp_path / "out")
    assert [band.name for band in pretrained.harmonization.target] == ["blue", "green", "red", "nir", "swir1", "swir2"]


def test_the_command_line_imports_them(tmp_path):
    from tidemark.models.verbs import app

    save_file(released_state(5, "shuffle"), tmp_path / "model.safetensors")
    done = CliRunner().invoke(
        app, ["import-weights", "srunet", str(tmp_path / "model.safetensors"), "--out", str(tmp_path / "out")]
    )
    assert done.exit_code == 0, done.output
    assert "parameters" in done.output
    assert (tmp_path / "out" / "model.safetensors").is_file()


def broken(change):
    state = released_state(5, "upsample")
    change(state)
    return state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("model.final.bias"), "1 missing: head.bias"),
        (lambda s: s.update({"model.final.more": torch.zeros(1)}), "1 unexpected: head.more"),
        (lambda s: s.update({"model.final.weight": torch.zeros(3, 4, 1, 1)}), "of another shape: head.weight"),
        (lambda s: s["model.final.bias"].fill_(float("nan")), "not finite"),
        (lambda s: [s.pop(k) for k in list(s) if "encoding_module" in k], "not the tensors of a released"),
        (lambda s: [s.pop(k) for k in list(s) if "Upsize" in k], "not the tensors of a released"),
    ],
)
def test_tensors_of_another_network_are_refused_in_words(change, message, tmp_path):
    save_file(broken(change), tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=message):
        import_weights("srunet", tmp_path / "model.safetensors", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_files_that_are_no_weights_are_refused_in_words(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"\x80\x04 no tensors here")
    with pytest.raises(WeightsError, match="not a safetensors file"):
        import_weights("srunet", tmp_path / "a.safetensors", tmp_path / "out")
    with pytest.raises(WeightsError, match="no such file"):
        import_weights("srunet", tmp_path / "b.safetensors", tmp_path / "out")
    torch.save({"model_state_dict": released_state(5, "upsample"), "epoch": 3}, tmp_path / "c.pth")
    with pytest.raises(WeightsError, match="give a state dict"):
        import_weights("srunet", tmp_path / "c.pth", tmp_path / "out")
    with pytest.raises(ConfigError, match="no orbit"):
        import_weights("srunet", tmp_path / "c.pth", tmp_path / "out", orbit="both")


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(2, device="meta"),
        torch.eye(2).to_sparse(),
        torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)], layout=torch.strided),
    ],
    ids=["meta", "sparse", "nested"],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_without_plain_numbers_are_refused(tensor, tmp_path):
    torch.save({"model.final.bias": tensor}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="give a state dict|is a pickle"):
        import_weights("srunet", tmp_path / "a.pth", tmp_path / "out")


def test_an_archive_with_a_name_that_is_no_text_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("é", "x")
    raw = (tmp_path / "a.pth").read_bytes().replace("é".encode(), b"\xff\xfe")
    (tmp_path / "a.pth").write_bytes(raw)
    with pytest.raises(WeightsError, match="is a pickle"):
        import_weights("srunet", tmp_path / "a.pth", tmp_path / "out")
