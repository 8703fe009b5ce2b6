"""`python -m optsde`: rule, lines to paste, forecast, and mistakes in one line."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from helpers import environment

import optsde
from optsde.__main__ import main, rule_of
from optsde.measure import holds_up_to, two_batches
from optsde.optimizers import REGISTRY, Power, register
from optsde.plans.calculator import Batch, answer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Toy(optsde.SGD):
    """Descent with a lr that follows κ as κ^1.5."""

    lr: float = 0.5
    rule = {"lr": Power(1.5, "why not")}


@pytest.fixture
def _toy():
    register(Toy)
    yield
    del REGISTRY["toy"]


def said(capsys, command):
    main(command.split())
    return capsys.readouterr().out


def row(name, text):
    """The words of one row of a table."""
    return next(x for x in text.splitlines() if x.startswith(f"{name} ")).split()


def refused(capsys, command):
    with pytest.raises(SystemExit) as stopped:
        main(command.split())
    out, error = capsys.readouterr()
    assert stopped.value.code == 2
    assert not out
    assert error.count("\n") == 1
    return error


def test_the_question_that_people_ask(capsys):
    text = said(
        capsys,
        "explain adamw --lr 3e-4 --b1 .9 --b2 .95 --weight_decay .1 "
        "--batch 256 --to 8192",
    )
    plan = optsde.Plan(
        optimizer=optsde.Adam(lr=3e-4, b2=0.95, weight_decay=0.1),
        batch_size=256,
        horizon=3200,
    )
    table = optsde.explain(plan, optsde.scale(plan, 32, memory="power"))
    assert row("lr", text) == row("lr", table)
    assert row("1 − b2", text) == row("1 − b2", table)
    assert "memory='power'" in text
    assert "lr=0.0016970563, betas=(0.034336838, 0.19371148)" in text
    assert "noise dominates each gradient" in text
    assert "steps " not in "".join(line[:6] for line in text.splitlines())


def test_linear_memory_is_kept_where_there_is_any():
    found = answer(optsde.Adam(), Batch(256), Batch(1024))
    assert found.memory == "linear"
    np.testing.assert_allclose(found.after.optimizer.b1, 0.6)


def test_other_settings_of_a_run():
    found = answer(
        optsde.Adam(), Batch(256), Batch(1024), steps=100, warmup=10, clip=1.0, ema=0.9
    )
    del found.run["per_device"], found.run["accumulation"]
    assert found.run == dict(clip=0.5, ema=0.9**4, steps=25, warmup=3)


def test_batches_are_products(capsys):
    as_product = said(capsys, "explain sgd --lr .1 --batch 8x4x8 --to 8x8x16")
    assert as_product == said(capsys, "explain sgd --lr .1 --batch 256 --to 1024")
    same = said(capsys, "explain sgd --lr .1 --batch 8x4x8 --to 8x8x4")
    assert same.startswith("The global batch stays")
    assert "optax.sgd(learning_rate=0.1)" in same


def test_hugging_face_says_its_batch_in_parts(capsys):
    text = said(
        capsys,
        "explain adamw --like hf --per_device_train_batch_size 8 --devices 2 "
        "--gradient_accumulation_steps 2 --warmup-steps 100 --to 128",
    )
    assert "max_grad_norm=0.5, warmup_steps=25" in text  # 1 is their default
    assert "per_device_train_batch_size=8, gradient_accumulation_steps=8" in text


def test_frameworks_conventions(capsys):
    ways = [
        "--betas .9,.95",
        "--betas .9 .95",
        "--betas (0.9,0.95)",
        "--betas=0.9,0.95",
    ]
    (one,) = {
        said(capsys, f"explain --like torch adamw {betas} --batch 2 --to 4")
        for betas in ways
    }
    assert "betas=(0.8, 0.9), eps" in one
    coupled = said(
        capsys, "explain adam --like torch --weight_decay .1 --batch 2 --to 8"
    )
    assert row("l2", coupled)[1:3] == ["0.1", "0.1"]
    text = said(
        capsys, "explain sgd --like torch --momentum .9 --nesterov --batch 2 --to 4"
    )
    assert "momentum=0.8, nesterov=True" in text
    assert "weight_decay was not given" in said(
        capsys, "explain adamw --batch 2 --to 4"
    )


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("explain", "name an optimizer first"),
        ("explain adan --batch 2 --to 4", "'adan' is not known; one of: ada"),
        ("explain adam --batch 256", "required: --to"),
        ("explain adam --to 256", "--batch is needed"),
        ("explain adam --batch 2.5 --to 4", "'2.5' is no batch"),
        ("explain adam --batch 0 --to 4", "'0' is no batch"),
        ("explain adam --batch 2 --to 4 --b1 1.5", "b1=1.5: needs 0 ≤ decay < 1"),
        ("explain adam --batch 2 --to 4 --lr x", "'x' is no number"),
        ("explain adam --batch 2 --to 4 --lr nan", "lr=nan: needs a positive number"),
        ("explain adam --batch 2 --to 4 --b3 1", "has no --b3; did you mean --b2?"),
        ("explain adam --batch 2 --to 4 --learning_rate 1", "add --like optax"),
        ("explain adam --batch 2 --to 4 --clip 0", "clip=0.0: needs a positive norm"),
        ("explain adam --batch 2 --to 4 --steps 0", "steps=0: needs a positive number"),
        (
            "explain adam --batch 2 --to 4 --warmup -1",
            "warmup=-1: needs a number of steps",
        ),
        (
            "explain adam --batch 2 --to 4 --warmup .03",
            "leave out a share of all steps",
        ),
        (
            "explain adam --batch 2 --to 64 --memory linear",
            "no memory left at kappa=32",
        ),
        ("explain lion --b1 .95 --b2 .9 --batch 4 --to 2", "Lion needs b1 ≤ b2"),
        ("explain lion --b1 0 --b2 0 --batch 4 --to 2", "no number comes out"),
        ("explain adam --batch 2 --to 4 --small 32:1", "give both, or neither"),
        ("explain adam --batch 2 --to 4 --small 32", "'32' is no batch:|g|²"),
        (
            "explain adam --batch 2 --to 4 --small 9:1 --large 8:1",
            "the large one must be larger",
        ),
        ("explain adam --like keras --batch 2 --to 4", "invalid choice: 'keras'"),
        (
            "explain adam --like torch --betas .9 --batch 2 --to 4",
            "betas=.9: needs two numbers",
        ),
        ("expalin", "'expalin' is no command; one of: explain, page"),
        ("page /nowhere/page.html", "/nowhere/page.html cannot be written"),
    ],
)
def test_mistakes_are_one_line(capsys, command, words):
    assert words in refused(capsys, command)


def test_it_is_quick_since_it_imports_little():
    code = (
        "import sys; from optsde.__main__ import main; "
        "main('explain adam --batch 2 --to 4'.split()); "
        "print(sorted({'flax', 'matplotlib', 'scipy', 'sklearn', 'orbax', "
        "'ml_collections', 'diffrax'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
    )
    assert run.stdout.splitlines()[-1] == "[]"


def test_a_reader_that_goes_away_is_no_mistake():
    """As `| head`: the table is longer than what is read of it."""
    command = [sys.executable, "-m", "optsde", "explain", "adam", "--batch=2", "--to=4"]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    with subprocess.Popen(command, **pipes) as run:
        run.stdout.close()
        assert run.stderr.read() == b""
    assert run.returncode == 141


def words(text):
    return [" ".join(line.split()) for line in text.splitlines()]


def test_list_and_version(capsys):
    text = said(capsys, "")
    for name in REGISTRY:
        assert f"\n  {name} " in text
    assert "heavyball lr·κ², 1 − beta → κ(1 − beta)" in words(text)
    assert said(capsys, "--version").startswith("optsde")


@pytest.mark.usefixtures("_toy")
def test_a_registered_optimizer_is_known(capsys):
    assert rule_of(Toy) == "lr·κ^1.5"
    assert "toy lr·κ^1.5" in words(said(capsys, ""))
    text = said(capsys, "explain toy --batch 2 --to 8")
    assert "lr             0.5      4  κ^1.5   why not" in text
    assert "tx = Toy(lr=4.0).transform()" in text
    assert "none: torch.optim has no Toy" in text


def test_two_batches_against_draws():
    """Means over 4,000 steps have G and N within 4 standard errors of the truth."""
    rng = np.random.default_rng(0)
    mean, deviations = np.array([0.3, -0.2, 0.1]), np.array([1.0, 2.0, 0.5])
    draws = mean + deviations * rng.normal(size=(4000, 32, 3))
    small = np.square(draws[:, :4].mean(1)).sum(-1)
    large = np.square(draws.mean(1)).sum(-1)
    noise = (small - large) / (1 / 4 - 1 / 32)
    signal = small - noise / 4
    found = two_batches((4, small.mean()), (32, large.mean()))
    for value, each, truth in (
        (found[0], signal, np.square(mean).sum()),
        (found[1], noise, np.square(deviations).sum()),
    ):
        np.testing.assert_allclose(value, each.mean(), rtol=1e-9)
        assert abs(value - truth) < 4 * each.std() / np.sqrt(4000)


def test_impossible_norms_say_what_they_mean(capsys):
    ask = "explain adam --batch 256 --to 512 --small 32:1 --large 256:"
    assert "noise would be negative" in refused(capsys, ask + "2")
    assert "signal would be -0.086" in refused(capsys, ask + ".05")


def test_forecast_is_the_library_s(capsys):
    text = said(capsys, "explain sgd --batch 256 --to 2048 --small 1:101 --large 100:2")
    assert "G/N is 2.6 at batch 256, 20 at 2048" in text
    text = said(capsys, "explain sgd --batch 1 --to 8 --small 1:101 --large 100:2")
    limit = holds_up_to(optsde.SGD(), 0.01)
    assert f"signal ends the rule at κ = {limit:.3g}" in text
    assert "κ = 8 is within that" in text
    assert "not shown to be better than a constant" in text
    text = said(capsys, "explain signsgd --batch 1 --to 8 --small 1:101 --large 100:2")
    assert "No κ is foreseen: SignSGD has no response" in text
