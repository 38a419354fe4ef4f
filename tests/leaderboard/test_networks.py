"""What the networks alone cost: records of ``tidemark bench model`` on the page."""

from __future__ import annotations

import json

import pytest
from tidemark.benchmark.record_parts import Harness, Ratio
from tidemark.benchmark.records import write_result
from tidemark.benchmark.speed_record import SpeedRecord, SpeedRow, Timed, write_speed_record
from tidemark.errors import FormatError, InputError
from tidemark.leaderboard.networks import by_place, load_networks
from tidemark.leaderboard.site import build_site


def speed_record(model, ratio, arguments=None, chip=(4, 256, 256), quick=False, kind="model", device="Toy CPU", **more):
    row = SpeedRow(
        kind=kind, chips_per_s=3.0, mpx_per_s=0.2, chips_per_s_range=(2.0, 4.0), device=device,
        threads=1, precision="fp32", batch=2, parameters=900_614, gflops_per_chip=6.1, samples=(3.0,),
        reference_ratio=Ratio(median=ratio, low=0.9 * ratio, high=1.1 * ratio),
    )  # fmt: skip
    return SpeedRecord(
        kind=kind, quick=quick, model=model, arguments=arguments or {}, weights_sha256=None, data="synthetic",
        chip=chip, timing=Timed(warm_up=(10, 2.0), timed=(100, 10.0), turns=5), rows=(row,),
        harness=Harness(version="0.1.0"), **more,
    )  # fmt: skip


@pytest.fixture
def speeds(tmp_path):
    def write(*records):
        (tmp_path / "speed").mkdir(exist_ok=True)
        for number, record in enumerate(records):
            write_speed_record(tmp_path / "speed" / f"{number}.json", record)
        return tmp_path / "speed"

    return write


def test_networks_are_listed_by_what_they_may_be_compared_within_fastest_first(speeds):
    found = load_networks(speeds(
        speed_record("hrnet", 2.0), speed_record("gmnet", 3.0), speed_record("patch-cnn", 900.0, chip=(2, 64, 64)),
        speed_record("unet", 5.0, {"encoder": "resnet18", "decoder_channels": [64, 32]}),
    ))  # fmt: skip
    assert [n.label for n in found] == ["patch-cnn", "unet, decoder_channels 64/32, encoder resnet18", "gmnet", "hrnet"]
    assert len({n.place for n in found}) == 2 and "4 bands of 256 × 256 pixels" in found[1].place


def test_reflectance_is_never_set_beside_class_maps(speeds):
    of_pairs = speed_record("srunet", 2.0, chip=(6, 86, 86), target=(6, 256, 256))
    (one, _), (two, members) = by_place(load_networks(speeds(speed_record("hrnet", 3.0, chip=(6, 86, 86)), of_pairs)))
    assert two == f"{one} and the panchromatic one to 6 of 256 × 256" and members[0].record == of_pairs


@pytest.mark.parametrize("wrong", [{"quick": True}, {"kind": "end-to-end"}])
def test_what_measures_nothing_or_something_else_is_refused(speeds, wrong):
    with pytest.raises(FormatError, match="quick record|bench end-to-end"):
        load_networks(speeds(speed_record("gmnet", 1.0, **wrong)))
    with pytest.raises(InputError, match="no folder of speed records"):
        load_networks(speeds().parent / "absent")


def test_the_page_sets_scores_against_the_networks_of_their_rows(speeds, records, tmp_path):
    folder = speeds(
        speed_record("unet", 8.0, {"encoder": "resnet18"}), speed_record("gmnet", 3.0), speed_record("hrnet", 2.0)
    )
    for name, arguments in (("unet", {"encoder": "resnet18", "encoder_weights": None}), ("gmnet", {})):
        result = records.make(model=name, label=name, arguments=arguments, name="lakes", title="Lakes")
        write_result(tmp_path / "board" / name / "result.json", result)
    page = build_site(tmp_path / "board", tmp_path / "site", folder)
    html = page.read_text()
    assert html.count('class="pareto panel"') == 1 and "against throughput of the network alone" in html
    assert 'id="networks"' in html and "hrnet" in html and "3.00 × the reference U-Net" in html
    listed = json.loads(page.with_name("leaderboard.json").read_text())["networks"]
    assert [n["model"] for n in listed] == ["unet", "gmnet", "hrnet"]
    assert 'id="networks"' not in build_site(tmp_path / "board", tmp_path / "without").read_text()
