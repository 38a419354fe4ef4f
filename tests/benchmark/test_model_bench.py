"""The three speed figures, measured for real on tiny models: what is counted, what is left out, what may count."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from tidemark.benchmark import model_bench, speed_process, subject
from tidemark.benchmark.measuring import (
    PeakMemory,
    Span,
    gflops,
    latencies,
    percentiles_ms,
    precision,
    rates_in_turns,
    warm_up,
)
from tidemark.benchmark.model_bench import Request, bench_speed
from tidemark.benchmark.records import Speed
from tidemark.benchmark.speed_process import Job, measure
from tidemark.benchmark.speed_record import Gate, read_speed_record
from tidemark.datasets.raster import open_raster
from tidemark.errors import ConfigError, DeviceError, FormatError, InputError, TidemarkError, WeightsError

CPU = torch.device("cpu")
SMALL = {"width": 4, "hidden": 16}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights of a small patch classifier of two bands."""
    room = tmp_path_factory.mktemp("weights")
    return subject.random_weights("patch-cnn", SMALL, subject.synthetic_preprocess(2), room, "classification")


@pytest.fixture(scope="module")
def chips(tmp_path_factory, weights):
    """Six synthetic chips for it."""
    found = subject.find_subject(str(weights), weights, channels=2, arguments={})
    return subject.synthetic_dataset(found, tmp_path_factory.mktemp("chips"), chips=6, size=32)


@pytest.fixture
def job(weights):
    return Job(
        kind="model", weights=str(weights), reference=str(weights), data="", split="train", chip=(2, 32, 32),
        precision="fp32", compiled=False, device="cpu", threads=1, batch=4, warm_up=(1, 0.0), timed=(6, 20.0), turns=2,
        headline=False,
    )  # fmt: skip


def test_the_model_figure_is_the_network_alone_on_resident_tensors(job):
    answer = measure(job)
    assert len(answer["rates"]) == 2 and min(answer["rates"]) > 0 and len(answer["latencies"]) == 6
    assert (answer["batch"], answer["chips"], answer["pixels"], answer["chip"]) == (4, 4, 1024, [2, 32, 32])
    assert answer["compile_s"] is None and "cores" in answer["device"] and answer["driver"] is None
    assert answer["parameters"] == sum(p.numel() for p in speed_process._load(job.weights, CPU).model.parameters())


def test_end_to_end_reads_the_shards_and_takes_the_split_again_and_again(job, chips):
    answer = measure(replace(job, kind="end-to-end", data=str(chips)))
    assert (answer["batch"], answer["pixels"]) == (4, 1024) and min(answer["rates"]) > 0
    assert measure(replace(job, data=str(chips)))["chip"] == [2, 32, 32]  # the model figure, on the same chips
    with pytest.raises(InputError):
        measure(replace(job, kind="end-to-end", data=str(chips), split="elsewhere"))


def test_a_scene_counts_tiles_but_its_ground_only_once(job, tmp_path):
    bands = subject.synthetic_preprocess(2).bands
    scene = subject.synthetic_scene(bands, tmp_path / "scene.tif", 96)
    answer = measure(replace(job, kind="scene", data=str(scene), reference="", timed=(1, 20.0)))
    assert answer["chips"] == 25 and answer["latencies"] == []  # 32 px tiles every 16 px over 96 px
    assert answer["pixels"] == pytest.approx(96 * 96 / 25)
    assert subject.scene_km2(scene) == pytest.approx(0.96**2, rel=0.002)
    with open_raster(scene) as file:
        assert file.descriptions == ("b1", "b2")


def test_chips_know_their_ground_only_where_they_are_georeferenced(tiny_dataset, chips):
    assert subject.chip_km2(tiny_dataset(), "val") == pytest.approx(1.28**2, rel=0.01)
    assert subject.chip_km2(chips, "train") is None


