"""Result records made through the real models, with figures that their integers give."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tidemark.benchmark.figures import Counts
from tidemark.benchmark.records import Result, make_result, write_result
from tidemark.benchmark.reflectance import chip_sums, index_bands
from tidemark.benchmark.scores import as_metric, estimates, unit_scores
from tidemark.datasets.files import write_atomic
from tidemark.datasets.spec import canonical_json
from tidemark.leaderboard.schema import Verification
from tidemark.leaderboard.site import build_site
from tidemark.leaderboard.submission import artifact_path, make_submission, write_submission

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
BANDS = ("blue", "green", "red", "nir", "swir1", "swir2")


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


def reflectance_sums(skill: float, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """One chip of smooth reflectance and a prediction whose noise is the smaller the greater the skill."""
    truth = np.linspace(0.05, 0.4, 24 * 24).reshape(24, 24) * rng.uniform(0.6, 1.4, (len(BANDS), 1, 1))
    prediction = truth + rng.normal(0, 0.1 * (1.05 - skill), truth.shape)
    return chip_sums(truth, prediction, np.ones((24, 24), bool), index_bands(BANDS))


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
    task="binary-segmentation",
    speed=None,
    title="OMBRIA: flood extent from Sentinel-1 before and after",
    config="",
    note="",
    draw=0,
    **extra,
) -> Result:
    """One record whose units have a skill around ``skill``."""
    rng = np.random.default_rng([seed or 0, int(skill * 1000), draw])
    hard = np.random.default_rng(int(sha(name, version, split)[:8], 16)).uniform(-0.15, 0.15, len(units))
    skills = [float(np.clip(skill + h + rng.normal(0, 0.02), 0, 1)) for h in hard]
    if task == "harmonization":
        sums = [reflectance_sums(s, rng) for s in skills]
        counts = Counts(
            np.zeros((1, len(units), 0, 0), int), sums={k: np.array([[s[k] for s in sums]]) for k in sums[0]}
        )
        names, about = BANDS, {"bands": BANDS}
        parts = [dict(sums={k: v.tolist() for k, v in s.items()}, pixels=int(s["pixels"][0])) for s in sums]
    else:
        binary = task == "binary-segmentation"
        confusion = [(water_confusion if binary else patch_confusion)(s, 65536 if binary else 300, rng) for s in skills]
        counts = Counts(np.array([confusion]))
        about = {"classes": extra.pop("classes", WATER if binary else ICE)}
        names = [c["name"] for c in about["classes"]]
        parts = [dict(confusion=c, pixels=int(np.sum(c))) for c in confusion]
    scores = unit_scores(task, names, counts)
    forest = model.endswith("forest")
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
            weights_sha256=sha(model, label, seed) if trained and not forest else None,
            trained=trained,
            label=label or model,
        ),
        seed=seed,
        **about,
        metrics={k: as_metric(v).model_dump() for k, v in estimates(task, names, counts).items()},
        units=[dict(id=u, scores=s, **part) for u, s, part in zip(units, scores, parts, strict=True)],
        chips=62,
        speed=speed,
        harness=extra.pop("harness", dict(version="0.1.0", git_commit="0a967ec" + "0" * 33, dirty=False)),
        packages=extra.pop("packages", {"python": "3.11.2", "torch": "2.13.0", "numpy": "2.3.1"}),
        command=extra.pop("command", f"tidemark train configs/{name}/{model}.yaml SEED {seed}"),
        device=extra.pop("device", "AMD EPYC 7B13, 2 cores"),
        config=config or f"MODEL:\n  NAME: {model}\n",
        config_hash=extra.pop("config_hash", sha(model, label)[:8]),
        note=note,
        predictions_sha256=sha(model, label, seed, split, skill, draw),
        **extra,
    )


def submit(
    folder: Path, tier: str, *, label: str, seeds=3, team="Fenland Water Lab", statement=None, of_seed=None, **more
) -> Path:
    """A submission of a trained model with its verification, in a folder of its own.

    ``more`` goes to ``record``, and so does what ``of_seed(seed)`` returns.
    """
    runs, data, size = [], None, dict(bytes=1000)
    for seed in range(seeds):
        own = of_seed(seed) if of_seed else {}
        found = {split: record(seed=seed, split=split, label=label, **more, **own) for split in ("val", "test")}
        data = found["test"].dataset
        place = {key: artifact_path(f"/runs/{seed}/{key}", range(seeds)) for key in ("weights", "config")}
        runs.append(
            dict(
                seed=seed,
                weights=dict(path=place["weights"], sha256=found["test"].model.weights_sha256, **size),
                config=dict(path=place["config"], sha256=sha("config"), **size),
                records=found,
                predictions={
                    split: dict(
                        path=artifact_path(f"/runs/{seed}/predictions/{split}", range(seeds)),
                        sha256=r.predictions_sha256,
                        **size,
                    )
                    for split, r in found.items()
                },
            )
        )
    first = runs[0]["records"]["test"]
    fields = dict(
        format="tidemark-submission",
        submitted="2026-05-04T10:20:30Z",
        title=f"{label} for everybody",
        team=team,
        contact="lab@example.org",
        licence="CC-BY-4.0",
        training_data=("the training split",),
        dataset=dict(name=data.name, version=data.version, content_sha256=data.content_sha256),
        model=dict(name=first.model.name, arguments=first.model.arguments, label=label, trained=True),
        config_hash=first.config_hash,
        runs=runs,
    )
    submission = make_submission(**fields | (statement or {}))
    folder = folder / submission.folder
    write_submission(folder / "submission.json", submission)
    if tier != "claimed":
        again = dict(again=0.81, equal_share=0.9991) if tier == "reproduced" else {}
        verification = Verification(
            format="tidemark-verification",
            schema_version="1.0",
            submission=submission.id,
            tier=tier,
            dataset=data,
            harness=first.harness,
            runs=[
                dict(seed=k, splits={"test": dict(prediction_content_sha256=sha(k), headline=0.81, **again)})
                for k in range(seeds)
            ],
        )
        write_atomic(folder / "verification.json", canonical_json(verification))
    return folder


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


def demo(units=10) -> dict:
    """What makes a record one of ``units`` simulated scenes under an open licence."""
    return {
        "name": "demo-water",
        "simulated": True,
        "licence": "CC0-1.0",
        "title": "Simulated scenes",
        "units": tuple(f"scene-{i:02d}" for i in range(units)),
    }


def simulated(units=10, skill=0.8, **more) -> Result:
    """A record of simulated scenes."""
    return record(**{**demo(units), "skill": skill, **more})


@pytest.fixture(scope="session")
def records() -> SimpleNamespace:
    """What makes and saves records and submissions, a tiny ``png``, and selectors of rows: ``row(table, label)``."""
    return SimpleNamespace(
        make=record,
        demo=demo,
        flood=flood,
        simulated=simulated,
        speed=speed,
        save=save,
        submit=submit,
        png=PNG,
        row=row,
    )


def row(table: str, label: str) -> str:
    """The rows of a table with this label, as a selector."""
    return f'[id="{table}"] tbody.entry:has(.name:text-is("{label}"))'


@pytest.fixture(scope="session")
def page_path(tmp_path_factory) -> Path:
    """All kinds of tables: real, validation, leaky, patches, harmonization, and a simulated one with submissions."""
    folder = tmp_path_factory.mktemp("board")
    pairs = dict(name="l8s2", task="harmonization", units=tuple(f"T3{i}UVA" for i in range(10)))
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
        record(model="bicubic", label="Bicubic", trained=False, seed=None, skill=0.3, **pairs),
        record(model="aunet", label="AUNet", skill=0.8, **pairs),
        simulated(harness=dict(version="0.1.0", git_commit="0a967ec" + "0" * 33, dirty=True)),
        simulated(model="gmnet", label="GMNet", skill=0.9, draw=1),
    )
    (paths[-1].parent / "example-test-1-worst-scene-03~chip-7.png").write_bytes(PNG)
    for tier, label, skill in (("claimed", "Claimed net", 0.97), ("reproduced", "Proven net", 0.85)):
        submit(folder / "records", tier, label=label, model=label.split()[0].lower(), skill=skill, **demo())
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
