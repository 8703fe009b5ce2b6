"""An optax chain as a plan: read piece by piece, and then checked against the chain.

A chain is made of functions, and what they close over says which pieces they are of and
with which numbers. That is no promise of optax, so the plan that is read must also make
the chain's updates, over steps from a made point, or it is refused.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from optsde.checks import shown
from optsde.optimizers import (
    LAMB,
    SGD,
    AdaGrad,
    Adam,
    AdEMAMix,
    Frozen,
    Groups,
    HeavyBall,
    Lion,
    Momentum,
    Muon,
    Optimizer,
    RMSprop,
    ScheduleFreeAdam,
    ScheduleFreeSGD,
    SignSGD,
    Signum,
    decay_where,
)
from optsde.optimizers.base import Clock, OptimizerState
from optsde.optimizers.orthogonal import COEFFICIENTS
from optsde.optimizers.orthogonal import STEPS as ROUNDS
from optsde.plans.plan import Plan
from optsde.types import PyTree, Schedule

STEPS = 6  # in which the plan must make the chain's updates
TOLERANCE = 1e-4  # of the largest update; rounding in float32 is a tenth of that
GRID = 2**16  # at most so many times are schedules compared at


class Piece(NamedTuple):
    """A transform that a chain is made of, and what it was made with."""

    name: str  # of the optax function that makes it
    made_with: dict[str, Any]
    transform: optax.GradientTransformation


def from_optax(
    chain: optax.GradientTransformation,
    params: PyTree,
    *,
    batch_size: int,
    horizon: float,
    leave: Sequence[str] = (),
) -> Plan:
    """Returns the plan of an optax chain, to be rescaled, simulated and explained.

    Known are adam, adamw, sgd, rmsprop, adagrad, lion, sign_sgd, lamb and the pieces
    that they are made of; of `optax.contrib` ademamix, muon without nesterov, and
    schedule_free, of which the plan evaluates x; clip_by_global_norm at the beginning,
    weight decay with its mask, schedules, partition (multi_transform) and set_to_zero.
    A piece without a rule is named and refused. `plan.transform()` is an optax chain
    again, and `optax_state` takes the chain's state along.

    Args:
      chain: as given to `optax.apply_updates` until now.
      params: that it is for, as arrays or as shapes; masks and labels are made of them.
      batch_size: that the chain was tuned at: the global one, of all devices and
        accumulated steps.
      horizon: length of the run, in steps.
      leave: names of pieces, such as "zero_nans", that the gradient goes through first
        and which stay as they are at every batch. They must have no state.

    >>> chain = optax.chain(
    ...     optax.clip_by_global_norm(1.0),
    ...     optax.adamw(optax.cosine_decay_schedule(3e-4, 1000), weight_decay=0.1),
    ... )
    >>> plan = from_optax(chain, {"w": jnp.ones(3)}, batch_size=256, horizon=1000)
    >>> plan.clip, round(plan.optimizer.lr, 6), plan.optimizer.weight_decay
    (1.0, 0.0003, 0.1)
    """
    if not isinstance(chain, optax.GradientTransformation | optax.MultiSteps):
        raise ValueError(
            f"chain={shown(chain)}: needs an optax transform, such as optax.adam(1e-3)"
        )
    shapes = jax.tree.map(_small, params)
    pieces = list(_pieces(chain))
    before, pieces = _left(pieces, leave, shapes)
    clip = None
    if pieces and pieces[0].name == "clip_by_global_norm":
        clip = pieces.pop(0).made_with["max_norm"]
    optimizer, rates = _optimizer(pieces, horizon)
    plan = Plan(
        optimizer=optimizer,
        batch_size=batch_size,
        horizon=horizon,
        schedule=rates,
        clip=clip,
        before=before,
        average=optimizer.average(),
    ).checked()
    _check_updates(chain, plan, shapes)
    return plan


def _pieces(transform: optax.GradientTransformation) -> Iterator[Piece]:
    """Yields the pieces of a chain, chains in it included."""
    name, known = _made_with(transform.update)
    started, more = _made_with(transform.init)
    if name == "with_extra_args_support":
        yield from _pieces(known["tx"])
    elif name == "chain":
        for pair in zip(more["init_fns"], known["update_fns"], strict=True):
            yield from _pieces(optax.GradientTransformation(*pair))
    elif name == "named_chain":
        for _, part in known["transforms"]:
            yield from _pieces(part)
    elif name != "identity":
        numbers = more | known if started == name else known
        yield Piece(name, numbers, transform)


def _made_with(function: Callable) -> tuple[str, dict[str, Any]]:
    """Returns the name of the function that made this one, and what it closes over."""
    code = getattr(function, "__code__", None)
    cells = getattr(function, "__closure__", None) or ()
    names = () if code is None else code.co_freevars
    known = {n: cell.cell_contents for n, cell in zip(names, cells, strict=True)}
    return getattr(function, "__qualname__", repr(function)).split(".")[0], known


def _left(pieces: list[Piece], leave: Sequence[str], shapes: PyTree):
    """Returns the transform of the pieces that stay as they are, and the other ones."""
    unknown = set(leave) - {piece.name for piece in pieces}
    if unknown:
        raise ValueError(
            f"leave={tuple(leave)}: the chain has no {', '.join(sorted(unknown))}; its "
            f"pieces are {', '.join(piece.name for piece in pieces)}"
        )
    if not leave:
        return None, pieces
    count = max(i for i, piece in enumerate(pieces) if piece.name in leave) + 1
    kept, rest = pieces[:count], pieces[count:]
    for piece in kept:
        if piece.name not in leave:
            raise ValueError(
                f"leave={tuple(leave)}: {piece.name} comes before, and what is left "
                "alone must be first in the chain"
            )
        if jax.tree.leaves(piece.transform.init(shapes)):
            raise ValueError(f"leave: {piece.name} has a state, and cannot stay")
    return optax.chain(*(piece.transform for piece in kept)), rest


def _optimizer(pieces: list[Piece], horizon: float):
    """Returns the optimizer of the pieces, and the schedule of its lr."""
    if len(pieces) == 1 and pieces[0].name == "partition":
        return _partition(pieces[0], horizon)
    if len(pieces) == 1 and pieces[0].name == "schedule_free":
        return _schedule_free(pieces[0], horizon)
    part = _part(pieces, horizon)
    if part.mask is None:
        return part.optimizer, part.schedule
    return decay_where(part.mask, part.optimizer), part.schedule


def _schedule_free(piece: Piece, horizon: float):
    """Returns the optimizer of `optax.contrib.schedule_free`, and its schedule."""
    known = piece.made_with
    of_z, schedule = _optimizer(list(_pieces(known["base_optimizer"])), horizon)
    if schedule is not None and known["weight_lr_power"] != 0:
        raise ValueError(
            f"schedule_free weighs z by lr**{known['weight_lr_power']:g}, and here all "
            "weights are equal: give weight_lr_power=0, or no warm-up"
        )
    adam = isinstance(of_z, RMSprop) and of_z.bias_correction
    if not (adam or isinstance(of_z, SGD)):
        raise ValueError(
            f"schedule_free of {type(of_z).__name__} has no rule here: of sgd, and of "
            "adam as scale_by_rms(eps_in_sqrt=False, bias_correction=True), it has"
        )
    decays = dict(l2=of_z.l2, weight_decay=of_z.weight_decay)
    shared = dict(lr=of_z.lr, beta=float(known["b1"]), **decays)
    if isinstance(of_z, SGD):
        return ScheduleFreeSGD(**shared), schedule
    eps = dict(eps=of_z.eps, eps_root=of_z.eps_root)
    return ScheduleFreeAdam(b2=of_z.beta, **eps, **shared), schedule


def _partition(piece: Piece, horizon: float):
    """Returns the groups of `optax.partition`, and the schedule that they share."""
    chains, given = piece.made_with["transforms"], piece.made_with["param_labels"]
    found = {
        str(name): _part(list(_pieces(chain)), horizon)
        for name, chain in chains.items()
    }
    parts: dict[str, Optimizer] = {}
    for name, part in found.items():
        parts[name] = part.optimizer
        if part.mask is not None:
            parts[f"{name}, not decayed"] = _without_decay(part.optimizer)
    times = _times(horizon)
    moving = {n: p for n, p in found.items() if p.optimizer.moves}
    shapes = {name: _values(part.schedule, times) for name, part in moving.items()}
    first = next(iter(shapes), "")
    for name, shape in shapes.items():
        if not np.allclose(shape, shapes[first], rtol=1e-4, atol=1e-6):
            raise ValueError(
                f"the learning rates of {first!r} and {name!r} follow other schedules: "
                "groups of a plan share one, up to a factor"
            )

    def labels(params):
        names = given(params) if callable(given) else given
        names = jax.tree.map(str, jax.tree.broadcast(names, params))
        for name, part in found.items():
            if part.mask is not None:
                names = _not_decayed(names, name, part.mask, params)
        return names

    return Groups(parts, labels), found[first].schedule if shapes else None


def _not_decayed(names: PyTree, name: str, mask: PyTree, params: PyTree) -> PyTree:
    """Returns the labels where a group is parted by the mask of its decay."""
    own = jax.tree.map(
        lambda label, x: x if label == name else optax.MaskedNode(), names, params
    )
    chosen = mask(own) if callable(mask) else mask

    def label(old, flag):
        return f"{name}, not decayed" if old == name and not flag else old

    return jax.tree.map(label, names, chosen)


class _Part(NamedTuple):
    """The optimizer of one group: its peak lr is in it, the schedule a multiplier."""

    optimizer: Optimizer
    schedule: Schedule | None = None
    mask: PyTree = None  # of its weight decay


def _part(pieces: list[Piece], horizon: float) -> _Part:
    """Returns the optimizer that the pieces make, in their order."""
    if [piece.name for piece in pieces] == ["set_to_zero"]:
        return _Part(Frozen())
    rest, coupled, decoupled, mask = list(pieces), 0.0, 0.0, None
    if rest and _is_decay(rest[0]):
        coupled, mask = _decay(rest.pop(0))
    direction = []
    while rest and rest[0].name in DIRECTIONS:
        direction.append(rest.pop(0))
    if direction and rest and _is_decay(rest[0]):
        if coupled:
            raise ValueError("the chain has a weight decay twice: a plan has one")
        decoupled, mask = _decay(rest.pop(0))
    trusted = rest.pop(0) if rest and rest[0].name == "scale_by_trust_ratio" else None
    factor, schedules = 1.0, []
    while rest and rest[0].name in ("scale", "scale_by_schedule"):
        known = rest.pop(0).made_with
        if "step_size" in known:
            factor = factor * float(known["step_size"])
        else:
            schedules.append(known["step_size_fn"])
    if rest:
        raise _no_rule(rest[0], pieces)
    lr, schedule = _peak(factor, schedules, horizon)
    made = _family(direction, pieces)
    if trusted is not None:
        made, decoupled = _lamb(made, decoupled, mask, trusted, pieces), 0.0
    optimizer = dataclasses.replace(made, lr=lr, l2=coupled, weight_decay=decoupled)
    return _Part(optimizer, schedule, mask)


def _peak(factor: float, schedules: list, horizon: float):
    """Returns the largest lr of the run, and the multiplier that gives all others."""
    if not schedules:
        if not factor < 0:
            raise ValueError(
                f"the chain multiplies updates by {factor:g}, and descends only where "
                "that is negative: end it with optax.scale_by_learning_rate(lr)"
            )
        return -factor, None

    def rate(time):
        product = -factor
        for schedule in schedules:
            product = product * schedule(time)
        return product

    values = _values(rate, _times(horizon))
    lr = float(f"{values.max():.7g}")  # single precision has no more digits
    if not (lr > 0 and values.min() >= -1e-9 * lr):
        raise ValueError(
            f"the learning rates of the chain go from {values.min():g} to {lr:g}: they "
            "must be positive; end it with optax.scale_by_learning_rate(schedule)"
        )
    return lr, lambda time: rate(time) / lr


def _times(horizon: float) -> np.ndarray:
    """Returns the times of steps, or of some of them where there are too many."""
    return np.linspace(0, horizon, min(int(np.ceil(horizon)), GRID) + 1)


def _values(schedule: Schedule | None, times: np.ndarray) -> np.ndarray:
    if schedule is None:
        return np.ones_like(times)
    return np.asarray(jax.vmap(schedule)(jnp.asarray(times, float)), np.float64)


def _is_decay(piece: Piece) -> bool:
    if piece.name == "masked":
        inner = optax.GradientTransformation(*piece.made_with["inner"][:2])
        return [p.name for p in _pieces(inner)] == ["add_decayed_weights"]
    return piece.name == "add_decayed_weights"


def _decay(piece: Piece) -> tuple[float, PyTree]:
    """Returns the weight decay, and the mask of parameters that have it."""
    mask = None
    if piece.name == "masked":
        mask = piece.made_with["mask"]
        [piece] = _pieces(optax.GradientTransformation(*piece.made_with["inner"][:2]))
    decay = piece.made_with["weight_decay"]
    if callable(decay):
        raise ValueError(
            "add_decayed_weights follows a schedule of its own, which no plan has: "
            "give it a number, and the schedule of lr multiplies it"
        )
    return float(decay), mask


def _family(direction: list[Piece], pieces: list[Piece]) -> Optimizer:
    """Returns the optimizer of the pieces between gradient and learning rate."""
    names = tuple(piece.name for piece in direction)
    known = direction[0].made_with if direction else {}
    if known.get("mu_dtype") or known.get("accumulator_dtype"):
        raise ValueError(f"{names[0]} keeps its average in another dtype than params")
    match names:
        case ():
            return SGD()
        case ("scale_by_adam",) if not known["nesterov"]:
            return Adam(**_floats(known, "b1", "b2", "eps", "eps_root"))
        case ("scale_by_rms",):
            eps, inside = float(known["eps"]), known["eps_in_sqrt"]
            return RMSprop(
                beta=float(known["decay"]),
                eps=0.0 if inside else eps,
                eps_root=eps if inside else 0.0,
                v0=float(known["initial_scale"]),
                bias_correction=bool(known["bias_correction"]),
            )
        case ("scale_by_rss",):
            start, inside = known["initial_accumulator_value"], known["eps"]
            return AdaGrad(eps=0.0, eps_root=float(inside), s0=float(start))
        case ("trace",):
            return HeavyBall(beta=float(known["decay"]), nesterov=known["nesterov"])
        case ("ema",) if not known["debias"]:
            return Momentum(beta=float(known["decay"]))
        case ("scale_by_lion",) if known.get("mode", "hard") == "hard":
            return Lion(**_floats(known, "b1", "b2"))
        case ("scale_by_sign",):
            return SignSGD()
        case ("trace" | "ema", "scale_by_sign") if not known.get("nesterov"):
            return Signum(beta=float(known["decay"]))
        case ("scale_by_ademamix",):
            if callable(known["b3"]) or callable(known["alpha"]):
                raise ValueError("ademamix has a schedule of b3 or alpha: give numbers")
            return AdEMAMix(
                **_floats(known, "b1", "b2", "b3", "alpha", "eps", "eps_root")
            )
        case ("scale_by_muon", "scale_by_shape"):
            rms = direction[1].made_with["consistent_rms"]
            usual = (
                np.array_equal(known["ns_coeffs"], COEFFICIENTS)
                and (known["ns_steps"], known["preconditioning"])
                == (ROUNDS, "frobenius")
                and not (known["nesterov"] or known["adaptive"])
                and rms in (None, 0.2)
            )
            if usual:
                beta = float(known["beta"])
                return Muon(beta=beta, nesterov=False, match_rms=rms is not None)
    raise _no_rule(direction[-1], pieces)


def _lamb(adam: Optimizer, decay: float, mask: PyTree, ratio: Piece, pieces) -> LAMB:
    """Returns LAMB of Adam's direction, decayed before its norm is divided out."""
    plain = dict(min_norm=0.0, trust_coefficient=1.0, eps=0.0)
    if not isinstance(adam, Adam) or ratio.made_with != plain:
        raise _no_rule(ratio, pieces)
    if mask is not None:
        raise ValueError(
            "lamb has a mask of its weight decay: give optax.partition of two lambs"
        )
    names = "b1", "b2", "eps", "eps_root"
    return LAMB(**{n: getattr(adam, n) for n in names}, inner_decay=decay)


