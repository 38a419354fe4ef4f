"""Networks of reflectance are timed as the others are, resampling included, on l8s2's grids or on stored pairs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tidemark.benchmark import model_bench, subject, work
from tidemark.benchmark.measuring import gflops
from tidemark.benchmark.model_bench import Request, bench_speed
from tidemark.benchmark.pair_inputs import ReferenceOnPairs, low_size, random_pairs, transforms
from tidemark.benchmark.speed_process import measure
from tidemark.benchmark.speed_record import read_speed_record
from tidemark.benchmark.work import Job
from tidemark.datasets.l8s2_header import header
from tidemark.datasets.pairs import PairLoader
from tidemark.datasets.spec import Array, Band, load_manifest
from tidemark.errors import ConfigError, InputError, WeightsError
from tidemark.leaderboard.networks import Network
from tidemark.models.harmonization.harmonizer import Harmonizer
from tidemark.models.registry import ModelSpec, create_model, find_model, list_models
from tidemark.models.weights import from_pretrained

CPU = torch.device("cpu")
SIZE = 48
SRUNET = {"depth": 3, "channels": 8, "residual": True}
SMALL = {
    "srunet": SRUNET,
    "aunet": SRUNET,
    "aunet-gaussian": SRUNET,
    "mb-rrdb": {"channels": 2, "layers": 2, "growth": 2},
    "panfusion": {"channels": 4, "blocks": 1},
    "esrt": {"channels": 8, "blocks": 1, "heads": 2, "hidden": 16},
    "smp-mit": {"encoder": "mit_b0", "decoder_channels": [32, 16, 16, 8, 8]},
}


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    return tmp_path_factory.mktemp("room")


@pytest.fixture(scope="module")
def srunet(room):
    """A small srunet with random weights, as the command makes it."""
    return subject.find_subject("srunet", room, channels=2, arguments=SRUNET)


@pytest.fixture(scope="module")
def chips(room, srunet):
    """Six synthetic pairs."""
    return subject.synthetic_dataset(srunet, room / "chips", chips=6, size=SIZE)


@pytest.fixture
def job(srunet):
    return Job(
        kind="model", weights=str(srunet.folder), reference=str(srunet.folder), data="", split="train",
        chip=(6, SIZE, SIZE), precision="fp32", compiled=False, device="cpu", threads=1, batch=2, warm_up=(1, 0.0),
        timed=(2, 5.0), turns=1, headline=False,
    )  # fmt: skip


def test_every_network_of_the_registry_has_a_figure(job, tmp_path):
    assert set(SMALL) == {name for name in list_models(trained=True) if "regression" in find_model(name).tasks}
    for name, arguments in SMALL.items():
        found = subject.find_subject(name, tmp_path, channels=2, arguments=arguments)
        for precision in ("fp32", "bf16"):
            answer = measure(replace(job, weights=str(found.folder), reference="", precision=precision))
            assert answer["rates"][0] > 0 and answer["parameters"] > 0, name
            assert (answer["chip"], answer["target"], answer["pixels"]) == ([6, 16, 16], [6, SIZE, SIZE], SIZE**2)
            assert precision == "bf16" or answer["gflops"] > 0


def test_what_is_timed_takes_landsats_grids_and_answers_on_the_targets(srunet, job):
    timed = work.open_work(job, srunet.pretrained, CPU)
    assert isinstance(timed.module, Harmonizer) and timed.run() == 2 and timed.one().shape == (1, 6, SIZE, SIZE)
    assert timed.module(**timed.inputs).shape == (2, 6, SIZE, SIZE)
    with torch.inference_mode():
        own = gflops(
            srunet.pretrained.model, {"image": torch.zeros(1, 6, SIZE, SIZE), "pan": torch.zeros(1, 1, SIZE, SIZE)}
        )
    assert gflops(timed.module, timed.single) == pytest.approx(own)


def test_random_chips_are_laid_out_as_the_data_set_has_them():
    found, arrays = random_pairs(3, 6, 256, CPU), header({}, "by-tile", simulated=True).arrays
    assert [tuple(found[a.name].shape[1:]) for a in arrays[:2]] == [a.shape for a in arrays[:2]]
    assert found["grid_image"].shape == found["grid_pan"].shape == (3, 4)
    assert found["grid_image"].dtype == torch.float64 and found["size"] == (256, 256)
    for name, scale in (("image", 1 / 3), ("pan", 2 / 3)):  # the target lies within them as a whole
        scale_x, offset_x, scale_y, offset_y = found[f"grid_{name}"][0].tolist()
        assert scale_x == scale_y == pytest.approx(scale) and min(offset_x, offset_y) >= 0
        assert offset_x + 256 * scale_x <= found[name].shape[-1]
    image, pan = transforms()["image"], transforms()["pan"]
    assert (pan[2] - image[2], image[5] - pan[5]) == (7.5, 7.5)  # Landsat's pan begins half its pixel further in


def test_the_reference_is_the_u_net_of_the_others_with_image_and_pan_as_bands(job):
    reference = ReferenceOnPairs(ModelSpec({"image": 6, "pan": 1}, 6)).eval()
    plain = create_model("unet", ModelSpec({"image": 7}, 6), encoder="resnet18")
    count = [sum(p.numel() for p in network.parameters()) for network in (reference, plain)]
    assert count[0] == count[1]
    with torch.inference_mode():
        assert Harmonizer(reference)(**random_pairs(2, 6, SIZE, CPU)).shape == (2, 6, SIZE, SIZE)
    assert len(measure(job)["rates"]) == 2


def test_end_to_end_reads_pairs_with_their_grids(job, chips):
    manifest = load_manifest(chips)
    assert manifest.label_array.shape == (6, SIZE, SIZE) and manifest.simulated
    answer = measure(replace(job, kind="end-to-end", data=str(chips), reference=""))
    assert (answer["batch"], answer["chips"], answer["pixels"]) == (2, 2, SIZE**2) and len(answer["latencies"]) == 2
    own = measure(replace(job, data=str(chips), reference=""))
    assert (own["chip"], own["target"]) == ([6, low_size(SIZE)] + [low_size(SIZE)], [6, SIZE, SIZE])


def test_single_chips_get_the_grids_of_their_places(chips):
    loader = PairLoader(chips, "train", 6, arrays=["image", "pan"])
    batch = next(iter(loader))
    alone = loader.placed({"index": torch.tensor([4])})
    assert torch.equal(alone["grid_pan"], batch["grid_pan"][4:5])


def test_a_record_names_both_grids_and_the_page_what_it_may_be_compared_with(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(model_bench, "_in_fresh_process", lambda one, room, cold: measure(one))
    out = tmp_path / "record.json"
    request = Request("model", "srunet", arguments=SRUNET, size=SIZE, quick=True, threads=1, device="cpu")
    made = bench_speed(request, out)
    assert read_speed_record(out) == made and made.chip == (6, 16, 16) and made.target == (6, SIZE, SIZE)
    (row,) = made.rows
    assert row.reference_ratio.median > 0 and row.gflops_per_chip > 0 and row.latency.p50_ms > 0
    assert row.mpx_per_s == pytest.approx(row.chips_per_s * SIZE**2 / 1e6)
    assert "6×16² and pan 32² to 6×48²" in capsys.readouterr().out
    assert "6 bands of 16 × 16 pixels and the panchromatic one to 6 of 48 × 48" in Network(made, row).place


def test_trained_weights_are_gated_by_their_psnr(job, chips):
    own = replace(job, kind="end-to-end", data=str(chips), reference="", headline=True)
    plain, bf16 = measure(own), measure(replace(own, precision="bf16"))
    gate = model_bench._gate(bf16["headline"], plain["headline"], "train")
    assert gate.metric == "psnr" and gate.fp32 == plain["headline"]["value"] and gate.passed
    assert gate.value != gate.fp32  # it was scored in bf16


def test_the_compiled_network_takes_the_place_of_its_own(job, chips, monkeypatch):
    class Twice(torch.nn.Module):
        residual, grid, stretch = False, "target", False

        def __init__(self, network):
            super().__init__()
            self.network, self.calls = network, 0

        def forward(self, image, pan):
            self.calls += 1
            return self.network(image, pan)

    made = []
    monkeypatch.setattr(torch, "compile", lambda network, dynamic: made.append(Twice(network)) or made[-1])
    for kind, data in (("model", ""), ("end-to-end", str(chips))):
        pretrained = from_pretrained(job.weights)
        timed = work.open_work(replace(job, kind=kind, data=data, compiled=True), pretrained, CPU)
        before = made[-1].calls
        timed.run()
        assert made[-1].calls == before + 1
    measure(replace(job, kind="end-to-end", data=str(chips), reference="", compiled=True, headline=True))
    assert made[-1].calls >= 3  # the six chips were scored with it


def test_what_cannot_be_timed_is_said_in_one_line(srunet, job, chips, tiny_dataset):
    classes = tiny_dataset(shape=(2, 16, 16), chips=1)
    bands = tuple(Band(name=n, sensor="test", unit="reflectance") for n in ("red", "nir"))
    arrays = (
        Array(name="image", dtype="uint16", shape=(2, 16, 16), role="image", bands=bands),
        Array(name="target", dtype="uint16", shape=(2, 48, 48), role="target", bands=bands),
    )
    no_pan = tiny_dataset(name="no-pan", kind="regression", arrays=arrays, make=zeros, chips=1)
    for wrong, error, words in (
        (Request("scene", "srunet", arguments=SRUNET), InputError, "not one GeoTIFF"),
        (Request("model", "srunet", arguments=SRUNET, dataset=classes), InputError, "srunet is for regression"),
        (Request("model", "patch-cnn", dataset=chips), InputError, "patch-cnn is for classification"),
        (Request("model", "srunet", arguments=SRUNET, dataset=no_pan), InputError, "no-pan has none"),
        (Request("model", "srunet", arguments={"channles": 8}), ConfigError, "channels"),
        (Request("model", "srunet", arguments={"depth": 99}), ConfigError, "depth"),
        (Request("model", "bicubic"), ConfigError, "trivial row"),
        (Request("end-to-end", str(srunet.folder)), InputError, "--dataset"),
    ):
        with pytest.raises(error, match=words):
            bench_speed(replace(wrong, quick=True, device="cpu"))
    with pytest.raises(WeightsError, match="weights for regression, tiny is a segmentation"):
        measure(replace(job, data=str(classes)))


def zeros(_rng, stated):
    return {array.name: np.zeros(array.shape, array.dtype) for array in stated.arrays}
