"""``tidemark bench backends``: every runtime that is here is timed against eager PyTorch and compared with it."""

import json

import pytest
from tidemark.benchmark.backends import EAGER, bench_backends
from tidemark.errors import InputError


@pytest.mark.slow
def test_every_runtime_is_timed_and_compared_or_said_to_be_missing(tmp_path, capsys):
    out = tmp_path / "backends.json"
    arguments = {"encoder": "resnet18", "decoder_channels": [8, 4, 4, 4, 4]}
    bench_backends("unet", arguments=arguments, size=64, batch=1, threads=1, quick=True, out=out)
    record = json.loads(out.read_text())
    assert record["chips"] == 2 and record["batch"] == 1 and record["quick"]
    assert {"onnxruntime fp32", "openvino fp32", "torch bf16"} <= record["rows"].keys() | record["missing"].keys()
    assert record["rows"][EAGER]["of_eager"]["median"] == 1
    for row in record["rows"].values():
        assert row["chips_per_s"] > 0 and row["agreement"] > 0.99
    assert "measures nothing" in capsys.readouterr().out


def test_a_batch_without_chips_is_refused():
    with pytest.raises(InputError, match="batch size above 0, found 0"):
        bench_backends("patch-cnn", batch=0)