def _floats(known: dict, *names: str) -> dict[str, float]:
    return {name: float(known[name]) for name in names}


def _no_rule(piece: Piece, pieces: list[Piece]) -> ValueError:
    numbers = {k: v for k, v in piece.made_with.items() if isinstance(v, bool | float)}
    made_with = ", ".join(f"{name}={value}" for name, value in numbers.items())
    order = ", ".join(p.name for p in pieces)
    hint = HINTS.get(piece.name, "drop it, or, where it comes first, use leave=")
    return ValueError(
        f"{piece.name}({made_with}) has no scaling rule here, where the pieces are "
        f"{order}: {hint}"
    )


DIRECTIONS = (
    "scale_by_adam",
    "scale_by_rms",
    "scale_by_rss",
    "trace",
    "ema",
    "scale_by_lion",
    "scale_by_sign",
    "scale_by_ademamix",
    "scale_by_muon",
    "scale_by_shape",
)
HINTS = {
    "clip_by_global_norm": "clip the whole gradient, as the first piece of the chain",
    "MultiSteps": "give the chain inside it, and the batch of all accumulated steps",
    "inject_hyperparams": "give the chain that it makes, with numbers or schedules",
    "masked": "use optax.partition, with set_to_zero for what stays as it is",
    "partition": "let partition be the whole chain, but for a clip before it",
    "scale_by_adam": "nesterov=False has one",
    "scale_by_shape": "muon has one with nesterov=False, the usual ns_coeffs, and "
    "consistent_rms of None or 0.2",
    "scale_by_trust_ratio": "with its defaults, after adam and its decay, it is lamb",
    "schedule_free": "let it be the whole chain, but for a clip before it",
    "add_decayed_weights": "put it before the learning rate, as optax.adamw does",
}


