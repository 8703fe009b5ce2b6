"""Progress: one line of a terminal, lines of a log, and who else watches."""

import io
import itertools
import re
import sys
import types

import jax
import jax.numpy as jnp
import pytest

from optsde import SGD, Plan, discrete, fit
from optsde.gradients import diagonal, gaussian
from optsde.run import Progress, Wandb, parts
from optsde.run.progress import writing_to


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when a test says so."""
    now = [0.0]
    monkeypatch.setattr("optsde.run.progress.time.monotonic", lambda: now[0])
    return now


def test_a_log_has_the_time_of_day_the_part_and_the_loss(clock):
    log = io.StringIO()
    for name in parts(["base", "svag"]):
        progress = Progress(name, log)
        progress.compiling()
        progress.begin(0.0)
        clock[0] += 20
        progress.update(30, 40, {"step": 30, "loss": [1.0, 3.0]})
        progress.update(40, 40, {"step": 40, "test_loss": float("nan")})
    lines = log.getvalue().splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d  part [12] of 2: ", line) for line in lines)
    kind = jax.local_devices()[0].device_kind
    assert lines[0].endswith(f"base  compiling, for 1 × {kind}")
    assert "base  t = 30/40   75%  loss 2 at step 30  20.0 s, 7 s left" in lines[1]
    assert "t = 40/40  100%  test loss not finite at step 40  20.0 s" in lines[2]
    assert "part 2 of 2: svag" in lines[3]
    outside = Progress("alone", log)
    outside.update(1, 1)
    assert "part" not in log.getvalue().splitlines()[-1]


def test_a_log_of_six_hours_has_a_line_a_minute(clock):
    log = io.StringIO()
    progress = Progress("base", log)
    progress.begin(0)
    hours = 6 * 3600
    for second in range(1, hours + 1):
        clock[0] = second
        progress.update(second, hours)
    count = len(log.getvalue().splitlines())
    assert 360 <= count <= 367


def test_a_terminal_has_one_line(clock):
    terminal = Terminal()
    progress = Progress("base", terminal)
    progress.compiling()
    progress.begin(0)
    for now in (10, 20, 40):
        clock[0] += 1
        progress.update(now, 40, {"step": now, "loss": 0.5})
    text = terminal.getvalue()
    assert text.count("\r") == 4
    assert text.count("\n") == 1
    assert text.endswith("\n")


def test_what_is_waited_for_has_a_line_of_its_own():
    terminal = Terminal()
    Progress("critical rates", terminal).say("compiling")
    assert terminal.getvalue().endswith("\n")
    assert "critical rates  compiling" in terminal.getvalue()


def run(horizon, progress, **options):
    sampler = gaussian(lambda x: jnp.sum(x**2), diagonal(jnp.ones_like))
    plan = Plan(optimizer=SGD(lr=0.1), batch_size=1, horizon=horizon)
    keys = jax.random.split(jax.random.key(0), 4)
    dynamics = discrete(plan, sampler, jnp.ones(2))
    return fit(dynamics, keys, horizon, every=2, progress=progress, **options)


def test_a_run_that_goes_on_says_from_where(tmp_path):
    log = io.StringIO()
    for horizon in (4, 8):
        progress = Progress("base", log)
        run(horizon, progress, journal=tmp_path / "journal")
    assert log.getvalue().count("resumed at") == 1
    assert "base  resumed at step 4 (t = 4) of 8\n" in log.getvalue()
    assert re.search(r"t = 8/8  100%  loss \S+ at step 8 ", log.getvalue())


def test_wandb_takes_the_rows_of_each_arm(tmp_path, monkeypatch):
    made, logged = [], []
    session = types.SimpleNamespace(
        log=lambda row, step: logged.append((step, row)), finish=lambda: None
    )

    def init(**options):
        made.append(options)
        return session

    fake = types.ModuleType("wandb")
    fake.init = init
    fake.__spec__ = "installed"
    monkeypatch.setitem(sys.modules, "wandb", fake)

    def writers(label, names):
        return [Wandb(tmp_path, {"lr": 0.1}, label, names)]

    with writing_to(writers):
        run(4, Progress("both ", io.StringIO(), names=("adam", "sgd")))
    run(4, Progress("nobody watches", io.StringIO()))
    (options,) = made
    assert (options["name"], options["group"]) == ("both", tmp_path.name)
    assert options["config"] == {"lr": 0.1}
    assert [step for step, _ in logged] == [2, 4]
    names = {
        f"{a}/{m}" for a, m in itertools.product(("adam", "sgd"), ("loss", "grad_norm"))
    }
    assert set(logged[0][1]) == names
