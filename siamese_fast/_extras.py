"""Optional libraries: imported where they are used, with an error that says how to get them."""

from __future__ import annotations

import importlib
from types import ModuleType


def require(module: str, extra: str) -> ModuleType:
    """Import `module`, or raise an ImportError that names the extra of siamese-fast that brings it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        raise ImportError(
            f"{module} is not installed; it comes with: pip install 'siamese-fast[{extra}]'"
        ) from error
