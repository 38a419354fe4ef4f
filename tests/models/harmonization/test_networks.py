"""What every harmonization network has in common, through the one caller that training and inference use."""

from __future__ import annotations

import pytest
import torch
from tidemark.errors import ConfigError, InputError
from tidemark.models.harmonization.harmonizer import Harmonizer
from tidemark.models.harmonization.losses import HarmonizationLoss
from tidemark.models.harmonization.parts import GaussianOutput, GuidedOutput
from tidemark.models.harmonization.resample import resample
from tidemark.models.registry import ModelSpec, create_model, find_model, list_models
from tidemark.models.weights import load_weights, save_tensors

SPEC = ModelSpec({"image": 6, "pan": 1}, 6)
SMALL = {
    "srunet": {"depth": 3, "channels": 8},
    "aunet": {"depth": 3, "channels": 8, "attention": "modified"},
    "aunet-gaussian": {"depth": 3, "channels": 8},
    "mb-rrdb": {"layers": 2, "growth": 8, "pan_output": True},
    "esrt": {"channels": 8, "blocks": 1, "heads": 2, "hidden": 16},
    "panfusion": {"channels": 4, "blocks": 1},
    "smp-mit": {"encoder": "mit_b0", "decoder_channels": [16, 16, 8, 8, 8]},
}
NETWORKS = [name for name in list_models(trained=True) if "regression" in find_model(name).tasks]

SLOW = pytest.mark.slow  # ten times as large as the others even at its smallest


def build(name, **more):
    torch.manual_seed(0)
    return create_model(name, SPEC, **SMALL[name], **more)


