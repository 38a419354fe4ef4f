"""Lets a CPU build of torch import torchvision's wheel. Import this before torchvision, torchgeo or smp.

torchvision's wheel registers fake kernels for two operators of its C++ library; with a CPU-only torch that library
does not load and the import fails with "operator torchvision::nms does not exist". Declaring the schemas is enough:
nothing here calls the operators.
"""

from __future__ import annotations

import torch

_LIBRARY = None  # kept alive: a collected Library removes its schemas


def _declare_missing_schemas() -> None:
    global _LIBRARY
    if torch.version.cuda is not None:
        return
    absent = [name for name in ("nms", "qnms") if not hasattr(torch.ops.torchvision, name)]
    if absent:
        _LIBRARY = torch.library.Library("torchvision", "FRAGMENT")
        for name in absent:
            _LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


_declare_missing_schemas()
