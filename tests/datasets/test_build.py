"""The build engine under stress: it ends with the same bytes, whatever happened on the way."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image
from tidemark.datasets import build as engine
from tidemark.datasets.build import build, builder_module, list_builders, plan_data_set
from tidemark.datasets.journal import lock
from tidemark.datasets.spec import Codec, load_manifest
from tidemark.datasets.verify import verify
from tidemark.errors import BusyError, InputError, PartialResultError, SceneError, StorageError

BUILDER = builder_module("ombria")
SHIM = Path(__file__).with_name("disk_fault.c")


@pytest.fixture(scope="session")
def source(tmp_path_factory) -> Path:
    """A folder like OMBRIA's with a few smooth chips in four scenes."""
    folder, rng = tmp_path_factory.mktemp("source") / "OMBRIA", np.random.default_rng(0)
    chips = [("OmbriaS1/train", f"S1_{{}}_{i:04d}", "S1_mask_") for i in (1, 2, 3, 350)]
    names = [(f"{d}/{k.upper()}/S1_{k}_{s[-4:]}.png") for d, s, _ in chips for k in ("before", "after", "mask")]
    for event, n in (("TIMOR", 2), ("GUYANA", 1)):
        for i in range(1, n + 1):
            names += [f"2021/{event}/Sentinel1/{k.upper()}/im{k}_{i}.png" for k in ("before", "after")]
            names.append(f"2021/{event}/Sentinel1/MASK/gt_{i}.png")
    for name in names:
        coarse = rng.integers(0, 256, (8, 8)).astype(np.uint8)
        pixels = np.kron(coarse, np.ones((32, 32), np.uint8))
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.where(pixels > 127, 255, 0).astype(np.uint8) if "/MASK/" in name else pixels).save(
            folder / name
        )
    return folder


def make(source: Path, out: Path, **options) -> Path:
    return build(plan_data_set("ombria", source, unverified_source=True), BUILDER, out, **options)


def digests(folder: Path) -> dict[str, str]:
    files = (p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="session")
def reference(source, tmp_path_factory) -> dict[str, str]:
    """Digests of every file of an undisturbed build."""
    return digests(make(source, tmp_path_factory.mktemp("reference")))


def command(source: Path, out: Path, *more: str) -> list[str]:
    common = ["build", "ombria", "--source", str(source), "--out", str(out), "--unverified-source", *more]
    return [sys.executable, "-P", "-m", "tidemark", *common]


def test_workers_do_not_change_a_byte(source, reference, tmp_path):
    assert digests(make(source, tmp_path, workers=3)) == reference


def test_a_process_pool_gives_the_same_bytes(source, reference, tmp_path):
    with ProcessPoolExecutor(2) as pool:
        assert digests(make(source, tmp_path, executor=pool)) == reference


def test_the_codec_changes_the_files_but_not_the_content(source, tmp_path):
    manifests = [load_manifest(make(source, tmp_path / codec, codec=codec)) for codec in get_args(Codec)]
    assert len({m.content_sha256 for m in manifests}) == 1
    assert len({m.shards[0].sha256 for m in manifests}) == 4
    assert len({m.statistics for m in manifests}) == 1


def test_a_changed_pixel_changes_the_content(source, reference, tmp_path):
    changed = tmp_path / "OMBRIA"
    shutil.copytree(source, changed)
    name = changed / "2021/GUYANA/Sentinel1/AFTER/imafter_1.png"
    pixels = np.asarray(Image.open(name)).copy()
    pixels[3, 3] ^= 1
    Image.fromarray(pixels).save(name)
    found = digests(make(changed, tmp_path / "out"))
    assert {name for name in reference if found[name] != reference[name]} >= {"test/guyana.h5", "dataset.json"}
    assert found["test/timor.h5"] == reference["test/timor.h5"]


