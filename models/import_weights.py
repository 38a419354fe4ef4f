"""Released checkpoints of other code as weights of ours: read without running anything, renamed, checked, described."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import _compat  # noqa: F401
from ..datasets.files import sha256_file
from ..datasets.spec import Band, ClassDef
from ..datasets.transforms import RANGE_MARGIN, Preprocess
from ..errors import ConfigError, WeightsError
from .fetch import pickle_refused
from .gmnet import DECODER, ENCODER, SCALES
from .layouts import check_finite, compare_layouts, layout
from .registry import ModelSpec, create_model
from .weights import save_pretrained

MAX_BYTES = 1 << 30
BANDS = tuple(
    Band(name=name, sensor="Sentinel-1", unit="dB", nodata=0.0) for name in ("vv_asc", "vh_asc", "vv_desc", "vh_desc")
)
# Smallest and largest backscatter (dB) of the authors' inference script (gmnet_infer.py of Tibet-Water-2020), by band.
DB_RANGE = ((-57.78, 25.98), (-70.37, 10.23), (-58.98, 29.28), (-68.47, 17.60))
ORBITS = {"ascending": (0, 1), "descending": (2, 3), "both": (0, 1, 2, 3)}
# sha256 of the released files: a checkpoint of the other orbit has the same shapes and would pass unnoticed.
RELEASED = {
    "115f1e656921f7ded6cda3dd5ecbd61a72f7048885622152d454c01cf2596178": "ascending",
    "d7f5a52eb34575906a22f53a3e52b64f5e8436f7f8a191a685263ca613fc8e06": "descending",
    "304779e4ac45e0b15a22bd252943d27d0e861f21f99787beb8e46f2df939a166": "both",
}
CLASSES = (
    ClassDef(id=0, name="not water", color="#d9cfa6"),
    ClassDef(id=1, name="water", color="#1f6fb4"),
)


@dataclass(frozen=True)
class Imported:
    """``folder`` of the weights, number of ``parameters`` of the network, ``unused`` tensors of the file by key and
    the ``unused_parameters`` that they hold."""

    folder: Path
    parameters: int
    unused: tuple[str, ...]
    unused_parameters: int


def import_weights(model: str, file: str | Path, out: str | Path, *, orbit: str | None = None) -> Imported:
    """Convert a released checkpoint to a folder of weights.

    Args:
        model: ``gmnet``, or ``srunet`` for the released harmonization networks.
        file: the checkpoint, safetensors or a state dict as ``torch.save`` writes it; read with ``weights_only=True``.
        out: folder to write, see `weights.save_pretrained`.
        orbit: of gmnet, ``ascending``, ``descending`` or ``both``: which bands the checkpoint was trained with.

    Raises:
        ConfigError: another model, or no orbit.
        WeightsError: no state dict of tensors, missing, unexpected or misshapen tensors (the first five named), values
            that are not finite, or a released checkpoint of another orbit.
    """
    if model == "srunet":
        if orbit is not None:
            raise ConfigError("srunet has no orbit", where="--orbit")
        from .harmonization.released import convert

        parameters, _ = convert(read_state_dict(Path(file)), out, file)
        return Imported(Path(out), parameters, (), 0)
    if model != "gmnet":
        raise ConfigError(f"no released weights of {model!r} can be imported", hint="there is gmnet and srunet")
    if orbit not in ORBITS:
        raise ConfigError(f"orbit must be one of {', '.join(ORBITS)}, found {orbit!r}", where="--orbit")
    file = Path(file)
    tensors = read_state_dict(file)
    released = RELEASED.get(sha256_file(file), orbit)
    if released != orbit:
        raise WeightsError(f"is the released checkpoint of the orbit {released!r}, not {orbit!r}", where=file)
    chosen = ORBITS[orbit]
    spec = ModelSpec(dict.fromkeys(SCALES, len(chosen)), 1)
    network = create_model("gmnet", spec)
    names = dict(gmnet_names())
    unused = tuple(key for key in tensors if key.split(".dwconv_bn_relu_2.")[0] in _UNUSED and "relu_2" in key)
    expected = {names[key]: value for key, value in layout(network).items()}
    compare_layouts(expected, {k: (tuple(v.shape), v.dtype) for k, v in tensors.items() if k not in unused}, file)
    check_finite(tensors, file)
    network.load_state_dict({key: tensors[theirs] for key, theirs in names.items()})
    low, high = zip(*(DB_RANGE[i] for i in chosen), strict=True)
    preprocess = Preprocess(
        [BANDS[i] for i in chosen],
        mean=low,
        std=[b - a + RANGE_MARGIN for a, b in zip(low, high, strict=True)],
        clip=(0.0, 1.0),
        context="nearest",
        partial=True,
    )
    save_pretrained(
        network.eval(),
        out,
        name="gmnet",
        spec=spec,
        args={},
        preprocess_config=preprocess.to_config(),
        classes=CLASSES,
        card={"task_kind": "segmentation", "licence": None},
    )
    learned = [key for key in unused if key.endswith(("weight", "bias"))]
    return Imported(
        Path(out),
        sum(p.numel() for p in network.parameters()),
        unused,
        sum(tensors[key].numel() for key in learned),
    )


def read_state_dict(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint by key. Raises WeightsError for anything else; nothing in the file is executed."""
    if file.suffix == ".safetensors":
        return _read_safetensors(file)
    try:
        with zipfile.ZipFile(file) as archive:  # torch inflates whatever the archive promises
            size = sum(entry.file_size for entry in archive.infolist())
    except FileNotFoundError:
        raise WeightsError("no such file", where=file) from None
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        raise pickle_refused(file) from None
    if size > MAX_BYTES:
        raise WeightsError(f"unpacks to {size} bytes, over the limit of {MAX_BYTES}", where=file)
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception:  # torch raises half a dozen kinds here
        raise pickle_refused(file) from None
    if not isinstance(state, dict) or not all(isinstance(key, str) and _is_plain(v) for key, v in state.items()):
        raise WeightsError("holds something else than tensors by name", where=file, hint="give a state dict")
    return dict(state)


