"""Adapters: nets of Linen, nnx and Equinox as `Net`.

BatchNorm keeps no running averages here. In training it normalises by the batch, or by
its ghost group, as these libraries do too; for an evaluation its moments are made anew
from training inputs, as exact means at the parameters of that time.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp

from optsde.models.net import Net
from optsde.types import PyTree

FLAGS: dict[type, str] = {
    nn.Dropout: "deterministic",
    nn.MultiHeadDotProductAttention: "deterministic",
    nn.BatchNorm: "use_running_average",
}


def net_of(model: Any) -> Net:
    """Returns the model as a `Net`: a Net as it is, a Linen module through its adapter.

    Others are refused with the name of the adapter that takes them.
    """
    if isinstance(model, Net):
        return model
    if isinstance(model, nn.Module):
        return from_linen(model)
    if isinstance(model, type):
        raise TypeError(
            f"model is the class {model.__name__}: give a module made of it"
        )
    doors = {
        "equinox": "models.from_equinox(lambda key: MyNet(…, key=key))",
        "nnx": "models.from_nnx(lambda rngs: MyNet(…, rngs=rngs))",
    }
    libraries = ".".join(kind.__module__ for kind in type(model).__mro__).split(".")
    door = next((line for name, line in doors.items() if name in libraries), "")
    raise TypeError(
        f"model={type(model).__name__} is no net: give a Linen module or "
        f"{door or 'models.Net(init, apply) of your functions'}"
    )


def from_linen(
    module: nn.Module,
    training: Mapping[str, bool] | None = None,
    rngs: Sequence[str] = (),
) -> Net:
    """Returns a net of a Linen module: `module.apply({"params": params}, inputs)`.

    A module whose class says `takes_mask = True` is called with mask= too, where a
    group is filled up. BatchNorm of Flax and of `optsde.models` are both known.

        >>> import jax.numpy as jnp
        >>> class MyNet(nn.Module):
        ...     @nn.compact
        ...     def __call__(self, x, train):
        ...         x = nn.Dropout(0.5, deterministic=not train)(x)
        ...         return nn.Dense(3)(x)
        >>> net = from_linen(MyNet(), training={"train": True}, rngs=("dropout",))
        >>> params = net.init(jax.random.key(0), jnp.ones((1, 4)))
        >>> net.apply(params, jnp.ones((2, 4))).shape
        (2, 3)

    Args:
      module: it and its layers hold no other state than BatchNorm's.
      training: flags that it is called with in training, such as {"train": True} or
        {"deterministic": False}; in an evaluation it gets their opposites.
      rngs: streams of randomness that training draws from, such as ("dropout",).
    """
    flags: dict[str, Any] = dict(training or {})
    opposite: dict[str, Any] = {name: not value for name, value in flags.items()}

    def watch(layer, args, kwargs, context):
        _refuse_idle(context, args, kwargs, rngs)
        return layer(*args, **kwargs)

    def options(mask, key) -> dict[str, Any]:
        masked = {} if mask is None else {"mask": mask}
        return flags | masked | {"rngs": streams(key)}

    def streams(key):
        if key is None:
            return {}
        return dict(zip(rngs, jax.random.split(key, len(rngs)), strict=True))

    def init(key, inputs):
        with nn.intercept_methods(watch):
            found = module.init({"params": key} | streams(key), inputs, **flags)
        return found["params"]

    def train(params, inputs, mask=None, key=None):
        variables, given = {"params": params}, options(mask, key)
        return module.apply(variables, inputs, mutable=["batch_stats"], **given)[0]

    def moments(params, inputs, mask=None, key=None):
        def update(**averages):
            variables, given = {"params": params} | averages, options(mask, key)
            kinds = ["statistics", "batch_stats"]  # optsde's BatchNorm, and Flax's
            return module.apply(variables, inputs, mutable=kinds, **given)[1]

        def moved(averages):
            return update(batch_stats=averages)["batch_stats"]

        found = update()
        if averages := found.get("batch_stats"):
            return {**found, "batch_stats": _batch_moments(moved, averages)}
        return {**found}

    def apply(params, inputs, moments=None):
        variables = {"params": params} | (moments or {})
        if averages := variables.get("batch_stats"):
            variables["batch_stats"] = _averages(averages)
        return module.apply(variables, inputs, **opposite)

    plain = not flags and not rngs
    return Net(
        init,
        apply,
        train,
        noisy=bool(rngs),
        takes_mask=getattr(module, "takes_mask", False),
        moments=moments,
        module=module if plain else None,
    )


def from_nnx(make: Callable[[Any], Any]) -> Net:
    """Returns a net of a Flax nnx module, made from `nnx.Rngs` by `make(rngs)`.

    Parameters are those of type nnx.Param, as nested dictionaries. It is noisy where
    its layers keep streams of randomness, as Dropout does: their keys then come from
    the run. Variables of other types stay as `make` made them.

        >>> import jax.numpy as jnp
        >>> from flax import nnx
        >>> net = from_nnx(lambda rngs: nnx.Linear(4, 3, rngs=rngs))
        >>> params = net.init(jax.random.key(0), jnp.ones((1, 4)))
        >>> net.apply(params, jnp.ones((2, 4))).shape
        (2, 3)
    """
    from flax import nnx

    kinds = nnx.Param, nnx.BatchStat, nnx.RngKey, ...
    first = _made(make, nnx.Rngs(0), "from_nnx(lambda rngs: MyNet(…, rngs=rngs))")
    takes_mask = getattr(first, "takes_mask", False)
    graph, *states = nnx.split(first, *kinds)
    params_of, stats_of, keys_of, others = states
    noisy = bool(jax.tree.leaves(keys_of))

    def filled(state, values):
        state = jax.tree.map(lambda x: x, state)
        nnx.replace_by_pure_dict(state, values)
        return state

    def module_of(params, averages, key=None):
        keys = keys_of
        if key is not None:
            leaves, structure = jax.tree.flatten(keys_of)
            keys = structure.unflatten(list(jax.random.split(key, len(leaves))))
        stats = filled(stats_of, averages) if averages else stats_of
        states = filled(params_of, params), stats, keys, others
        return nnx.merge(graph, *states, copy=True)

    def run(params, averages, inputs, mask, key):
        module = module_of(params, averages, key)
        module.train()
        masked = {} if mask is None else {"mask": mask}
        outputs = module(inputs, **masked)
        return outputs, nnx.to_pure_dict(nnx.state(module, nnx.BatchStat))

    def init(key, inputs):
        return nnx.to_pure_dict(nnx.state(make(nnx.Rngs(key)), nnx.Param))

    def train(params, inputs, mask=None, key=None):
        return run(params, {}, inputs, mask, key)[0]

    def moments(params, inputs, mask=None, key=None):
        averages = nnx.to_pure_dict(stats_of)
        if not averages:
            return {}
        return _batch_moments(lambda x: run(params, x, inputs, mask, key)[1], averages)

    def apply(params, inputs, moments=None):
        module = module_of(params, _averages(moments) if moments else {})
        module.eval()
        return module(inputs)

    return Net(init, apply, train, noisy, takes_mask, moments)


def from_equinox(make: Callable[[jax.Array], Any], noisy: bool = False) -> Net:
    """Returns a net of an Equinox module for one example, made by `make(key)`.

    Parameters are the module's floating-point arrays, in the module's own structure.
    Layers with a state, such as eqx.nn.BatchNorm, are not taken.

        >>> import equinox as eqx
        >>> import jax.numpy as jnp
        >>> net = from_equinox(lambda key: eqx.nn.MLP(4, 3, 8, 1, key=key))
        >>> params = net.init(jax.random.key(0), jnp.ones((1, 4)))
        >>> net.apply(params, jnp.ones((2, 4))).shape
        (2, 3)

    Args:
      make: key -> module, so that each replica has parameters of its own.
      noisy: whether it draws random numbers, as dropout does: the module is then called
        as module(x, key=key), and in an evaluation through eqx.nn.inference_mode.
    """
    import equinox as eqx

    door = "from_equinox(lambda key: MyNet(…, key=key))"
    first = _made(make, jax.random.key(0), door)

    def keeps_state(x):
        return isinstance(x, eqx.nn.StateIndex)

    if any(map(keeps_state, jax.tree.leaves(first, is_leaf=keeps_state))):
        raise TypeError(
            f"{type(first).__name__} has layers with a state, as eqx.nn.BatchNorm has, "
            "which are not taken: use a norm of each example, such as eqx.nn.GroupNorm"
        )
    rest = eqx.filter(first, eqx.is_inexact_array, inverse=True)

    def init(key, inputs):
        return eqx.filter(make(key), eqx.is_inexact_array)

    def apply(params, inputs):
        module: Any = eqx.nn.inference_mode(eqx.combine(params, rest))
        given = {"key": jax.random.key(0)} if noisy else {}  # which nothing draws from
        return jax.vmap(lambda x: module(x, **given))(inputs)

    def train(params, inputs, key: Any = None):
        module: Any = eqx.combine(params, rest)
        if not noisy:
            return jax.vmap(module)(inputs)
        keys = jax.random.split(key, len(inputs))
        return jax.vmap(lambda x, key: module(x, key=key))(inputs, keys)

    return Net(init, apply, train, noisy)


def _made(make: Callable, source: Any, door: str) -> Any:
    """Returns make(source), for which a finished module was perhaps given."""
    if jax.tree_util.all_leaves([make]):
        return make(source)
    raise TypeError(
        f"{type(make).__name__} is a finished module, and each replica makes its own "
        f"from a key: give models.{door}"
    )


def _batch_moments(update: Callable[[PyTree], PyTree], like: PyTree) -> PyTree:
    """Returns E[x] and E[x²] of a batch from how it moves running averages.

    They move as a ← m·a + (1 − m)·(those of the batch), with a momentum m of each
    layer's own. A step from 0 leaves the share 1 − m of them, and one from elsewhere
    tells m. In the place of the variance stands E[x²], whose mean over batches is that
    of all their examples.
    """
    flat = flax.traverse_util.flatten_dict(like)
    if unknown := {path[-1] for path in flat} - {"mean", "var"}:
        raise ValueError(
            f"batch_stats holds {', '.join(map(str, sorted(unknown)))}, and only the "
            "mean and var of BatchNorm are known: leave that layer out"
        )
    first = update(jax.tree.map(jnp.zeros_like, like))
    sizes = jax.tree.map(lambda a: jnp.max(jnp.abs(a)), first)  # to round least
    sizes = jax.tree.map(lambda size: jnp.where(size > 0, size, 1), sizes)
    second = update(jax.tree.map(lambda a, size: jnp.full_like(a, size), first, sizes))

    def of_batch(first, second, size):
        return first / (1 - jnp.mean(second - first) / size)

    batch = jax.tree.map(of_batch, first, second, sizes)
    return _per_layer(batch, lambda mean, var: (mean, var + mean**2))


def _averages(moments: PyTree) -> PyTree:
    """Returns mean and variance, as layers read them, of E[x] and E[x²]."""
    return _per_layer(
        moments, lambda mean, square: (mean, jnp.maximum(square - mean**2, 0))
    )


def _per_layer(tree: PyTree, function: Callable) -> PyTree:
    flat = flax.traverse_util.flatten_dict(tree)
    for path in [path for path in flat if path[-1] == "mean"]:
        var = (*path[:-1], "var")
        flat[path], flat[var] = function(flat[path], flat[var])
    return flax.traverse_util.unflatten_dict(flat)


def _refuse_idle(context: Any, args: tuple, kwargs: dict, rngs: Sequence[str]) -> None:
    """Refuses Flax layers that evaluate while the net trains, as nobody told them."""
    layer = context.module
    flag = next((FLAGS[kind] for kind in type(layer).__mro__ if kind in FLAGS), None)
    if flag is None or context.method_name != "__call__":
        return
    if 0 in (getattr(layer, name, 1) for name in ("rate", "dropout_rate")):
        return
    given = inspect.signature(context.orig_method).bind(*args, **kwargs).arguments
    idle = getattr(layer, flag) if given.get(flag) is None else given[flag]
    if idle is None:  # a class that calls Flax's in its own, which comes here again
        return
    if idle:
        raise ValueError(
            f"{layer.name} runs with {flag}=True while the net trains: say which flag "
            'turns it on, as in models.from_linen(net, training={"train": True})'
        )
    stream = getattr(layer, "rng_collection", "dropout")
    own = given.get("rng", given.get("dropout_rng"))
    if flag == "deterministic" and own is None and stream not in rngs:
        raise ValueError(
            f"{layer.name} draws from the stream {stream!r}: name it, as "
            f"in models.from_linen(net, training=…, rngs=({stream!r},))"
        )
