import subprocess
import sys

import tidemark.datasets


def test_names_of_the_package_load_on_first_use():
    for name in tidemark.datasets.__all__:
        assert getattr(tidemark.datasets, name).__name__ == name


def test_the_format_is_read_and_written_without_torch():
    program = (
        "import sys, tidemark.datasets\n"
        "from tidemark.datasets import Shard, build, guard, load_manifest, reader, shard, spec, worker\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
