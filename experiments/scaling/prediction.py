"""How far will the rule hold, and how much will the loss differ where it does not?

Signal and noise of the gradient, and the held-out loss, along a few seeds of the base
run.
"""

import itertools
import json
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import optsde
from experiments.scaling.rule import SIGNAL, Settings, keys_of, sampler_of
from optsde import measure
from optsde.analysis import Estimate, estimate_or_exact, plus_minus, table
from optsde.gradients import Draw
from optsde.plans.plan import has_signal_rule
from optsde.run import Series, Task
from optsde.study import RunDir, refuse_divergence
from optsde.types import PyTree, Schedule

PART = "prediction"


class Foreseen(NamedTuple):
    """A prediction: how far the rule holds, by how much it is off, and why."""

    rule: str
    kappa: float  # up to which noise-driven loss and speed stay within `close`
    low: float
    high: float
    because: str
    ratio: float  # G/N, by which that is judged
    difference: measure.Difference | None  # of the held-out loss, where it was measured
    text: str
    times: list[float]  # of the measurements
    boosts: dict[str, dict[str, Any]]  # by signal rule and κ, at these times

    def summary(self, bound: float) -> dict[str, Any]:
        """Returns what summary.json has of it, also to be scored by."""
        internal = "text", "times", "boosts"
        found = {k: v for k, v in self._asdict().items() if k not in internal}
        if self.difference is not None:
            found["difference"] = _stored(self.difference)
            found["limit"] = self.difference.limit(bound)._asdict()
        return found

    def schedules(self, task: Task) -> dict[tuple[str, float], Schedule]:
        """Returns each signal rule's boost at each κ, where the optimizer has it."""
        params = jax.eval_shape(task.init, jax.random.key(0))
        found = {}
        for rule, stored in self.boosts.items():
            one = jax.tree.structure(params if rule == "signal_by_leaf" else 0)
            for kappa, leaves in stored.items():
                values = jax.tree.unflatten(one, [jnp.asarray(x) for x in leaves])
                schedule = partial(measure.interpolated, self.times, values)
                found[rule, float(kappa)] = schedule
        return found


def foresee(s: Settings, rundir: RunDir, task: Task) -> Foreseen:
    """Returns the prediction, made once, and writes it for other programs."""

    def make():
        made = predict(s, task)
        stored = made._asdict() | {"difference": _stored(made.difference)}
        return {"json": np.array(json.dumps(stored))}

    stored: dict[str, Any] = json.loads(str(rundir.once(PART, make)["json"]))
    rundir.write(f"{PART}.json", stored)
    difference = stored.pop("difference")
    return Foreseen(**stored, difference=_restored(difference))


def _stored(difference: measure.Difference | None) -> dict[str, Any]:
    if difference is None:
        return {}
    return {
        name: {k: np.asarray(v).tolist() for k, v in x._asdict().items()}
        if isinstance(x, Estimate)
        else list(x)
        for name, x in difference._asdict().items()
    }


def _restored(stored: dict[str, Any]) -> measure.Difference | None:
    if not stored:
        return None
    total, lag, kept = (
        Estimate(**{k: np.asarray(v, np.float64) for k, v in stored[name].items()})
        for name in ("total", "lag", "kept")
    )
    kappas, cautions = tuple(stored["kappas"]), tuple(stored["cautions"])
    return measure.Difference(kappas, total, lag, kept, cautions)


def probe_times(s: Settings) -> list[float]:
    """Returns when the base run is measured: twice an evaluation, and early on."""
    early = s.every / 2.0 ** np.arange(6, 1, -1)
    count = 2 * round(s.probe_until * s.evaluations)
    times = np.concatenate([early, s.every / 2 * np.arange(1, count + 1)])
    return [float(t) for t in np.unique(np.round(times)) if t > 0]


