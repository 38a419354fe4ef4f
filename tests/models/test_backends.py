"""Networks in ONNX Runtime and OpenVINO: the same classes, one export per weights, and plain words when it fails."""

import numpy as np
import pytest
import torch
from tidemark.benchmark.subject import random_weights, synthetic_preprocess
from tidemark.errors import ConfigError, DeviceError, WeightsError
from tidemark.models import backends
from tidemark.models.backends import with_backend
from tidemark.models.predict import predict_scene
from tidemark.models.weights import from_pretrained

RUNTIMES = [name for name in backends.BACKENDS if name != "torch"]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    room = tmp_path_factory.mktemp("weights")
    args = {"encoder": "resnet18", "decoder_channels": [16, 8, 8, 4, 4]}
    return from_pretrained(random_weights("unet", args, synthetic_preprocess(2), room))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("exported")


@pytest.fixture(params=RUNTIMES)
def runtime(request):
    for module in backends.MODULES[request.param]:
        pytest.importorskip(module)
    return request.param


def batch(count, size=64):
    generator = torch.Generator().manual_seed(count)
    return torch.randn(count, 2, size, size, generator=generator)


@torch.inference_mode()
def test_another_runtime_gives_the_logits_of_torch_for_full_and_short_batches(pretrained, cache, runtime):
    model = with_backend(pretrained, runtime, cache=cache).model
    for count in (3, 2):
        expected = pretrained.model(image=batch(count))
        torch.testing.assert_close(model(image=batch(count)), expected, atol=1e-4, rtol=1e-4)
    assert model.agreement > 0.999


@torch.inference_mode()
def test_a_network_is_exported_once_for_both_runtimes_and_again_when_the_file_is_spoiled(pretrained, cache, runtime):
    with_backend(pretrained, runtime, cache=cache).model(image=batch(3))
    (exported,) = cache.glob("*.onnx")
    written = exported.stat().st_mtime_ns
    with_backend(pretrained, runtime, cache=cache).model(image=batch(3))
    assert exported.stat().st_mtime_ns == written
    exported.write_bytes(exported.read_bytes()[:1000])
    spoiled = with_backend(pretrained, runtime, cache=cache).model
    torch.testing.assert_close(spoiled(image=batch(3)), pretrained.model(image=batch(3)), atol=1e-4, rtol=1e-4)


def test_a_scene_maps_alike(pretrained, cache, runtime):
    scene = np.random.default_rng(0).integers(0, 4000, (2, 100, 90)).astype(np.uint16)
    other = with_backend(pretrained, runtime, cache=cache)
    expected, found = (predict_scene(scene, w, tile=64, batch_size=3) for w in (pretrained, other))
    assert (expected.class_map == found.class_map).mean() > 0.995
    assert np.abs(expected.probability - found.probability).max() < 1e-3


@torch.inference_mode()
def test_a_runtime_that_disagrees_with_torch_is_refused(pretrained, cache, runtime, monkeypatch):
    name = f"_open_{runtime}"
    right = getattr(backends, name)
    monkeypatch.setattr(backends, name, lambda *given: lambda inputs: -right(*given)(inputs))
    with pytest.raises(WeightsError, match=f"only .* same class in {runtime} fp32"):
        with_backend(pretrained, runtime, cache=cache).model(image=batch(3))


@torch.inference_mode()
def test_bf16_of_torch_gives_nearly_the_same_classes(pretrained):
    model = with_backend(pretrained, "torch", "bf16").model
    assert model(image=batch(2)).dtype == torch.float32
    assert 0.99 <= model.agreement <= 1


@pytest.mark.parametrize(
    ("backend", "precision", "message"),
    [
        ("tensorrt", "fp32", "no backend 'tensorrt'; there is torch"),
        ("torch", "int8", "no precision 'int8'"),
        ("onnxruntime", "bf16", "ONNX Runtime has no bf16"),
    ],
)
def test_what_no_runtime_has_is_refused(pretrained, backend, precision, message):
    with pytest.raises(ConfigError, match=message):
        with_backend(pretrained, backend, precision)


def test_a_missing_runtime_says_how_to_get_it(pretrained, monkeypatch):
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"--backend openvino needs openvino, .*tidemark\[openvino\]"):
        with_backend(pretrained, "openvino")


def test_bf16_needs_a_processor_that_has_it(pretrained):
    openvino = pytest.importorskip("openvino")
    if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has bf16")
    with pytest.raises(DeviceError, match="no bf16"):
        with_backend(pretrained, "openvino", "bf16")
