"""Weights on disk and on the hub: safetensors, a JSON configuration and a model card; never a pickle.

A folder of weights holds ``model.safetensors``, ``config.json`` (model name and arguments, inputs, classes,
preprocessing, data set) and ``README.md``. Loading is strict: every key, shape and dtype, finite values only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, ValidationError, model_validator
from torch import nn
from torch.overrides import TorchFunctionMode

from .. import _compat  # noqa: F401
from ..datasets.files import atomic_path, sha256_file, storage_error, write_atomic
from ..datasets.spec import Band, ClassDef, Name, Strict, canonical_json, describe_validation
from ..datasets.transforms import Preprocess
from ..errors import TidemarkError, WeightsError
from .calibration import Calibration
from .card import model_card
from .fetch import CONFIG_NAME, PICKLES, WEIGHTS_NAME, find_weights, pickle_refused
from .harmonization.meaning import Meaning, SigmaScale
from .layouts import check_finite, compare_layouts, layout, read_layout
from .registry import ModelSpec, create_model, find_model

CARD_NAME = "README.md"
MAX_CONFIG_BYTES = 4 << 20
# Arguments that only choose starting values: stored weights replace those.
STARTING_ARGS = frozenset({"encoder_weights"})
Channels = Annotated[int, Field(ge=1, le=65536)]


class WeightsConfig(Strict):
    """``config.json`` beside the weights."""

    format: Literal["tidemark-weights"] = "tidemark-weights"
    format_version: Literal["1.0"] = "1.0"
    model: Name
    args: dict[str, Any] = {}
    in_channels: dict[str, Channels]
    out_channels: Channels
    task_kind: Literal["segmentation", "classification", "regression"]
    classes: tuple[ClassDef, ...]
    preprocess: dict[str, Any]
    dataset: dict[str, Any] = {}
    calibration: Calibration | None = None
    harmonization: Meaning | None = None

    @model_validator(mode="after")
    def _complete(self) -> WeightsConfig:
        if starting := sorted(STARTING_ARGS & self.args.keys()):
            raise ValueError(f"args: {starting[0]} is for a fresh network, stored weights need none")
        if (self.harmonization is None) == (self.task_kind == "regression"):
            raise ValueError("harmonization belongs to a regression, which needs it")
        if self.task_kind != "regression":
            _check_classes(self)
        return self


def _check_classes(config: WeightsConfig) -> None:
    ids = [c.id for c in config.classes]
    if len(ids) < 2 or ids != list(range(len(ids))):
        raise ValueError("classes must have the ids 0, 1, … in order, at least two")
    logits = 1 if config.task_kind == "segmentation" and len(ids) == 2 else len(ids)
    if config.out_channels != logits:
        raise ValueError(f"{len(ids)} classes need {logits} out_channels, found {config.out_channels}")


@dataclass(frozen=True)
class Pretrained:
    """A model in evaluation mode with everything that must go with it.

    Attributes:
        model: takes its inputs by name, float32 (B,C,H,W) as ``preprocess`` gives them; returns logits. A network of
            reflectance is called through ``Harmonizer``.
        name, spec, args: what made it.
        preprocess: stored values to the model's channels.
        classes: id, name and colour of each class.
        task_kind: ``segmentation``, ``classification`` or ``regression``.
        dataset: reference to the data it learned from; empty when unknown.
        weights_sha256: of ``model.safetensors``.
        calibration: how the logits become probabilities, where that was fitted.
        harmonization: panchromatic input, bands of the answer, loss and form of a network of reflectance.
    """

    model: nn.Module
    name: str
    spec: ModelSpec
    args: dict[str, Any]
    preprocess: Preprocess
    classes: list[dict[str, Any]]
    task_kind: str
    dataset: dict[str, Any]
    weights_sha256: str
    calibration: Calibration | None = None
    harmonization: Meaning | None = None

    def check_input(self, bands: Sequence[Band]) -> Preprocess:
        """The preprocessing for an input with these bands, in their order and storage.

        Raises:
            WeightsError: a band is missing, or has another unit or sensor than the weights were trained with.
        """
        return self.preprocess.for_bands(bands)


def save_pretrained(
    model: nn.Module,
    folder: str | Path,
    *,
    name: str,
    spec: ModelSpec,
    args: Mapping[str, Any],
    preprocess_config: Mapping[str, Any],
    classes: Sequence[ClassDef | Mapping[str, Any]],
    card: Mapping[str, Any],
    calibration: Calibration | None = None,
    harmonization: Meaning | None = None,
) -> str:
    """Write weights, configuration and model card; the same weights give the same bytes.

    Args:
        model: a model that ``create_model(name, spec, **args)`` makes.
        folder: made where needed; each file is replaced whole.
        preprocess_config: ``Preprocess.to_config()``.
        classes: of the task, in the order of their ids.
        card: ``task_kind``; where known ``dataset`` (name, version, content_sha256, title, licence, simulated),
            ``licence`` of the weights, ``scores`` ({"val": {"iou": 0.5}}), ``training`` (the recipe as text) and
            ``remarks`` (further limits).
        calibration: how the logits become probabilities, where that was fitted.
        harmonization: of a regression, which needs it.

    Returns:
        sha256 of ``model.safetensors``.

    Raises:
        WeightsError: a weight is not finite.
    """
    folder = Path(folder)
    config = WeightsConfig(
        model=name,
        args={key: value for key, value in args.items() if key not in STARTING_ARGS},
        in_channels=dict(spec.in_channels),
        out_channels=spec.out_channels,
        task_kind=card["task_kind"],
        classes=tuple(ClassDef.model_validate(c) for c in classes),
        preprocess=dict(preprocess_config),
        dataset=dict(card.get("dataset", {})),
        calibration=calibration,
        harmonization=harmonization,
    )
    check_finite(model.state_dict(), folder / WEIGHTS_NAME)
    save_tensors(model, folder / WEIGHTS_NAME)
    plain = _plain(config)
    write_atomic(folder / CONFIG_NAME, canonical_json(plain))
    parameters = sum(p.numel() for p in model.parameters())
    write_atomic(folder / CARD_NAME, model_card(plain, card, parameters))
    return sha256_file(folder / WEIGHTS_NAME)


def keep_sigma(folder: str | Path, scale: SigmaScale) -> None:
    """Write into ``config.json`` of a local folder of weights (that of a run works too) how their sigma is scaled.

    Raises:
        WeightsError: no such folder, weights of another kind, or another number of bands.
    """
    path = find_weights(folder, None) / CONFIG_NAME
    config = _read_config(path)
    if config.harmonization is None or len(scale.factors) != config.out_channels:
        raise WeightsError(f"a scale for {len(scale.factors)} bands does not fit these weights", where=path)
    meaning = config.harmonization.model_copy(update={"sigma": scale})
    changed = config.model_copy(update={"harmonization": meaning})
    write_atomic(path, canonical_json(_plain(changed)))


def save_tensors(network: torch.nn.Module, path: Path) -> None:
    """A network's state as safetensors, atomically; StorageError where it cannot be written."""
    from safetensors.torch import save_file

    tensors = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    with atomic_path(path) as temporary, full_disk(path):
        save_file(tensors, temporary, metadata={"format": "pt"})


