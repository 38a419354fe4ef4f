"""Tiny data sets, made by the real writer, guard and build engine (only the child processes are left out)."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
from hypothesis import settings
from tidemark.datasets import build as engine
from tidemark.datasets.plan import ChipRef, Plan, SceneJob, ShardJob
from tidemark.datasets.spec import Array, Band, BuilderInfo, ClassDef, Header, Scene, Task
from tidemark.datasets.worker import make_shard

# The same examples at every run, so that a change is judged by what it changes; HYPOTHESIS_PROFILE=explore draws anew.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

BUILDER = "tidemark_test_builder"


def pytest_addoption(parser):
    parser.addoption("--live", action="store_true", help="Run the tests that ask the real archives.")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--live"):
        for item in items:
            if item.get_closest_marker("live"):
                item.add_marker(pytest.mark.skip(reason="asks the real archives; --live runs it"))


COLORS = ("#d9cfa6", "#1f6fb4", "#e8eef2", "#7b4fa3")


def water_chip(rng: np.random.Generator, header: Header) -> dict[str, np.ndarray]:
    """A chip that can be learned: random values, the first band lower where the label is 1; a few pixels ignored."""
    arrays = {}
    image = header.arrays[0]
    values = rng.integers(60, 120, image.shape)
    label = header.label_array
    if label.role == "mask":
        mask = (rng.random(label.shape) < 0.3).astype(np.uint8)
        values[0] -= 40 * mask
        mask[0, :2] = 255
        arrays[label.name] = mask
    else:
        number = rng.integers(0, len(header.task.classes))
        values[0] -= np.asarray(20 * number, values.dtype)
        arrays[label.name] = np.array(number, np.uint8)
    contexts = {array.name: values.astype(image.dtype) for array in header.arrays if array.role == "context"}
    return {image.name: values.astype(image.dtype), **contexts, **arrays}


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory) -> Callable:
    """Factory: ``tiny_dataset(codec="blosc", ...)`` returns the folder of a built data set.

    Two scenes per split, each with a shard of its own, and ``chips`` chips in each. Keyword arguments: ``name``,
    ``version``, ``codec``, ``kind`` ("segmentation", "classification", or "regression" with ``arrays``), ``chips`` (a
    number, or one per split), ``shape`` and ``dtype`` of the image, ``bands`` (of the manifest), ``classes`` (a
    number), ``arrays`` (all that are declared, instead of image and label), ``contexts`` and ``valid``
    (further arrays like the image; a mask that ``make`` fills), ``placed`` (with CRS, bounds and
    transforms), ``grids`` (of arrays with one of their own: name, pixel in metres and how far north-west of the chip it
    begins) and ``make(rng, header) -> arrays``, by default ``water_chip``. Chips of less than 64 KiB are stored
    contiguously whatever the codec. Data sets are shared between tests: copy one before breaking it.
    """
    done: dict[str, object] = {}

    def make_data_set(
        *,
        name: str = "tiny",
        version: str = "1.0.0",
        codec: str = "blosc",
        kind: str = "segmentation",
        chips: int | dict[str, int] = 5,
        shape: tuple[int, int, int] = (2, 128, 128),
        dtype: str = "uint16",
        bands: tuple[Band, ...] | None = None,
        classes: int = 2,
        arrays: tuple[Array, ...] | None = None,
        placed: bool = True,
        contexts: tuple[str, ...] = (),
        valid: bool = False,
        grids: tuple[tuple[str, float, float], ...] = (),
        make: Callable[[np.random.Generator, Header], dict[str, np.ndarray]] = water_chip,
    ):
        key = repr((name, version, codec, kind, chips, shape, dtype, bands, classes, arrays))
        key += repr((placed, contexts, valid, grids, make))
        if key in done:
            return done[key]
        if bands is None:
            bands = tuple(Band(name=f"b{i}", sensor="test", scale=0.5, offset=1.0, nodata=0) for i in range(shape[0]))
        size = shape[1:] if kind == "segmentation" else ()
        role = "mask" if kind == "segmentation" else "label"
        header = Header(
            name=name,
            version=version,
            title="Tiny",
            description="Made by a test.",
            licence="CC0-1.0",
            provenance="random numbers",
            known_label_defects="none",
            simulated=True,
            task=Task(
                kind=kind,
                classes=tuple(ClassDef(id=i, name=f"class {i}", color=COLORS[i]) for i in range(classes))
                if kind != "regression"
                else (),
            ),
            arrays=arrays
            or (
                Array(name="image", dtype=dtype, shape=shape, role="image", bands=bands),
                *(Array(name=n, dtype=dtype, shape=shape, role="context", bands=bands) for n in contexts),
                *([Array(name="valid", dtype="uint8", shape=shape[1:], role="valid")] if valid else []),
                Array(name=role, dtype="uint8", shape=size, role=role),
            ),
            builder=BuilderInfo(name="tiny", version="1.0.0"),
        )
        counts = chips if isinstance(chips, dict) else dict.fromkeys(("train", "val", "test"), chips)
        scenes, shards = [], []
        for split, count in counts.items():
            for number in range(2):
                scene = f"{split}-{number}"
                crs, bounds = ("EPSG:32622", (-51.0, 64.0, -50.0, 65.0)) if placed else (None, None)
                scenes.append(Scene(id=scene, split=split, crs=crs, bounds=bounds))
                job = SceneJob(scene, split, {"chips": count, "placed": placed, "seed": len(scenes), "grids": grids})
                shards.append(ShardJob(scene, split, (job,)))
        plan = Plan(header, tuple(scenes), tuple(shards))
        builder = ModuleType(BUILDER)
        builder.index = _index
        builder.read = lambda job, refs: (
            make(np.random.default_rng([job.payload["seed"], i]), header) for i in range(len(refs))
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, BUILDER, builder)
            patch.setattr(engine, "run_task", make_shard)
            done[key] = engine.build(plan, BUILDER, tmp_path_factory.mktemp("data"), codec=codec)
        return done[key]

    return make_data_set


def _index(job: SceneJob) -> list[ChipRef]:
    refs = []
    for i in range(job.payload["chips"]):
        transform = (10.0, 0.0, 500000.0 + 1280 * i, 0.0, -10.0, 7200000.0) if job.payload["placed"] else None
        own = {n: (p, 0.0, transform[2] - d, 0.0, -p, transform[5] + d) for n, p, d in job.payload["grids"]}
        refs.append(ChipRef(f"{job.id}-{i:03d}", (0, 128 * i, 128, 128), transform, own))
    return refs