def _is_plain(value: object) -> bool:
    """Whether it is a tensor of numbers that are there: not on the meta device, sparse or nested."""
    if not isinstance(value, torch.Tensor) or value.is_nested:
        return False
    return value.layout == torch.strided and value.device.type == "cpu"


def _read_safetensors(file: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if (size := file.stat().st_size) > MAX_BYTES:
            raise WeightsError(f"{size} bytes, over the limit of {MAX_BYTES}", where=file)
        return load_file(file)
    except FileNotFoundError:
        raise WeightsError("no such file", where=file) from None
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"not a safetensors file ({error})", where=file) from None


def gmnet_names() -> Iterator[tuple[str, str]]:
    """Pairs of our key and the released one, for every tensor that the network uses."""
    for kind, theirs in (("encoder", "encoder"), ("gate_encoder", "encoder_gate")):
        for i, (_, _, scale) in enumerate(ENCODER):
            parts = ["conv_bn_relu_in", "dwconv_bn_relu_1", "dwconv_bn_relu_2", "conv_bn_relu_out"]
            yield from _block(f"{kind}.{i}", f"{theirs}.{i}", parts, scale)
    for kind, prefixes in (
        ("decoder", [f"decoder.{i}" for i in range(4)] + ["up_last"]),
        ("gate_decoder", [f"decoder_gate.{i}" for i in range(4)]),
    ):
        for i, ((_, scale), prefix) in enumerate(zip(DECODER, prefixes, strict=False)):
            parts = ["dwconv_bn_relu_1", "dwconv_bn_relu_2", "conv_bn_relu_out"]
            yield from _block(f"{kind}.{i}", prefix, parts, scale)
    for name in ("weight", "bias"):
        yield from ((f"gates.{i}.{name}", f"gate_layers.{i}.0.{name}") for i in range(5))
        yield f"head.{name}", f"outp_layer.0.{name}"


def _block(ours: str, theirs: str, parts: list[str], scale: int) -> Iterator[tuple[str, str]]:
    used = [part for part in parts if part != "dwconv_bn_relu_2" or scale == 4]
    for number, part in enumerate(used):
        place = 1 + 3 * number  # behind the pooling or enlargement; three layers a part
        for name in ("weight", "bias"):
            yield f"{ours}.{place}.{name}", f"{theirs}.{part}.0.{name}"
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            yield f"{ours}.{place + 1}.{name}", f"{theirs}.{part}.1.{name}"


# Blocks whose second depth-wise convolution is stored and never used: those that change the size by 2.
_UNUSED = frozenset(
    [f"{kind}.{i}" for kind in ("encoder", "encoder_gate") for i, block in enumerate(ENCODER) if block[2] == 2]
    + [f"{kind}.{i}" for kind in ("decoder", "decoder_gate") for i, block in enumerate(DECODER[:4]) if block[1] == 2]
    + ["up_last"]
)
