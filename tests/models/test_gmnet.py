"""GMNet is the released network to the last digit, and its checkpoints are imported or refused in words."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from tidemark.errors import ConfigError, InputError, WeightsError
from tidemark.models.gmnet import SCALES, centre
from tidemark.models.import_weights import import_weights
from tidemark.models.registry import ModelSpec, create_model
from tidemark.models.weights import from_pretrained
from torch.nn import functional
from typer.testing import CliRunner

DATA = Path(os.environ.get("TIDEMARK_DATA", Path(__file__).parents[3] / "shared" / "data"))
CHECKPOINTS = {"ascending": "as.pth", "descending": "des.pth", "both": "as_des.pth"}
released = pytest.mark.skipif(
    not (DATA / "gmnet").is_dir(), reason=f"no released checkpoints in {DATA} (TIDEMARK_DATA names another folder)"
)


class Released:
    """The released network written out plainly over its own state dict: no module, no shared code."""

    def __init__(self, state):
        self.state = state

    def convolution(self, x, key, kernel, groups=1):
        weight, bias = self.state[f"{key}.0.weight"], self.state[f"{key}.0.bias"]
        assert weight.shape[-1] == kernel
        x = functional.conv2d(x, weight, bias, padding=kernel // 2, groups=groups)
        mean, var, scale, shift = (
            self.state[f"{key}.1.{name}"].view(1, -1, 1, 1)
            for name in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / torch.sqrt(var + 1e-5) * scale + shift).clamp(min=0)

    def depthwise(self, x, key, times):
        for number in range(1, times + 1):
            x = self.convolution(x, f"{key}.dwconv_bn_relu_{number}", 3, groups=x.shape[1])
        return x

    def down(self, x, key, pool):
        batch, channels, height, width = x.shape
        x = x.reshape(batch, channels, height // pool, pool, width // pool, pool).mean((3, 5))
        x = self.convolution(x, f"{key}.conv_bn_relu_in", 3)
        return self.convolution(self.depthwise(x, key, pool // 2), f"{key}.conv_bn_relu_out", 1)

    def up(self, x, key, factor):
        x = x.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
        return self.convolution(self.depthwise(x, key, factor // 2), f"{key}.conv_bn_relu_out", 3)

    def encode(self, x, kind):
        found = []
        for number, pool in enumerate((2, 2, 2, 4, 4)):
            x = self.down(x, f"{kind}.{number}", pool)
            found.append(x)
        return found[::-1]

    def centre(self, x):
        size = x.shape[-1]
        if size == 1:
            return x
        half = size // 2
        start = (size - half) // 2
        x = x[:, :, start : start + half, start : start + half]
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    def gates(self, features):
        x, found = features[0], []
        for number, factor in enumerate((4, 4, 2, 2, 0)):
            weight, bias = (self.state[f"gate_layers.{number}.0.{name}"] for name in ("weight", "bias"))
            found.append(torch.sigmoid((x * weight).sum(1, keepdim=True) + bias))
            if factor:
                x = torch.cat((self.up(x, f"decoder_gate.{number}", factor), features[number + 1]), 1)
        return found

    def __call__(self, low, mid, high):
        of_low = self.encode(low, "encoder_gate")
        mid_gates = self.gates(of_low)
        of_mid = self.encode(mid, "encoder_gate")
        high_gates = self.gates([self.centre(m) + n for m, n in zip(of_mid, of_low, strict=True)])
        features = [self.encode(image, "encoder") for image in (low, mid, high)]
        levels = [
            torch.cat((a, self.centre(b) * mid_gates[i], self.centre(c) * high_gates[i]), 1)
            for i, (a, b, c) in enumerate(zip(*features, strict=True))
        ]
        x = levels[0]
        for number, factor in enumerate((4, 4, 2, 2)):
            x = torch.cat((self.up(x, f"decoder.{number}", factor), levels[number + 1]), 1)
        x = self.up(x, "up_last", 2)
        weight, bias = self.state["outp_layer.0.weight"], self.state["outp_layer.0.bias"]
        return torch.sigmoid(functional.conv2d(x, weight, bias))


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gmnet")
    return {
        orbit: import_weights("gmnet", DATA / "gmnet" / name, folder / orbit, orbit=orbit)
        for orbit, name in CHECKPOINTS.items()
    }


@released
@pytest.mark.parametrize("orbit", CHECKPOINTS)
def test_outputs_equal_the_released_networks(imported, orbit):
    state = torch.load(DATA / "gmnet" / CHECKPOINTS[orbit], weights_only=True, map_location="cpu")
    pretrained = from_pretrained(imported[orbit].folder)
    bands = 4 if orbit == "both" else 2
    assert pretrained.preprocess.channels == bands
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand((2, bands, 256, 256), generator=generator) for _ in SCALES]
    images[2][:, :, :40] = 0  # a context that leaves the scene
    with torch.no_grad():
        ours = pretrained.model(**dict(zip(SCALES, images, strict=True))).sigmoid()
        theirs = Released(state)(*images)
    assert theirs.min() < 0.2  # not a constant
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@released
def test_live_and_unused_parameters_add_up_to_the_released_count(imported):
    for orbit, total, live in (("ascending", 911_174, 899_462), ("both", 912_326, 900_614)):
        found = imported[orbit]
        assert found.parameters == live
        assert found.parameters + found.unused_parameters == total
        assert len(found.unused) == 77
        assert all(".dwconv_bn_relu_2." in key for key in found.unused)
        assert "encoder.0.dwconv_bn_relu_2.0.weight" in found.unused
        assert "encoder.3.dwconv_bn_relu_2.0.weight" not in found.unused


@released
def test_imported_weights_carry_bands_units_and_the_published_normalisation(imported):
    preprocess = from_pretrained(imported["descending"].folder).preprocess
    assert [(b.name, b.sensor, b.unit, b.nodata) for b in preprocess.bands] == [
        ("vv_desc", "Sentinel-1", "dB", 0.0),
        ("vh_desc", "Sentinel-1", "dB", 0.0),
    ]
    x = torch.tensor([-58.98, 29.28, 100.0, 0.0]).view(1, 1, 2, 2).expand(1, 2, 2, 2)
    found, _ = preprocess(x)
    expected = torch.tensor([0.0, (29.28 + 58.98) / (29.28 + 58.98 + 1e-4), 1.0, 0.0])
    torch.testing.assert_close(found[0, 0].flatten(), expected)


@released
def test_the_command_names_the_unused_tensors(tmp_path):
    from tidemark.cli import app

    file = DATA / "gmnet" / "as.pth"
    result = CliRunner().invoke(
        app, ["import-weights", "gmnet", "--orbit", "ascending", str(file), "--out", str(tmp_path / "w")]
    )
    assert result.exit_code == 0, result.output
    assert "unused up_last.dwconv_bn_relu_2.0.weight" in result.output
    assert "899462 parameters; 11712 more in 77 unused tensors" in result.output
    assert from_pretrained(tmp_path / "w").name == "gmnet"


@released
def test_another_orbit_and_broken_tensors_are_refused(tmp_path):
    original = DATA / "gmnet" / "as.pth"
    with pytest.raises(WeightsError, match="the orbit 'ascending', not 'descending'"):
        import_weights("gmnet", original, tmp_path / "w", orbit="descending")
    state = torch.load(original, weights_only=True, map_location="cpu")

    def refused(change, match, orbit="ascending"):
        torch.save(change, tmp_path / "changed.pth")
        with pytest.raises(WeightsError, match=match):
            import_weights("gmnet", tmp_path / "changed.pth", tmp_path / "w", orbit=orbit)

    refused(state, r"of another shape: .*\[32, 2, 3, 3\] instead of \[32, 4, 3, 3\]", "both")
    refused({k: v for k, v in state.items() if "up_last" not in k}, "14 missing: up_last")
    refused(state | {"more": torch.zeros(1)}, "1 unexpected: more")
    refused(state | {"outp_layer.0.bias": torch.tensor([float("nan")])}, "not finite: outp_layer.0.bias")
    refused({"model": state}, "something else than tensors by name")
    refused([1, 2], "something else than tensors by name")
    assert not (tmp_path / "w").exists()


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickles_are_refused_and_not_run(tmp_path):
    canary = tmp_path / "canary"
    torch.save({"encoder.0": Canary(canary)}, tmp_path / "zip.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Canary(canary)))
    for name in ("zip.pth", "plain.pth"):
        with pytest.raises(WeightsError, match="is a pickle"):
            import_weights("gmnet", tmp_path / name, tmp_path / "w", orbit="both")
    assert not canary.exists()
    shutil.copy(__file__, tmp_path / "text.pth")
    for name, match in (("text.pth", "is a pickle"), ("none.pth", "no such file")):
        with pytest.raises(WeightsError, match=match):
            import_weights("gmnet", tmp_path / name, tmp_path / "w", orbit="both")


def test_an_unknown_model_or_orbit_names_the_valid_ones(tmp_path):
    with pytest.raises(ConfigError, match="there is gmnet"):
        import_weights("unet", tmp_path / "a.pth", tmp_path)
    with pytest.raises(ConfigError, match="ascending, descending, both, found None"):
        import_weights("gmnet", tmp_path / "a.pth", tmp_path)


def test_the_ablations_have_what_is_left_of_the_parameters():
    counts = {}
    for name in ("gmnet", "gmnet-nogate", "unet-tibet"):
        model = create_model(name, ModelSpec(dict.fromkeys(SCALES, 4), 1))
        counts[name] = sum(p.numel() for p in model.parameters())
    assert counts == {"gmnet": 900_614, "gmnet-nogate": 543_393, "unet-tibet": 371_361}


def test_centre_brings_the_middle_half_back_to_full_size():
    ramp = torch.arange(8.0).view(1, 1, 1, 8).expand(1, 1, 8, 8)
    assert centre(ramp)[0, 0, 0].tolist() == [2, 2, 3, 3, 4, 4, 5, 5]
    assert centre(torch.arange(4.0).view(1, 1, 2, 2)).flatten().tolist() == [0, 0, 0, 0]
    assert centre(torch.ones(1, 1, 1, 1)).shape == (1, 1, 1, 1)
    assert centre(torch.ones(1, 1, 3, 5)).shape == (1, 1, 3, 5)


def test_gates_close_context_and_open_it():
    torch.manual_seed(0)
    model = create_model("gmnet", ModelSpec(dict.fromkeys(SCALES, 2), 1)).eval()
    low, mid, high, other = (torch.rand(1, 2, 128, 128) for _ in range(4))
    with torch.no_grad():
        for bias, changes in ((-200.0, False), (200.0, True)):
            for gate in model.gates:
                gate.bias.fill_(bias)
            same = torch.equal(model(low, mid, high), model(low, mid, other))
            assert same != changes


def test_contexts_of_another_size_are_refused():
    model = create_model("gmnet", ModelSpec(dict.fromkeys(SCALES, 2), 1))
    with pytest.raises(InputError, match="one size, found 64 × 64 and 32 × 64"):
        model(torch.zeros(1, 2, 64, 64), torch.zeros(1, 2, 32, 64), torch.zeros(1, 2, 64, 64))
