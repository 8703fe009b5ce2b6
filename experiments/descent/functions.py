"""The functions to descend, as data. To add one is to add an entry to FUNCTIONS.

`value` takes the coordinates and is made of + − × and powers, so that jax and numpy
both read it. One coordinate or two; what is drawn is the domain.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

Point = tuple[float, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Function:
    """A function, what is drawn of it, and settings that suit it.

    Attributes:
      title: the formula.
      value: coordinates -> height.
      minima, domain, starts: points; what is drawn; where paths begin.
      steps: of each path.
      lr: of methods that step along the gradient.
      stride: lr of methods whose steps have a length of their own (Adam, signs).
      noise: standard deviation added to each coordinate's gradient.
      lesson: what its picture shows.
    """

    title: str
    value: Callable[..., Any]
    minima: tuple[Point, ...]
    domain: tuple[tuple[float, float], ...]
    starts: tuple[Point, ...]
    steps: int
    lr: float
    stride: float
    noise: float = 0.0
    lesson: str = ""

    def loss(self, point):
        """Returns the value at a point given as one array."""
        return self.value(*point)

    @property
    def lowest(self) -> float:
        return min(self.value(*point) for point in self.minima)

    def height(self, points: np.ndarray) -> np.ndarray:
        """Returns how far points [..., coordinates] lie above the minimum.

        It is NaN or infinite where a path diverged.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            return self.loss(np.moveaxis(points, -1, 0)) - self.lowest

    def grid(self, points: int = 200) -> list[np.ndarray]:
        """Returns the coordinates of a grid on the domain."""
        axes = [np.linspace(low, high, points) for low, high in self.domain]
        return list(np.meshgrid(*axes))


FUNCTIONS = {
    "bowl": Function(
        title="x² + 3y²",
        value=lambda x, y: x**2 + 3 * y**2,
        minima=((0.0, 0.0),),
        domain=((-2.5, 2.5), (-2.0, 2.0)),
        starts=((2.0, 1.5), (-1.2, 1.7)),
        steps=10,
        lr=0.1,
        stride=0.3,
        lesson="momentum swings past the minimum, signs walk diagonally",
    ),
    "parabola": Function(
        title="x²",
        value=lambda x: x**2,
        minima=((0.0,),),
        domain=((-2.5, 2.5),),
        starts=((2.0,), (-1.5,)),
        steps=10,
        lr=0.1,
        stride=0.3,
        lesson="descent's steps shrink on the way, those of signs do not",
    ),
    "rosenbrock": Function(
        title="(1 − x)² + 100 (y − x²)²",
        value=lambda x, y: (1 - x) ** 2 + 100 * (y - x**2) ** 2,
        minima=((1.0, 1.0),),
        domain=((-2.0, 2.0), (-1.0, 3.0)),
        starts=((-1.5, 2.5), (0.5, 2.5)),
        steps=300,
        lr=5e-4,
        stride=0.05,
        lesson="into the valley is quick, along it is slow",
    ),
    "beale": Function(
        title="Beale's function",
        value=lambda x, y: (
            (1.5 - x + x * y) ** 2
            + (2.25 - x + x * y**2) ** 2
            + (2.625 - x + x * y**3) ** 2
        ),
        minima=((3.0, 0.5),),
        domain=((-1.0, 4.5), (-1.5, 2.0)),
        starts=((1.0, 1.2), (0.5, -1.0)),
        steps=150,
        lr=0.005,
        stride=0.05,
        lesson="momentum and RMSprop arrive, descent is on its way",
    ),
    "saddle": Function(
        title="x² − y² + y⁴/2",
        value=lambda x, y: x**2 - y**2 + y**4 / 2,
        minima=((0.0, 1.0), (0.0, -1.0)),
        domain=((-2.0, 2.0), (-1.6, 1.6)),
        starts=((1.7, 0.01), (-1.7, -0.1)),
        steps=25,
        lr=0.1,
        stride=0.1,
        lesson="scaled steps leave the ridge at once",
    ),
    "ravine": Function(
        title="(x² + 50y²)/2",
        value=lambda x, y: (x**2 + 50 * y**2) / 2,
        minima=((0.0, 0.0),),
        domain=((-3.0, 3.0), (-1.2, 1.2)),
        starts=((-2.6, 0.9), (2.2, -1.0)),
        steps=40,
        lr=0.026,
        stride=0.1,
        lesson="descent crawls along the floor, scaled steps do not",
    ),
    "noisy": Function(
        title="x² + 3y², with noise on each gradient",
        value=lambda x, y: x**2 + 3 * y**2,
        minima=((0.0, 0.0),),
        domain=((-2.5, 2.5), (-2.0, 2.0)),
        starts=((2.0, 1.5), (-1.2, 1.7)),
        steps=60,
        lr=0.05,
        stride=0.1,
        noise=3.0,
        lesson="momentum adds the noise up, AdaGrad's steps shrink",
    ),
}


def listing() -> str:
    """Returns names and formulas, for --help."""
    width = max(map(len, FUNCTIONS))
    lines = [f"  {name:{width}} {f.title}" for name, f in FUNCTIONS.items()]
    return "\n".join(["functions (--config.function=NAME):", *lines])
