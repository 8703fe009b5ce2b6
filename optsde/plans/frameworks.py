"""Optimizers in the words of torch, optax and Hugging Face, read and written.

Frameworks give one name to different updates: torch's Adam(weight_decay) is `l2` here,
its SGD(momentum) is `HeavyBall`, optax's rmsprop has its ε inside the root. `READINGS`
holds a function for each of their optimizers, with their arguments and defaults, which
returns ours. `written` goes the other way, to lines to paste; where optax has no such
optimizer, ours is an optax transform.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

from optsde.optimizers import (
    REGISTRY,
    SGD,
    AdaGrad,
    Adam,
    HeavyBall,
    Lion,
    Momentum,
    Optimizer,
    RMSprop,
    SignSGD,
)

# Reading


def _sgd(lr=0.1, momentum=0.0, nesterov=False, **decays: float) -> Optimizer:
    if momentum:
        return HeavyBall(lr=lr, beta=momentum, nesterov=nesterov, **decays)
    if nesterov:
        raise ValueError("nesterov=True with momentum=0: give it a momentum")
    return SGD(lr=lr, **decays)


def _own_sgd(
    lr=0.1,
    momentum=0.0,
    nesterov=False,
    l2=0.0,
    weight_decay=0.0,
    absolute_decay=0.0,
):
    decays = dict(l2=l2, weight_decay=weight_decay, absolute_decay=absolute_decay)
    return _sgd(lr, momentum, nesterov, **decays)


def _torch_sgd(lr=1e-3, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
    if not dampening:
        return _sgd(lr, momentum, nesterov, l2=weight_decay)
    if dampening != momentum or nesterov:
        raise ValueError(
            f"dampening={dampening:g} with momentum={momentum:g}: a rule is known for "
            "dampening=0, and for dampening=momentum without nesterov"
        )
    return Momentum(lr=lr, beta=momentum, l2=weight_decay)


def _torch_adam(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
    b1, b2 = betas
    return Adam(lr=lr, b1=b1, b2=b2, eps=eps, l2=weight_decay)


def _torch_adamw(lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2):
    b1, b2 = betas
    return Adam(lr=lr, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay)


def _torch_rmsprop(lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0.0):
    return RMSprop(
        lr=lr, beta=alpha, eps=eps, l2=weight_decay, bias_correction=False
    )


def _torch_adagrad(
    lr=1e-2, weight_decay=0.0, initial_accumulator_value=0.0, eps=1e-10
):
    return AdaGrad(lr=lr, s0=initial_accumulator_value, eps=eps, l2=weight_decay)


def _optax_sgd(learning_rate=0.1, momentum=0.0, nesterov=False):
    return _sgd(learning_rate, momentum, nesterov)


def _optax_adamw(
    learning_rate=1e-3, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, weight_decay=1e-4
):
    return Adam(
        lr=learning_rate,
        b1=b1,
        b2=b2,
        eps=eps,
        eps_root=eps_root,
        weight_decay=weight_decay,
    )


def _optax_adam(learning_rate=1e-3, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0):
    return _optax_adamw(learning_rate, b1, b2, eps, eps_root, weight_decay=0.0)


def _optax_rmsprop(
    learning_rate=1e-3,
    decay=0.9,
    eps=1e-8,
    initial_scale=0.0,
    eps_in_sqrt=True,
    bias_correction=False,
):
    return RMSprop(
        lr=learning_rate,
        beta=decay,
        eps=0.0 if eps_in_sqrt else eps,
        eps_root=eps if eps_in_sqrt else 0.0,
        v0=initial_scale,
        bias_correction=bias_correction,
    )


def _optax_adagrad(learning_rate=1e-2, initial_accumulator_value=0.1, eps=1e-7):
    return AdaGrad(
        lr=learning_rate, s0=initial_accumulator_value, eps=0.0, eps_root=eps
    )


def _optax_lion(learning_rate=1e-4, b1=0.9, b2=0.99, weight_decay=1e-3):
    return Lion(lr=learning_rate, b1=b1, b2=b2, weight_decay=weight_decay)


def _optax_sign_sgd(learning_rate=1e-3):
    return SignSGD(lr=learning_rate)


def _hf_adamw(
    learning_rate=5e-5,
    adam_beta1=0.9,
    adam_beta2=0.999,
    adam_epsilon=1e-8,
    weight_decay=0.0,
):
    return _torch_adamw(
        learning_rate, (adam_beta1, adam_beta2), adam_epsilon, weight_decay
    )


_THEIRS: dict[str, dict[str, Callable[..., Optimizer]]] = {
    "torch": {
        "adam": _torch_adam,
        "adamw": _torch_adamw,
        "sgd": _torch_sgd,
        "rmsprop": _torch_rmsprop,
        "adagrad": _torch_adagrad,
    },
    "optax": {
        "adam": _optax_adam,
        "adamw": _optax_adamw,
        "sgd": _optax_sgd,
        "rmsprop": _optax_rmsprop,
        "adagrad": _optax_adagrad,
        "lion": _optax_lion,
        "sign_sgd": _optax_sign_sgd,
    },
    "hf": {"adamw": _hf_adamw, "adamw_torch": _hf_adamw},
}

FRAMEWORKS = ("optsde", *_THEIRS)
"""Whose words can be read; "hf" is Hugging Face's `TrainingArguments`."""


