"""The authors' released harmonization weights as weights of ours.

They lie on the Hugging Face Hub as ``venkatesh-thiru/s2l8h-UNet-<5|6>depth-<upsample|shuffle>``, as safetensors or as a
state dict, whose keys begin with ``model.``: a wrapper around the network. The network is AUNet without attention,
which is SRUNet here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ... import _compat  # noqa: F401
from ...datasets.l8s2_header import header
from ...datasets.transforms import Preprocess
from ...errors import WeightsError
from ..layouts import check_finite, compare_layouts, layout
from ..registry import ModelSpec, create_model
from ..weights import save_pretrained
from .meaning import Meaning

PREFIX = "model."
# What stands in a released key and what in ours, in the order of replacement.
RENAMED = (
    ("encoding_module.", "unet.encoder."),
    ("decoding_module.", "unet.decoder."),
    (".conv.block.", ".block."),
    (".Upsize.", ".enlarge."),
    ("final.", "head."),
)
_ENCODER_BLOCK = re.compile(r"^(unet\.encoder\.\d+)\.block\.")
# By a tensor of the first decoder block that one way of enlarging alone has.
UP_MODES = {"Upsize.3.weight": "shuffle", "Upsize.1.weight": "upsample", "Upsize.weight": "upconv"}
REMARKS = (
    "These are released weights: they learned from chips of 86 × 86 pixels of 30 m that were stretched to 256 × 256 of "
    "10 m without regard to the transforms, and stretch: true repeats that for whole chips, at a cost of 0.3 to 1 dB; "
    "scenes are resampled by transforms. The authors' example gives the panchromatic band as top-of-atmosphere "
    "reflectance that is not divided by the sine of the sun's elevation, other than this suite's data sets. The loss "
    "they were trained with is not stated with them."
)


def convert(tensors: Mapping[str, Tensor], out: str | Path, where: object) -> tuple[int, dict]:
    """Write the weights of a released state dict.

    Args:
        tensors: by released key, with or without ``model.``.
        out: folder to write, see ``weights.save_pretrained``.
        where: the file, for messages.

    Returns:
        number of parameters, and the arguments of ``srunet`` that the shapes tell.

    Raises:
        WeightsError: keys or shapes of another network (the first five named), or values that are not finite.
    """
    renamed = {released_to_ours(key): value for key, value in tensors.items()}
    args = {**arguments(tensors, where), "stretch": True}
    spec = ModelSpec({"image": 6, "pan": 1}, 6)
    with torch.device("meta"):
        network = create_model("srunet", spec, **args)
    found = {key: (tuple(value.shape), value.dtype) for key, value in renamed.items()}
    compare_layouts(layout(network), found, where)
    check_finite(tensors, where)
    network.load_state_dict(renamed, assign=True)
    image, pan, target = (array.bands for array in header({}, "by-tile", simulated=False).arrays[:3])
    save_pretrained(
        network.eval(),
        out,
        name="srunet",
        spec=spec,
        args=args,
        preprocess_config=Preprocess(image, normalization="none").to_config(),
        classes=(),
        card={"task_kind": "regression", "licence": None, "remarks": REMARKS},
        harmonization=Meaning(
            pan=Preprocess(pan, normalization="none").to_config(),
            target=target,
            loss="not stated",
            residual=False,
        ),
    )
    return sum(p.numel() for p in network.parameters()), args


def arguments(tensors: Mapping[str, Tensor], where: object) -> dict[str, int | str]:
    """Depth, width and way of enlarging. Raises WeightsError where the keys are not those of a released U-Net."""
    keys = {key.removeprefix(PREFIX): value for key, value in tensors.items()}
    levels = {int(found[1]) for key in keys if (found := re.match(r"encoding_module\.(\d{1,3})\.", key))}
    modes = [mode for name, mode in UP_MODES.items() if f"decoding_module.0.{name}" in keys]
    first = keys.get("encoding_module.0.block.0.weight")
    if first is None or first.ndim != 4 or levels != set(range(len(levels))) or not 2 <= len(levels) <= 7 or not modes:
        raise WeightsError(
            "these are not the tensors of a released harmonization U-Net",
            where=where,
            hint="expected keys such as model.encoding_module.0.block.0.weight and model.decoding_module.0.Upsize…",
        )
    return {"depth": len(levels), "channels": int(first.shape[0]), "up_mode": modes[0]}


def released_to_ours(key: str) -> str:
    """Our key of a released one; an unknown one stays as it is."""
    key = key.removeprefix(PREFIX)
    for theirs, ours in RENAMED:
        key = key.replace(theirs, ours)
    return _ENCODER_BLOCK.sub(r"\1.", key)
