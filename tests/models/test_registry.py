"""What every registered network has in common."""

from __future__ import annotations

import pytest
import torch
from tidemark.datasets.spec import Band, ClassDef
from tidemark.datasets.transforms import Preprocess
from tidemark.errors import ConfigError, InputError, WeightsError
from tidemark.models import registry
from tidemark.models.registry import ModelSpec, create_model, find_model, list_models, register
from tidemark.models.weights import from_pretrained, save_pretrained

SMALL = {
    "unet": {"encoder": "resnet18", "decoder_channels": [16, 16, 8, 8, 4]},
    "patch-cnn": {"width": 4, "hidden": 16},
    "deeplabv3plus": {"decoder_channels": 16},
    "hrnet": {"encoder": "tu-hrnet_w18_small", "decoder_channels": [16, 16, 8, 8, 4]},
    "segformer": {"decoder_channels": 16},
}
CHANNELS = 3


def spec_of(name, task):
    return ModelSpec({key: CHANNELS for key in find_model(name).inputs}, 1 if task == "segmentation" else 3)


def build(name, task):
    torch.manual_seed(0)
    return create_model(name, spec_of(name, task), **SMALL.get(name, {}))


def inputs(name, batch, height, width):
    generator = torch.Generator().manual_seed(1)
    return {key: torch.randn(batch, CHANNELS, height, width, generator=generator) for key in find_model(name).inputs}


@pytest.fixture(params=[n for n in list_models(trained=True) if "regression" not in find_model(n).tasks])
def name(request):
    return request.param


@pytest.mark.parametrize("size", [(64, 64), (65, 47), (31, 96), (5, 7)])
def test_logits_have_the_images_size_whatever_it_is(name, size):
    for task in find_model(name).tasks:
        model = build(name, task).eval()
        with torch.no_grad():
            logits = model(**inputs(name, 2, *size))
        assert logits.shape == ((2, 1, *size) if task == "segmentation" else (2, 3))
        assert logits.dtype == torch.float32
        assert logits.isfinite().all()


def test_gradients_reach_every_parameter(name):
    for task in find_model(name).tasks:
        model = build(name, task).train()
        model(**inputs(name, 4, 64, 64)).square().mean().backward()
        dead = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert dead == []


@pytest.mark.slow
def test_one_batch_can_be_learned_by_heart(name):
    for task in find_model(name).tasks:
        model, batch = build(name, task).train(), inputs(name, 4, 64, 64)
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        if task == "segmentation":
            target = torch.zeros(4, 1, 64, 64)
            target[0, :, :32], target[1, :, :, 32:], target[2, :, 16:48, 16:48] = 1, 1, 1
            loss_of = torch.nn.functional.binary_cross_entropy_with_logits
        else:
            target, loss_of = torch.tensor([0, 1, 2, 0]), torch.nn.functional.cross_entropy
            batch["image"] += target.view(-1, 1, 1, 1)
            for dropout in (m for m in model.modules() if isinstance(m, torch.nn.Dropout)):
                dropout.p = 0.0
        losses = []
        for _ in range(40 if task == "segmentation" else 100):
            loss = loss_of(model(**batch), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert min(losses[-5:]) < 0.5 * losses[0], losses[::10]


def test_a_chips_result_does_not_depend_on_its_neighbours_in_the_batch(name):
    for task in find_model(name).tasks:
        model = build(name, task).eval()
        batch = inputs(name, 4, 64, 64)
        with torch.no_grad():
            together = model(**batch)
            alone = torch.cat([model(**{k: v[i : i + 1] for k, v in batch.items()}) for i in range(4)])
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_the_same_seed_gives_the_same_weights(name):
    task = find_model(name).tasks[0]
    first, second = build(name, task).state_dict(), build(name, task).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_state_dict_carries_the_whole_model(name):
    task = find_model(name).tasks[0]
    model, other = build(name, task).eval(), build(name, task)
    for parameter in other.parameters():
        parameter.data.add_(1)
    other.load_state_dict(model.state_dict())
    batch = inputs(name, 2, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(**batch), other.eval()(**batch))


def test_weights_on_disk_give_the_same_model(name, tmp_path):
    task = find_model(name).tasks[0]
    model, bands = build(name, task).eval(), [Band(name=f"b{i}") for i in range(CHANNELS)]
    save_pretrained(
        model,
        tmp_path,
        name=name,
        spec=spec_of(name, task),
        args=SMALL.get(name, {}),
        preprocess_config=Preprocess(bands, normalization="none").to_config(),
        classes=[ClassDef(id=i, name=str(i), color="#000000") for i in range(2 if task == "segmentation" else 3)],
        card={"task_kind": task},
    )
    batch = inputs(name, 2, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(**batch), from_pretrained(tmp_path).model(**batch))


def test_another_number_of_bands_is_refused_in_words(name):
    model = build(name, find_model(name).tasks[0]).eval()
    with pytest.raises(InputError, match=f"made for {CHANNELS} channels, the image has 5"):
        model(**{key: torch.zeros(1, 5, 64, 64) for key in find_model(name).inputs})


def test_an_unknown_model_names_the_valid_ones_and_the_nearest():
    with pytest.raises(ConfigError, match="did you mean unet.*patch-cnn.*unet"):
        create_model("u-net", ModelSpec({"image": 2}, 1))


def test_trivial_rows_are_listed_but_have_no_network():
    assert {"all-dry", "otsu", "majority"} <= set(list_models(trained=False)) <= set(list_models())
    with pytest.raises(ConfigError, match="otsu is a trivial row"):
        create_model("otsu", ModelSpec({"image": 2}, 1))


def test_an_unknown_argument_names_the_nearest():
    with pytest.raises(ConfigError, match="no argument 'encodr'.*did you mean encoder"):
        create_model("unet", ModelSpec({"image": 2}, 1), encodr="resnet18")
    with pytest.raises(ConfigError, match="resnet18"):
        create_model("unet", ModelSpec({"image": 2}, 1), encoder="resnet-18")


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("patch-cnn", {"width": "abc"}),
        ("patch-cnn", {"width": 4.5}),
        ("unet", {"decoder_channels": 5}),
        ("unet", {"encoder": 5}),
        ("unet", {"name": "x"}),
        ("unet", {"spec": 1}),
        ("unet", {"encoder": "tu-hf-hub:owner/name"}),
    ],
)
def test_arguments_that_make_no_network_end_in_one_line(name, args):
    with pytest.raises(ConfigError, match=f"make no {name}|{name} has no argument|name without a colon") as caught:
        create_model(name, ModelSpec({"image": 2}, 1), **args)
    assert "\n" not in str(caught.value)


