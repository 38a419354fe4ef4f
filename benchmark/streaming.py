"""``tidemark bench stream``: streaming against download-then-read, through the real client and a hub on localhost.

The hub answers every request after a latency and sends all bytes over one line of a given rate. Each contender is a
process of its own with an empty cache. Connections are made without the round trips of a real network's handshakes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ..datasets.build import build
from ..datasets.files import write_atomic
from . import synthetic
from .local_hub import GOOD_TOKEN, Hub
from .timing import cpu_in_words

REPOSITORY = "bench/synthetic"
LINE_BYTES_PER_S = 100e6 / 8
LATENCIES_S = (0.02, 0.1)
BATCH = 16
SHARE = 20  # one chip in so many is the sample
FULL = {"chips": 400, "bands": 8, "size": 128}
QUICK = {"chips": 40, "bands": 4, "size": 64}


def bench_stream(quick: bool = False, out: Path | None = None, repeats: int = 3) -> dict:
    """Run the benchmark, print its table and return (and write) the record.

    Args:
        quick: little data and one repeat: shows that it runs, measures nothing.
        out: JSON file for the record.
        repeats: processes per contender and latency; the median is told.
    """
    setting = QUICK if quick else FULL
    with tempfile.TemporaryDirectory() as scratch:
        folder = build(synthetic.plan(**setting), synthetic.__name__, Path(scratch) / "data")
        shard = next(folder.rglob("*.h5")).stat().st_size
        rows = []
        for latency_s in LATENCIES_S:
            runs = {what: [] for what in ("stream", "download", "sample")}
            for _ in range(1 if quick else repeats):
                for what, found in runs.items():
                    found.append(_measure(what, folder, latency_s, scratch))
            rows += [{"latency_s": latency_s, "what": what} | _median(found) for what, found in runs.items()]
    record = {
        "device": cpu_in_words(),
        "line_bytes_per_s": LINE_BYTES_PER_S,
        "batch": BATCH,
        "setting": setting,
        "shard_bytes": shard,
        "quick": quick,
        "rows": rows,
    }
    _print(record)
    if out is not None:
        write_atomic(out, json.dumps(record, indent=1) + "\n")
    return record


def _measure(what: str, folder: Path, latency_s: float, scratch: str) -> dict[str, float]:
    """One fresh process against a fresh hub; the bytes are those that the hub sent."""
    hub = Hub()
    try:
        hub.publish_folder(REPOSITORY, folder, "v1.0.0")
        hub.latency_s, hub.bytes_per_s = latency_s, LINE_BYTES_PER_S
        with tempfile.TemporaryDirectory(dir=scratch) as home:
            environment = os.environ | {
                "HF_ENDPOINT": hub.url,
                "HF_HOME": home,
                "HF_TOKEN": GOOD_TOKEN,
                "HF_HUB_DISABLE_XET": "1",
                "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            }
            command = [sys.executable, "-m", __name__, what, str(Path(home) / "data")]
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        return json.loads(done.stdout.splitlines()[-1]) | {"bytes": hub.sent}
    finally:
        hub.close()


def _child(what: str, root: str) -> dict[str, float]:
    """Time from the call that opens the data to its first batch, and the rate of the batches after it."""
    from ..datasets.chips import ChipDataset
    from ..datasets.hub import pull
    from ..datasets.loader import ChipLoader

    address = f"hf://{REPOSITORY}@1.0.0"
    started = time.perf_counter()
    if what == "sample":
        chips = ChipDataset(address, "train", stream=True)
        for i in range(0, len(chips), SHARE):
            chips[i]
        seconds = time.perf_counter() - started
        return {
            "first_batch_s": seconds,
            "chips_per_s": len(chips) / SHARE / seconds,
        }  # one by one, as a sample is read
    source = address if what == "stream" else pull(address, root)
    loader = ChipLoader(source, "train", BATCH, threads=2, prefetch=4)
    batches = iter(loader)
    next(batches)
    first_s = time.perf_counter() - started
    count = sum(len(batch["index"]) for batch in batches)
    return {"first_batch_s": first_s, "chips_per_s": count / (time.perf_counter() - started - first_s)}


def _median(runs: list[dict[str, float]]) -> dict[str, float]:
    from statistics import median

    return {key: median(run[key] for run in runs) for key in runs[0]}


def _print(record: dict) -> None:
    print(f"stream, {record['device']}, line of {LINE_BYTES_PER_S * 8 / 1e6:.0f} Mbit/s, batches of {BATCH}")
    for row in record["rows"]:
        share = row["bytes"] / record["shard_bytes"]
        line = row["bytes"] * row["chips_per_s"] / record["setting"]["chips"] / LINE_BYTES_PER_S
        used = f", {100 * line:.0f} % of the line's rate" if row["what"] == "stream" else ""
        print(
            f"  {row['latency_s'] * 1000:4.0f} ms  {row['what']:9s} first batch {row['first_batch_s']:6.2f} s, "
            f"{row['chips_per_s']:7.1f} chips/s, {100 * share:5.1f} % of the shard's bytes{used}"
        )


if __name__ == "__main__":
    print(json.dumps(_child(*sys.argv[1:3])))
