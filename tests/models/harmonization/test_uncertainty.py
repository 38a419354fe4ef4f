"""Means and standard deviations of mixtures, keyed dropout, and scales that go with the weights they were found for."""

from __future__ import annotations

import json

import pytest
import torch
from pydantic import ValidationError
from tidemark.datasets.l8s2_header import header
from tidemark.datasets.transforms import Preprocess
from tidemark.errors import InputError, WeightsError
from tidemark.models.harmonization.harmonizer import Harmonizer
from tidemark.models.harmonization.meaning import Meaning, SigmaScale
from tidemark.models.harmonization.parts import GaussianOutput
from tidemark.models.harmonization.uncertainty import Predictive, calibrated, dropouts, moments
from tidemark.models.registry import ModelSpec, create_model
from tidemark.models.weights import from_pretrained, keep_sigma, save_pretrained

SPEC = ModelSpec({"image": 6, "pan": 1}, 6)
ARGS = {"channels": 4, "depth": 2, "residual": True}
BATCH = (
    torch.rand(2, 6, 8, 8, generator=torch.Generator().manual_seed(0)),
    torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(1)),
    torch.tensor([1 / 3, 0, 1 / 3, 0]),
    torch.tensor([2 / 3, 0, 2 / 3, 0]),
    (24, 24),
)


def network(name="srunet", seed=0, **more):
    torch.manual_seed(seed)
    return Harmonizer(create_model(name, SPEC, **ARGS, **more))


def scale_for(members, method="ensemble", passes=1, factor=3.0):
    return SigmaScale(
        method=method,
        passes=passes,
        members=tuple(members),
        levels=(0.5, 0.68, 0.95),
        factors=tuple((factor / 2, factor * (band + 1), 2.5 * factor * (band + 1)) for band in range(6)),
        split="val",
        content_sha256="0" * 64,
    )


def saved(folder, seed, **more):
    image, pan, target = (array.bands for array in header({}, "by-tile", False).arrays[:3])
    save_pretrained(
        network(seed=seed, **more).network,
        folder,
        name="srunet",
        spec=SPEC,
        args=ARGS | more,
        preprocess_config=Preprocess(image, normalization="none").to_config(),
        classes=(),
        card={"task_kind": "regression"},
        harmonization=Meaning(
            pan=Preprocess(pan, normalization="none").to_config(), target=target, loss="l1", residual=True
        ),
    )
    return folder


def test_the_mixture_has_the_moments_computed_by_hand():
    answers = [GaussianOutput(torch.tensor([m]), torch.tensor([v])) for m, v in ((0.1, 0.01), (0.3, 0.03))]
    mean, variance = moments(answers)
    torch.testing.assert_close(mean, torch.tensor([0.2]))
    torch.testing.assert_close(variance, torch.tensor([0.02 + 0.02]))  # mean of variances, unbiased variance of means
    mean, variance = moments([a.mean for a in answers])
    torch.testing.assert_close(variance, torch.tensor([0.02]))
    assert moments(answers[:1])[1].item() == pytest.approx(0.01)


def test_a_gaussian_network_gives_its_own_mean_and_deviation():
    member = network("aunet-gaussian")
    mean, sigma = Predictive([member], "gaussian")(*BATCH)
    with torch.no_grad():
        own = member(*BATCH)
    torch.testing.assert_close(mean, own.mean.clamp_min(0))
    torch.testing.assert_close(sigma, own.variance.sqrt())