@contextmanager
def full_disk(path: Path) -> Iterator[None]:
    """A StorageError where torch or safetensors report a failed writing as an error of their own."""
    from safetensors import SafetensorError

    try:
        yield
    except (RuntimeError, SafetensorError) as error:
        raise storage_error(OSError(None, str(error).splitlines()[0]), path) from error


def from_pretrained(source: str | Path, revision: str | None = None) -> Pretrained:
    """Load weights from a folder (that of a run works too) or from a Hugging Face repository.

    Args:
        source: a folder, or ``owner/name``; of a repository only ``config.json`` and ``model.safetensors`` are fetched.
        revision: branch, tag or commit of the repository.

    Raises:
        WeightsError: no weights, a pickle, or a key, shape, dtype or value that does not fit (the first five named).
    """
    folder = find_weights(source, revision)
    config = _read_config(folder / CONFIG_NAME)
    path = folder / WEIGHTS_NAME
    shapes = read_layout(path)
    spec = ModelSpec(config.in_channels, config.out_channels)
    try:
        preprocess = Preprocess.from_config(config.preprocess)
        pan = config.harmonization.pan_preprocess() if config.harmonization else None
        compare_layouts(_expected(config, spec), shapes, path)
        model = create_model(config.model, spec, **config.args)
    except WeightsError:
        raise
    except TidemarkError as error:
        raise WeightsError(error.what, where=folder / CONFIG_NAME, hint=error.hint) from None
    given = dict.fromkeys(find_model(config.model).inputs, preprocess.channels) | ({"pan": pan.channels} if pan else {})
    if config.in_channels != given:
        raise WeightsError(
            f"the model takes channels {config.in_channels}, its preprocessing gives {given}",
            where=folder / CONFIG_NAME,
        )
    load_weights(model, path)
    return Pretrained(
        model.eval(),
        config.model,
        spec,
        config.args,
        preprocess.eval(),
        [c.model_dump(mode="json") for c in config.classes],
        config.task_kind,
        config.dataset,
        sha256_file(path),
        config.calibration,
        config.harmonization,
    )


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Fill a model from a safetensors file, strictly. Raises WeightsError, and then leaves the model as it was."""
    from safetensors.torch import load_file

    compare_layouts(layout(model), read_layout(Path(path)), path)
    tensors = load_file(path, device="cpu")
    check_finite(tensors, path)
    model.load_state_dict(tensors, strict=True)


def _read_config(path: Path) -> WeightsConfig:
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise WeightsError(f"{path.stat().st_size} bytes, over the limit of {MAX_CONFIG_BYTES}", where=path)
        return WeightsConfig.model_validate(json.loads(path.read_bytes()))
    except FileNotFoundError:
        pickles = sorted(p for p in path.parent.iterdir() if p.suffix in PICKLES) if path.parent.is_dir() else []
        if pickles:
            raise pickle_refused(pickles[0]) from None
        raise WeightsError(f"no weights here: {CONFIG_NAME} is missing", where=path.parent) from None
    except OSError as error:
        raise WeightsError(f"cannot be read ({error.strerror})", where=path) from None
    except ValidationError as error:
        raise WeightsError(describe_validation(error), where=path) from None
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"not valid JSON ({error})", where=path) from None


def _plain(config: WeightsConfig) -> dict[str, Any]:
    absent = {key for key in ("calibration", "harmonization") if getattr(config, key) is None}
    return config.model_dump(mode="json", exclude=absent)


class _RealSteps(TorchFunctionMode):
    """Leaves the steps of ``torch.linspace`` real on the meta device: Mix Transformers are made by their values."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        more = {"device": "cpu"} if func is torch.linspace else {}
        return func(*args, **{**more, **(kwargs or {})})


def _expected(config: WeightsConfig, spec: ModelSpec) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """The layout that the configuration promises, without the memory it would take."""
    with torch.device("meta"), _RealSteps():
        return layout(create_model(config.model, spec, **config.args))