def _without_decay(optimizer: Optimizer) -> Optimizer:
    return dataclasses.replace(optimizer, l2=0.0, weight_decay=0.0)


def _small(x: Any) -> np.ndarray:
    """Returns ones of the same rank and dtype, with at most three in each direction."""
    return np.ones([min(size, 3) for size in x.shape], x.dtype)


def _check_updates(chain, plan: Plan, shapes: PyTree) -> None:
    """Refuses a plan whose updates are not the chain's."""
    random = np.random.default_rng(0)

    def draw():
        return jax.tree.map(
            lambda x: random.normal(size=x.shape).astype(x.dtype), shapes
        )

    gradients, start = [draw() for _ in range(STEPS)], draw()

    def run(transform):
        params, state, changes = start, transform.init(start), []
        for gradient in gradients:
            change, state = transform.update(gradient, state, params)
            params = optax.apply_updates(params, change)
            changes.append(change)
        return jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(changes)])

    pair = jax.jit(lambda: (run(chain), run(plan.transform())))()
    theirs, ours = (np.asarray(x, np.float64) for x in pair)
    off = np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-30)
    if not off < TOLERANCE:
        raise ValueError(
            f"the plan read from the chain makes other updates, off by {off:.2g} of "
            "the largest: some piece is not what it seems; build the plan by hand"
        )


