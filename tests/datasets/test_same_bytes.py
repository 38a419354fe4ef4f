"""The four systems' data sets have the same bytes however their shards were made: the whole folder is compared."""

from __future__ import annotations

import hashlib
import os
import signal
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from tidemark.datasets import plan as planning
from tidemark.datasets.build import build, builder_module, plan_data_set
from tidemark.datasets.simulate.products import simulate_product
from tidemark.errors import PartialResultError

pytestmark = pytest.mark.slow

SIZES = {"alos-dswe": 520, "tibet-water": 300, "polar-ice": 320, "l8s2": 256}
SCENES = 3


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def made(name, source, out, **options):
    """Digests of the data set, of which bad scenes may be left out, one shard a scene."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "OWN_SHARD_BYTES", 0)
        plan = plan_data_set(name, source)
    assert len(plan.shards) == SCENES
    try:
        build(plan, builder_module(name), out, **options)
    except PartialResultError as error:
        assert "were left out" in str(error)  # a pair under clouds
    (manifest,) = out.rglob("dataset.json")
    return digests(manifest.parent)


@pytest.fixture(scope="module")
def references(tmp_path_factory):
    """Source and digests of a build by one worker, once for every builder that is asked for."""
    root, known = tmp_path_factory.mktemp("references"), {}

    def reference(name):
        if name not in known:
            source = root / f"{name}-source"
            simulate_product(name, source, seed=5, scenes=SCENES, size=SIZES[name])
            known[name] = source, made(name, source, root / name)
        return known[name]

    return reference


@pytest.mark.parametrize("name", list(SIZES))
def test_two_processes_and_two_halves_of_a_job_array_give_the_bytes_of_one_process(references, tmp_path, name):
    source, expected = references(name)
    assert sum(path.endswith(".h5") for path in expected) >= 2
    with ProcessPoolExecutor(2) as pool:
        assert made(name, source, tmp_path / "pool", executor=pool) == expected
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "OWN_SHARD_BYTES", 0)
        plan = plan_data_set(name, source)
    for half in ("1/2", "0/2"):  # whichever comes first
        try:
            build(plan, builder_module(name), tmp_path / "halves", shard=half)
        except PartialResultError as error:
            assert "were left out" in str(error)
    assert not list((tmp_path / "halves").rglob("dataset.json"))
    assert made(name, source, tmp_path / "halves", merge=True) == expected


def test_a_dask_worker_killed_half_way_changes_nothing(references, tmp_path):
    distributed = pytest.importorskip("distributed")
    name = "alos-dswe"
    source, expected = references(name)
    killed = []
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=tmp_path / "dask"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        processes = client.run(os.getpid)

        def kill(done, total, _key):
            busy = [worker for worker, tasks in client.processing().items() if tasks]
            if done < total and busy and not killed:
                killed.append(processes[busy[0]])
                os.kill(killed[0], signal.SIGKILL)

        assert made(name, source, tmp_path / "out", executor=client.get_executor(), progress=kill) == expected
    assert len(killed) == 1
