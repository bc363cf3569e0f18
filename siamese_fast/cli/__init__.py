"""The command `siamese-fast`; one file a subcommand."""

from siamese_fast.cli._app import main

__all__ = ["main"]
