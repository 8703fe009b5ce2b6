"""Lines to paste do what our plans do; readings take what frameworks mean."""

import inspect
from functools import partial
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optsde
from optsde import EMA, Plan
from optsde.optimizers import REGISTRY
from optsde.plans.lines import written
from optsde.plans.readings import example, readings

START = np.array([0.3, -1.2, 0.7])
STEPS = 10
GRADS = np.random.default_rng(0).normal(size=(STEPS, 3)) + 0.3

MANY = [
    optsde.SGD(lr=0.1),
    optsde.SGD(lr=0.1, l2=0.01, weight_decay=0.02, absolute_decay=1e-3),
    optsde.Momentum(lr=0.1, beta=0.8, l2=0.01),
    optsde.Momentum(lr=0.1, beta=0.8, nesterov=True),
    optsde.HeavyBall(lr=0.03, beta=0.9, nesterov=True, l2=0.02),
    optsde.HeavyBall(lr=0.03, beta=0.9),
    optsde.Adam(lr=0.01, b1=0.7, b2=0.93, eps=1e-3),
    optsde.Adam(lr=0.01, b1=0.034336838, b2=0.9, l2=0.1),
    optsde.Adam(lr=0.01, weight_decay=0.3, absolute_decay=1e-3),
    optsde.RMSprop(lr=0.01, beta=0.9, eps=1e-2, bias_correction=False, l2=0.1),
    optsde.RMSprop(lr=0.01, beta=0.9, eps=1e-2),
    optsde.AdaGrad(lr=0.1, eps=1e-2, l2=0.1),
]
OPTAX_ONLY = [
    optsde.Adam(lr=0.01, eps_root=0.1, l2=0.2, weight_decay=0.1),
    optsde.RMSprop(lr=0.01, eps=0.0, eps_root=0.1, v0=0.5, bias_correction=False),
    optsde.RMSprop(lr=0.01, lagged=True),
    optsde.AdaGrad(lr=0.1, eps=0.0, eps_root=0.1, s0=0.3),
    optsde.SignSGD(lr=0.01, l2=0.1),
    optsde.Signum(lr=0.01, beta=0.7, l2=0.1),
    optsde.Signum(lr=0.01, weight_decay=0.1),
    optsde.Lion(lr=0.01, weight_decay=0.1),
    optsde.AdEMAMix(lr=0.01, b3=0.8, alpha=2.0, eps_root=0.1, weight_decay=0.1),
    optsde.HeavyBall(lr=0.03, weight_decay=0.1),
    optsde.InvariantAdam(lr=0.01),
    optsde.CentredAdam(lr=0.01),
    optsde.Muon(lr=0.01, beta=0.7, nesterov=False, weight_decay=0.1),
    optsde.LAMB(lr=0.01, b1=0.7, inner_decay=0.1),
    optsde.AdamMini(lr=0.01),
    optsde.MARS(lr=0.01),
    optsde.Adafactor(lr=0.01, weight_decay=0.2, absolute_decay=1e-3, l2=0.1),
    optsde.Adafactor(lr=0.01, pace=0.7, relative=False),
    optsde.Shampoo(lr=0.01, b1=0.7, weight_decay=0.1),
    optsde.SOAP(lr=0.01, b1=0.7, weight_decay=0.1),
]


def path(transform):
    """Parameters after each of ten steps."""
    params, found = jnp.asarray(START), []
    state = transform.init(params)
    for grad in GRADS:
        updates, state = transform.update(jnp.asarray(grad), state, params)
        params = params + updates
        found.append(params)
    return np.array(found)


def ours(optimizer, clip=None):
    plan = Plan(optimizer=optimizer, batch_size=1, horizon=STEPS, clip=clip)
    return path(plan.transform())


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("optimizer", MANY + OPTAX_ONLY)
@pytest.mark.usefixtures("x64")
def test_optax_line_makes_the_same_updates(optimizer, clip):
    (line,) = written("optax", optimizer, clip=clip)
    transform = eval(line.removeprefix("tx = "), {"optax": optax, "optsde": optsde})
    np.testing.assert_allclose(path(transform), ours(optimizer, clip), atol=1e-6)


def test_optax_has_a_line_for_every_registered_optimizer():
    for family in REGISTRY.values():
        (line,) = written("optax", example(family))
        assert line.startswith(("tx = opt", f"tx = {family.__name__}("))