def test_an_ensemble_is_the_mean_and_spread_of_its_networks():
    members = [network(seed=seed) for seed in range(3)]
    mean, sigma = Predictive(members, "ensemble")(*BATCH)
    with torch.no_grad():
        stacked = torch.stack([member(*BATCH) for member in members])
    torch.testing.assert_close(mean, stacked.mean(0).clamp_min(0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(sigma, stacked.std(0), rtol=1e-3, atol=1e-6)


def test_dropout_passes_repeat_by_seed_and_key_and_leave_the_network_and_the_generator_as_they_were():
    member = network(dropout=0.1)
    predictive = Predictive([member], "mc-dropout", passes=4)
    before = torch.random.get_rng_state()
    first, again, other = predictive(*BATCH, key=1), predictive(*BATCH, key=1), predictive(*BATCH, key=2)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert (first[1] > 0).any()
    assert not any(module.training for module in member.modules())
    seeded = Predictive([member], "mc-dropout", passes=4, seed=1)(*BATCH, key=1)
    assert not torch.equal(first[0], seeded[0])


def test_more_passes_bring_the_mean_nearer_to_that_of_very_many():
    member = network(dropout=0.1)
    means = {n: Predictive([member], "mc-dropout", passes=n, seed=n)(*BATCH)[0] for n in (2, 20, 80)}
    assert (means[20] - means[80]).square().mean() < (means[2] - means[80]).square().mean() / 3
    assert len(dropouts(member)) == 3


def test_a_scale_multiplies_each_bands_sigma_and_says_how_wide_other_intervals_are():
    members, scale = [network(seed=seed) for seed in range(2)], scale_for(["1" * 64, "2" * 64])
    mean, plain = Predictive(members, "ensemble")(*BATCH)
    same, scaled = Predictive(members, "ensemble", scale=scale)(*BATCH)
    assert torch.equal(mean, same)
    torch.testing.assert_close(scaled, plain * torch.tensor([3.0, 6, 9, 12, 15, 18]).view(-1, 1, 1))
    assert Predictive(members, "ensemble", scale=scale).interval(0.95) == pytest.approx((2.5,) * 6)


def test_the_scale_is_kept_with_the_weights_and_serves_those_alone(tmp_path):
    folders = [saved(tmp_path / str(seed), seed) for seed in range(3)]
    loaded = [from_pretrained(folder) for folder in folders]
    members = [Harmonizer(one.model) for one in loaded]
    with pytest.raises(WeightsError, match="these 2 weights.*not calibrated.*tidemark uncertainty"):
        calibrated(loaded[:2], members[:2])
    scale = scale_for([one.weights_sha256 for one in loaded[:2]])
    for folder in folders[:2]:
        keep_sigma(folder, scale)
    loaded = [from_pretrained(folder) for folder in folders]
    assert loaded[0].harmonization.sigma == scale
    found = calibrated(loaded[1::-1], members[1::-1])
    assert found.method == "ensemble"
    assert found.interval(0.95) == pytest.approx((2.5,) * 6)
    with pytest.raises(WeightsError, match="not calibrated"):
        calibrated(loaded[1:], members[1:])
    with pytest.raises(WeightsError, match="not calibrated"):
        calibrated(loaded[:1], members[:1])


def test_dropout_weights_are_served_with_the_passes_of_their_calibration(tmp_path):
    folder = saved(tmp_path, 0, dropout=0.1)
    sha = from_pretrained(folder).weights_sha256
    keep_sigma(folder, scale_for([sha], "mc-dropout", 7))
    one = from_pretrained(folder)
    assert calibrated([one], [Harmonizer(one.model)]).passes == 7


def test_a_broken_scale_in_the_configuration_is_refused(tmp_path):
    folder = saved(tmp_path, 0)
    with pytest.raises(WeightsError, match="5 bands"):
        keep_sigma(folder, scale_for(["1" * 64]).model_copy(update={"factors": ((1.0, 2.0, 3.0),) * 5}))
    keep_sigma(folder, scale_for(["1" * 64]))
    config = json.loads((folder / "config.json").read_text())
    config["harmonization"]["sigma"]["factors"][0] = [-1.0, 1.0, 2.0]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="factors"):
        from_pretrained(folder)
    with pytest.raises(ValidationError, match="0.68 and 0.95"):
        SigmaScale.model_validate(scale_for(["1" * 64]).model_dump() | {"levels": (0.5, 0.6, 0.7)})


@pytest.mark.parametrize(
    ("members", "method", "passes", "message"),
    [
        (1, "bayes", 2, "no method 'bayes'.*mc-dropout"),
        (1, "ensemble", 2, "at least two networks, found 1"),
        (2, "gaussian", 2, "one network, found 2"),
        (1, "mc-dropout", 2, "no dropout.*MODEL.ARGS.dropout"),
        (1, "mc-dropout", 1, "at least two passes"),
    ],
)
def test_what_a_method_cannot_work_with_is_refused_in_words(members, method, passes, message):
    with pytest.raises(InputError, match=message):
        Predictive([network(seed=seed) for seed in range(members)], method, passes=passes)


def test_gaussian_needs_a_variance():
    with pytest.raises(InputError, match="no variance.*aunet-gaussian"):
        Predictive([network()], "gaussian")(*BATCH)