def readings(framework: str) -> dict[str, Callable[..., Optimizer]]:
    """Returns functions from a framework's settings to our optimizers, by its names.

    >>> readings("torch")["sgd"](lr=0.1, momentum=0.9)
    HeavyBall(lr=0.1, l2=0.0, weight_decay=0.0, absolute_decay=0.0, beta=0.9, nesterov=False)
    """
    if framework in _THEIRS:
        return _THEIRS[framework]
    return {**REGISTRY, "adamw": Adam, "sgd": _own_sgd}


def example(family: type[Optimizer]) -> Optimizer:
    """Returns an optimizer of a family, at 0.5 where it has no defaults."""
    needed = (
        field.name
        for field in dataclasses.fields(family)
        if field.default is dataclasses.MISSING
    )
    return family(**dict.fromkeys(needed, 0.5))


# Writing


class Argument(NamedTuple):
    """One argument of a call, made of a run's settings."""

    name: str  # "" for one by position
    value: Callable[[Any], Any]  # of a number, a flag or a pair; None where not set
    default: float | bool | None = None  # is left out
    absent: str | None = None  # stands where the value is None


class Call(NamedTuple):
    """One call in a line; `when` names a setting without which it is left out."""

    name: str
    arguments: tuple[Argument, ...]
    when: Callable[[Any], Any] | None = None
    first: str = ""  # an argument that is no setting
    after: str = ""


class Line(NamedTuple):
    """A line to paste: its calls, `together` in one where there are several."""

    start: str
    calls: tuple[Call, ...]
    together: str = ""
    remark: str = ""


class Spelling(NamedTuple):
    """How a framework writes an optimizer whose other settings are zero."""

    calls: tuple[Call, ...]
    zero: tuple[str, ...] = ()
    flags: Mapping[str, bool] = {}


def _same(*names: str, **others: str) -> tuple[Argument, ...]:
    """Returns arguments whose values are settings, by our names."""
    named = {**{name: name for name in names}, **others}
    return tuple(Argument(name, _setting(own)) for name, own in named.items())


def _setting(name: str) -> Callable[[Any], Any]:
    return lambda s: getattr(s, name)


def _decoupled(s) -> Any:
    """The decoupled decay that is multiplied by lr: λ + w/lr."""
    return s.weight_decay + s.absolute_decay / s.lr


def _all_decays(s) -> Any:
    return s.l2 + _decoupled(s)


def _l2(s) -> Any:
    return s.l2


_DECOUPLED = ("weight_decay", "absolute_decay")
_NESTEROV = Argument("nesterov", _setting("nesterov"), default=False)


def _optax(
    *calls: Call, zero: Sequence[str] = (), decay=_l2, **flags: bool
) -> Spelling:
    added = Call("optax.add_decayed_weights", (Argument("", decay),), when=decay)
    return Spelling((added, *calls), tuple(zero), flags)


def _torch(
    name: str, *arguments: Argument, zero: Sequence[str], decay=_l2, **flags: bool
) -> Spelling:
    shrinking = Argument("weight_decay", decay, None if name == "AdamW" else 0.0)
    call = Call(
        f"torch.optim.{name}", (*arguments, shrinking), first="model.parameters()"
    )
    return Spelling((call,), tuple(zero), flags)


def _rate(s) -> Any:
    """The lr of a sum that goes as far as our average."""
    return s.lr * (1 - s.beta)


_ADAM = _same("b1", "b2", "eps") + (Argument("eps_root", _setting("eps_root"), 0.0),)
_RATE = _same(learning_rate="lr")
_BETAS = Argument("betas", lambda s: (s.b1, s.b2))