def sgd(p, lr, momentum=0.0, weight_decay=0.0, nesterov=False):
    v = 0.0
    while True:
        g = p.grad + weight_decay * p.value
        v = momentum * v + g
        p.value = p.value - lr * (g + momentum * v if nesterov else v)
        yield


def adam(p, lr, betas, eps, weight_decay=0.0, decoupled=False):
    m, v, (b1, b2), t = 0.0, 0.0, betas, 0
    while True:
        t += 1
        g = p.grad + (0 if decoupled else weight_decay * p.value)
        if decoupled:
            p.value = p.value * (1 - lr * weight_decay)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        root = np.sqrt(v / (1 - b2**t)) + eps
        p.value = p.value - lr * m / (1 - b1**t) / root
        yield


def rmsprop(p, lr, alpha, eps, weight_decay=0.0):
    v = 0.0
    while True:
        g = p.grad + weight_decay * p.value
        v = alpha * v + (1 - alpha) * g * g
        p.value = p.value - lr * g / (np.sqrt(v) + eps)
        yield


def adagrad(p, lr, initial_accumulator_value, eps, weight_decay=0.0):
    s = initial_accumulator_value
    while True:
        g = p.grad + weight_decay * p.value
        s = s + g * g
        p.value = p.value - lr * g / (np.sqrt(s) + eps)
        yield


DOCUMENTED = SimpleNamespace(
    SGD=sgd,
    Adam=adam,
    AdamW=partial(adam, decoupled=True),
    RMSprop=rmsprop,
    Adagrad=adagrad,
)
"""The updates that torch documents for its optimizers, restated for one array."""


def restated(lines):
    """Runs torch's lines by the formulas."""
    p = SimpleNamespace(value=START, grad=None)
    torch = SimpleNamespace(
        optim=DOCUMENTED, nn=SimpleNamespace(utils=SimpleNamespace())
    )

    def clip_grad_norm_(p, largest):
        p.grad = p.grad * min(1.0, largest / np.linalg.norm(p.grad))

    torch.nn.utils.clip_grad_norm_ = clip_grad_norm_
    names = {"torch": torch, "model": SimpleNamespace(parameters=lambda: p)}
    steps = eval(lines[0].removeprefix("optimizer = "), names)
    found = []
    for grad in GRADS:
        p.grad = grad
        for line in lines[1:]:
            eval(line, names)
        next(steps)
        found.append(p.value)
    return np.array(found)


def installed(lines):
    """Runs torch's lines by torch."""
    torch = pytest.importorskip("torch", reason="torch is not installed: [bench]")
    p = torch.nn.Parameter(torch.tensor(START, dtype=torch.float64))
    names = {"torch": torch, "model": SimpleNamespace(parameters=lambda: [p])}
    optimizer = eval(lines[0].removeprefix("optimizer = "), names)
    found = []
    for grad in GRADS:
        p.grad = torch.tensor(grad)
        for line in lines[1:]:
            eval(line, names)
        optimizer.step()
        found.append(p.detach().numpy().copy())
    return np.array(found)


@pytest.mark.parametrize("run", [restated, installed])
@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("optimizer", MANY)
@pytest.mark.usefixtures("x64")
def test_torch_line_makes_the_same_updates(optimizer, clip, run):
    lines = written("torch", optimizer, clip=clip)
    np.testing.assert_allclose(run(lines), ours(optimizer, clip), atol=1e-6)


def test_average_of_weights_is_kept_in_both():
    decay = 0.9
    (_, line) = written("optax", optsde.SGD(), ema=decay)
    params, average = jnp.asarray(2.0), jnp.asarray(1.0)
    told = eval(
        line.removeprefix("ema = "), dict(optax=optax, params=params, ema=average)
    )
    np.testing.assert_allclose(
        told, EMA(decay).update(average, params, 0, 1), rtol=1e-6
    )
    assert "get_ema_multi_avg_fn(0.9)" in written("torch", optsde.SGD(), ema=decay)[1]


def test_what_torch_lacks_is_named():
    def torch(optimizer):
        return written("torch", optimizer)

    assert torch(optsde.Lion()) == ["none: torch.optim has no Lion"]
    both = optsde.Adam(l2=0.1, weight_decay=0.1)
    assert torch(both) == ["none: torch.optim has no Adam with weight_decay"]
    (alone,) = written("hf", optsde.SGD())
    assert alone.endswith("written here for AdamW alone, not for SGD")
    lagged = optsde.RMSprop(lagged=True)
    assert torch(lagged) == ["none: torch.optim has no RMSprop with lagged=True"]


