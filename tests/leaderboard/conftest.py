"""Result records made through the real models, with figures that their integers give."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tidemark.benchmark.records import Result, make_result, write_result
from tidemark.benchmark.scores import Counts, as_metric, estimates, unit_scores
from tidemark.leaderboard.site import build_site

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PNG = (
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\6\0\0\0\x1f\x15\xc4\x89\0\0\0\rIDATx\x9cc\xf8\xcf\xc0\xf0"
    b"\x1f\0\5\0\1\xff\x89\x99=\x1d\0\0\0\0IEND\xaeB`\x82"
)
WATER = ({"id": 0, "name": "dry", "color": "#c8b89a"}, {"id": 1, "name": "water", "color": "#1f77b4"})
ICE = (
    {"id": 0, "name": "water", "color": "#1f77b4"},
    {"id": 1, "name": "ice", "color": "#d8ecf3"},
    {"id": 2, "name": "land", "color": "#8c6d46"},
)


def sha(*parts) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def water_confusion(skill: float, pixels: int, rng: np.random.Generator) -> list[list[int]]:
    """Truth in rows: a share of water between 10 and 30 %, found and not invented with probability ``skill``."""
    wet = int(pixels * rng.uniform(0.1, 0.3))
    hit = int(wet * skill)
    false = int((wet - hit) * rng.uniform(0.6, 1.4))
    return [[pixels - wet - false, false], [wet - hit, hit]]


def patch_confusion(skill: float, patches: int, rng: np.random.Generator) -> list[list[int]]:
    chance = np.full((3, 3), (1 - skill) / 2) + np.eye(3) * (skill - (1 - skill) / 2)
    return [rng.multinomial(patches // 3, row / row.sum()).tolist() for row in chance]


def record(
    *,
    name="ombria",
    version="1.0.0",
    split="test",
    model="unet",
    label=None,
    seed=0,
    skill=0.6,
    units=("ALBANIA", "GUYANA", "TIMOR"),
    simulated=False,
    licence="not stated",
    trained=True,
    task=None,
    speed=None,
    title="OMBRIA: flood extent from Sentinel-1 before and after",
    config="",
    note="",
    draw=0,
    **extra,
) -> Result:
    """One record whose units have a skill around ``skill``."""
    task = task or "binary-segmentation"
    rng = np.random.default_rng([seed or 0, int(skill * 1000), draw])
    binary = task == "binary-segmentation"
    hard = np.random.default_rng(int(sha(name, version, split)[:8], 16)).uniform(-0.15, 0.15, len(units))
    one = water_confusion if binary else patch_confusion
    confusion = np.array(
        [[one(float(np.clip(skill + h + rng.normal(0, 0.02), 0, 1)), 300 if not binary else 65536, rng) for h in hard]]
    )
    classes = extra.pop("classes", WATER if binary else ICE)
    names = [c["name"] for c in classes]
    counts = Counts(confusion)
    scores = unit_scores(task, names, counts)
    return make_result(
        task=task,
        dataset=dict(
            name=name,
            version=version,
            title=title,
            content_sha256=sha(name, version),
            simulated=simulated,
            manifest_sha256=sha(name, version, "files"),
            licence=licence,
            split=split,
        ),
        model=dict(
            name=model,
            arguments=extra.pop("arguments", {}),
            parameters=extra.pop("parameters", 0),
            weights_sha256=sha(model, seed) if trained and not model.endswith("forest") else None,
            trained=trained,
            label=label or model,
        ),
        seed=seed,
        classes=classes,
        metrics={k: as_metric(v).model_dump() for k, v in estimates(task, names, counts).items()},
        units=[
            dict(id=u, confusion=c.tolist(), pixels=int(c.sum()), scores=s)
            for u, c, s in zip(units, confusion[0], scores, strict=True)
        ],
        chips=62,
        speed=speed,
        harness=dict(version="0.1.0", git_commit="0a967ec" + "0" * 33, dirty=False),
        packages=extra.pop("packages", {"python": "3.11.2", "torch": "2.13.0", "numpy": "2.3.1"}),
        command=extra.pop("command", f"tidemark train configs/{name}/{model}.yaml SEED {seed}"),
        device=extra.pop("device", "AMD EPYC 7B13, 2 cores"),
        config=config or f"MODEL:\n  NAME: {model}\n",
        config_hash=extra.pop("config_hash", sha(model, label)[:8]),
        note=note,
        predictions_sha256=sha(model, seed, split, skill, draw),
        **extra,
    )


def speed(chips_per_s: float, device: str = "AMD EPYC 7B13, 2 cores") -> dict:
    return dict(
        chips_per_s=chips_per_s, mpx_per_s=chips_per_s * 0.0655, device=device, threads=2, precision="fp32", batch=16
    )


def save(folder: Path, *records) -> list[Path]:
    """Each record as ``<folder>/<number>/result.json``."""
    paths = []
    for record in records:
        paths.append(folder / record.id[:12] / "result.json")
        write_result(paths[-1], record)
    return paths


def flood(split="test") -> list:
    """A table with three units, three seeds and two device classes."""
    trivial = dict(split=split, seed=None, trained=False)
    return [
        record(model="all-dry", label="All dry", skill=0.0, speed=speed(9000), **trivial),
        record(model="otsu", label="Otsu on AFTER", skill=0.5, speed=speed(1450), **trivial),
        record(model="pixel-forest", label="Pixel forest", skill=0.55, split=split),
        *(
            record(
                model="unet",
                label="U-Net, ResNet-18",
                skill=0.7,
                seed=k,
                speed=speed(38.2),
                split=split,
                parameters=14_330_000,
            )
            for k in range(3)
        ),
    ]


def simulated(units=10, skill=0.8, **more) -> Result:
    """A record of ``units`` simulated scenes under an open licence."""
    return record(
        **{
            "name": "demo-water",
            "simulated": True,
            "licence": "CC0-1.0",
            "title": "Simulated scenes",
            "skill": skill,
            "units": tuple(f"scene-{i:02d}" for i in range(units)),
            **more,
        }
    )


@pytest.fixture(scope="session")
def records() -> SimpleNamespace:
    """What makes and saves records: ``make``, ``flood``, ``simulated``, ``speed``, ``save``, a tiny ``png``, and
    selectors of rows: ``row(table, label)``."""
    return SimpleNamespace(make=record, flood=flood, simulated=simulated, speed=speed, save=save, png=PNG, row=row)


def row(table: str, label: str) -> str:
    """The rows of a table with this label, as a selector."""
    return f'[id="{table}"] tbody.entry:has(.name:text-is("{label}"))'


@pytest.fixture(scope="session")
def page_path(tmp_path_factory) -> Path:
    """A real table with its validation split, a leaky one, patches, and a simulated one with an example map."""
    folder = tmp_path_factory.mktemp("board")
    paths = save(
        folder / "records",
        *flood(),
        *flood(split="val"),
        record(name="ombria-official", units=("OmbriaS1-test",), skill=0.9),
        record(
            name="polar-patch",
            task="classification",
            model="patch-cnn",
            label="Patch CNN",
            skill=0.8,
            units=tuple(f"phase-{i}" for i in range(4)),
        ),
        simulated(),
        simulated(model="gmnet", label="GMNet", skill=0.9, draw=1),
    )
    (paths[-1].parent / "example-test-1-worst-scene-03~chip-7.png").write_bytes(PNG)
    return build_site(folder / "records", folder / "site")


@pytest.fixture(scope="session")
def browser():
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser):
    """``visit(path, hash, **context options)`` opens a page that may neither complain nor load anything else."""
    contexts, faults = [], []

    def open_page(path: Path, anchor: str = "", **options):
        context = browser.new_context(**{"viewport": {"width": 1360, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: faults.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.on("dialog", lambda dialog: faults.append("dialog"))
        own = ("data:", path.as_uri())
        page.on("request", lambda request: request.url.startswith(own) or faults.append(request.url))
        page.goto(path.as_uri() + anchor)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []
