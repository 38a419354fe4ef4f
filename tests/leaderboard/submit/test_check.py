"""What a pull request may add to the board, on real git repositories; and what the board takes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from tidemark.errors import FormatError, InputError
from tidemark.leaderboard import check
from tidemark.leaderboard.check import BOARD, check_pull_request, main
from tidemark.leaderboard.entries import load_entries
from tidemark.leaderboard.statement import check_statement
from tidemark.leaderboard.submission import SUBMISSION_NAME, VERIFICATION_NAME, WITHDRAWN_NAME, read_submission

WORKFLOW = Path(check.__file__).parents[1] / ".github" / "workflows" / "submission.yml"


class Repository:
    """A clone of a project with a board, on a branch ``pull`` of ``main``."""

    def __init__(self, folder, board):
        self.folder = folder
        shutil.copytree(board, folder / BOARD)
        (folder / "README.md").write_text("a project\n")
        self.git("init", "-q", "-b", "main")
        self.commit()
        self.git("switch", "-q", "-c", "pull")

    def git(self, *arguments):
        identity = ["-c", "user.name=T", "-c", "user.email=t@example.org"]
        environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull}
        command = ["git", "-C", self.folder, *identity, *arguments]
        subprocess.run(command, check=True, capture_output=True, env=environment)

    def commit(self):
        self.git("add", "-A", "-f")
        self.git("commit", "-q", "-m", "change")

    def add(self, packed, at=None):
        """Put a packed folder's statement in its place (or at another one) and commit; returns the file."""
        target = self.folder / (at or f"{BOARD}/{read_submission(packed / SUBMISSION_NAME).folder}/{SUBMISSION_NAME}")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(packed / SUBMISSION_NAME, target)
        self.commit()
        return target

    def check(self):
        return check_pull_request("main", "pull", self.folder)


@pytest.fixture
def repository(lab, tmp_path):
    return Repository(tmp_path / "project", lab.board)


def test_a_new_submission_is_taken_as_claimed(repository, packed, capsys):
    target = repository.add(packed.patches)
    assert main(["--base", "main", "--head", "pull", "--repository", str(repository.folder)]) == 0
    assert (
        f"{target.parent.name}: 'A small model' by 'Fenland Water Lab', seeds 0, 1, 2: claimed"
        in capsys.readouterr().out
    )
    repository.add(packed.maps)
    accepted, faults = repository.check()
    assert len(accepted) == 2 and faults == []


BARE = """
import importlib.abc, sys
allowed = sys.stdlib_module_names | {"tidemark", *sys.argv.pop(1).split(",")}
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed and not name.startswith("_"):
            raise ModuleNotFoundError(f"not installed: {name}", name=name)
sys.meta_path.insert(0, Missing())
from tidemark.leaderboard.check import main
sys.exit(main(sys.argv[1:]))
"""