def batch(height=24, width=24, count=2):
    """A 10 m truth that differs from what image and pan are the means of, which have one image pixel more all round."""
    generator = torch.Generator().manual_seed(1)
    rows, columns = (-(-length // 3) + 2 for length in (height, width))
    coarse = torch.rand((count, 6, rows + 2, columns + 2), generator=generator) * 0.3
    fine = torch.nn.functional.interpolate(coarse, scale_factor=3, mode="bilinear")
    fine += 0.01 * torch.rand(fine[:, :1].shape, generator=generator)
    image = torch.nn.functional.avg_pool2d(fine, 3)[..., 1:-1, 1:-1]
    pan = torch.nn.functional.interpolate(fine[:, :3].mean(1, keepdim=True), scale_factor=2)
    pan = torch.nn.functional.avg_pool2d(pan, 3)[..., 2:-2, 2:-2]
    return {
        "image": image,
        "pan": pan,
        "grid_image": torch.tensor([[1 / 3, 1, 1 / 3, 1]]).expand(count, 4),
        "grid_pan": torch.tensor([[2 / 3, 2, 2 / 3, 2]]).expand(count, 4),
        "size": (height, width),
    }, 0.9 * fine[..., 6 : 6 + height, 6 : 6 + width] + 0.03


def mean_of(output):
    return output if isinstance(output, torch.Tensor) else output.mean


@pytest.fixture(params=NETWORKS)
def name(request):
    return request.param


@pytest.mark.parametrize("size", [(32, 32), (33, 19), (7, 5)])
def test_reflectance_has_the_targets_size_whatever_it_is(name, size):
    inputs, _ = batch(*size)
    with torch.no_grad():
        output = Harmonizer(build(name).eval())(**inputs)
    for part in [output] if isinstance(output, torch.Tensor) else output:
        assert part.shape == (2, 6, *size)
        assert part.dtype == torch.float32
        assert part.isfinite().all()


def test_gradients_reach_every_parameter(name):
    inputs, target = batch(64, 64)  # below, an attention of smp-mit has one token to look at
    network = build(name).train()
    output = Harmonizer(network)(**inputs)
    loss = HarmonizationLoss("gaussian-nll" if isinstance(output, GaussianOutput) else "l1")
    loss(output, target, torch.ones_like(target[:, 0], dtype=torch.bool)).backward()
    dead = [key for key, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


@pytest.mark.parametrize("name", [pytest.param(n, marks=SLOW if n == "smp-mit" else ()) for n in NETWORKS])
def test_a_few_steps_on_one_batch_beat_its_bicubic_image(name):
    inputs, target = batch(18, 18)
    network = build(name, residual=True).train()
    harmonizer, loss_of = Harmonizer(network), HarmonizationLoss("l1")
    if name == "aunet-gaussian":
        loss_of = HarmonizationLoss("gaussian-nll")
    valid = torch.ones_like(target[:, 0], dtype=torch.bool)
    with torch.no_grad():
        bicubic = (resample(inputs["image"], inputs["grid_image"], (18, 18)) - target).abs().mean().item()
    optimizer, errors = torch.optim.Adam(network.parameters(), 3e-3), []
    for _ in range(30):
        output = harmonizer(**inputs)
        errors.append((mean_of(output) - target).abs().mean().item())
        optimizer.zero_grad()
        loss_of(output, target, valid).backward()
        optimizer.step()
    assert min(errors[-5:]) < 0.8 * bicubic, (bicubic, errors[::8])


def test_the_residual_form_adds_the_bicubic_image(name):
    inputs, _ = batch(24, 21)
    network = build(name, residual=True).eval()
    with torch.no_grad():
        whole, added = Harmonizer(network)(**inputs), Harmonizer(network, residual=False)(**inputs)
        bicubic = resample(inputs["image"], inputs["grid_image"], (24, 21))
    torch.testing.assert_close(mean_of(whole), mean_of(added) + bicubic)


def test_weights_on_disk_give_the_same_network(name, tmp_path):
    inputs, _ = batch()
    network, other = build(name).eval(), build(name).eval()
    for parameter in other.parameters():
        parameter.data.add_(1)
    save_tensors(network, tmp_path / "model.safetensors")
    load_weights(other, tmp_path / "model.safetensors")
    with torch.no_grad():
        assert torch.equal(mean_of(Harmonizer(network)(**inputs)), mean_of(Harmonizer(other)(**inputs)))


def test_a_scenes_result_does_not_depend_on_its_neighbours_in_the_batch(name):
    inputs, _ = batch()
    harmonizer = Harmonizer(build(name).eval())
    second = {key: value[1:] if isinstance(value, torch.Tensor) else value for key, value in inputs.items()}
    with torch.no_grad():
        together, alone = mean_of(harmonizer(**inputs))[1:], mean_of(harmonizer(**second))
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_wrong_bands_and_a_pan_of_another_size_are_refused_in_words(name):
    network = build(name).eval()
    ratio = 2 if network.grid == "native" else 1
    pan = torch.zeros(1, 1, 16 * ratio, 16 * ratio)
    with pytest.raises(InputError, match="made for 6 channels, the image has 4"):
        network(torch.zeros(1, 4, 16, 16), pan)
    with pytest.raises(InputError, match="made for 1 channels, the pan has 2"):
        network(torch.zeros(1, 6, 16, 16), pan.expand(1, 2, -1, -1))
    with pytest.raises(InputError, match=f"pan must be {16 * ratio} × {16 * ratio}"):
        network(torch.zeros(1, 6, 16, 16), pan[..., 1:])
    with pytest.raises(ConfigError, match="adds 3 bands to an image of 6"):
        create_model(name, ModelSpec({"image": 6, "pan": 1}, 3), **SMALL[name], residual=True)


# By name and arguments at full width; SRUNet with depth 6 is the "100 M model" of the paper.
PARAMETERS = [
    ("srunet", {"depth": 3, "up_mode": "upconv"}, 1_865_488),
    ("srunet", {"depth": 5, "up_mode": "upsample"}, 28_945_432),
    ("srunet", {"depth": 5, "up_mode": "shuffle"}, 56_453_916),
    ("srunet", {"depth": 6, "up_mode": "upsample"}, 115_984_412),
    ("srunet", {"depth": 6, "up_mode": "shuffle"}, 226_334_497),
    ("aunet", {}, 3_403_249),
    ("aunet", {"attention": "none", "channel_attention": False}, 3_361_298),
    ("aunet-gaussian", {}, 3_361_688),
    ("mb-rrdb", {}, 167_436),
    ("mb-rrdb", {"pan_output": True}, 167_460),
    ("esrt", {}, 947_748),
    ("esrt", {"part_pixels": 576}, 947_748),
    ("panfusion", {}, 4_126_054),
]


@pytest.mark.parametrize(("name", "args", "count"), PARAMETERS)
def test_the_number_of_parameters_is_the_stated_one(name, args, count):
    with torch.device("meta"):
        network = create_model(name, SPEC, **args)
    assert sum(p.numel() for p in network.parameters()) == count


@pytest.mark.parametrize("up_mode", ["upconv", "upsample", "shuffle"])
@pytest.mark.parametrize("attention", ["standard", "modified", "none"])
def test_every_kind_of_aunet_answers_and_has_no_dead_parameter(up_mode, attention):
    torch.manual_seed(0)
    args = {"up_mode": up_mode, "attention": attention, "channel_attention": up_mode == "shuffle", "depth": 4}
    network = create_model("aunet", SPEC, channels=8, **args)
    network(torch.rand(2, 6, 17, 16), torch.rand(2, 1, 17, 16)).square().mean().backward()
    assert [key for key, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_dropout_draws_only_in_training():
    network = build("srunet", dropout=0.1)
    image, pan = torch.rand(1, 6, 16, 16), torch.rand(1, 1, 16, 16)
    assert not torch.equal(network.train()(image, pan), network(image, pan))
    assert torch.equal(network.eval()(image, pan), network(image, pan))


def test_the_guided_network_answers_the_pans_detail_in_training_alone():
    inputs, _ = batch()
    harmonizer = Harmonizer(build("mb-rrdb"))
    found = harmonizer.train()(**inputs)
    assert isinstance(found, GuidedOutput)
    assert found.detail.shape == found.wanted.shape == (2, 1, 24, 24)
    assert isinstance(harmonizer.eval()(**inputs), torch.Tensor)


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("srunet", {"depth": 1}, "depth must be 2 to 7"),
        ("srunet", {"depth": 64}, "depth must be 2 to 7"),
        ("srunet", {"up_mode": "nearest"}, "no up_mode 'nearest'.*upconv, upsample, shuffle"),
        ("srunet", {"channels": 0}, "channels must be"),
        ("srunet", {"dropout": 1.0}, "dropout must lie"),
        ("aunet", {"attention": "None"}, "no attention 'None'.*standard, modified, none"),
        ("esrt", {"channels": 6, "heads": 4}, "4 heads do not divide 6 channels"),
        ("esrt", {"blocks": -1}, "blocks must be"),
        ("esrt", {"part_pixels": 0}, "part_pixels must be"),
        ("esrt", {"part_pixels": 2.5}, "part_pixels must be"),
        ("mb-rrdb", {"layers": 0}, "layers must be"),
        ("smp-mit", {"encoder": "resnet18"}, "mit_b0 to mit_b5"),
        ("smp-mit", {"decoder_channels": [8]}, "1 decoder_channels"),
        ("smp-mit", {"detail": -1}, "detail must be"),
        ("smp-mit", {"detail": True}, "detail must be"),
    ],
)
def test_arguments_that_make_no_network_are_refused_in_words(name, args, message):
    with pytest.raises(ConfigError, match=message):
        create_model(name, SPEC, **args)