def test_parts_of_a_job_array_are_adopted(source, reference, tmp_path, monkeypatch):
    for part in ("0/2", "1/2"):
        folder = make(source, tmp_path, shard=part)
        assert not (folder / "dataset.json").exists()
    monkeypatch.setattr(subprocess, "Popen", None)  # whatever is made again would fail
    assert digests(make(source, tmp_path)) == reference


def test_a_build_killed_before_its_manifest_rebuilds_no_shard(source, reference, tmp_path, monkeypatch):
    def dies(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(engine, "assemble", dies)
        with pytest.raises(KeyboardInterrupt):
            make(source, tmp_path)
    monkeypatch.setattr(subprocess, "Popen", None)
    assert digests(make(source, tmp_path)) == reference


def test_a_finished_build_is_left_alone(source, tmp_path, monkeypatch):
    folder = make(source, tmp_path)
    monkeypatch.setattr(subprocess, "Popen", None)
    assert make(source, tmp_path) == folder and not (folder / ".build").exists()


def test_a_finished_build_needs_no_place_to_write(source, tmp_path, monkeypatch):
    folder = make(source, tmp_path)
    monkeypatch.setattr(engine, "check_writable", lambda folder: pytest.fail("two that only look would collide"))
    assert make(source, tmp_path, shard="0/2") == make(source, tmp_path) == folder


def test_a_builder_whose_place_another_one_has_just_tidied_says_so(tmp_path):
    with pytest.raises(BusyError, match="another builder has just ended here; run it again"):
        lock(tmp_path, None).__enter__()


def test_shards_of_an_abandoned_build_do_not_stay_beside_the_published_ones(source, reference, tmp_path):
    folder = tmp_path / "ombria" / "1.0.0"
    make(source, tmp_path, shard="0/1")
    for name in ("train/other.h5", "train/other.idx", "gone/more.h5", "own/notes.h5", "train/notes.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    (folder / ".build" / "gone.more.json").write_text("{}")
    left = {name for name in digests(make(source, tmp_path)) if name not in reference}
    assert left == {"own/notes.h5", "train/notes.txt"}


def test_parameters_that_json_has_no_form_for_do_not_make_another_data_set(source, tmp_path):
    plan = plan_data_set("ombria", source, unverified_source=True)
    builder = plan.header.builder.model_copy(update={"parameters": {"widths": (1, 2)}})
    plan = replace(plan, header=plan.header.model_copy(update={"builder": builder}))
    assert build(plan, BUILDER, tmp_path) == build(plan, BUILDER, tmp_path)


def test_a_published_version_never_changes(source, tmp_path):
    before = digests(make(source, tmp_path))
    with pytest.raises(InputError, match="published versions never change"):
        make(source, tmp_path, codec="gzip")
    assert digests(tmp_path / "ombria" / "1.0.0") == before


def kill_and_finish(source: Path, out: Path, after_s: float) -> dict[str, str]:
    child = subprocess.Popen(command(source, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(after_s)
    child.send_signal(signal.SIGKILL)
    child.wait()
    done = subprocess.run(command(source, out), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return digests(out / "ombria" / "1.0.0")


@pytest.mark.parametrize("after_s", [0.8, 1.7])
def test_a_killed_build_resumes_to_the_same_bytes(source, reference, tmp_path, after_s):
    assert kill_and_finish(source, tmp_path, after_s) == reference


@pytest.mark.slow
def test_twenty_kills_at_random_moments_leave_no_trace(source, reference, tmp_path):
    started = time.monotonic()
    subprocess.run(command(source, tmp_path / "timed"), check=True, capture_output=True)
    duration, moments = time.monotonic() - started, random.Random(0)
    for i in range(20):
        assert kill_and_finish(source, tmp_path / str(i), moments.uniform(0.2, duration)) == reference


def test_the_second_builder_refuses_and_names_the_first(source, tmp_path):
    folder = tmp_path / "ombria" / "1.0.0" / ".build"
    folder.mkdir(parents=True)
    holding = subprocess.Popen(
        [sys.executable, "-c", "import fcntl,os,sys,time; d=os.open(sys.argv[1],os.O_RDWR|os.O_CREAT);"
         "fcntl.flock(d,fcntl.LOCK_EX); os.write(d,str(os.getpid()).encode()); print(1,flush=True); time.sleep(60)",
         str(folder / "lock")], stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        holding.stdout.readline()
        with pytest.raises(BusyError, match=str(holding.pid)):
            make(source, tmp_path)
    finally:
        holding.kill()
        holding.wait()


def test_an_output_that_cannot_be_written_fails_before_any_work(source, tmp_path, monkeypatch):
    (tmp_path / "ombria").write_text("a file where a folder is needed")
    monkeypatch.setattr(subprocess, "Popen", None)
    with pytest.raises(StorageError, match="cannot write"):
        make(source, tmp_path)


def own_builder(tmp_path: Path, monkeypatch, body: str) -> str:
    """A builder module of the test's own that behaves as OMBRIA's, but for ``body``."""
    (tmp_path / "own_builder.py").write_text(
        "import os, pathlib\nfrom tidemark.datasets.builders.ombria import *\n"
        "from tidemark.datasets.builders import ombria\nfrom tidemark.errors import SceneError\n"
        + textwrap.dedent(body)
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "own_builder"


def test_a_worker_that_dies_once_is_tried_again(source, reference, tmp_path, monkeypatch):
    own = own_builder(
        tmp_path,
        monkeypatch,
        f"""
        def index(job):
            mark = pathlib.Path({str(tmp_path)!r}) / ("died-" + job.id)
            if job.id == "timor" and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), 9)
            return ombria.index(job)
        """,
    )
    plan = plan_data_set("ombria", source, unverified_source=True)
    assert digests(build(plan, own, tmp_path / "out")) == reference


def test_a_worker_that_always_dies_leaves_the_other_shards(source, reference, tmp_path, monkeypatch):
    own = own_builder(
        tmp_path,
        monkeypatch,
        "def index(job): os.kill(os.getpid(), 9) if job.id == 'timor' else None; return ombria.index(job)",
    )
    plan = plan_data_set("ombria", source, unverified_source=True)
    with pytest.raises(PartialResultError, match="test/timor.*signal 9"):
        build(plan, own, tmp_path / "out")
    folder = tmp_path / "out" / "ombria" / "1.0.0"
    assert not (folder / "dataset.json").exists()
    assert digests(folder)["test/guyana.h5"] == reference["test/guyana.h5"]


def test_a_dying_pool_costs_only_time(source, reference, tmp_path, monkeypatch):
    calls = []

    class Broken(ProcessPoolExecutor):
        def submit(self, task, request):
            calls.append(request["key"])
            return super().submit(os._exit if len(calls) == 2 else task, 9 if len(calls) == 2 else request)

    with Broken(1) as pool:
        assert digests(make(source, tmp_path, executor=pool)) == reference


def broken_source(source: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "OMBRIA"
    shutil.copytree(source, folder)
    (folder / "2021/GUYANA/Sentinel1/MASK/gt_1.png").write_bytes(b"\x89PNG\r\n\x1a\nnot really")
    return folder


def test_an_unusable_scene_is_left_out_and_named(source, tmp_path):
    with pytest.raises(PartialResultError, match="guyana.*gt_1.png") as caught:
        make(broken_source(source, tmp_path), tmp_path / "out")
    assert caught.value.exit_code == 3
    manifest = load_manifest(tmp_path / "out" / "ombria" / "1.0.0")
    assert [s.id for s in manifest.skipped] == ["guyana"]
    assert not verify(tmp_path / "out" / "ombria" / "1.0.0", deep=True).problems


def test_a_finished_build_ends_as_the_first_run_did(source, tmp_path):
    broken, out = broken_source(source, tmp_path), tmp_path / "out"
    for strict, error in ((False, PartialResultError), (False, PartialResultError), (True, SceneError)):
        with pytest.raises(error, match="guyana"):
            make(broken, out, strict=strict)


def test_a_source_that_cannot_be_read_is_told_of_its_scene_and_stops_no_other(source, reference, tmp_path, monkeypatch):
    for what in ("index", "read"):
        body = f"""
        def {what}(job, *more):
            return open(job.payload["source"] + "/gone.png") if job.id == "guyana" else ombria.{what}(job, *more)
        """
        own = own_builder(tmp_path, monkeypatch, body)
        with pytest.raises(PartialResultError, match=r"1 scenes were left out: guyana \(gone.png: cannot be read"):
            build(plan_data_set("ombria", source, unverified_source=True), own, tmp_path / what)
        folder = tmp_path / what / "ombria" / "1.0.0"
        assert digests(folder)["test/timor.h5"] == reference["test/timor.h5"]
        assert str(source) not in (folder / "dataset.json").read_text()


def test_strict_stops_at_an_unusable_scene(source, tmp_path):
    with pytest.raises(SceneError, match="gt_1.png"):
        make(broken_source(source, tmp_path), tmp_path / "out", strict=True)
    assert not (tmp_path / "out" / "ombria" / "1.0.0" / "dataset.json").exists()


def test_another_source_than_the_published_one_is_refused(source, tmp_path):
    with pytest.raises(InputError, match="expected tree sha256"):
        plan_data_set("ombria", source)


def test_an_unknown_builder_is_answered_with_the_known_ones():
    assert {"ombria", "polar-patch"} <= set(list_builders())
    with pytest.raises(InputError, match="ombria"):
        plan_data_set("umbria", Path("."))


@pytest.fixture(scope="session")
def shim(tmp_path_factory) -> Path:
    """The fault shim as a shared library."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("needs a C compiler on Linux")
    library = tmp_path_factory.mktemp("shim") / "fault.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, SHIM, "-ldl"], check=True)
    return library


CASES = [("write", 1), ("write", 4), ("write", 9), ("fsync", 1), ("fsync", 2), ("close", 1), ("close", 2)]


@pytest.mark.parametrize(("call", "at"), CASES)
def test_a_failing_disk_is_named_and_nothing_is_lost(source, reference, tmp_path, shim, call, at):
    published = make(source, tmp_path / "published")
    out = tmp_path / "out"
    fault = {"LD_PRELOAD": str(shim), "FAULT_DIR": str(tmp_path), "FAULT_CALL": call, "FAULT_AT": str(at)}
    done = subprocess.run(command(source, out), env=os.environ | fault, capture_output=True, text=True, timeout=120)
    assert done.returncode in (1, 3) and "Traceback" not in done.stderr
    message = done.stderr.strip().splitlines()[-1]
    assert message.startswith("tidemark: ") and ("disk" in message)
    assert not (out / "ombria" / "1.0.0" / "dataset.json").exists()
    assert digests(published) == reference
    assert digests(make(source, out)) == reference


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="mounts a tiny file system as root")
def test_a_full_disk_is_named(source, tmp_path):
    out = tmp_path / "small"
    out.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", out], capture_output=True).returncode:
        pytest.skip("this system does not allow mounts")
    try:
        done = subprocess.run(command(source, out, "--codec", "none"), capture_output=True, text=True, timeout=120)
        assert done.returncode in (1, 3) and "MB free on the disk" in done.stderr and "Traceback" not in done.stderr
    finally:
        subprocess.run(["umount", out], check=True)


def test_dask_gives_the_same_bytes(source, reference, tmp_path):
    pytest.importorskip("distributed")
    done = subprocess.run(command(source, tmp_path, "--dask", "local"), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert digests(tmp_path / "ombria" / "1.0.0") == reference


def test_the_journal_holds_plain_json_while_a_build_is_under_way(source, tmp_path):
    folder = make(source, tmp_path, shard="0/3")
    entries = [json.loads(p.read_text()) for p in (folder / ".build").glob("*.json")]
    assert entries and all(len(e["hash"]) == 64 and e["chips"] for e in entries)
