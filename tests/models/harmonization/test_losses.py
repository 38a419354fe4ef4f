"""Losses of reflectance: values by hand and by other libraries, gradients that reach, pixels that never count."""

from __future__ import annotations

import math

import pytest
import torch
from skimage.metrics import structural_similarity
from tidemark.errors import ConfigError, InputError
from tidemark.models.harmonization.losses import TERMS, HarmonizationLoss
from tidemark.models.harmonization.parts import GaussianOutput, GuidedOutput

VALUES = [term for term in TERMS if term != "gaussian-nll"]


def rand(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def everywhere(x):
    return torch.ones_like(x[:, 0], dtype=torch.bool)


def output_of(term, mean):
    return GaussianOutput(mean, 0.1 + mean) if term == "gaussian-nll" else mean


def test_l1_is_the_mean_absolute_error_of_valid_pixels():
    target = torch.zeros(1, 2, 2, 2)
    output = torch.tensor([[[0.1, 0.3], [9.0, 9.0]], [[0.2, 0.4], [9.0, 9.0]]])[None]
    valid = torch.tensor([[[True, True], [False, False]]])
    assert HarmonizationLoss("l1")(output, target, valid).item() == pytest.approx(0.25)


def test_ssim_is_scikit_images_inside():
    first, second = rand(1, 2, 24, 20), rand(1, 2, 24, 20, seed=1)
    similarity = structural_similarity(
        first[0].numpy(), second[0].numpy(), data_range=1, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, channel_axis=0, full=True,
    )[1][:, 5:-5, 5:-5].mean()  # fmt: skip
    assert HarmonizationLoss("ssim")(first, second, everywhere(first)).item() == pytest.approx(1 - similarity, abs=1e-9)


def test_the_mixed_gradient_of_two_ramps_is_computed_by_hand():
    ramp = torch.arange(6.0).expand(1, 1, 6, 6).double()
    # Sobel answers 8 and 24 on slopes 1 and 3; values differ by 2 j.
    expected = (4 * (torch.arange(6.0) ** 2)).mean().item() + 0.1 * 16**2
    assert HarmonizationLoss("mixed-gradient")(3 * ramp, ramp, everywhere(ramp)).item() == pytest.approx(expected)


def test_the_rim_of_a_hole_is_no_edge_of_the_image():
    target = rand(1, 2, 12, 12)
    valid = everywhere(target).clone()
    valid[0, 4:6, 7] = False
    assert HarmonizationLoss("mixed-gradient")(target + 0.1, target, valid).item() == pytest.approx(0.01)


def test_the_gaussian_likelihood_is_that_of_the_formula_and_of_torch():
    mean, variance, target = rand(2, 3, 4, 4), rand(2, 3, 4, 4, seed=1) + 0.01, rand(2, 3, 4, 4, seed=2)
    found = HarmonizationLoss("gaussian-nll")(GaussianOutput(mean, variance), target, everywhere(mean))
    torch.testing.assert_close(found, torch.nn.functional.gaussian_nll_loss(mean, target, variance))
    sharp = HarmonizationLoss("gaussian-nll")(GaussianOutput(target, 0 * variance), target, everywhere(mean))
    assert sharp.item() == pytest.approx(0.5 * math.log(1e-6))


def test_terms_add_with_their_factors():
    first, second = rand(1, 2, 12, 12), rand(1, 2, 12, 12, seed=1)
    alone = {term: HarmonizationLoss(term)(first, second, everywhere(first)) for term in VALUES}
    torch.testing.assert_close(
        HarmonizationLoss("0.8*l1 + .2*ssim+mixed-gradient")(first, second, everywhere(first)),
        0.8 * alone["l1"] + 0.2 * alone["ssim"] + alone["mixed-gradient"],
    )


@pytest.mark.parametrize("term", TERMS)
def test_the_gradient_reaches_the_prediction_and_agrees_with_finite_differences(term):
    mean, target = rand(1, 1, 12, 12).requires_grad_(), rand(1, 1, 12, 12, seed=1)
    valid = everywhere(mean).clone()
    valid[:, :1, :3] = False
    loss = HarmonizationLoss(term)
    assert torch.autograd.gradcheck(lambda x: loss(output_of(term, x), target, valid), mean, fast_mode=term != "l1")
    loss(output_of(term, mean), target, valid).backward()
    assert (mean.grad[0, 0, 1:] != 0).all()  # no SSIM window of the first row is whole
    assert (mean.grad[0, 0][~valid[0]] == 0).all()


@pytest.mark.parametrize("term", TERMS)
def test_what_is_not_valid_never_counts(term):
    target, mean = rand(2, 2, 30, 30), rand(2, 2, 30, 30, seed=1)
    valid = everywhere(target).clone()
    valid[0, 10:13, 5:9] = False
    spoiled_target = torch.where(valid[:, None], target, float("nan"))
    spoiled = torch.where(valid[:, None], mean, float("inf")).requires_grad_()
    clean = HarmonizationLoss(term)(output_of(term, mean), target, valid)
    found = HarmonizationLoss(term)(output_of(term, spoiled), spoiled_target, valid)
    torch.testing.assert_close(found, clean)
    found.backward()
    assert spoiled.grad.isfinite().all()


@pytest.mark.parametrize("term", TERMS)
def test_nothing_valid_is_zero_with_gradient_zero(term):
    mean = rand(1, 1, 12, 12).requires_grad_()
    loss = HarmonizationLoss(term)(output_of(term, mean), mean.detach(), ~everywhere(mean))
    loss.backward()
    assert loss.item() == 0
    assert (mean.grad == 0).all()


@pytest.mark.parametrize("term", VALUES)
def test_a_flat_image_without_error_has_finite_gradients(term):
    mean = torch.full((1, 1, 12, 12), 0.3, requires_grad=True)
    loss = HarmonizationLoss(term)(mean, torch.full((1, 1, 12, 12), 0.3), everywhere(mean))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert mean.grad.isfinite().all()


def test_the_pan_detail_of_a_guided_network_counts_a_tenth():
    mean = torch.zeros(1, 6, 8, 8)
    guided = GuidedOutput(mean, torch.full((1, 1, 8, 8), 0.5), torch.zeros(1, 1, 8, 8))
    assert HarmonizationLoss("l1")(guided, mean, everywhere(mean)).item() == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("l2", "no loss 'l2'.*there is l1, ssim"),
        ("", "no loss ''"),
        ("l1+", "no loss ''"),
        ("-1*l1", "no loss"),
        ("0*l1", "factor 0"),
        ("l1+0.5*l1", "twice"),
        ("__import__('os')", "no loss"),
    ],
)
def test_a_name_that_is_no_sum_of_losses_is_refused_in_words(name, message):
    with pytest.raises(ConfigError, match=f"TRAIN.LOSS: .*{message}"):
        HarmonizationLoss(name)


def test_a_loss_that_does_not_suit_the_network_or_the_images_is_refused():
    x = rand(1, 2, 12, 12)
    with pytest.raises(ConfigError, match="no variance.*take l1"):
        HarmonizationLoss("gaussian-nll")(x, x, everywhere(x))
    with pytest.raises(ConfigError, match="a variance.*take gaussian-nll"):
        HarmonizationLoss("l1")(GaussianOutput(x, x), x, everywhere(x))
    with pytest.raises(InputError, match="do not fit"):
        HarmonizationLoss("l1")(x[:, :1], x, everywhere(x))
    with pytest.raises(InputError, match="11 × 11"):
        HarmonizationLoss("ssim")(x[..., :8], x[..., :8], everywhere(x)[..., :8])