def test_a_new_model_needs_one_decorator(monkeypatch):
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))

    @register("pixelwise")
    class Pixelwise(torch.nn.Conv2d):
        def __init__(self, spec):
            super().__init__(spec.in_channels["image"], spec.out_channels, 1)

    assert "pixelwise" in list_models()
    assert create_model("pixelwise", ModelSpec({"image": 2}, 1))(torch.zeros(1, 2, 4, 4)).shape == (1, 1, 4, 4)
    with pytest.raises(ConfigError, match="registered already"):
        register("pixelwise")(torch.nn.Identity)


def test_a_missing_input_is_named(monkeypatch):
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    register("pan", inputs=("image", "pan"))(lambda spec: torch.nn.Identity())
    with pytest.raises(ConfigError, match="needs the input 'pan'"):
        create_model("pan", ModelSpec({"image": 2}, 1))


@pytest.mark.parametrize("encoder", ["mobilenet_v2", "efficientnet-b0", "tu-resnet18", "tu-convnext_atto"])
def test_the_unet_takes_any_encoder_and_number_of_bands(encoder):
    model = create_model("unet", ModelSpec({"image": 7}, 2), encoder=encoder).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 7, 33, 64)).shape == (1, 2, 33, 64)


def test_encoder_weights_that_cannot_be_had_end_in_one_line(monkeypatch):
    import segmentation_models_pytorch.encoders as encoders

    def offline(*args, **kwargs):
        raise ConnectionError("no route to host\nand more")

    monkeypatch.setattr(encoders, "hf_hub_download", offline)
    with pytest.raises(WeightsError, match="cannot fetch the imagenet weights of resnet18.*encoder_weights") as caught:
        create_model("unet", ModelSpec({"image": 2}, 1), encoder_weights="imagenet")
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="imagnet"):
        create_model("unet", ModelSpec({"image": 2}, 1), encoder_weights="imagnet")


def test_the_patch_cnn_has_the_published_layers():
    model = create_model("patch-cnn", ModelSpec({"image": 3}, 3))
    shapes = [tuple(p.shape) for key, p in model.named_parameters() if key.endswith("weight")]
    assert shapes == [
        (64, 3, 3, 3),
        (192, 64, 3, 3),
        (384, 192, 3, 3),
        (256, 384, 3, 3),
        (256, 256, 3, 3),
        (4096, 2304),
        (4096, 4096),
        (3, 4096),
    ]
    assert [m.stride for m in model.features if isinstance(m, torch.nn.Conv2d)] == [(2, 2)] + [(1, 1)] * 4