def test_the_check_needs_only_what_the_workflow_installs(repository, packed):
    """It runs where there is neither torch nor HDF5, with the packages of the workflow's line and what those need."""
    repository.add(packed.patches)
    (line,) = (line for line in WORKFLOW.read_text().splitlines() if "numpy" in line)
    installed = line.split("constraints.txt")[1].replace("pyyaml", "yaml").split()
    installed += ["annotated_types", "pydantic_core", "typing_extensions", "typing_inspection", "cython_runtime"]
    arguments = ["--base", "main", "--head", "pull", "--repository", repository.folder]
    command = [sys.executable, "-P", "-c", BARE, ",".join(installed), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "claimed" in done.stdout, done.stdout + done.stderr


def test_a_pull_request_that_leaves_the_board_alone_is_no_submission(repository, capsys):
    (repository.folder / "README.md").write_text("better words\n")
    repository.commit()
    assert repository.check() == ([], [])
    assert main(["--base", "main", "--head", "pull", "--repository", str(repository.folder)]) == 0
    assert "no submission in this pull request" in capsys.readouterr().out


@pytest.mark.parametrize(
    "at, match",
    [
        ("leaderboard/check.py", "not a place for a submission"),
        (".github/workflows/submission.yml", "not a place for a submission"),
        (f"{BOARD}/polar-patch/v2/patch-cnn/{'0' * 64}/{VERIFICATION_NAME}", "not a place for a submission"),
        (f"{BOARD}/polar-patch/v2/patch-cnn/{'0' * 64}/{WITHDRAWN_NAME}", "not a place for a submission"),
        (f"{BOARD}/polar-patch/v2/patch-cnn/{'0' * 64}/model.safetensors", "not a place for a submission"),
        (f"{BOARD}/polar-patch/v2/patch-cnn/0123abcd-seed0/test.json", "not a place for a submission"),
        (f"{BOARD}/polar-patch/v2/patch-cnn/{'0' * 64}/{SUBMISSION_NAME}", "belongs at"),
        (f"{BOARD}/other/v1/patch-cnn/{'0' * 64}/{SUBMISSION_NAME}", "belongs at"),
    ],
)
def test_a_file_in_any_other_place_is_refused(repository, packed, at, match):
    repository.add(packed.patches)
    repository.add(packed.maps, at)
    _, faults = repository.check()
    assert len(faults) == 1 and at in faults[0] and match in faults[0]


def test_what_stands_on_the_board_cannot_be_changed_moved_or_deleted(repository, packed):
    repository.add(packed.patches)
    record, other, third = sorted((repository.folder / BOARD).rglob("test.json"))
    record.write_text(record.read_text() + " ")
    other.unlink()
    third.rename(third.with_name("moved.json"))
    repository.commit()
    _, faults = repository.check()
    assert sorted(fault.split(": ")[1].split(";")[0] for fault in faults) == [
        "changed",
        "deleted",
        "deleted",
        "not a place for a submission",
    ]


def test_links_programs_and_modules_are_refused(repository, packed):
    target = repository.add(packed.patches)
    target.unlink()
    target.symlink_to("/etc/passwd")
    repository.commit()
    assert "mode 120000" in repository.check()[1][0]
    target.unlink()
    shutil.copyfile(packed.patches / SUBMISSION_NAME, target)
    target.chmod(0o755)
    repository.commit()
    assert "mode 100755" in repository.check()[1][0]


def test_a_huge_file_is_refused_by_its_size_alone(repository, packed):
    target = repository.add(packed.patches)
    target.write_bytes(b" " * (8 << 20) + target.read_bytes())
    repository.commit()
    assert "over the limit of 8388608" in repository.check()[1][0]


def test_names_that_would_confuse_a_terminal_or_git_are_shown_escaped(repository, packed, capfd):
    repository.add(packed.patches, f'{BOARD}/a\n"b\x1b[2J/-rf')
    assert main(["--base", "main", "--head", "pull", "--repository", str(repository.folder)]) == 2
    text = capfd.readouterr().err
    assert "\\n" in text and "\\u001b" in text and "\x1b" not in text


def test_the_board_is_that_of_the_base_whatever_is_checked_out(repository, packed, copy, forge):
    repository.add(packed.patches)
    repository.git("branch", "-f", "main", "pull")
    thief = copy("patches", "thief")
    forge.edit(thief, lambda raw: raw.update(team="Others", title="Our discovery"))
    repository.add(thief)
    repository.git("switch", "-q", "-d", "main~1")
    _, faults = repository.check()
    assert len(faults) == 1 and "are those of 'A small model' by Fenland Water Lab" in faults[0]


def test_two_copies_in_one_pull_request_are_found(repository, packed, copy, forge):
    thief = copy("maps", "thief")
    forge.edit(thief, lambda raw: raw.update(team="Others"))
    repository.add(packed.maps)
    repository.add(thief)
    accepted, faults = repository.check()
    assert len(accepted) == 1 and "a copied submission is refused" in faults[0]


def test_an_unknown_revision_is_an_error_and_no_option(repository):
    for head in ("nowhere", "--output=/tmp/x"):
        with pytest.raises(InputError, match="git rev-parse"):
            check_pull_request("main", head, repository.folder)


def statement_of(folder):
    return read_submission(folder / SUBMISSION_NAME)


def test_the_same_submission_twice_is_refused(board, packed):
    submission = statement_of(packed.patches)
    place = board / submission.folder
    place.mkdir(parents=True)
    shutil.copyfile(packed.patches / SUBMISSION_NAME, place / SUBMISSION_NAME)
    with pytest.raises(FormatError, match="/id: the submission .* is on the board already"):
        check_statement(submission, load_entries(board))
    other = board / "elsewhere"
    other.mkdir()
    shutil.copyfile(packed.patches / SUBMISSION_NAME, other / SUBMISSION_NAME)
    with pytest.raises(FormatError, match="lies at .* too"):
        load_entries(board)


def test_a_copy_of_a_house_row_is_refused(lab, house, statement, tmp_path):
    from tidemark.leaderboard.pack import pack

    run = next(lab.map_runs[0].parents[1].glob("all-dry-*/seed0"))
    submission = pack([run], tmp_path / "dry", **statement)
    with pytest.raises(
        FormatError, match="/runs/0/predictions/.*/sha256: these predictions are those of 'all dry' by Tidemark"
    ):
        check_statement(submission, house)


def test_an_own_correction_supersedes_and_another_teams_row_cannot_be_taken_off(board, packed, copy, forge):
    old = statement_of(packed.maps)
    (board / old.folder).mkdir(parents=True)
    shutil.copyfile(packed.maps / SUBMISSION_NAME, board / old.folder / SUBMISSION_NAME)
    folder = copy("maps")
    forge.edit(folder, lambda raw: raw.update(title="Corrected", supersedes=[old.id]))
    new = statement_of(folder)
    check_statement(new, load_entries(board))
    (board / new.folder).mkdir(parents=True)
    shutil.copyfile(folder / SUBMISSION_NAME, board / new.folder / SUBMISSION_NAME)
    assert {e.id: e.superseded_by for e in load_entries(board)}[old.id] == new.id

    entries = [entry for entry in load_entries(board) if entry.id != new.id]
    forge.edit(folder, lambda raw: raw.update(team="Others"))
    with pytest.raises(FormatError, match="/supersedes/0: .* is of another team"):
        check_statement(statement_of(folder), entries)
    forge.edit(folder, lambda raw: raw.update(team="FENLAND  water lab", contact="https://example.org/other"))
    with pytest.raises(
        FormatError, match="/contact: the team 'Fenland Water Lab' is on the board with another contact"
    ):
        check_statement(statement_of(folder), entries)
    forge.edit(folder, lambda raw: raw.update(supersedes=["0" * 64]))
    with pytest.raises(FormatError, match="/supersedes/0: no submission 0000"):
        check_statement(statement_of(folder), entries)


@pytest.mark.parametrize(
    "change, match",
    [
        ({"title": "<b>Best</b>"}, r"/title: markup \('<b'\)"),
        ({"note": "x <!-- -->"}, "/note: markup"),
        ({"training_data": ["<script>alert(1)</script>"]}, "/training_data/0: markup"),
        ({"note": "javascript:alert(1)"}, "/note: markup"),
        ({"note": "a &lt;b"}, "/note: markup"),
        ({"team": "Fen\u202eland"}, r"/team: an invisible character \(U\+202E\)"),
        ({"title": "a\x1b[31mred"}, r"/title: an invisible character \(U\+001B\)"),
        *(
            ({"team": f"Tide{letter}mark"}, rf"/team: an invisible character \(U\+{ord(letter):04X}\)")
            for letter in "\xad\u034f\u061c\u180e\u2028\u2800\u3164\ufe0f\U000e0041\U000e0100"
        ),
        ({"team": " \u00a0"}, "/team: is blank"),
        ({"title": "\n"}, "/title: is blank"),
        ({"training_data": ["the training split", "\u3000"]}, "/training_data/1: is blank"),
        ({"team": "  tidemark "}, "/team: Tidemark is the project's own name"),
        ({"team": "Ｔｉｄｅｍａｒｋ"}, "/team: Tidemark is the project's own name"),
        ({"artifacts": None}, "/artifacts: nobody can fetch"),
        ({"submitted": "2099-01-01T00:00:00Z"}, "/submitted: .* is in the future"),
    ],
)
def test_texts_that_are_no_plain_words_are_refused(copy, forge, house, change, match):
    folder = copy("maps")
    forge.edit(folder, lambda raw: raw.update(change))
    with pytest.raises(FormatError, match=match):
        check_statement(statement_of(folder), house, now=datetime(2050, 1, 1, tzinfo=UTC))


def test_markup_deep_in_a_record_is_found(copy, forge, house):
    folder = copy("maps")
    forge.restate(folder, 1, "val", note="<img src=x>")
    with pytest.raises(FormatError, match="/runs/1/records/val/note: markup"):
        check_statement(statement_of(folder), house)


def swapped(raw, key, value):
    """State another data set value wherever it stands."""
    from tidemark.benchmark.records import make_result

    if key in raw["dataset"]:
        raw["dataset"][key] = value
    for run in raw["runs"]:
        for split, record in run["records"].items():
            record = {**record, "dataset": {**record["dataset"], key: value}}
            del record["id"]
            run["records"][split] = make_result(**record).model_dump(mode="json")


@pytest.mark.parametrize(
    "key, value, match",
    [
        ("version", "2.0.0", "/dataset/version: the board has no table for maps 2.0.0"),
        ("content_sha256", "0" * 64, "/dataset/content_sha256: found 0000"),
        ("licence", "public domain", "/dataset/licence: found public domain"),
        ("title", "Mine", "/dataset/title: found Mine"),
    ],
)
def test_a_swapped_data_set_is_refused(copy, forge, house, key, value, match):
    folder = copy("maps")
    forge.edit(folder, lambda raw: swapped(raw, key, value))
    with pytest.raises(FormatError, match=match):
        check_statement(statement_of(folder), house)


def test_every_split_that_the_board_scores_must_be_there(copy, forge, house):
    folder = copy("maps")

    def drop(raw):
        for run in raw["runs"]:
            del run["records"]["val"], run["predictions"]["val"]

    forge.edit(folder, drop)
    with pytest.raises(FormatError, match="/runs/0/records: nothing on val, which the board's rows are scored on"):
        check_statement(statement_of(folder), house)


def test_a_split_that_the_board_has_no_table_for_is_refused(copy, forge, house):
    from tidemark.benchmark.records import make_result

    folder = copy("maps")

    def add(raw):
        for run in raw["runs"]:
            record = json.loads(json.dumps(run["records"]["val"]))
            record["dataset"]["split"] = "gold"
            del record["id"]
            run["records"]["gold"] = make_result(**record).model_dump(mode="json")
            path = f"seed{run['seed']}/gold/predictions.h5"
            run["predictions"]["gold"] = {**run["predictions"]["val"], "path": path}

    forge.edit(folder, add)
    match = "/runs/0/records/gold: the board has no table for this split of maps 1.0.0; submit test and val alone"
    with pytest.raises(FormatError, match=match):
        check_statement(statement_of(folder), house)


def test_integers_that_are_not_of_these_labels_are_refused_without_any_file(copy, forge, house):
    folder = copy("maps")
    units = [unit.model_dump(mode="json") for unit in statement_of(folder).runs[0].records["test"].units]
    units[0]["confusion"][0][0] += 1
    units[0]["confusion"][1][1] -= 1
    forge.restate(folder, 0, "test", units=units)
    with pytest.raises(FormatError, match=r"/runs/0/records/test/units/0/confusion \(pixels by true class\)"):
        check_statement(statement_of(folder), house)


def test_a_figure_that_its_integers_do_not_give_is_refused(copy, forge, house):
    folder = copy("maps")
    metrics = {key: m.model_dump() for key, m in statement_of(folder).runs[0].records["test"].metrics.items()}
    metrics["iou"]["value"] += 0.01
    forge.restate(folder, 0, "test", metrics=metrics)
    with pytest.raises(FormatError, match="/runs/0/records/test/metrics/iou: .* its integers give"):
        check_statement(statement_of(folder), house)


def test_the_workflow_has_no_rights_no_secrets_and_pinned_actions():
    text = WORKFLOW.read_text()
    workflow = yaml.safe_load(text)
    triggers = workflow[True]  # YAML 1.1 reads the key `on` as true
    assert set(triggers) == {"pull_request"} and workflow["permissions"] == {"contents": "read"}
    assert "secrets." not in text and "pull_request_target" not in text
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    uses = [step["uses"] for step in steps if "uses" in step]
    assert uses and all(
        len(one.partition("@")[2]) == 40 and set(one.partition("@")[2]) <= set("0123456789abcdef") for one in uses
    )
    checkout = next(step for step in steps if step.get("uses", "").startswith("actions/checkout@"))
    assert checkout["with"]["ref"] == "${{ github.event.pull_request.base.sha }}"
    assert checkout["with"]["persist-credentials"] is False
    for step in steps:  # what the submitter writes reaches a shell as a variable's value, never as its text
        assert "${{" not in step.get("run", "")


def test_the_workflow_runs_the_check_of_the_base(repository, packed, tmp_path):
    """The workflow's own commands, with a clone of the project as origin and the pull request as a ref of it."""
    repository.add(packed.patches)
    repository.git("update-ref", "refs/pull/7/head", "pull")
    repository.git("switch", "-q", "main")
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", repository.folder, clone], check=True)
    workflow = yaml.safe_load(WORKFLOW.read_text())
    step = next(s for s in workflow["jobs"]["check"]["steps"] if "tidemark.leaderboard.check" in s.get("run", ""))
    base = subprocess.run(["git", "-C", clone, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "NUMBER": "7",
        "BASE": base.strip(),
    }
    assert set(step["env"]) == {"NUMBER", "BASE"}
    done = subprocess.run(["bash", "-e", "-c", step["run"]], cwd=clone, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "claimed" in done.stdout, done.stdout + done.stderr
    assert json.loads((packed.patches / SUBMISSION_NAME).read_bytes())["id"] in done.stdout
    assert not list(clone.rglob(SUBMISSION_NAME))  # the pull request itself was never checked out
