"""Other runtimes for networks on CPUs: a network is exported to ONNX once and kept by the hash of its weights.

ONNX Runtime and OpenVINO are optional (``pip install tidemark[onnx]`` or ``tidemark[openvino]``). The first batch goes
through PyTorch too: how many of its pixels get the same class is kept, and too few are an error.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .. import _compat  # noqa: F401
from ..datasets.files import atomic_path
from ..errors import ConfigError, DeviceError, WeightsError
from .losses import class_map
from .session import quiet
from .weights import Pretrained

BACKENDS = ("torch", "onnxruntime", "openvino")
PRECISIONS = ("fp32", "bf16")
MODULES = {
    "onnxruntime": ("onnxruntime", "onnx", "onnxscript"),
    "openvino": ("openvino", "onnx", "onnxscript"),
}
EXTRAS = {"onnxruntime": "onnx", "openvino": "openvino"}
EXPORTERS = ("torch.onnx", "onnxscript", "onnx_ir")  # whose progress is of no use to who maps a scene
OPSET = 20
MIN_AGREEMENT = 0.99  # share of equal pixels; runtimes that are right have been seen at 0.995 and more
Shapes = dict[str, tuple[int, ...]]
Run = Callable[[dict[str, np.ndarray]], np.ndarray]


def with_backend(
    pretrained: Pretrained, backend: str = "torch", precision: str = "fp32", cache: str | Path | None = None
) -> Pretrained:
    """The same weights with a model that another runtime evaluates.

    Args:
        pretrained: weights for classes.
        backend: ``torch``, ``onnxruntime`` or ``openvino``; the last two on the CPU.
        precision: ``fp32``; or ``bf16`` of activations, by torch and OpenVINO.
        cache: folder of exported networks, see `cache_folder`.

    Returns:
        ``pretrained`` itself for torch in fp32, else a copy whose ``model`` is an `Accelerated`.

    Raises:
        ConfigError: an unknown or missing runtime, one that has no such precision, or weights of reflectance.
        DeviceError: the processor has no bf16.
    """
    for what, given, known in (("backend", backend, BACKENDS), ("precision", precision, PRECISIONS)):
        if given not in known:
            raise ConfigError(f"no {what} {given!r}", hint=f"there is {', '.join(known)}")
    if (backend, precision) == ("torch", "fp32"):
        return pretrained
    if pretrained.task_kind == "regression":
        raise ConfigError(f"networks of reflectance run in PyTorch and fp32, not in {backend} {precision}")
    if (backend, precision) == ("onnxruntime", "bf16"):
        raise ConfigError("ONNX Runtime has no bf16 on CPUs", hint="take --backend openvino or --precision fp32")
    missing = [name for name in MODULES.get(backend, ()) if find_spec(name) is None]
    if missing:
        hint = f"pip install 'tidemark[{EXTRAS[backend]}]'"
        raise ConfigError(f"--backend {backend} needs {', '.join(missing)}", hint=hint)
    if backend == "openvino" and precision == "bf16":
        import openvino

        if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise DeviceError("this processor has no bf16", hint="take --precision fp32")
    return replace(pretrained, model=Accelerated(pretrained, backend, precision, cache or cache_folder()))


def cache_folder() -> Path:
    """Where exported networks are kept: ``TIDEMARK_CACHE``, or ``tidemark`` in the user's cache folder."""
    if own := os.environ.get("TIDEMARK_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tidemark"


class Accelerated(nn.Module):
    """A network in another runtime, called as the network itself.

    The first call fixes the inputs' sizes and the batch; a smaller batch is filled up.

    Attributes:
        agreement: share of the first batch's pixels (or patches) with the same class as in PyTorch and fp32; None
            before the first call.
    """

    def __init__(self, pretrained: Pretrained, backend: str, precision: str, cache: str | Path) -> None:
        super().__init__()
        self.pretrained, self.network = pretrained, pretrained.model
        self.backend, self.precision = backend, precision
        self.cache = Path(cache)
        self.agreement: float | None = None
        self._sizes: Shapes = {}
        self._run: Run | None = None

    @property
    def label(self) -> str:
        """Runtime and precision in words."""
        return f"{self.backend} {self.precision}"

    def forward(self, **inputs: Tensor) -> Tensor:
        """Logits of ``inputs``, float32 (B,C,H,W) by name.

        Raises:
            DeviceError: inputs on a GPU.
            WeightsError: the runtime cannot take the network, or too few classes agree with PyTorch's.
        """
        if self.backend != "torch" and any(values.is_cuda for values in inputs.values()):
            raise DeviceError(f"--backend {self.backend} runs on the CPU here", hint="take --device cpu")
        shapes = {name: tuple(values.shape) for name, values in inputs.items()}
        count = next(iter(shapes.values()))[0]
        sizes = {name: shape[1:] for name, shape in shapes.items()}
        if sizes != self._sizes or count > self._batch:
            self._sizes, self._batch = sizes, count
            self._run = self._open(shapes)
        logits = self._evaluate(inputs, count)
        if self.agreement is None:
            self.agreement = self._agreement(inputs, logits)
        return logits

    def _evaluate(self, inputs: Mapping[str, Tensor], count: int) -> Tensor:
        if self.backend == "torch":
            with torch.autocast(next(iter(inputs.values())).device.type, torch.bfloat16):
                return self.network(**inputs).float()
        given = {}
        for name, values in inputs.items():
            filled = np.zeros((self._batch, *self._sizes[name]), np.float32)
            filled[:count] = values.numpy()
            given[name] = filled
        return torch.from_numpy(self._run(given)[:count].astype(np.float32))  # a copy: runtimes reuse their buffers

    def _agreement(self, inputs: Mapping[str, Tensor], logits: Tensor) -> float:
        expected = class_map(self.network(**inputs))
        share = float((class_map(logits) == expected).float().mean())
        if not share >= MIN_AGREEMENT:
            raise WeightsError(
                f"only {share:.1%} of the first pixels have the same class in {self.label} as in torch fp32",
                hint="take --backend torch",
            )
        return share

    def _open(self, shapes: Shapes) -> Run | None:
        if self.backend == "torch":
            return None
        path = self.cache / f"{_key(self.pretrained, shapes)}.onnx"
        opener = {"onnxruntime": _open_onnxruntime, "openvino": _open_openvino}[self.backend]
        fresh = not path.is_file()
        if fresh:
            _export(self.pretrained, shapes, path)
        try:
            return opener(path, self.precision, list(shapes))
        except Exception as error:  # of many kinds, and none of them public
            path.unlink(missing_ok=True)
            if not fresh:  # a file that was cut short or is of another version
                return self._open(shapes)
            what = str(error).strip().splitlines() or [type(error).__name__]
            raise WeightsError(f"{self.backend} cannot take {self.pretrained.name} ({what[0]})") from error


def _key(pretrained: Pretrained, shapes: Shapes) -> str:
    """One name per network, weights, input sizes and exporter."""
    import onnx

    about = {
        "weights": pretrained.weights_sha256,
        "model": [pretrained.name, pretrained.args],
        "shapes": shapes,
        "versions": [torch.__version__, onnx.__version__, OPSET],
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]


def _export(pretrained: Pretrained, shapes: Shapes, path: Path) -> None:
    model = pretrained.model.eval()
    examples = {name: torch.zeros(shape) for name, shape in shapes.items()}
    with quiet(EXPORTERS, modules=""):
        try:
            program = torch.onnx.export(
                model, kwargs=examples, input_names=list(shapes), opset_version=OPSET, dynamo=True, verbose=False
            )
        except Exception as error:  # the exporter wraps whatever it meets
            what = str(error).strip().splitlines() or [type(error).__name__]
            raise WeightsError(
                f"{pretrained.name} cannot be exported ({what[0]})", hint="take --backend torch"
            ) from error
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            program.save(str(temporary), external_data=False)


def _open_onnxruntime(path: Path, precision: str, names: Sequence[str]) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, inputs)[0]


def _open_openvino(path: Path, precision: str, names: Sequence[str]) -> Run:
    import openvino

    core = openvino.Core()
    settings = {
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = core.compile_model(core.read_model(str(path)), "CPU", settings).create_infer_request()
    return lambda inputs: request.infer(inputs)[0]
