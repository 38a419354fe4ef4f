"""A saved plan gives the data set that planning anew gives, and only while its sources are what they were."""

import hashlib
import json
import os
from pathlib import Path

import pytest
from tidemark.datasets import build as engine
from tidemark.datasets import plan as planning
from tidemark.datasets import products
from tidemark.datasets.command import build_command
from tidemark.datasets.plan_file import check_stamps, read_plan, save_plan
from tidemark.datasets.simulate.products import simulate_product
from tidemark.errors import FormatError, InputError

NAME = "polar-ice"


@pytest.fixture(autouse=True)
def one_shard_a_scene(monkeypatch):
    monkeypatch.setattr(planning, "OWN_SHARD_BYTES", 0)
    products._digest.cache_clear()


@pytest.fixture
def source(tmp_path):
    simulate_product(NAME, tmp_path / "source", seed=5, scenes=3, size=320)
    return tmp_path / "source"


def run(out, source=None, plan=None, save=None, name=NAME, parameters=None, **options):
    options = {"codec": "blosc", "workers": 1, "shard": None, "strict": False, "merge": False} | options
    build_command(name, source, out, parameters or {}, None, options, plan, save)


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_parts_that_read_a_saved_plan_give_the_bytes_of_one_process_and_read_no_source_for_its_digest(
    source, tmp_path, monkeypatch
):
    run(tmp_path / "whole", source)
    run(tmp_path / "parts", source, save=tmp_path / "plan.json")
    assert not (tmp_path / "parts").exists()
    monkeypatch.setattr(products, "sha256_file", lambda path: pytest.fail(f"{path} was read"))
    for shard in ("1/2", "0/2"):
        run(tmp_path / "parts", plan=tmp_path / "plan.json", shard=shard)
    run(tmp_path / "parts", plan=tmp_path / "plan.json", merge=True)
    assert digests(tmp_path / "parts") == digests(tmp_path / "whole")
    run(tmp_path / "whole", plan=tmp_path / "plan.json")  # the published data set is the planned one


def test_a_source_that_changed_after_the_plan_was_saved_is_refused_by_name(source, tmp_path):
    run(tmp_path / "out", source, save=tmp_path / "plan.json")
    path = next(source.rglob("*.tif"))
    found = path.stat()
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 1))
    with pytest.raises(InputError, match="changed after the plan was saved") as caught:
        run(tmp_path / "out", plan=tmp_path / "plan.json")
    assert path.name in str(caught.value)
    assert not list((tmp_path / "out").rglob("dataset.json"))


def test_a_source_replaced_by_one_of_the_same_size_and_time_is_noticed(source, tmp_path):
    run(tmp_path / "out", source, save=tmp_path / "plan.json")
    (job, *_) = (s for shard in read_plan(tmp_path / "plan.json", NAME, "1.0.0").shards for s in shard.scenes)
    check_stamps(job)
    path = source / next(iter(job.payload["stamps"]))
    found = path.stat()
    path.with_name("new").write_bytes(path.read_bytes())
    path.with_name("new").replace(path)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    with pytest.raises(InputError, match="changed"):
        check_stamps(job)


def test_a_file_of_several_scenes_is_read_once_while_planning(tmp_path, monkeypatch):
    simulate_product("alos-dswe", tmp_path, seed=5, scenes=3, size=160)
    read = []
    monkeypatch.setattr(products, "sha256_file", lambda path: read.append(path) or "0" * 64)
    plan = engine.plan_data_set("alos-dswe", tmp_path)
    assert sum(len(scene.sources) for scene in plan.scenes) > len(read) == len(set(read))


def test_what_is_no_plan_of_this_builder_is_refused(source, tmp_path):
    plan, out = tmp_path / "plan.json", tmp_path / "out"
    with pytest.raises(InputError, match="no plan to read"):
        run(out, plan=plan)
    run(out, source, save=plan)
    with pytest.raises(InputError, match="the plan names its source"):
        run(out, source, plan=plan)
    with pytest.raises(FormatError, match="expected a plan with .*tibet-water"):
        run(out, plan=plan, name="tibet-water")
    raw = json.loads(plan.read_text())
    del raw["plan"]["shards"][0]["split"]
    plan.write_text(json.dumps(raw))
    with pytest.raises(FormatError, match="/shards/0/split"):
        run(out, plan=plan)
    plan.write_text("{")
    with pytest.raises(FormatError, match="not valid JSON"):
        run(out, plan=plan)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda plan: plan["shards"][0].update(key="../../../escaped"), "its key is no name of a file"),
        (lambda plan: plan["shards"][0].update(key=".hidden"), "its key is no name of a file"),
        (lambda plan: plan["shards"][0].update(split="../..", scenes=[]), "its scenes are not those of split"),
        (lambda plan: plan["shards"][0]["scenes"][0].update(id="other"), "its scenes are not those of split"),
        (lambda plan: plan["shards"][0]["scenes"][0].update(split="other"), "its scenes are not those of split"),
        (lambda plan: plan["shards"][0]["scenes"][0].update(payload={}), "lacks its source or stamps"),
        (lambda plan: plan["shards"][0]["scenes"][0]["payload"].update(stamps=[1]), "lacks its source or stamps"),
        (lambda plan: plan["shards"][0]["scenes"][0]["payload"].update(more=float("nan")), "not a plan .*nan"),
        (lambda plan: plan["scenes"].append(plan["scenes"][0]), "scene ids repeat"),
    ],
)
def test_a_plan_that_would_build_something_else_is_refused(source, tmp_path, change, message):
    path = tmp_path / "plan.json"
    run(tmp_path / "out", source, save=path)
    raw = json.loads(path.read_text())
    change(raw["plan"])
    path.write_text(json.dumps(raw))
    with pytest.raises(FormatError, match=f"plan.json: .*{message}"):
        read_plan(path, NAME, "1.0.0")


def test_a_plan_of_files_that_are_recorded_as_a_group_is_not_saved(source, tmp_path):
    plan = engine.plan_data_set(NAME, source)
    scene = plan.scenes[0].model_copy(
        update={"sources": (plan.scenes[0].sources[0].model_copy(update={"path": "x/*.h5"}),)}
    )
    grouped = planning.Plan(plan.header, (scene, *plan.scenes[1:]), plan.shards)
    with pytest.raises(InputError, match=r"x/\*.h5.*cannot be saved"):
        save_plan(grouped, NAME, "1.0.0", tmp_path / "plan.json")
    assert not (tmp_path / "plan.json").exists()
