"""A run folder: where it lies and what ``run.json`` says about how its weights or predictions came about."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from yacs.config import CfgNode

from .. import __version__
from ..datasets.files import sha256_file, write_atomic
from ..datasets.spec import Count, Manifest, Name, Sha256, Strict, Version, canonical_json, describe_validation
from ..datasets.spec import manifest_sha256 as digest_of_manifest
from ..errors import FormatError, WeightsError

RUN_NAME = "run.json"
CONFIG_NAME = "config.yaml"
MAX_RUN_BYTES = 4 << 20
MAX_COMMAND = 4000  # characters of it in a record
PACKAGES = (
    "torch",
    "torchvision",
    "torchgeo",
    "segmentation-models-pytorch",
    "lightning",
    "numpy",
    "scikit-learn",
    "h5py",
    "hdf5plugin",
    "numcodecs",
    "rasterio",
)
# Keys that say where and how a run is made, not what it computes: they stay out of the folder's hash.
PLACE_KEYS = (
    ("SEED",),
    ("OUTPUT",),
    ("DATA", "ROOT"),
    ("TRAIN", "DEVICE"),
    ("TRAIN", "THREADS"),
    ("TRAIN", "RESUME"),
    ("TRAIN", "CHECKPOINT_EVERY"),
)
# Keys that came after 0.1, with the default that does what 0.1 did: at it they stay out of the hash, so ids last.
LATER_KEYS: dict[tuple[str, ...], Any] = {
    ("DATA", "PARTIAL"): False,
    ("AUGMENT", "PROBABILITY"): 1.0,
    ("AUGMENT", "BAND_DROP"): 0.0,
    ("AUGMENT", "LINES"): 0.0,
    ("AUGMENT", "REGIONS"): 0.0,
    ("AUGMENT", "ORBITS"): 0.0,
    ("AUGMENT", "SHIFT"): 0.0,
    ("TRAIN", "COMPILE"): False,
    ("TRAIN", "DEVICES"): 1,
    ("TRAIN", "NODES"): 1,
    ("TRAIN", "CALIBRATE"): False,
    ("TRAIN", "INIT_SHA256"): "",
}


class RunDataset(Strict):
    """The data a run has seen; ``root`` is the folder of all data sets, as the configuration gave it."""

    name: Name
    version: Version
    content_sha256: Sha256
    manifest_sha256: Sha256
    root: str

    @property
    def folder(self) -> Path:
        """The version folder, which holds ``dataset.json``."""
        return Path(self.root) / self.name / self.version


class Provenance(Strict):
    """The code, the packages, the machine and the command."""

    tidemark: str
    git_commit: str | None
    dirty: bool | None
    packages: dict[str, str]
    device: str
    threads: Count
    command: str


class RunInfo(Strict):
    """``run.json``. ``parameters`` counts trainable and fixed ones; a row without weights has 0 and no digest."""

    schema_version: Literal["1.0"] = "1.0"
    dataset: RunDataset
    model: Name
    arguments: dict[str, Any] = {}
    label: Annotated[str, Field(max_length=100)] = ""
    trained: bool
    seed: Annotated[int, Field(ge=0, le=2**32)] | None
    parameters: Count = 0
    weights_sha256: Sha256 | None = None
    selected_epoch: int | None = None
    train_seconds: float = Field(ge=0)
    provenance: Provenance


def dataset_of(manifest: Manifest, root: str | Path) -> RunDataset:
    """The reference to a data set that lies at ``<root>/<name>/<version>``."""
    return RunDataset(
        name=manifest.name,
        version=manifest.version,
        content_sha256=manifest.content_sha256,
        manifest_sha256=digest_of_manifest(manifest),
        root=str(root),
    )


def with_init(cfg: CfgNode) -> CfgNode:
    """The configuration with the digest of the weights that TRAIN.INIT names, which is part of what a run computes.

    Raises:
        WeightsError: there are none, or others than TRAIN.INIT_SHA256 says.
    """
    if not cfg.TRAIN.INIT:
        return cfg
    from .fetch import WEIGHTS_NAME, find_weights

    path = find_weights(cfg.TRAIN.INIT, None) / WEIGHTS_NAME
    try:
        found = sha256_file(path)
    except OSError as error:
        raise WeightsError(f"no weights here ({error.strerror})", where=path) from None
    if cfg.TRAIN.INIT_SHA256 not in ("", found):
        raise WeightsError(f"TRAIN.INIT_SHA256 says {cfg.TRAIN.INIT_SHA256}, found {found}", where=path)
    noted = cfg.clone()
    noted.defrost()
    noted.TRAIN.INIT_SHA256 = found
    noted.freeze()
    return noted


def config_hash(cfg: Mapping[str, Any], content_sha256: str) -> str:
    """Eight hex digits over the data's identity and every key of the configuration that can change the result."""
    plain = json.loads(json.dumps(cfg))
    for path in PLACE_KEYS:
        _drop(plain, path)
    for path, default in LATER_KEYS.items():
        _drop(plain, path, lambda value, default=default: value == default)
    return hashlib.sha256(canonical_json({"config": plain, "content_sha256": content_sha256})).hexdigest()[:8]