SPELLINGS: dict[str, dict[str, tuple[Spelling, ...]]] = {
    "optax": {
        "sgd": (_optax(Call("optax.sgd", _RATE), decay=_all_decays),),
        "momentum": (
            _optax(
                Call(
                    "optax.sgd",
                    (
                        Argument("learning_rate", _rate),
                        *_same(momentum="beta"),
                        _NESTEROV,
                    ),
                ),
                zero=_DECOUPLED,
            ),
        ),
        "heavyball": (
            _optax(
                Call("optax.sgd", (*_RATE, *_same(momentum="beta"), _NESTEROV)),
                zero=_DECOUPLED,
            ),
        ),
        "adam": (
            _optax(Call("optax.adam", _RATE + _ADAM), zero=_DECOUPLED),
            _optax(
                Call(
                    "optax.adamw",
                    (*_RATE, *_ADAM, Argument("weight_decay", _decoupled)),
                )
            ),
        ),
        "rmsprop": tuple(
            _optax(
                Call(
                    "optax.rmsprop",
                    (
                        *_same(learning_rate="lr", decay="beta", eps=used),
                        Argument("initial_scale", _setting("v0"), 0.0),
                        Argument("eps_in_sqrt", lambda s, i=inside: i, True),
                        Argument("bias_correction", _setting("bias_correction"), False),
                    ),
                ),
                zero=(unused, *_DECOUPLED),
                lagged=False,
            )
            for used, unused, inside in (
                ("eps", "eps_root", False),
                ("eps_root", "eps", True),
            )
        ),
        "adagrad": (
            _optax(
                Call(
                    "optax.adagrad",
                    _same(
                        learning_rate="lr",
                        initial_accumulator_value="s0",
                        eps="eps_root",
                    ),
                ),
                zero=("eps", *_DECOUPLED),
            ),
        ),
        "signsgd": (_optax(Call("optax.sign_sgd", _RATE), zero=_DECOUPLED),),
        "signum": (
            _optax(
                Call(
                    "optax.ema",
                    (
                        Argument("", _setting("beta")),
                        Argument("debias", lambda s: False),
                    ),
                ),
                Call("optax.scale_by_sign", ()),
                Call("optax.scale_by_learning_rate", (Argument("", _setting("lr")),)),
                zero=_DECOUPLED,
            ),
        ),
        "lion": (
            _optax(
                Call(
                    "optax.lion",
                    (
                        *_RATE,
                        *_same("b1", "b2"),
                        Argument("weight_decay", _decoupled),
                    ),
                )
            ),
        ),
    },
    "torch": {
        "sgd": (_torch("SGD", *_same("lr"), zero=(), decay=_all_decays),),
        "momentum": (
            _torch(
                "SGD",
                Argument("lr", _rate),
                *_same(momentum="beta"),
                _NESTEROV,
                zero=_DECOUPLED,
            ),
        ),
        "heavyball": (
            _torch("SGD", *_same("lr", momentum="beta"), _NESTEROV, zero=_DECOUPLED),
        ),
        "adam": (
            _torch(
                "Adam",
                *_same("lr"),
                _BETAS,
                *_same("eps"),
                zero=("eps_root", *_DECOUPLED),
            ),
            _torch(
                "AdamW",
                *_same("lr"),
                _BETAS,
                *_same("eps"),
                zero=("eps_root", "l2"),
                decay=_decoupled,
            ),
        ),
        "rmsprop": (
            _torch(
                "RMSprop",
                *_same("lr", alpha="beta", eps="eps"),
                zero=("eps_root", "v0", *_DECOUPLED),
                bias_correction=False,
                lagged=False,
            ),
            _torch(
                "Adam",
                *_same("lr"),
                Argument("betas", lambda s: (0.0, s.beta)),
                *_same("eps"),
                zero=("eps_root", "v0", *_DECOUPLED),
                bias_correction=True,
                lagged=False,
            ),
        ),
        "adagrad": (
            _torch(
                "Adagrad",
                *_same("lr", initial_accumulator_value="s0", eps="eps"),
                zero=("eps_root", *_DECOUPLED),
            ),
        ),
    },
    "hf": {
        "adam": (
            Spelling(
                (
                    Call(
                        "TrainingArguments",
                        (
                            *_same(
                                learning_rate="lr",
                                adam_beta1="b1",
                                adam_beta2="b2",
                                adam_epsilon="eps",
                            ),
                            Argument("weight_decay", _decoupled),
                            Argument("max_grad_norm", _setting("clip"), absent="0.0"),
                            *_same(
                                warmup_steps="warmup",
                                max_steps="steps",
                                per_device_train_batch_size="per_device",
                                gradient_accumulation_steps="accumulation",
                            ),
                        ),
                    ),
                ),
                zero=("l2", "eps_root"),
            ),
        )
    },
}

_CLIP, _EMA = _setting("clip"), _setting("ema")
_OPTAX_CLIP = Call("optax.clip_by_global_norm", (Argument("", _CLIP),), when=_CLIP)
_MORE: dict[str, tuple[Line, ...]] = {
    "optax": (
        Line(
            "ema = ",
            (
                Call(
                    "optax.incremental_update",
                    (Argument("step_size", lambda s: 1 - s.ema),),
                    when=_EMA,
                    first="params, ema",
                ),
            ),
        ),
    ),
    "torch": (
        Line(
            "",
            (
                Call(
                    "torch.nn.utils.clip_grad_norm_",
                    (Argument("", _CLIP),),
                    when=_CLIP,
                    first="model.parameters()",
                ),
            ),
            remark="  # before optimizer.step()",
        ),
        Line(
            "ema = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=",
            (
                Call(
                    "torch.optim.swa_utils.get_ema_multi_avg_fn",
                    (Argument("", _EMA),),
                    when=_EMA,
                    after=")",
                ),
            ),
        ),
    ),
    "hf": (),
}
_START = {"optax": "tx = ", "torch": "optimizer = ", "hf": "args = "}
_PLACES = {"torch": "torch.optim", "hf": "TrainingArguments"}


def ours(family: type[Optimizer]) -> Spelling:
    """Returns the spelling of a family as an optax transform of our own."""
    fields = dataclasses.fields(family)
    arguments = tuple(
        Argument(
            field.name,
            _setting(field.name),
            None if field.name == "lr" else field.default,
        )
        for field in fields
    )
    room = "optsde." if family.__module__.startswith("optsde.") else ""
    call = Call(room + family.__name__, arguments, after=".transform()")
    return Spelling((call,))


def spellings(framework: str, family: type[Optimizer]) -> tuple[Spelling, ...]:
    """Returns how a framework writes a family, the first that fits to be taken."""
    known = SPELLINGS[framework].get(family.__name__.lower(), ())
    return (*known, ours(family)) if framework == "optax" else known


def lines(framework: str, spelling: Spelling) -> tuple[Line, ...]:
    """Returns all lines of a run in a framework, of which some have nothing to say."""
    if framework != "optax":
        return (Line(_START[framework], spelling.calls), *_MORE[framework])
    calls = (_OPTAX_CLIP, *spelling.calls)
    return (Line(_START[framework], calls, "optax.chain"), *_MORE[framework])


def missing(spelling: Spelling, settings: Any) -> list[str]:
    """Returns the settings for which a spelling has no words."""
    numbers = [name for name in spelling.zero if getattr(settings, name) != 0]
    flags = [k for k, v in spelling.flags.items() if getattr(settings, k) != v]
    return [*numbers, *(f"{name}={getattr(settings, name)}" for name in flags)]


def written(framework: str, optimizer: Optimizer, **run: float | None) -> list[str]:
    """Returns the lines to paste, or one that begins with "none".

    Args:
      framework: "optax", "torch" or "hf".
      optimizer: with plain numbers.
      run: clip, ema (the decay of the average), steps, warmup, per_device and
        accumulation; None or left out where there is none.

    >>> print(*written("torch", Adam(lr=3e-4, weight_decay=0.1), clip=1.0), sep="\\n")
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0003, betas=(0.9, 0.999), eps=1e-08, weight_decay=0.1)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # before optimizer.step()
    >>> written("torch", Lion())
    ['none: torch.optim has no Lion']
    """
    none = dict.fromkeys(RUN)
    settings = SimpleNamespace(**{**none, **vars(optimizer), **run})
    family = type(optimizer)
    known = spellings(framework, family)
    if not known:
        return [f"none: {_PLACES[framework]} has no {family.__name__}"]
    for spelling in known:
        if not missing(spelling, settings):
            texts = (_line(line, settings) for line in lines(framework, spelling))
            return [text for text in texts if text]
    fewest = min((missing(spelling, settings) for spelling in known), key=len)
    return [
        f"none: {_PLACES[framework]} has no {family.__name__} with {', '.join(fewest)}"
    ]


RUN = ("clip", "ema", "steps", "warmup", "per_device", "accumulation")
"""What a run has besides its optimizer, as `written` takes it."""


def _line(line: Line, settings: Any) -> str:
    calls = [c for c in line.calls if c.when is None or c.when(settings)]
    texts = [_call(call, settings) for call in calls]
    if not texts:
        return ""
    joined = ", ".join(texts)
    if len(texts) > 1:
        joined = f"{line.together}({joined})"
    return line.start + joined + line.remark


def _call(call: Call, settings: Any) -> str:
    parts = [call.first] if call.first else []
    for argument in call.arguments:
        value = argument.value(settings)
        shown = argument.absent if value is None else _shown(value)
        if shown is not None and (value is None or value != argument.default):
            parts.append(f"{argument.name}={shown}" if argument.name else shown)
    return f"{call.name}({', '.join(parts)}){call.after}"


def _shown(value: Any) -> str:
    """Returns a number as Python reads it, with eight digits."""
    if isinstance(value, tuple):
        return f"({', '.join(_shown(x) for x in value)})"
    return repr(float(f"{value:.8g}")) if isinstance(value, float) else repr(value)
