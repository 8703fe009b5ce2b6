"""Our optimizers as lines to paste, in the words of optax, torch and Hugging Face.

`SPELLINGS` says which of their calls does what ours does, and from which of our
settings each argument is made. A spelling fits where all settings that it has no word
for are zero. Where optax has no such optimizer, ours is an optax transform.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

from optsde.optimizers import Optimizer
from optsde.types import Scalar


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
    """The calls by which a framework writes an optimizer, and what they leave out.

    calls: of the framework, in their order.
    zero: settings that the calls have no argument for, which must be 0.
    flags: settings that must have these values.
    """

    calls: tuple[Call, ...]
    zero: tuple[str, ...] = ()
    flags: Mapping[str, bool | int] = {}


def _same(*names: str, **others: str) -> tuple[Argument, ...]:
    """Returns arguments whose values are settings, by our names."""
    named = {**{name: name for name in names}, **others}
    return tuple(Argument(name, _setting(own)) for name, own in named.items())


def _setting(name: str) -> Callable[[Any], Any]:
    return lambda s: getattr(s, name)


def _decoupled(s) -> Any:
    """The decoupled decay that is multiplied by lr: λ + w/lr."""
    return s.weight_decay + s.absolute_decay / s.lr


def _absolute(s) -> Any:
    """The decoupled decay that is not multiplied by lr: λ·lr + w."""
    return s.weight_decay * s.lr + s.absolute_decay


def _all_decays(s) -> Any:
    return s.l2 + _decoupled(s)


def _l2(s) -> Any:
    return s.l2


_DECOUPLED = ("weight_decay", "absolute_decay")
_NESTEROV = Argument("nesterov", _setting("nesterov"), default=False)


def _optax(
    *calls: Call, zero: Sequence[str] = (), decay=_l2, **flags: bool | int
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


_ADAM = (*_same("b1", "b2", "eps"), Argument("eps_root", _setting("eps_root"), 0.0))
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
        "ademamix": (
            _optax(
                Call(
                    "optax.contrib.ademamix",
                    (
                        *_RATE,
                        *_same("b1", "b2", "b3", "alpha", "eps"),
                        Argument("eps_root", _setting("eps_root"), 0.0),
                        Argument("weight_decay", _decoupled, 0.0),
                    ),
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
        "adafactor": (
            _optax(
                Call(
                    "optax.adafactor",
                    (
                        *_RATE,
                        Argument("min_dim_size_to_factor", lambda s: 1),
                        Argument(
                            "multiply_by_parameter_scale", _setting("relative"), True
                        ),
                        Argument("clipping_threshold", lambda s: None, absent="None"),
                        Argument("weight_decay_rate", _absolute, 0.0),
                        *_same("eps"),
                    ),
                ),
                pace=1,
            ),
        ),
        "lamb": (
            _optax(
                Call(
                    "optax.lamb", (*_RATE, *_ADAM, *_same(weight_decay="inner_decay"))
                ),
                zero=_DECOUPLED,
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
        "muon": (
            Spelling(
                (
                    Call(
                        "torch.optim.Muon",
                        (
                            *_same("lr", momentum="beta"),
                            Argument("nesterov", _setting("nesterov"), default=True),
                            Argument("weight_decay", _decoupled),
                        ),
                        first="matrices",
                    ),
                ),
                zero=("l2",),
                flags=dict(match_rms=False, exact=False),
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
NONE = {
    "torch": "none: torch.optim has no {}",
    "hf": "none: TrainingArguments are written here for AdamW alone, not for {}",
}
"""Texts in place of the lines of a framework that has none for an optimizer."""
_BESIDES = {"torch": {"adafactor": "Adafactor without a clip and an lr below 1/√k"}}


def absent(framework: str, family: type[Optimizer]) -> str:
    """Returns the line of a framework that never writes a family."""
    name = family.__name__
    return NONE[framework].format(_BESIDES.get(framework, {}).get(name.lower(), name))


def ours(family: type[Optimizer]) -> Spelling:
    """Returns the spelling of a family as an optax transform of our own."""
    arguments = []
    for field in dataclasses.fields(family):
        default = field.default
        if field.name == "lr" or not isinstance(default, float | bool):
            default = None
        arguments.append(Argument(field.name, _setting(field.name), default))
    room = "optsde." if family.__module__.startswith("optsde.") else ""
    call = Call(room + family.__name__, tuple(arguments), after=".transform()")
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


def written(framework: str, optimizer: Optimizer, **run: Scalar | None) -> list[str]:
    """Returns the lines to paste, or one that begins with "none".

    Args:
      framework: "optax", "torch" or "hf".
      optimizer: with plain numbers.
      run: clip, ema (the decay of the average), steps, warmup, per_device and
        accumulation; None or left out where there is none.

    >>> from optsde import Lion, SGD
    >>> print(*written("torch", SGD(lr=0.1, l2=1e-4), clip=1.0), sep="\\n")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.0001)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # before optimizer.step()
    >>> written("torch", Lion())
    ['none: torch.optim has no Lion']
    """
    none = dict.fromkeys(RUN)
    settings = SimpleNamespace(**{**none, **vars(optimizer), **run})
    family = type(optimizer)
    known = spellings(framework, family)
    if not known:
        return [absent(framework, family)]
    for spelling in known:
        if not missing(spelling, settings):
            texts = (_line(line, settings) for line in lines(framework, spelling))
            return [text for text in texts if text]
    fewest = min((missing(spelling, settings) for spelling in known), key=len)
    return [NONE[framework].format(f"{family.__name__} with {', '.join(fewest)}")]


RUN = ("clip", "ema", "steps", "warmup", "per_device", "accumulation")
"""Names of the settings of a run besides its optimizer, as `written` takes them."""


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
    if isinstance(value, int):
        return repr(value)
    return repr(float(f"{float(value):.8g}"))  # a rule may have made an array of it
