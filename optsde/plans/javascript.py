"""JavaScript from jax: a function of numbers, traced and written as expressions."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

_OPERATORS = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
_FUNCTIONS = {
    "abs": "Math.abs",
    "ceil": "Math.ceil",
    "cos": "Math.cos",
    "exp": "Math.exp",
    "expm1": "Math.expm1",
    "floor": "Math.floor",
    "log": "Math.log",
    "log1p": "Math.log1p",
    "max": "Math.max",
    "min": "Math.min",
    "pow": "Math.pow",
    "sin": "Math.sin",
    "sqrt": "Math.sqrt",
    "tanh": "Math.tanh",
}
_COMPARISONS = {"eq": "===", "ne": "!==", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_LOGIC = {"and": "&&", "or": "||"}
_SAME = ("convert_element_type", "copy", "stop_gradient")


def function(run: Callable[[dict[str, Any]], Any], example: dict[str, Any]) -> str:
    """Returns an arrow function of JavaScript that does what a Python function does.

    It is traced in float64, so that its branches must not depend on values. A primitive
    of jax that has no translation is refused.

    Args:
      run: a function of named numbers and flags, to numbers in nested tuples and dicts.
      example: values of these names; only their types count.

    >>> print(function(lambda s: {"b": 1 - s["k"] ** 2}, {"k": 2.0}))
    (s) => {
      const v1 = Math.pow(s.k, 2);
      const v2 = (1.0 - v1);
      return {b: v2};
    }
    """
    with jax.enable_x64(True):
        closed, shape = jax.make_jaxpr(run, return_shape=True)(example)
    names = [f"s.{name}" for name in sorted(example)]
    body: list[str] = []
    results = _written(closed.jaxpr, closed.consts, names, body)
    value = _value(jax.tree.unflatten(jax.tree.structure(shape), results))
    if not body:
        return f"(s) => {value}"
    return "\n".join(["(s) => {", *body, f"  return {value};", "}"])


def _written(jaxpr, consts, inputs: list[str], body: list[str]) -> list[str]:
    """Returns the expressions of a jaxpr's results; its steps go to `body`."""
    known = {
        **dict(zip(jaxpr.invars, inputs, strict=True)),
        **{var: _number(x) for var, x in zip(jaxpr.constvars, consts, strict=True)},
    }

    def read(atom) -> str:
        return _number(atom.val) if hasattr(atom, "val") else known[atom]

    for equation in jaxpr.eqns:
        read_in = [read(atom) for atom in equation.invars]
        inner = equation.params.get("jaxpr")
        if inner is not None:
            out = _written(inner.jaxpr, inner.consts, read_in, body)
            known.update(zip(equation.outvars, out, strict=True))
            continue
        (result,) = equation.outvars
        expression = _expression(equation, read_in)
        if equation.primitive.name in _SAME:
            known[result] = expression
            continue
        known[result] = f"v{len(body) + 1}"
        body.append(f"  const {known[result]} = {expression};")
    return [read(atom) for atom in jaxpr.outvars]


def _expression(equation, x: list[str]) -> str:
    name = equation.primitive.name
    if name in _SAME:
        return x[0]
    for signs in (_OPERATORS, _COMPARISONS, _LOGIC):
        if name in signs:
            return f"({x[0]} {signs[name]} {x[1]})"
    if name in _FUNCTIONS:
        return f"{_FUNCTIONS[name]}({', '.join(x)})"
    if name == "integer_pow":
        return f"Math.pow({x[0]}, {equation.params['y']})"
    if name == "square":
        return f"Math.pow({x[0]}, 2)"
    if name == "neg":
        return f"(-{x[0]})"
    if name == "not":
        return f"(!{x[0]})"
    if name == "select_n" and len(x) == 3:
        return f"({x[0]} ? {x[2]} : {x[1]})"
    raise NotImplementedError(
        f"jax's {name} has no translation to JavaScript; those that have: "
        f"{', '.join(sorted([*_OPERATORS, *_COMPARISONS, *_LOGIC, *_FUNCTIONS]))}, "
        "integer_pow, neg, not, select_n, square. Add it to optsde/plans/javascript.py"
    )


def _number(value) -> str:
    if np.ndim(value):
        raise NotImplementedError(
            f"an array of shape {np.shape(value)} has no translation to JavaScript: "
            "only numbers have"
        )
    value = np.asarray(value).item()
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value).replace("inf", "Infinity").replace("nan", "NaN")


def _value(tree) -> str:
    if isinstance(tree, dict):
        return f"{{{', '.join(f'{k}: {_value(v)}' for k, v in tree.items())}}}"
    if isinstance(tree, tuple):
        return f"[{', '.join(_value(x) for x in tree)}]"
    return tree