def predict(s: Settings, task: Task) -> Foreseen:
    """Returns the prediction of a few seeds of the base run."""
    plan, sampler = s.base_plan(), sampler_of(s, task)
    times, kappas = probe_times(s), (1, *s.kappas)
    noise = measure.noise_probe(plan, sampler, s.draws, times=times, kappas=kappas)
    curve = task.evaluation(times=[0.0, *times])._replace(finite=False)
    progress = optsde.Progress(f"{'predict':24}")
    result = optsde.fit(
        optsde.discrete(plan, sampler, task.init),
        keys_of(s, s.probe_seeds),
        times[-1],
        probes=[noise, curve],
        progress=progress,
    )
    progress.say("measured; compiling what follows from it")
    noises = result.metrics["noise"].values
    size = Series(np.array(times), noises.total().noise)
    refuse_divergence(size, "the base run", "try a smaller --config.optimizer.lr")
    last = _first(result.state)
    draw = Draw(last.key, last.step, last.time)
    oracle = sampler(plan.batch_size)
    try:
        tail = measure.tail_index(oracle, last.params, draw, group=s.tail_group)
    except ValueError:  # gradients too sparse to tell
        tail = None
    prediction = measure.predict(
        plan,
        noises,
        times,
        tail,
        kappas=s.kappas,
        memory=s.memory,
        close=s.close,
    )
    texts = [
        noise_table(noises, times, s.batch_size),
        group_table(noises, times),
        str(prediction),
    ]
    difference = None
    if s.probe_until == 1 and s.probe_seeds > 1:
        at = s.every * np.arange(1, s.evaluations + 1)
        losses, at = result.metrics["test_loss"], at[second_half(at)]
        difference = measure.loss_difference(plan, noises, times, losses, at, s.memory)
        texts.append(str(difference))
    return Foreseen(
        rule=prediction.rule,
        kappa=prediction.kappa,
        low=prediction.low,
        high=prediction.high,
        because=prediction.because,
        ratio=prediction.ratio.value,
        difference=difference,
        text="\n\n".join(texts),
        times=times,
        boosts=boosts_of(plan, noises, times, s),
    )


@jax.jit
def _first(stacked: PyTree) -> PyTree:
    return jax.tree.map(lambda x: x[0], stacked)


def second_half(times: np.ndarray) -> np.ndarray:
    """Tells which evaluations count where an arm is compared with the base run."""
    return times > times[-1] / 2


def boosts_of(
    plan: optsde.Plan, noises: measure.Noise, times: list[float], s: Settings
) -> dict[str, dict[str, Any]]:
    """Returns the boosts of the signal rules by κ, leaf by leaf, as JSON has them."""
    if not has_signal_rule(plan.optimizer):
        return {}
    found: dict[str, dict[str, Any]] = {rule: {} for rule in SIGNAL}
    for rule, kappa in itertools.product(SIGNAL, s.kappas):
        by_leaf = rule == "signal_by_leaf"
        boost = measure.signal_boost(plan, noises, times, kappa, by_leaf)
        values = jax.vmap(boost)(jnp.asarray(times, float))
        found[rule][str(kappa)] = [x.tolist() for x in jax.tree.leaves(values)]
    return found


def noise_table(noises: measure.Noise, times: list[float], batch_size: int) -> str:
    """Signal and noise of one batch along the run, with errors over seeds."""
    plain, share = noises.total(), np.asarray(noises.dominated()).mean(0)
    rows = []
    for number, time in enumerate(times):
        here = jax.tree.map(lambda x, i=number: x[:, i : i + 1], noises)
        ratios = [here.total(weighted, pool=True).ratio for weighted in (False, True)]
        cells = [_spread(x[:, number]) for x in (plain.signal, plain.noise)]
        cells += [f"{float(ratio):.3g}" for ratio in ratios]
        cells.append(f"{batch_size / float(ratios[0]):.3g}" if ratios[0] > 0 else "–")
        shares = [f"{100 * x:.0f}" for x in share[number]]
        rows.append([f"{time:g}", *cells, " ".join(shares)])
    kappas = ", ".join(f"{kappa:g}" for kappa in noises.kappas)
    header = ["t", "signal ‖ḡ‖²", "noise Tr Σ", "G/N", "in 1/P", "noise scale"]
    header.append(f"% of coordinates ruled by noise, κ = {kappas}")
    return table(header, rows, "rrrrrrr")


def group_table(noises: measure.Noise, times: list[float]) -> str:
    """Signal and noise of each leaf of the parameters, in the later half of the run."""
    half = np.searchsorted(times, times[-1] / 2, side="right")
    late = jax.tree.map(lambda x: np.asarray(x)[:, half:], noises)
    leaves, structure = jax.tree_util.tree_flatten_with_path(late.plain.squares)
    plain, weighted = (structure.flatten_up_to(late.groups(w)) for w in (False, True))
    rows = []
    for (path, _), level, other in zip(leaves, plain, weighted, strict=True):
        name = "/".join(str(key.key) for key in path)
        cells = [_spread(np.mean(x, axis=1)) for x in (level.signal, level.noise)]
        ratio = np.sum(other.signal) / np.sum(other.noise)
        rows.append([name, *cells, f"{ratio:.3g}"])
    header = ["parameters", "signal ‖ḡ‖²", "noise Tr Σ", "G/N in 1/P"]
    return table(header, rows, "lrrr")


def _spread(values) -> str:
    return plus_minus(estimate_or_exact(values), significant=3)