def optax_state(
    state: PyTree, plan: Plan, params: PyTree, step: int | None = None
) -> OptimizerState:
    """Returns the state of an optax chain as that of its plan, as `switch` takes it.

    Args:
      state: of the chain, from a checkpoint of the run.
      plan: of the chain, as `from_optax` gives it.
      params: of the run, as arrays or as shapes.
      step: number of steps done, where the state does not count them.

    >>> params, chain = {"w": jnp.ones(3)}, optax.adam(1e-3)
    >>> plan = from_optax(chain, params, batch_size=256, horizon=1000)
    >>> _, state = chain.update(params, chain.init(params), params)
    >>> theirs = optax_state(state, plan, params)
    >>> int(theirs.clock.count), round(float(theirs.direction.v_weight), 6)
    (1, 0.001)
    """
    known = [x for x in _named_tuples(state) if type(x).__name__ in _MEMORIES]
    counts = {int(x.count) for x in _named_tuples(state) if "count" in x._fields}
    if step is not None:
        counts.add(step)
    if len(counts) != 1:
        raise ValueError(
            f"the state counts {sorted(counts) or 'no'} steps: give step=, the number "
            "of steps done"
        )
    count = jnp.asarray(counts.pop(), jnp.int32)
    small = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), params)
    started: Any = plan.transform().init(small)
    empty = started.direction
    groups = plan.optimizer.by_group()
    single = list(groups) == [""]
    made = {
        name: _memory(part, empty if single else empty[name], known, count)
        for name, part in groups.items()
    }
    clock = Clock.start(plan.dt)._replace(count=count)
    return OptimizerState(clock, made[""] if single else made)


