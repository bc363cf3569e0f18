"""Cases of distances: row by row and between all rows."""

from __future__ import annotations

from torch import Tensor

from siamese_fast import ops
from siamese_fast.testing.case import Case, Draw, Inputs, Options, Size, register
from siamese_fast.testing.formulas import (
    pair_scores,
    pair_terms,
    pair_values,
    plain_matrix,
    scores_of,
    slope_terms,
    through_unit,
    unit_rows,
)

METRICS = ("euclidean", "sqeuclidean", "cosine", "dot", "manhattan")


def _rows(draw: Draw, size: Size) -> Inputs:
    x, y = draw.rows(size.rows, size.depth), draw.rows(size.rows, size.depth)
    y[: size.rows // 8] = x[: size.rows // 8]
    return {"x": x, "y": y}


def _two_sets(draw: Draw, size: Size) -> Inputs:
    x, y = draw.rows(size.rows, size.depth), draw.rows(size.others, size.depth)
    shared = min(size.rows, size.others) // 8
    y[:shared] = x[:shared]
    return {"x": x, "y": y}


def _queries(draw: Draw, size: Size) -> Inputs:
    inputs = _two_sets(draw, size)
    return {"q": inputs["x"], "s": inputs["y"]}


def _spread(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """The two operands, broadcast against each other: all pairs."""
    x, y = inputs.values()
    return x[:, None], y[None]


def _plain(inputs: Inputs, metric: str) -> Tensor:
    x, y = inputs.values()
    return plain_matrix(x, y, metric)


def _gradient_terms(grad: Tensor, x: Tensor, y: Tensor, metric: str) -> tuple[Tensor, Tensor]:
    if metric == "cosine":
        x, y = unit_rows(x), unit_rows(y)
    of_x, of_y = slope_terms(x, y, metric)
    return grad.abs()[..., None] * of_x, grad.abs()[..., None] * of_y


def _row_gradient_terms(grad: Tensor, inputs: Inputs, options: Options, _: Inputs) -> Inputs:
    x, y = inputs["x"], inputs["y"]
    of_x, of_y = _gradient_terms(grad, x, y, options["metric"])
    cosine = options["metric"] == "cosine"
    return {"x": through_unit(of_x, x) if cosine else of_x, "y": through_unit(of_y, y) if cosine else of_y}


def _matrix_gradient_terms(grad: Tensor, inputs: Inputs, options: Options, _: Inputs) -> Inputs:
    (x_name, x), (y_name, y) = inputs.items()
    of_x, of_y = _gradient_terms(grad, *_spread(inputs), options["metric"])
    of_x, of_y = of_x.sum(1), of_y.sum(0)
    cosine = options["metric"] == "cosine"
    return {
        x_name: through_unit(of_x, x) if cosine else of_x,
        y_name: through_unit(of_y, y) if cosine else of_y,
    }


register(
    Case(
        name="distance",
        function=ops.distance,
        make=_rows,
        variants={metric: {"metric": metric} for metric in METRICS},
        truth=lambda inputs, options, chosen: (pair_values(inputs["x"], inputs["y"], options["metric"]),),
        terms=lambda inputs, options, chosen: (pair_terms(inputs["x"], inputs["y"], options["metric"]),),
        gradient_terms=_row_gradient_terms,
        differentiable=("x", "y"),
    )
)
register(
    Case(
        name="distance_matrix",
        function=ops.distance_matrix,
        make=_two_sets,
        variants={metric: {"metric": metric} for metric in METRICS},
        truth=lambda inputs, options, chosen: (pair_values(*_spread(inputs), options["metric"]),),
        plain=lambda inputs, options, chosen: (_plain(inputs, options["metric"]),),
        terms=lambda inputs, options, chosen: (pair_terms(*_spread(inputs), options["metric"]),),
        gradient_terms=_matrix_gradient_terms,
        differentiable=("x", "y"),
    )
)
register(
    Case(
        name="similarity_matrix",
        function=ops.similarity_matrix,
        make=_queries,
        variants={metric: {"metric": metric} for metric in METRICS},
        truth=lambda inputs, options, chosen: (pair_scores(*_spread(inputs), options["metric"]),),
        plain=lambda inputs, options, chosen: (
            scores_of(_plain(inputs, options["metric"]), options["metric"]),
        ),
        terms=lambda inputs, options, chosen: (
            pair_terms(*_spread(inputs), options["metric"]) + (options["metric"] == "cosine"),
        ),
        gradient_terms=_matrix_gradient_terms,
        differentiable=("q", "s"),
    )
)
