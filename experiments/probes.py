"""Measurements that a training run takes of itself: --config.probes=sharpness,ntk.

Their numbers come in the rows of metrics.jsonl, each `probe_every` steps.
"""

from ml_collections import ConfigDict

from experiments.launch import UsageError, require

AT_ONCE = 4096  # examples, whose activations ‖K‖ holds
SETTINGS = dict(
    probes=(),  # of sharpness, ntk, invariance, spikes
    probe_every=100,  # steps
    probe_examples=0,  # training images that sharpness and ntk are of; 0: all
)


def check(config: ConfigDict) -> None:
    names = (*_BUILD, SPIKES)
    allowed = f"some of {', '.join(names)}"
    require(set(config.probes) <= set(names), config, "probes", allowed)
    require(config.probe_examples >= 0, config, "probe_examples", "0 (all) or more")
    if config.probes and "probe_every" in config:
        every = config.probe_every
        fine = every >= 1 and every % config.log_every == 0
        allowed = f"a multiple of log_every={config.log_every}"
        require(fine, config, "probe_every", allowed)


def writer(config: ConfigDict, path):
    """metrics.jsonl, with the rows that are part of a spike marked if that is asked."""

    rows = run.JsonLines(path)
    return run.MarkSpikes(rows) if SPIKES in config.probes else rows


def build(config: ConfigDict, plan, task, sampler) -> list:
    """The probes for a run of this plan, un-augmented; `sampler` is the run's own.

    Numbers of a part of the training set say so: sharpness_of_256.
    """
    made = []
    for name, make in _BUILD.items():  # in one order: a checkpoint holds it
        if name not in config.probes:
            continue
        try:
            made.append(make(config, plan, task, sampler))
        except ValueError as error:
            raise UsageError(f"--config.probes={name}: {error}") from None
    return made


def _sharpness(config, plan, task, sampler):
    from optsde import measure

    group = config.get("block", 512)
    probe = measure.sharpness_probe(plan, task.losses, _examples(config, task), group)
    return _labelled(config, probe)


def _ntk(config, plan, task, sampler):
    from optsde import measure

    inputs, targets = _examples(config, task)
    if len(inputs) > AT_ONCE:
        raise ValueError(
            f"‖K‖ takes {len(inputs)} examples at once; set --config.probe_examples "
            f"to {AT_ONCE} or fewer"
        )
    params = _parameters(task)
    if run.statistics(task.model, params, inputs[:2], 2, task.prepare):
        raise ValueError(
            "BatchNorm makes examples interact, and such a net has no kernel; use "
            "another norm, such as group"
        )
    if targets.ndim > 1:
        raise ValueError("needs one target for each example, and text has many")

    def apply(params, inputs):
        return task.model.apply({"params": params}, task.prepare(inputs))

    probe = measure.ntk_probe(apply, inputs)

    def look(source, state, memory):
        said, memory = probe.look(source, state, memory)
        # The critical rate that it names is that of a squared error.
        return {"ntk_norm": said["ntk_norm"]}, memory

    return _labelled(config, probe._replace(look=look))


def _invariance(config, plan, task, sampler):
    import jax
    import jax.numpy as jnp

    from optsde import measure
    from optsde.gradients import Draw

    # At the rate of half-way: that of step 0 may be zero.
    draw = Draw(jax.random.key(config.seed), jnp.int32(plan.steps // 2))
    report = measure.intrinsic_report(plan, sampler, _parameters(task), draw)
    print(report, flush=True)
    return measure.invariance_probe(plan, sampler, report.invariant)


SPIKES = "spikes"  # takes no look of its own: the rows have the loss
_BUILD = {"sharpness": _sharpness, "ntk": _ntk, "invariance": _invariance}


def _parameters(task):
    import jax

    return task.init(jax.random.key(0))


def _examples(config: ConfigDict, task):
    """The training examples that a probe reads, or the first of them."""
    import jax

    from optsde import data

    if isinstance(task.train, data.Stream):
        raise ValueError("needs its examples on the device, and they are streamed")
    if config.probe_examples > task.size:
        raise ValueError(
            f"probe_examples={config.probe_examples} is above the {task.size} there are"
        )
    return jax.tree.map(lambda x: x[: config.probe_examples or None], task.train)


def _labelled(config: ConfigDict, probe):
    """What is measured on a part of the data is not that of the loss trained on."""
    if not config.probe_examples:
        return probe

    def look(source, state, memory):
        said, memory = probe.look(source, state, memory)
        part = f"_of_{config.probe_examples}"
        return {f"{name}{part}": value for name, value in said.items()}, memory

    return probe._replace(look=look)