def test_a_record_holds_the_figures_of_every_row_and_reads_back(tmp_path, capsys):
    out = tmp_path / "record.json"
    request = Request("model", "patch-cnn", arguments=SMALL, size=32, quick=True, threads=1, device="cpu")
    made = bench_speed(request, out)
    assert read_speed_record(out) == made and made.quick and made.weights_sha256 is None
    (row,) = made.rows
    assert isinstance(row, Speed) and (row.kind, row.name, row.processes, row.batch) == ("model", "fp32", 1, 2)
    assert row.reference_ratio.low <= row.reference_ratio.median <= row.reference_ratio.high
    assert row.mpx_per_s == pytest.approx(row.chips_per_s * 32 * 32 / 1e6)
    assert row.latency.p50_ms <= row.latency.p90_ms <= row.latency.p99_ms and row.gflops_per_chip > 0
    assert row.torch == torch.__version__ and row.threads == 1 and row.km2_per_s is None
    assert "measures nothing" in capsys.readouterr().out
    raw = json.loads(out.read_text())
    for path, value in ((("rows", 0, "chips_per_s"), -1.0), (("rows", 0, "surprise"), 1), (("kind",), "loader"),
                        (("arguments",), {"width": float("inf")})):  # fmt: skip
        broken = json.loads(json.dumps(raw))
        place = broken
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        out.write_text(json.dumps(broken))
        with pytest.raises(FormatError, match=str(path[-1])):
            read_speed_record(out)


def test_what_cannot_be_measured_is_said_in_one_line(tmp_path, weights, tiny_dataset):
    for wrong, error, words in (
        (Request("model", "patch-cmn"), ConfigError, "did you mean patch-cnn"),
        (Request("model", "otsu"), ConfigError, "trivial row"),
        (Request("model", "unet", precisions=("fp8",)), InputError, "fp8"),
        (Request("model", "patch-cnn", arguments={"widht": 4}), ConfigError, "width"),
        (Request("scene", "unet", dataset=tmp_path), InputError, "--scene"),
        (Request("model", str(tmp_path)), WeightsError, "config.json"),
        (Request("end-to-end", str(weights)), InputError, "--dataset"),
        (Request("model", str(weights), arguments={"width": 4}), InputError, "--arg"),
        (Request("scene", "patch-cnn", scene=tmp_path / "none.tif", arguments=SMALL), InputError, "none.tif"),
        (Request("model", "unet", dataset=tiny_dataset(kind="classification", shape=(2, 16, 16))), InputError, "unet"),
    ):
        with pytest.raises(error, match=words):
            bench_speed(replace(wrong, quick=True, device="cpu"))
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match="GPU"):
            bench_speed(Request("model", "patch-cnn", quick=True, device="cuda"))


def test_a_registered_model_is_made_for_the_bands_and_classes_of_a_given_data_set(tiny_dataset, tmp_path, job):
    folder = tiny_dataset(kind="classification", classes=4, shape=(3, 16, 16))
    found = subject.find_subject("patch-cnn", tmp_path, channels=2, arguments=SMALL, data=folder)
    assert found.pretrained.spec.in_channels == {"image": 3} and found.pretrained.spec.out_channels == 4
    own = replace(job, kind="end-to-end", weights=str(found.folder), reference="", data=str(folder), split="val")
    assert measure(own)["chip"] == [3, 16, 16]


def test_a_compiler_that_fails_leaves_its_row_out_and_the_others_stand(tmp_path, job, monkeypatch):
    answers = iter([{"not_compiled": "torch.compile fails here (no g++)"}])
    plain = measure(job)
    monkeypatch.setattr(
        model_bench, "_in_fresh_process", lambda one, room, cold: next(answers) if one.compiled else plain
    )
    request = Request("model", "patch-cnn", arguments=SMALL, size=32, threads=1, device="cpu", precisions=("fp32",))
    made = bench_speed(replace(request, repeats=2))
    assert [row.name for row in made.rows] == ["fp32"] and made.rows[0].processes == 2
    assert "no g++" in made.left_out["fp32 compiled"]


def test_a_process_answers_with_what_went_wrong_in_words(job, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["speed_process", str(tmp_path / "job.json"), str(tmp_path / "answer.json")])
    (tmp_path / "job.json").write_text(json.dumps(asdict(replace(job, weights=str(tmp_path / "none")))))
    speed_process.main()
    answer = json.loads((tmp_path / "answer.json").read_text())
    assert "no such folder" in answer["error"] and "none" in answer["where"]


