"""Commands of the board; each imports what it needs when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .command import submit_app

SPEEDS = Path(__file__).parent / "speed"
app = typer.Typer()
leaderboard_app = typer.Typer(no_args_is_help=True, help="The leaderboard and its page.")
app.add_typer(leaderboard_app, name="leaderboard")
app.add_typer(submit_app, name="submit")


@leaderboard_app.command("build")
def leaderboard_build(
    records: Annotated[list[Path] | None, typer.Argument(help="Folders of result records.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for index.html and the data beside it.")] = Path("site"),
    speeds: Annotated[Path | None, typer.Option(help="Folder of records of `tidemark bench model`.")] = None,
) -> None:
    """Render the leaderboard page from submissions and result records."""
    from .site import build_site

    own = SPEEDS if records is None and SPEEDS.is_dir() else None
    print(build_site(records or [Path(__file__).parent / "submissions"], out, speeds or own))


@leaderboard_app.command("publish")
def leaderboard_publish(
    out: Annotated[Path, typer.Option(help="A new folder, or one published before.")],
    records: Annotated[list[Path] | None, typer.Argument(help="Folders of submissions and result records.")] = None,
) -> None:
    """Write the page as a Hugging Face static Space, ready to upload."""
    from .publish import publish

    own = SPEEDS if records is None and SPEEDS.is_dir() else None
    folder = publish(records or [Path(__file__).parent / "submissions"], out, own)
    print(f"{folder}; upload it: hf upload OWNER/NAME {folder} --repo-type space")


@leaderboard_app.command("card")
def leaderboard_card(
    weights: Annotated[Path, typer.Argument(help="A folder of weights, or a run's.")],
    records: Annotated[list[Path], typer.Argument(help="Result records of these weights.")],
) -> None:
    """Enter the scores of records into the model card beside the weights (README.md, its model-index)."""
    from .publish import score_card

    print(score_card(weights, records))
