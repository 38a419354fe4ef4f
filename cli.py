"""The ``tidemark`` command. Every room has its verbs in ``<room>/verbs.py``; this is their front door."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from .benchmark import verbs as benchmark_verbs
from .datasets import verbs as dataset_verbs
from .leaderboard import verbs as leaderboard_verbs
from .models import verbs as model_verbs

app = typer.Typer(
    name="tidemark",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="HDF5 data sets, models and benchmarks for water, ice and reflectance from satellites.",
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def _common(debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False) -> None:
    if debug:
        os.environ["TIDEMARK_DEBUG"] = "1"


@app.command()
def doctor(json_output: Json = False) -> None:
    """Show versions, HDF5, GDAL, CUDA and codecs, and what is missing."""
    from .doctor import diagnose

    raise typer.Exit(diagnose(json_output))


@app.command("list")
def list_all(
    data_root: Annotated[Path, typer.Option(help="Where data sets lie.")] = Path("data"), json_output: Json = False
) -> None:
    """List builders, data sets on this disk with their size, models and tables."""
    from .doctor import inventory

    inventory(data_root, json_output)


@app.command()
def info(
    folder: Annotated[Path | None, typer.Argument(help="A data set's folder.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the manifest's JSON Schema.")] = False,
    json_output: Json = False,
) -> None:
    """Show what a data set is."""
    from .doctor import describe

    describe(folder, schema, json_output)


for verbs in (dataset_verbs, model_verbs, benchmark_verbs, leaderboard_verbs):
    app.add_typer(verbs.app)


def main() -> None:
    """Run the command line; Tidemark's errors end in one line and their exit code."""
    from .errors import TidemarkError

    try:
        app()
    except TidemarkError as error:
        if os.environ.get("TIDEMARK_DEBUG"):
            raise
        print(f"tidemark: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
