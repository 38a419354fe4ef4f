"""Does the trained network beat every trivial row on the test scenes? compare.py leaderboard.json; exit 1 if not."""

import json
import sys
from pathlib import Path

for table in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["tables"]:
    scores = {row["model"]["label"]: row["metrics"][table["headline"]]["mean"] for row in table["rows"]}
    trained = max(scores[row["model"]["label"]] for row in table["rows"] if not row["trivial"])
    trivial = max(scores[row["model"]["label"]] for row in table["rows"] if row["trivial"])
    print(f"{table['split']}: trained network {trained:.3f}, best trivial row {trivial:.3f} ({table['headline']})")
    if trained <= trivial:
        sys.exit("the network does not beat the trivial rows")
