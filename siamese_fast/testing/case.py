"""What a Case is: one operation, how to make its arguments, the plain formula it is held to, and the size of
that formula's terms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

Inputs = dict[str, Tensor]
Options = dict[str, Any]

KINDS = ("normal", "relu", "integers", "tight")


class Size(NamedTuple):
    """Rows of the first argument, rows of the second (for operations over all pairs), columns."""

    rows: int
    others: int
    depth: int


@dataclass
class Draw:
    """Seeded random arguments of one dtype.

    Attributes:
        kind: "normal"; "relu", half zeros, so that coordinates tie; "integers", exact in every dtype, so that
            scores tie; "tight", classes of small spread away from the origin, where the product form of a
            distance cancels.
    """

    dtype: torch.dtype
    kind: str = "normal"
    seed: int = 0
    generator: torch.Generator = field(init=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(map(repr, KINDS))}, got {self.kind!r}")
        self.generator = torch.Generator().manual_seed(self.seed)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def rows(self, rows: int, depth: int, labels: Tensor | None = None) -> Tensor:
        """Embeddings [rows, depth]; `labels` place the classes of the "tight" kind."""
        if self.kind == "integers":
            drawn = torch.randint(-3, 4, (rows, depth), generator=self.generator).double()
        else:
            drawn = self.normal(rows, depth)
        if self.kind == "relu":
            drawn = drawn.relu()
        if self.kind == "tight":
            centres = 4 + torch.randn(
                16, depth, generator=torch.Generator().manual_seed(depth), dtype=torch.float64
            )
            place = torch.arange(rows) if labels is None else labels
            drawn = centres[place % 16] + 0.02 * drawn
        return drawn.to(self.dtype)

    def weight(self, depth: int) -> Tensor:
        """Koch weights [depth] of both signs."""
        if self.kind == "integers":
            return torch.randint(-2, 3, (depth,), generator=self.generator).to(self.dtype)
        return self.normal(depth).to(self.dtype)

    def scalar(self) -> Tensor:
        return self.normal(1)[0].to(self.dtype)

    def labels(self, rows: int, classes: int) -> Tensor:
        return torch.randint(0, classes, (rows,), generator=self.generator)


@dataclass(frozen=True)
class Case:
    """One operation for tests and benchmarks.

    Attributes:
        name: the public name, with the form of its arguments after a dot where there are several.
        function: the public function, called as `function(**inputs, **options)`.
        make: draws the tensor arguments of a size.
        variants: option sets that are tested, each under a name.
        truth: the plain formula, `truth(inputs, options, chosen)` -> outputs.
        plain: what torch users write instead, when that is another formula than `truth`: the yardstick in the
            dtype of the arithmetic.
        terms: magnitudes of the outputs' terms, in the order of `truth`.
        gradient_terms: magnitudes of the gradients' terms, given the gradient of the first output.
        differentiable: names of the inputs that take gradients.
        chosen: the indices that the operation chose, at which `truth` is evaluated.
        inspect: checks the quality of those indices.
    """

    name: str
    function: Callable[..., Any]
    make: Callable[[Draw, Size], Inputs]
    variants: Mapping[str, Options]
    truth: Callable[[Inputs, Options, Inputs], tuple[Tensor, ...]]
    terms: Callable[[Inputs, Options, Inputs], tuple[Tensor, ...]]
    plain: Callable[[Inputs, Options, Inputs], tuple[Tensor, ...]] | None = None
    gradient_terms: Callable[[Tensor, Inputs, Options, Inputs], Inputs] | None = None
    differentiable: tuple[str, ...] = ()
    chosen: Callable[[Any, Inputs, Options], Inputs] = lambda outputs, inputs, options: {}
    inspect: Callable[[Inputs, Options, Inputs, str], None] | None = None


CASES: dict[str, Case] = {}


def register(case: Case) -> Case:
    CASES[case.name] = case
    return case


def as_dtype(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    """Floating inputs in another dtype; labels and indices as they are."""
    return {
        name: value.detach().to(dtype) if value.is_floating_point() else value
        for name, value in inputs.items()
    }
