"""Within which parts of an image ESRT's attention looks, and the skip at full resolution of the MiT network."""

from __future__ import annotations

import pytest
import torch
from tidemark.models.harmonization.esrt import SPLITS, EfficientTransformer
from tidemark.models.registry import ModelSpec, create_model
from torch.nn import functional

SPEC = ModelSpec({"image": 6, "pan": 1}, 6)
ESRT = {"channels": 8, "blocks": 1, "heads": 2, "hidden": 16}
MIT = {"encoder": "mit_b0", "decoder_channels": [16, 16, 8, 8, 8]}


def transformer(part_pixels=None):
    torch.manual_seed(0)
    return EfficientTransformer(8, 2, 16, part_pixels)


def by_definition(network, tokens, parts):
    """The published attention: each part of the tokens in turn, by the softmax itself."""
    found = []
    for part in parts(network.reduce(tokens)):
        q, k, v = (x.unflatten(-1, (2, -1)).transpose(1, 2) for x in network.qkv(part).chunk(3, -1))
        weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        found.append((weights @ v).transpose(1, 2).flatten(2))
    return network.expand(torch.cat(found, 1))


@pytest.mark.parametrize("pixels", [64, 30, 5, 1])
def test_attention_is_within_each_quarter_as_published(pixels):
    tokens = torch.rand(2, pixels, 72)
    expected = by_definition(transformer(), tokens, lambda x: x.chunk(SPLITS, 1))
    torch.testing.assert_close(transformer()._attend(tokens), expected)


@pytest.mark.parametrize(("pixels", "limit"), [(64, 10), (60, 10), (9, 1)])
def test_with_a_limit_it_is_within_parts_of_that_many_pixels(pixels, limit):
    tokens = torch.rand(2, pixels, 72)
    expected = by_definition(transformer(), tokens, lambda x: x.split(limit, 1))
    torch.testing.assert_close(transformer(limit)._attend(tokens), expected)


def test_a_limit_that_a_quarter_does_not_reach_changes_nothing():
    image, pan = torch.rand(2, 6, 24, 20), torch.rand(2, 1, 24, 20)
    answers = []
    for more in ({}, {"part_pixels": 24 * 20 // SPLITS}, {"part_pixels": 24 * 20 // SPLITS - 1}):
        torch.manual_seed(0)
        answers.append(create_model("esrt", SPEC, **ESRT, **more)(image, pan))
    assert torch.equal(answers[0], answers[1])
    assert not torch.equal(answers[0], answers[2])


def test_with_a_limit_far_pixels_of_the_image_do_not_matter_to_a_part():
    network, x = transformer(32), torch.rand(1, 8, 16, 16)
    other = x.clone()
    other[..., 8:, :] += 1
    with torch.no_grad():
        assert torch.equal(network(x)[..., :5, :], network(other)[..., :5, :])
        whole = transformer()
        assert torch.equal(whole(x)[..., :2, :], whole(other)[..., :2, :])
        assert not torch.equal(network(x)[..., 8:, :], network(other)[..., 8:, :])


def mit(**more):
    torch.manual_seed(0)
    return create_model("smp-mit", SPEC, **MIT, **more).eval()


def test_without_detail_the_mit_network_is_the_original_one():
    image, pan = torch.rand(1, 6, 40, 33), torch.rand(1, 1, 40, 33)
    network = mit()
    padded = functional.pad(torch.cat([image, pan], 1), (0, 31, 0, 24), "reflect")
    with torch.no_grad():
        assert torch.equal(network(image, pan), network.body.net(padded)[..., :40, :33])
    assert all(key.startswith("body.net.") for key in network.state_dict())


def test_detail_keeps_the_size_and_the_start_beside_the_resampled_image():
    image, pan = 0.3 * torch.rand(1, 6, 40, 33), 0.3 * torch.rand(1, 1, 40, 33)
    with torch.no_grad():
        direct, residual = (mit(detail=8, residual=form)(image, pan) for form in (False, True))
    assert residual.shape == image.shape
    assert residual.abs().mean() < 0.2 * direct.abs().mean()
    assert residual.abs().mean() < 0.02


def test_detail_is_a_path_of_the_inputs_at_full_resolution():
    image, pan = torch.rand(1, 6, 32, 32), torch.rand(1, 1, 32, 32, requires_grad=True)
    network = mit(detail=8)
    for parameter in network.body.net.encoder.parameters():
        parameter.data.zero_()  # nothing passes through the encoder
    network(image, pan).square().sum().backward()
    assert (pan.grad != 0).float().mean() > 0.9
    reached = [p.grad is not None and p.grad.abs().sum() > 0 for p in network.detail.parameters()]
    assert all(reached)
