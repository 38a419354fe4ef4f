"""Which tensors weights hold: the layouts of a model and of a safetensors file, and how they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from .. import _compat  # noqa: F401
from ..errors import WeightsError
from .fetch import pickle_refused

_DTYPES = {
    "F32": torch.float32,
    "F64": torch.float64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def read_layout(path: Path) -> dict[str, tuple[tuple[int, ...], torch.dtype | str]]:
    """Shape and dtype of every tensor of a safetensors file, by key, before any value is read.

    Raises WeightsError: no such file, a pickle, or another kind of file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            slices = {key: file.get_slice(key) for key in file.keys()}
            return {k: (tuple(s.get_shape()), _DTYPES.get(s.get_dtype(), s.get_dtype())) for k, s in slices.items()}
    except FileNotFoundError:
        raise WeightsError("no weights here: the file is missing", where=path) from None
    except (SafetensorError, OSError) as error:
        if path.is_dir():
            raise WeightsError("is a folder", where=path) from None
        with open(path, "rb") as file:
            start = file.read(4)
        if start[:1] == b"\x80" or start == b"PK\x03\x04" or start[:2] == b"\x1f\x8b":
            raise pickle_refused(path) from None
        raise WeightsError(f"not a safetensors file ({error})", where=path) from None


def layout(model: nn.Module) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shape and dtype of every tensor of a model's state, by key."""
    return {key: (tuple(value.shape), value.dtype) for key, value in model.state_dict().items()}


def compare_layouts(expected: Mapping[str, tuple], found: Mapping[str, tuple], where: object) -> None:
    """Raises WeightsError with the first five keys that are missing, unexpected, or of another shape or type."""
    both = [key for key in expected if key in found]
    faults = [
        ("missing", [key for key in expected if key not in found]),
        ("unexpected", [key for key in found if key not in expected]),
        (
            "of another shape",
            [
                f"{k} {list(found[k][0])} instead of {list(expected[k][0])}"
                for k in both
                if found[k][0] != expected[k][0]
            ],
        ),
        (
            "of another type",
            [
                f"{k} {found[k][1]} instead of {expected[k][1]}"
                for k in both
                if found[k][0] == expected[k][0] and found[k][1] != expected[k][1]
            ],
        ),
    ]
    text = "; ".join(f"{len(names)} {what}: {_first(names)}" for what, names in faults if names)
    if text:
        raise WeightsError(f"the weights do not fit the model: {text}", where=where)


def check_finite(tensors: Mapping[str, torch.Tensor], where: object) -> None:
    """Raises WeightsError with the first five tensors that hold NaN or infinity."""
    bad = [key for key, value in tensors.items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        raise WeightsError(f"{len(bad)} tensors with values that are not finite: {_first(bad)}", where=where)


def _first(names: Sequence[str]) -> str:
    return ", ".join(name[:200] for name in names[:5]) + (", …" if len(names) > 5 else "")
