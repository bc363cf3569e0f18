"""`siamese-fast bench`: the operations against other libraries, on this machine."""

from __future__ import annotations

from siamese_fast.cli._common import Json


def bench(as_json: Json = False) -> None:
    """Time the operations against other libraries on this machine."""
    raise NotImplementedError
