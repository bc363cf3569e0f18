"""The application: its subcommands, its global options, and how errors reach the user."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import torch
import typer

import siamese_fast
from siamese_fast.cli.bench import bench
from siamese_fast.cli.compare import compare
from siamese_fast.cli.demo import demo
from siamese_fast.cli.embed import embed
from siamese_fast.cli.evaluate import evaluate
from siamese_fast.cli.info import info
from siamese_fast.cli.predict import predict
from siamese_fast.cli.train import train

_INTERRUPTED = 130

app = typer.Typer(
    name="siamese-fast",
    help="Siamese networks: train on pairs or triplets, then recognise classes from one example each.",
    epilog="Start with: siamese-fast demo",
    no_args_is_help=True,
    rich_markup_mode="rich",
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (demo, train, evaluate, embed, predict, compare, info, bench):
    app.command()(command)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(siamese_fast.__version__)
        raise typer.Exit


@app.callback()
def settings(
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads to use.", show_default="as torch decides")
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if threads is not None:
        torch.set_num_threads(threads)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a user's error is one line on standard error and exit status 2."""
    command = typer.main.get_command(app)
    try:
        status = command.main(args=arguments, prog_name="siamese-fast", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        print("siamese-fast: interrupted", file=sys.stderr)
        sys.exit(_INTERRUPTED)
    except BrokenPipeError:
        sys.exit(0)
    except Exception as error:
        # Errors of the command line know how to say themselves; anything else is a bug with its traceback.
        format_message = getattr(error, "format_message", None)
        if format_message is None:
            raise
        print(f"siamese-fast: {' '.join(format_message().split())}", file=sys.stderr)
        sys.exit(2)
    sys.exit(status if isinstance(status, int) else 0)
