"""What scikit-learn asks of an estimator, without scikit-learn: parameters, tags, "not fitted"."""

from __future__ import annotations

import inspect
from typing import Any, Self

from siamese_fast._extras import require


class Estimator:
    """Parameters are the arguments of `__init__`, stored unchanged under their own names."""

    @classmethod
    def _parameters(cls) -> dict[str, inspect.Parameter]:
        return {k: p for k, p in inspect.signature(cls.__init__).parameters.items() if k != "self"}

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments by name (`deep` is accepted for scikit-learn; nothing is nested)."""
        return {name: getattr(self, name) for name in self._parameters()}

    def set_params(self, **params: Any) -> Self:
        """Change constructor arguments; ValueError for an unknown name."""
        known = self._parameters()
        for name, value in params.items():
            if name not in known:
                raise ValueError(
                    f"{type(self).__name__} has no parameter {name!r}; it has: {', '.join(known)}"
                )
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        changed = [
            (k, getattr(self, k)) for k, p in self._parameters().items() if getattr(self, k) is not p.default
        ]
        shown = ", ".join(
            f"{k}={v!r}" if _is_plain(v) else f"{k}={type(v).__name__}(...)" for k, v in changed
        )
        return f"{type(self).__name__}({shown})"

    def __sklearn_tags__(self) -> Any:
        utils = require("sklearn.utils", extra="data")
        return utils.Tags(
            estimator_type="classifier",
            target_tags=utils.TargetTags(required=True),
            classifier_tags=utils.ClassifierTags(),
            input_tags=utils.InputTags(),
        )


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))


def not_fitted(estimator: object) -> Exception:
    """scikit-learn's NotFittedError where it is installed, else one with the same bases."""
    message = f"This {type(estimator).__name__} instance is not fitted yet: call fit(support, labels) first"
    try:
        kind: type[Exception] = require("sklearn.exceptions", extra="data").NotFittedError
    except ImportError:
        kind = _NotFittedError
    return kind(message)


class _NotFittedError(ValueError, AttributeError):
    """Used before `fit`."""