def test_training_arguments():
    run = dict(clip=0.5, steps=100, warmup=7, per_device=8, accumulation=4, ema=None)
    (line,) = written("hf", optsde.Adam(lr=1e-4, weight_decay=0.1), **run)
    (said,) = [eval(line.removeprefix("args = "), {"TrainingArguments": dict})]
    assert said == dict(
        learning_rate=1e-4,
        adam_beta1=0.9,
        adam_beta2=0.999,
        adam_epsilon=1e-8,
        weight_decay=0.1,
        max_grad_norm=0.5,
        warmup_steps=7,
        max_steps=100,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=4,
    )
    # Left out it would be 1; their 0 clips nothing.
    assert "max_grad_norm=0.0" in written("hf", optsde.Adam())[0]


@pytest.mark.parametrize("name", sorted(readings("optax")))
def test_optax_defaults_are_optax_s(name):
    """A learning rate has no default there."""
    theirs = inspect.signature(getattr(optax, name)).parameters
    for field in inspect.signature(readings("optax")[name]).parameters.values():
        expected = theirs[field.name].default
        if field.name != "learning_rate":
            assert field.default == (0.0 if expected is None else expected), field


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("sgd", dict(momentum=0.8, nesterov=True)),
        ("sgd", {}),
        ("adam", dict(b1=0.8, eps_root=0.1)),
        ("adamw", dict(b2=0.9)),
        ("rmsprop", dict(eps=0.01, initial_scale=0.2)),
        ("rmsprop", dict(eps=0.01, eps_in_sqrt=False, bias_correction=True)),
        ("adagrad", dict(eps=0.01)),
        ("lion", {}),
        ("sign_sgd", {}),
    ],
)
@pytest.mark.usefixtures("x64")
def test_optax_is_read_as_it_is_meant(name, settings):
    theirs = getattr(optax, name)(learning_rate=0.01, **settings)
    read = readings("optax")[name](learning_rate=0.01, **settings)
    np.testing.assert_allclose(ours(read), path(theirs), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "settings", "expected"),
    [
        ("sgd", dict(lr=0.1, weight_decay=0.1), optsde.SGD(lr=0.1, l2=0.1)),
        ("sgd", dict(lr=0.1, momentum=0.9), optsde.HeavyBall(lr=0.1, beta=0.9)),
        (
            "sgd",
            dict(lr=0.1, momentum=0.9, dampening=0.9),
            optsde.Momentum(lr=0.1, beta=0.9),
        ),
        ("adam", dict(weight_decay=0.1), optsde.Adam(l2=0.1)),
        (
            "adamw",
            dict(betas=(0.8, 0.9)),
            optsde.Adam(b1=0.8, b2=0.9, weight_decay=0.01),
        ),
        (
            "rmsprop",
            dict(alpha=0.9),
            optsde.RMSprop(lr=0.01, beta=0.9, bias_correction=False),
        ),
        ("adagrad", {}, optsde.AdaGrad(lr=0.01, s0=0.0, eps=1e-10)),
    ],
)
def test_torch_is_read_as_it_is_meant(name, settings, expected):
    assert readings("torch")[name](**settings) == expected


@pytest.mark.parametrize("name", sorted(readings("torch")))
def test_torch_defaults_are_torch_s(name):
    torch = pytest.importorskip("torch", reason="torch is not installed: [bench]")
    classes = {family.lower(): family for family in dir(torch.optim)}
    theirs = inspect.signature(getattr(torch.optim, classes[name])).parameters
    for field in inspect.signature(readings("torch")[name]).parameters.values():
        assert field.default == theirs[field.name].default, field


def test_hugging_face_defaults_are_theirs():
    module = pytest.importorskip("transformers", reason="transformers is not installed")
    theirs = module.TrainingArguments.__dataclass_fields__
    for field in inspect.signature(readings("hf")["adamw"]).parameters.values():
        assert field.default == theirs[field.name].default, field
    (line,) = written("hf", optsde.Adam(), clip=1.0, steps=9, warmup=2, per_device=8)
    said = eval(line.removeprefix("args = "), {"TrainingArguments": dict})
    assert set(said) < set(theirs)


def test_dampening_without_a_rule_is_refused():
    with pytest.raises(ValueError, match=r"dampening=0\.5 with momentum=0\.9"):
        readings("torch")["sgd"](momentum=0.9, dampening=0.5)
    with pytest.raises(ValueError, match="give it a momentum"):
        readings("optsde")["sgd"](nesterov=True)