def _drop(node: dict[str, Any], path: Sequence[str], where: Callable[[Any], bool] = lambda value: True) -> bool:
    """Remove a key if ``where`` holds for its value, and a section that this leaves empty; whether it was removed."""
    head, *rest = path
    if head not in node:
        return False
    removed = _drop(node[head], rest, where) if rest else where(node[head])
    if removed and (not rest or not node[head]):
        del node[head]
    return removed


def run_folder(cfg: Any, manifest: Manifest) -> Path:
    """``<OUTPUT>/<dataset>-<version>/<model>-<config hash>/seed<k>``; nothing is created.

    Args:
        cfg: configuration with the keys OUTPUT, SEED and MODEL.NAME.
        manifest: of the data set that the run uses.
    """
    configuration = f"{cfg['MODEL']['NAME']}-{config_hash(cfg, manifest.content_sha256)}"
    return Path(cfg["OUTPUT"]) / f"{manifest.name}-{manifest.version}" / configuration / f"seed{cfg['SEED']}"


def write_run(folder: str | Path, info: RunInfo, config: str) -> None:
    """Write ``config.yaml`` (the configuration as text), then ``run.json``: the sign that the run is complete."""
    write_atomic(Path(folder) / CONFIG_NAME, config)
    write_atomic(Path(folder) / RUN_NAME, canonical_json(info))


def read_run(folder: str | Path) -> RunInfo:
    """Read ``<folder>/run.json``. Raises FormatError with the JSON path of the first fault."""
    path = Path(folder) / RUN_NAME
    try:
        if path.stat().st_size > MAX_RUN_BYTES:
            raise FormatError(f"{path.stat().st_size} bytes, over the limit of {MAX_RUN_BYTES}", where=path)
        return RunInfo.model_validate(json.loads(path.read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        raise FormatError(
            "no finished run here", where=path, hint="give the folder that `tidemark train` printed"
        ) from None
    except ValidationError as error:
        raise FormatError(describe_validation(error), where=path) from None
    except (ValueError, RecursionError) as error:
        raise FormatError(f"not valid JSON ({error})", where=path) from None


def without_folders(word: str) -> str:
    """An absolute path's last part, also behind ``--option=``; any other word as it is.

    Records are published; where the files lay on somebody's machine helps nobody who reads them.
    """
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    for kind in (PurePosixPath, PureWindowsPath):
        path = kind(value)
        if path.is_absolute() or value.startswith("~"):
            return f"{option}{equals}{path.name}"
    return word


def published(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A run's configuration without the folders of the machine it ran on (``DATA.ROOT`` and ``OUTPUT``)."""
    data = dict(recipe.get("DATA", {}))
    left = {key: data if key == "DATA" else value for key, value in recipe.items()}
    for section, key in ((left, "OUTPUT"), (data, "ROOT")):
        if isinstance(section.get(key), str):
            section[key] = without_folders(section[key])
    return left


def provenance(device: str = "cpu", threads: int | None = None) -> Provenance:
    """What made a run: this code, the installed packages, the device in words and the command line."""
    commit, dirty = git_state(Path(__file__).resolve().parents[1])
    packages = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    command = " ".join([Path(sys.argv[0]).name, *(shlex.quote(without_folders(word)) for word in sys.argv[1:])])
    command = command.encode("utf-8", "backslashreplace").decode()  # a file's name may be no UTF-8
    return Provenance(
        tidemark=__version__,
        git_commit=commit,
        dirty=dirty,
        packages=packages,
        command=command if len(command) <= MAX_COMMAND else f"{command[: MAX_COMMAND - 2]} …",
        device=device_in_words(device),
        threads=threads or usable_cores(),
    )


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


NOT_RECORDS = (
    ":(exclude)leaderboard/submissions"  # a sweep writes its records there: they are what comes out, not the code
)


def git_state(root: Path) -> tuple[str | None, bool | None]:
    """Commit and whether tracked files, but for the records, differ from it; (None, None) without a git checkout."""
    if not (root / ".git").exists():  # an installed copy inside some other repository is not that repository's
        return None, None
    try:
        status = ["status", "--porcelain", "--untracked-files=no", "--", ".", NOT_RECORDS]
        answers = [
            subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=30)
            for arguments in (["rev-parse", "HEAD"], status)
        ]
    except (OSError, subprocess.SubprocessError):
        return None, None
    return answers[0].stdout.strip(), bool(answers[1].stdout.strip())


def device_in_words(device: str = "cpu") -> str:
    """``NVIDIA H100 80GB HBM3, CUDA 12.4`` or ``AMD EPYC 7B13, 2 cores``."""
    if str(device).startswith("cuda"):
        import torch

        return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    return f"{_processor()}, {usable_cores()} cores"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
