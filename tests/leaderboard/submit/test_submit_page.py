"""``leaderboard/SUBMIT.md`` followed as it is written, by a shell, in a clone with a tiny data set of that name."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from tidemark.cli import app
from tidemark.leaderboard import check
from tidemark.leaderboard.entries import load_entries

PAGE = Path(check.__file__).with_name("SUBMIT.md")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
STEPS = [text for kind, text in BLOCKS if kind == "sh"]


def follow(steps, folder):
    """Run the page's commands one block after the other, as they are written; returns what they print."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
        "GIT_CONFIG_GLOBAL": os.devnull,
        **{f"GIT_{who}_{what}": "t@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    said = []
    for step in steps:
        done = subprocess.run(["bash", "-eu", "-c", step], cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{step}\n{done.stdout}{done.stderr}"
        said.append(done.stdout)
    return said


@pytest.fixture
def clone(lab, tmp_path):
    """A clone of a project whose board has the house's rows, with the data beside it."""
    folder = tmp_path / "tidemark"
    shutil.copytree(lab.board, folder / "leaderboard" / "submissions")
    (folder / ".gitignore").write_text("data/\nruns/\npacked/\n")
    start = "git init -q -b main . && git add . && git commit -q -m start && git init -q --bare ../origin.git"
    follow([f"{start} && git remote add origin ../origin.git"], folder)
    shutil.copytree(lab.data, folder / "data")
    return folder


def followed(folder, said):
    """What must have come of steps 2 to 6."""
    packed, located, pulled, verified, _ = said
    assert "not ready for the board" in packed and "the board takes it" in located
    assert "claimed" in pulled
    assert len(re.findall(r"seed \d, (val|test): .* made anew .* 100.000% of the predictions equal", verified)) == 6
    entry = load_entries(folder / "leaderboard" / "submissions")[-1]
    assert (entry.team, entry.tier, entry.withdrawn) == (
        "Fenland Water Lab",
        "reproduced",
        "The training data held test scenes.",
    )
    log = subprocess.run(["git", "log", "--format=%s", "submission"], cwd=folder, capture_output=True, text=True).stdout
    assert log.count("Fenland Water Lab") == 3 and not entry.active


def test_the_page_works_from_packing_on(clone, lab):
    assert len(STEPS) == 6 and STEPS[0].count("tidemark train") == 1
    shutil.copytree(lab.patch_runs[0].parents[2], clone / "runs")
    followed(clone, follow(STEPS[1:], clone))


@pytest.mark.slow
def test_the_page_works_from_the_first_command_to_the_last(clone):
    followed(clone, follow(STEPS, clone)[1:])


def test_only_the_upload_is_not_followed():
    others = [text for kind, text in BLOCKS if kind != "sh"]
    assert others == ["hf upload fenland/patch-cnn packed .\n"]


def test_every_command_of_the_page_exists_with_these_options():
    known, seen = typer.main.get_command(app), 0
    for line in "".join(STEPS).replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["tidemark"]:
            command, rest = known, words[1:]
            while hasattr(command, "commands"):
                command, rest = command.commands[rest[0]], rest[1:]
            options = {name for parameter in command.params for name in parameter.opts}
            assert {word for word in rest if word.startswith("--")} <= options, line
            seen += 1
    assert seen >= 11


def test_the_readme_links_to_the_page():
    assert "(leaderboard/SUBMIT.md)" in (PAGE.parents[1] / "README.md").read_text()