def test_a_process_that_dies_is_an_error_and_no_record(job, tmp_path):
    with pytest.raises(TidemarkError, match="ended with 1"):
        model_bench._in_fresh_process(replace(job, threads=-1), tmp_path, True)


def test_a_precision_counts_at_99_percent_of_its_fp32_headline_or_within_a_tenth_of_a_db():
    gate = Gate(metric="iou", dataset="d 1.0.0", split="val", fp32=0.8, value=0.793)
    assert gate.passed and not gate.model_copy(update={"value": 0.791}).passed
    psnr = Gate(metric="psnr", dataset="d 1.0.0", split="val", fp32=30.0, value=29.95)
    assert psnr.passed and not psnr.model_copy(update={"value": 29.8}).passed


def test_trained_weights_are_gated_on_a_labelled_split(job, chips, tmp_path):
    folder = subject.random_weights("unet", {}, subject.synthetic_preprocess(2), tmp_path)
    trained = replace(job, weights=str(folder), reference="", data=str(chips), headline=True, timed=(1, 1.0))
    plain, bf16 = measure(trained), measure(replace(trained, precision="bf16"))
    assert plain["headline"]["metric"] == "iou" and 0 <= plain["headline"]["value"] <= 1
    gate = model_bench._gate(bf16["headline"], plain["headline"], "train")
    assert (gate.fp32, gate.value) == (plain["headline"]["value"], bf16["headline"]["value"])
    assert plain["gflops"] > 0 and "gflops" not in bf16


def test_warm_up_needs_both_and_spans_end_at_either():
    calls = []

    def work() -> int:
        calls.append(time.perf_counter())
        time.sleep(0.002)
        return 3

    warm_up(work, CPU, Span(2, 0.02))
    assert len(calls) >= 2 and calls[-1] - calls[0] > 0.01
    calls.clear()
    rates = rates_in_turns([work, work], CPU, Span(6, 60.0), turns=3)
    assert len(calls) == 12 and all(0 < rate < 3 / 0.002 for rate in rates)
    calls.clear()
    rates_in_turns([work], CPU, Span(10**6, 0.01), turns=1)
    assert 1 <= len(calls) <= 6
    assert all(second >= 0.002 for second in latencies(work, CPU, Span(3, 60.0)))


def test_percentiles_are_values_that_were_measured():
    assert percentiles_ms([i / 1000 for i in range(1, 101)]) == (50, 90, 99)
    assert percentiles_ms([0.5]) == (500, 500, 500)


def test_memory_grows_by_what_was_held_at_the_peak():
    memory = PeakMemory(CPU)
    block = np.ones(64 << 20, np.uint8)
    del block
    grown = memory.bytes()
    assert grown is None or 56 << 20 < grown < 256 << 20


def test_flops_count_a_multiply_add_as_two():
    layer = torch.nn.Conv2d(2, 4, 3, bias=False)
    forward = layer.forward
    layer.forward = lambda image: forward(image)
    assert gflops(layer, {"image": torch.zeros(1, 2, 10, 10)}) == pytest.approx(2 * 2 * 9 * 4 * 64 / 1e9)


def test_flops_count_attention_on_every_device():
    layer = torch.nn.Module()
    layer.forward = torch.nn.functional.scaled_dot_product_attention
    inputs = dict.fromkeys(("query", "key", "value"), torch.zeros(1, 2, 32, 8))
    assert gflops(layer, inputs) == pytest.approx(2 * 2 * 2 * 32 * 32 * 8 / 1e9)


def test_fp32_is_without_tf32_and_bf16_computes_in_bfloat16():
    layer, before = torch.nn.Conv2d(1, 1, 3), torch.backends.cudnn.allow_tf32
    with precision("fp32", CPU):
        assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
        assert layer(torch.zeros(1, 1, 8, 8)).dtype == torch.float32
    with precision("bf16", CPU):
        assert layer(torch.zeros(1, 1, 8, 8)).dtype == torch.bfloat16
        with precision("fp32", CPU):
            assert layer(torch.zeros(1, 1, 8, 8)).dtype == torch.float32
    assert torch.backends.cudnn.allow_tf32 == before
