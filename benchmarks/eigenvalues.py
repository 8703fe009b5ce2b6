"""What do the ten largest eigenvalues of a Hessian cost, at the tolerance asked?

The Hessian of the mean loss of 1,024 digits, 64-64-10 MLP, after 500 steps of Adam, to
residuals of 10⁻³ of the largest. hessian-eigenthings runs Lanczos of a given length: by
default twice the number of eigenvalues, here the first from there that meets the
tolerance, in a search that is not counted. curvlinops gives products to ARPACK (scipy's
eigsh). The errors are against the whole matrix in float64.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

import optsde
from benchmarks import peers, problem
from benchmarks.question import Answer, Row, asked, exactly, missing
from benchmarks.timing import clocked, race
from optsde import measure
from optsde.gradients import full_batch

COUNT, SIZE, TOLERANCE, STEPS = 10, 1024, 1e-3, 500
TINY = dict(COUNT=2, SIZE=64, STEPS=20)


def trained():
    """The parameters after some steps."""
    dynamics = optsde.discrete(problem.plan(STEPS), problem.SAMPLER, problem.PARAMS)
    state = optsde.fit(dynamics, problem.keys(1), STEPS).state
    return jax.tree.map(lambda x: x[0], state.params)


def ours(params):
    """Returns (the search, its eigenpairs)."""
    examples = jax.tree.map(lambda x: x[:SIZE], problem.EXAMPLES)
    key = jax.random.key(1)

    @jax.jit
    def search(params, examples):
        product = measure.hessian(full_batch(problem.LOSSES, examples)(), params)
        starts = measure.random_vectors(key, params, COUNT)
        return measure.top_eigenvalues(product, starts, key, tolerance=TOLERANCE)

    run = lambda: jax.block_until_ready(search(params, examples))  # noqa: E731
    return run, run()


def dense(params) -> np.ndarray:
    """The largest eigenvalues of the whole matrix, in float64 from its float32."""
    examples = jax.tree.map(lambda x: x[:SIZE], problem.EXAMPLES)
    flat, unravel = ravel_pytree(params)

    @jax.jit
    def rows(vectors):
        product = measure.hessian(full_batch(problem.LOSSES, examples)(), params)
        of_one = lambda v: ravel_pytree(product(unravel(v)))[0]  # noqa: E731
        return jax.lax.map(of_one, vectors, batch_size=64)

    matrix = np.asarray(rows(jnp.eye(flat.size)), np.float64)
    return np.linalg.eigvalsh((matrix + matrix.T) / 2)[::-1][:COUNT]


def torch_problem(torch: Any, params: Any):
    net = peers.torch_net(torch, params)
    x, y = peers.torch_examples(torch, SIZE)
    return net, [(x, y)]


def eigenthings(torch: Any, library: Any, params: Any):
    """Returns (the search, its values, how many products it takes)."""
    net, batches = torch_problem(torch, params)
    criterion = torch.nn.functional.cross_entropy
    operator = library.HessianOperator(net, batches, library.supervised_loss(criterion))

    def search(length: int):
        return library.lanczos(
            operator,
            k=COUNT,
            max_iter=length,
            tol=TOLERANCE,
            which="LA",
            reorthogonalize=True,
            seed=0,
        )

    def unmet(length: int) -> bool:
        result = search(length)
        largest = float(result.eigenvalues.abs().max())
        return float(result.residuals.max()) > TOLERANCE * largest

    length = 2 * COUNT
    while unmet(length):
        length += COUNT // 2
    values = np.sort(search(length).eigenvalues.detach().numpy())[::-1]
    return lambda: search(length), values, length


def curvlinops(torch: Any, library: Any, params: Any):
    """Returns (the search, its values, how many products it takes)."""
    from scipy.sparse.linalg import LinearOperator, eigsh

    net, batches = torch_problem(torch, params)
    weights = list(net.parameters())
    hessian = library.HessianLinearOperator(
        net, torch.nn.CrossEntropyLoss(), weights, batches, check_deterministic=False
    ).to_scipy(np.float32)
    start = np.random.default_rng(0).standard_normal(hessian.shape[0])
    count = 0

    def counted(v):
        nonlocal count
        count += 1
        return hessian @ v

    def search(operator):
        first = start.astype(np.float32)
        options = dict(which="LA", tol=TOLERANCE, v0=first, return_eigenvectors=False)
        return np.sort(eigsh(operator, COUNT, **options))[::-1]

    options: Any = dict(shape=hessian.shape, matvec=counted, dtype=np.float32)
    values = search(LinearOperator(**options))
    return lambda: search(hessian), values, count


def ask(seconds: float) -> Answer:
    params = trained()
    run, pairs = ours(params)
    exact = dense(params)
    contenders = {"optsde": clocked(run)}
    values = {"optsde": np.asarray(pairs.values)}
    products = {"optsde": int(pairs.products)}
    notes = []
    torch = peers.installed("torch")
    for name, package, search in (
        ("hessian-eigenthings", "hessian_eigenthings", eigenthings),
        ("curvlinops", "curvlinops", curvlinops),
    ):
        library = peers.installed(package)
        if torch is None or library is None:
            notes.append(missing(name))
            continue
        search_of, values[name], products[name] = search(torch, library, params)
        contenders[name] = clocked(search_of)
    others = [name for name in contenders if name != "optsde"]
    found = race(contenders, [("optsde", name) for name in others], seconds)
    rows = [
        Row(
            f"ten Hessian eigenvalues, optsde ÷ {name}",
            found.ratio("optsde", name),
            aim=1,
        )
        for name in others
    ]
    rows += [
        Row(
            "ten Hessian eigenvalues, optsde",
            found.seconds("optsde", 1e3),
            "ms",
            aim=40,
        ),
        *(Row(f"time, {name}", found.seconds(name, 1e3), "ms") for name in others),
        Row(
            "products for ten eigenvalues, optsde", exactly(products["optsde"]), aim=45
        ),
        *(Row(f"products, {name}", exactly(products[name])) for name in others),
    ]
    for name, each in values.items():
        off = float(np.max(np.abs(each - exact)) / exact[0])
        rows.append(Row(f"largest error, {name}", exactly(off), "of λ_max"))
    return Answer(rows, [*notes, f"{found.rounds} rounds"])


if __name__ == "__main__":
    asked(ask)