_MEMORIES = {
    "ScaleByAdamState": {"m": "mu", "v": "nu"},
    "ScaleByRmsState": {"v": "nu"},
    "ScaleByRmsWithCountState": {"v": "nu"},
    "ScaleByRssState": {"s": "sum_of_squares"},
    "TraceState": {"m": "trace"},
    "EmaState": {"m": "ema"},
    "ScaleByLionState": {"m": "mu"},
    "MuonState": {"m": "mu"},
    "ScaleByAdemamixState": {"m": "m1", "slow": "m2", "v": "nu"},
}
"""Fields of ours, and of the states of optax that they are in."""


def _named_tuples(tree: PyTree) -> Iterator[Any]:
    """Yields the named tuples in a state, from the outside in."""
    if hasattr(tree, "_fields"):
        yield tree
    children = jax.tree.leaves(tree, is_leaf=lambda x: x is not tree)
    for child in children:
        if child is not tree:
            yield from _named_tuples(child)


def _memory(optimizer: Optimizer, empty: Any, known: list, count: jax.Array) -> PyTree:
    """Returns the optimizer's own state, with what optax has of these parameters."""
    if not jax.tree.leaves(empty):
        return empty
    wanted = {name for name in empty._fields if "weight" not in name}
    for source in known:
        fields = _MEMORIES[type(source).__name__]
        if set(fields) != wanted:
            continue
        found = {
            ours: _taken(getattr(empty, ours), getattr(source, theirs))
            for ours, theirs in fields.items()
        }
        if all(tree is not None for tree in found.values()):
            weights = {
                name: 1 - getattr(optimizer, decay) ** count.astype(float)
                for name, decay in _WEIGHTS.items()
                if name in empty._fields and hasattr(optimizer, decay)
            }
            return empty._replace(**found, **weights)
    raise ValueError(
        f"the state has no memory of {type(optimizer).__name__} for these parameters: "
        "give the state of the chain that the plan was read from"
    )


_WEIGHTS = {"m_weight": "b1", "v_weight": "b2", "weight": "beta"}


def _taken(wanted: PyTree, source: PyTree) -> PyTree | None:
    """Returns the leaves of a tree where they are wanted, or None if some are not."""
    masked = optax.MaskedNode

    def is_masked(x):
        return isinstance(x, masked)

    def take(old, new):
        if is_masked(old):
            return old
        if is_masked(new) or new.shape != old.shape:
            raise LookupError
        return jnp.asarray(new, old.dtype)

    try:
        return jax.tree.map(take, wanted, source, is_leaf=is_masked)
    except LookupError:
        return None
