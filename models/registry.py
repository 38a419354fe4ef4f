"""Models by name. A new model is one file here or in ``harmonization/``, with one ``@register`` above its class."""

from __future__ import annotations

import difflib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class ModelSpec:
    """What the data ask of a model.

    Args:
        in_channels: channels of each named input, after preprocessing.
        out_channels: logits per pixel or patch; 1 for a binary segmentation.
    """

    in_channels: Mapping[str, int]
    out_channels: int


@dataclass(frozen=True)
class Entry:
    """One registered model; ``trained`` is False for the trivial rows, which have no weights."""

    name: str
    build: Callable[..., Any]
    label: str
    inputs: tuple[str, ...]
    tasks: tuple[str, ...]
    trained: bool


_ENTRIES: dict[str, Entry] = {}


def register(
    name: str,
    *,
    label: str = "",
    inputs: tuple[str, ...] = ("image",),
    tasks: tuple[str, ...] = ("segmentation",),
    trained: bool = True,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter the class or function below under ``name``; ``label`` is its name in tables.

    A network (``trained``) is called as ``build(spec, **args)`` and gives a module whose ``forward`` takes ``inputs``
    by name, float32 (B,C,H,W), and returns logits: (B,K,H,W) for segmentation, (B,K) for classification. Networks of
    the task ``regression`` return reflectance, see ``harmonization.harmonizer``.
    """

    def enter(build: Callable[..., Any]) -> Callable[..., Any]:
        known = _ENTRIES.get(name)
        if known is not None and (known.build.__module__, known.build.__qualname__) != (
            build.__module__,
            build.__qualname__,
        ):
            raise ConfigError(f"a model of the name {name!r} is registered already", where=build.__module__)
        _ENTRIES[name] = Entry(name, build, label or name, tuple(inputs), tuple(tasks), trained)
        return build

    return enter


def list_models(trained: bool | None = None) -> list[str]:
    """Names of all models; only the networks (True) or the trivial rows (False) when asked."""
    _import_all()
    return sorted(name for name, entry in _ENTRIES.items() if trained is None or entry.trained == trained)


def find_model(name: str) -> Entry:
    """The entry of a name. Raises ConfigError with the valid names and the nearest one."""
    if name not in _ENTRIES:
        _import_all()
    if name not in _ENTRIES:
        close = difflib.get_close_matches(name, _ENTRIES, n=1, cutoff=0.3)
        hint = f"did you mean {close[0]}? " if close else ""
        raise ConfigError(f"no model {name!r}", hint=f"{hint}There is {', '.join(sorted(_ENTRIES))}")
    return _ENTRIES[name]


def create_model(name: str, spec: ModelSpec, /, **args: Any) -> nn.Module:
    """A fresh model of a registered name.

    Args:
        name: see :func:`list_models`.
        spec: channels in and out.
        args: the model's own arguments, see its class.

    Raises:
        ConfigError: an unknown name or argument (with the valid ones), arguments that make no model, or a spec
            without the model's inputs.
    """
    entry = find_model(name)
    if not entry.trained:
        raise ConfigError(f"{name} is a trivial row without weights", hint="run it with `tidemark train`")
    missing = [key for key in entry.inputs if key not in spec.in_channels]
    if missing:
        raise ConfigError(f"{name} needs the input {missing[0]!r}, the data give {', '.join(spec.in_channels)}")
    known = list(inspect.signature(entry.build).parameters)[1:]
    for key in args:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
            raise ConfigError(
                f"{name} has no argument {key!r}",
                hint=f"did you mean {close[0]}? There is {', '.join(known)}" if known else None,
            )
    import torch

    try:
        model = entry.build(spec, **args)
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RuntimeError) as error:
        what = f"{args} make no {name} ({type(error).__name__}: {str(error)[:200]})"
        raise ConfigError(what, where="MODEL.ARGS") from error
    # Convolutions run in channels-last when their weights lie so; on CPUs that is about four times as fast.
    return model.to(memory_format=torch.channels_last)


def _import_all() -> None:
    """Import the files of this folder and of ``harmonization/`` that register something, and none of the others."""
    for package in ("", ".harmonization"):
        folder = Path(__file__).parent / package.lstrip(".")
        for module in pkgutil.iter_modules([str(folder)]):
            source = folder / f"{module.name}.py"
            if source.is_file() and b"\n@register(" in source.read_bytes():
                import_module(f"{package}.{module.name}" if package else f".{module.name}", __package__)
