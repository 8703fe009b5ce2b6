"""Malformed calls of the library, as code, each with words that its line must have.

The words name what was given, and often what is allowed. `names()` is what the code can
use: the library, and small subjects of every kind.
"""

import functools
from typing import Any

Row = tuple[str, str]  # code, words: parts of the line, between bars

PLAN = [
    ("plan(batch_size=0)", "batch_size=0|whole number from 1"),
    ("plan(batch_size=-1)", "batch_size=-1"),
    ("plan(batch_size=1.5)", "batch_size=1.5"),
    ("plan(batch_size=nan)", "batch_size=nan"),
    ("plan(batch_size=inf)", "batch_size=inf"),
    ("plan(batch_size='8')", "batch_size='8'"),
    ("plan(batch_size=None)", "batch_size=None"),
    ("plan(batch_size=2**31)", "batch_size=2147483648"),
    ("plan(horizon=0)", "horizon=0|positive time"),
    ("plan(horizon=-5)", "horizon=-5"),
    ("plan(horizon=nan)", "horizon=nan"),
    ("plan(horizon=inf)", "horizon=inf"),
    ("plan(horizon='10')", "horizon='10'"),
    ("plan(horizon=1e20)", "horizon=1e+20|2147483647"),
    ("plan(horizon=2**31)", "horizon=2.14748e+09|2147483647"),
    ("plan(dt=0.0)", "dt=0.0"),
    ("plan(dt=-1.0)", "dt=-1.0"),
    ("plan(dt=nan)", "dt=nan"),
    ("plan(dt=1e-9, horizon=100)", "horizon=100|2147483647"),
    ("plan(noise_gain=0.0)", "noise_gain=0.0"),
    ("plan(noise_gain=nan)", "noise_gain=nan"),
    ("plan(noise_gain=-2.0)", "noise_gain=-2.0"),
    ("plan(clip=0.0)", "clip=0.0|positive norm"),
    ("plan(clip=-1)", "clip=-1"),
    ("plan(clip=nan)", "clip=nan"),
    ("plan(clip='1')", "clip='1'"),
    ("plan(average=0.99)", "average=0.99|EMA"),
    ("plan(average=o.EMA(1.0))", "decay=1.0|decay < 1"),
    ("plan(average=o.EMA(-0.1))", "decay=-0.1"),
    ("plan(average=o.EMA(nan))", "decay=nan"),
    ("plan(average=o.EMA('a'))", "decay='a'"),
    ("plan(average=o.SWA(-1, 10))", "start=-1"),
    ("plan(average=o.SWA(nan, 10))", "start=nan"),
    ("plan(average=o.SWA(0, 0))", "every=0|positive time"),
    ("plan(average=o.SWA(0, -1))", "every=-1"),
    ("plan(average=o.SWA(0, nan))", "every=nan"),
    ("plan(average=o.SWA(0, inf))", "every=inf"),
    ("plan(average=o.SWA(200, 10))", "start=200|horizon"),
    ("plan(optimizer='adam')", "optimizer is a str"),
    ("plan(optimizer=o.Adam)", "optimizer is a type"),
    ("plan(optimizer=None)", "optimizer is a NoneType"),
    ("plan(optimizer=optax.adam(1e-3))", "optimizer is a|from_optax"),
    ("plan(schedule=0.5)", "schedule=0.5|function"),
    ("plan(schedule=lambda t: nan * t)", "schedule is not finite at time 0"),
    ("plan(schedule=lambda t: 1e-3 + 0 * t)", "schedule has its peak at 0.001"),
    ("plan(schedule=lambda t: -1.0 + 0 * t)", "schedule is -1 at time 0"),
    ("plan(boost=2.0)", "boost=2.0|function"),
    ("plan(before=1.0)", "before=1.0|optax"),
]

RESCALED = [
    ("o.scale(good, 0)", "kappa=0|positive number"),
    ("o.scale(good, -2)", "kappa=-2"),
    ("o.scale(good, nan)", "kappa=nan"),
    ("o.scale(good, inf)", "kappa=inf"),
    ("o.scale(good, '2')", "kappa='2'"),
    ("o.scale(good, None)", "kappa=None"),
    ("o.scale(good, 1e30)", "kappa=1e+30"),
    ("o.scale(good, 1e-30)", "kappa=1e-30"),
    ("o.scale(good, 1.3)", "kappa=1.3|whole number"),
    ("o.scale(good, 1 / 16)", "kappa=0.0625|whole number"),
    ("o.scale(good, 2**29)", "kappa=5.36871e+08|2147483647"),
    ("o.scale(good, 2, 'nonsense')", "rule='nonsense'|sqrt_lr_only"),
    ("o.scale(good, 2, 'signal')", "rule='signal'|boost"),
    ("o.scale(good, 2, boost=lambda t: t)", "rule='sde'|boost"),
    ("o.scale(good, 2, memory='quadratic')", "memory='quadratic'|linear|power"),
    ("o.scale(good, 2, clip='nothing')", "clip='nothing'|noise|signal"),
    ("o.scale(good, 64)", "b1|power"),
    ("o.scale(raw(horizon=nan), 2)", "horizon=nan"),
    ("o.scale(raw(horizon='10'), 2)", "horizon='10'"),
    ("o.scale(raw(batch_size=2.5), 2)", "batch_size=2.5"),
    ("o.scale(raw(clip=-1.0), 2)", "clip=-1.0"),
    ("o.scale(raw(optimizer=o.Adam(lr=nan)), 2)", "lr=nan"),
    ("o.scale(raw(optimizer=o.Adam(b1=1.5)), 2)", "b1=1.5"),
    ("o.scale('a plan', 2)", "'a plan'|Plan"),
    ("o.svag(good, 0)", "ell=0|number from 1"),
    ("o.svag(good, 0.5)", "ell=0.5"),
    ("o.svag(good, -2)", "ell=-2"),
    ("o.svag(good, nan)", "ell=nan"),
    ("o.svag(good, inf)", "ell=inf"),
    ("o.svag(good, 1e200)", "ell=1e+200"),
    ("o.svag(good, 1e6)", "ell=1e+06|2147483647"),
    ("o.svag(good, '2')", "ell='2'"),
    ("o.svag(good, 2, memory='x')", "memory='x'"),
    ("o.svag(good, 2, clip='x')", "clip='x'"),
    ("o.svag(raw(horizon=nan), 2)", "horizon=nan"),
    ("o.svag(raw(noise_gain=nan), 2)", "noise_gain=nan"),
    ("o.switch(None, good, good)", "OptimizerState|NoneType"),
    ("o.switch(optax.adam(1.0).init(x0), good, good)", "OptimizerState|optax_state"),
    ("o.switch(memory, good, raw(optimizer=o.SGD()))", "one optimizer"),
    ("o.switch(memory, good, good, signal=-0.1)", "signal=-0.1|share"),
    ("o.switch(memory, good, good, signal=1.5)", "signal=1.5"),
    ("o.switch(memory, good, good, signal=nan)", "signal=nan"),
    ("o.switch(memory, good, raw(dt=nan))", "dt=nan"),
    ("o.switch(memory, good, raw(dt=0.0))", "dt=0.0"),
    ("o.switch(memory, raw(dt=0.0), good)", "dt=0.0"),
    ("o.explain(good, raw(horizon=nan))", "horizon=nan"),
    ("o.explain(good, raw(optimizer=o.Adam(lr=nan)))", "lr=nan"),
    ("o.explain(good, 'other')", "'other'|Plan"),
]

SCHEDULES = [
    ("schedules.cosine(0)", "horizon=0|positive"),
    ("schedules.cosine(-1)", "horizon=-1"),
    ("schedules.cosine(nan)", "horizon=nan"),
    ("schedules.cosine(inf)", "horizon=inf"),
    ("schedules.cosine('10')", "horizon='10'"),
    ("schedules.cosine(10, end=-0.5)", "end=-0.5"),
    ("schedules.cosine(10, end=nan)", "end=nan"),
    ("schedules.linear(0)", "horizon=0"),
    ("schedules.linear(10, start=nan)", "start=nan"),
    ("schedules.linear(10, end=-1)", "end=-1"),
    ("schedules.milestones([nan])", "times=nan"),
    ("schedules.milestones([inf])", "times=inf"),
    ("schedules.milestones(['a'])", "times='a'"),
    ("schedules.milestones(5)", "times=5"),
    ("schedules.milestones([5], factor=nan)", "factor=nan"),
    ("schedules.milestones([5], factor=-1)", "factor=-1"),
    ("schedules.warmup(-1)", "time=-1"),
    ("schedules.warmup(nan)", "time=nan"),
    ("schedules.warmup(inf)", "time=inf"),
    ("schedules.warmup(10, after=0.5)", "after=0.5|function"),
    ("schedules.exponential_warmup(nan)", "time=nan"),
    ("schedules.exponential_warmup(10, start=0)", "start=0"),
    ("schedules.exponential_warmup(10, start=nan)", "start=nan"),
    ("schedules.warmup_cosine(10, 5)", "warmup=10|horizon=5"),
    ("schedules.warmup_cosine(-1, 5)", "warmup=-1"),
    ("schedules.warmup_cosine(nan, 5)", "warmup=nan"),
    ("schedules.warmup_cosine('1', 5)", "warmup='1'"),
    ("schedules.warmup_cosine(1, inf)", "horizon=inf"),
    ("schedules.warmup_cosine(1, nan)", "horizon=nan"),
    ("schedules.one_cycle(10, rise=0)", "rise=0"),
    ("schedules.one_cycle(10, rise=1.5)", "rise=1.5"),
    ("schedules.one_cycle(10, rise=nan)", "rise=nan"),
    ("schedules.one_cycle(10, rise='a')", "rise='a'"),
    ("schedules.cyclic(0)", "period=0"),
    ("schedules.cyclic(nan)", "period=nan"),
    ("schedules.cyclic(10, low=nan)", "low=nan"),
    ("schedules.exponential_cyclic(10, growth=nan)", "growth=nan"),
    ("schedules.exponential_cyclic(10, growth=-1)", "growth=-1"),
    ("schedules.restarts(0)", "period=0"),
    ("schedules.restarts(10, stretch=0.5)", "stretch=0.5"),
    ("schedules.restarts(10, stretch=nan)", "stretch=nan"),
    ("schedules.absolute(schedules.constant(), lr=0)", "lr=0"),
    ("schedules.absolute(schedules.constant(), lr=nan)", "lr=nan"),
    ("schedules.absolute(0.1, lr=0.1)", "rates=0.1|function"),
]

OPTIMIZERS = [
    *(
        (f"plan(optimizer=o.{family}({field}={value}))", f"{field}={shown}")
        for family, fields in {
            "SGD": ("lr", "l2", "weight_decay", "absolute_decay"),
            "Momentum": ("beta",),
            "HeavyBall": ("beta",),
            "RMSprop": ("beta", "eps", "v0"),
            "Adam": ("lr", "b1", "b2", "eps", "eps_root"),
            "AdEMAMix": ("b3", "alpha"),
            "AdaGrad": ("s0",),
            "Lion": ("b1", "b2"),
            "Signum": ("beta",),
        }.items()
        for field in fields
        for value, shown in (("nan", "nan"), ("-1.0", "-1.0"), ("'a'", "'a'"))
    ),
    ("plan(optimizer=o.SGD(lr=0))", "lr=0|positive number"),
    ("plan(optimizer=o.SGD(lr=inf))", "lr=inf"),
    ("plan(optimizer=o.SGD(lr=1e300))", "lr=1e+300"),
    ("plan(optimizer=o.SGD(lr=1e-300))", "lr=1e-300"),
    ("plan(optimizer=o.SGD(lr={'w': 0.1}))", "lr={'w': 0.1}|Groups"),
    ("run(o.SGD(lr=np.array([0.1, 0.2])))", "plan.optimizer.lr|[2]|one number"),
    ("plan(optimizer=o.SGD(lr=lambda t: t))", "lr=|schedule"),
    ("plan(optimizer=o.Adam(b1=1.0))", "b1=1.0|decay < 1"),
    ("plan(optimizer=o.Adam(eps=inf))", "eps=inf"),
    ("plan(optimizer=o.HeavyBall(nesterov='yes'))", "nesterov='yes'|True or False"),
    ("plan(optimizer=o.InvariantAdam(micros=0))", "micros=0"),
    ("run(o.InvariantAdam(micros=1.5))", "micros=1.5|whole number"),
    ("o.Adam(learning_rate=0.1)", "learning_rate"),
    ("groups({})", "parts={}|optimizer for each group"),
    ("groups({'a': 0.1})", "parts['a'] is a float"),
    ("groups({'a': o.Adam(lr=-1.0)})", "group 'a'|lr=-1.0"),
    ("plan(optimizer=o.Groups({'a': o.SGD()}, 'a'))", "labels=a|function"),
    ("run(groups({'a': o.SGD()}, lambda p: 'b'))", "'b'"),
    ("from_optax(optax.adam(nan))", "nan"),
    ("from_optax(optax.adam(-1.0))", "descends only where that is negative"),
    ("from_optax(optax.adam(1e-3), batch_size=0)", "batch_size=0"),
    ("from_optax(optax.adam(1e-3), horizon=nan)", "horizon=nan"),
    ("from_optax('adam')", "'adam'|optax"),
    ("optimizers.by_name('adamm')", "adamm"),
]

SAMPLERS = [
    (f"{sampler}(losses, (x, y[:5]))(2)", "5 and 8 rows")
    for sampler in ("minibatch", "epochs", "full_batch")
]
SAMPLERS += [
    ("minibatch(losses, (x[:0], y[:0]))(2)", "0 examples"),
    ("epochs(losses, (x[:0], y[:0]))(2)", "0 examples"),
    ("full_batch(losses, (x[:0], y[:0]))()", "0 examples"),
    ("minibatch(losses, ())(2)", "data|arrays"),
    ("minibatch(losses, None)(2)", "data|arrays"),
    ("minibatch(losses, np.float32(3))(2)", "data|arrays"),
    ("minibatch(losses, 'text')(2)", "data='text'|arrays"),
    *(
        (f"{sampler}(losses, (x, y){group})({size})", f"{name}={value}")
        for sampler in ("minibatch", "epochs")
        for size, group, name, value in (
            (0, "", "batch_size", 0),
            (-1, "", "batch_size", -1),
            (1.5, "", "batch_size", 1.5),
            ("nan", "", "batch_size", "nan"),
            ("'2'", "", "batch_size", "'2'"),
            ("None", "", "batch_size", None),
            (2, ", group=0", "group", 0),
            (2, ", group=-1", "group", -1),
            (2, ", group=1.5", "group", 1.5),
            (2, ", group='1'", "group", "'1'"),
            (2, ", at_once=0", "at_once", 0),
            (2, ", at_once=1.5", "at_once", 1.5),
            (2, ", at_once=-1", "at_once", -1),
        )
    ),
    ("minibatch(losses, (x, y))(2**31)", "batch_size=2147483648"),
    ("epochs(losses, (x, y))(9)", "batch_size=9|8 examples"),
    ("full_batch(losses, (x, y))(3)", "batch_size=3|8 examples"),
    ("full_batch(losses, (x, y), group=0)()", "group=0"),
    ("full_batch(losses, (x, y), group=9, running_mean=True)()", "group|9"),
    ("full_batch(losses, (x, y), at_once=0)()", "at_once=0"),
    ("full_batch(losses, stream)()", "Stream"),
    ("minibatch(losses, (x, y), among=np.array([0, 9]))(2)", "among|0 to 7"),
    ("minibatch(losses, (x, y), among=np.array([-1]))(2)", "among|0 to 7"),
    ("minibatch(losses, (x, y), among=np.array([], int))(2)", "among"),
    ("minibatch(losses, (x, y), among=np.array([0.5]))(2)", "among"),
    ("data.Stream(data.Arrays(x, y[:5]))", "5 and 8 rows"),
    ("data.Stream(data.Arrays(x[:0]))", "0 examples"),
    ("data.Stream(data.Arrays())", "Arrays=()|arrays"),
    ("data.Stream(data.Arrays(x, y), threads=0)", "threads=0"),
    ("data.Stream(data.Arrays(x, y), threads=1.5)", "threads=1.5"),
    ("data.Stream(data.Arrays(x, y), buffer=-1)", "buffer=-1"),
    ("data.Stream(data.Arrays(x, y), buffer=0)", "buffer=0"),
    ("data.Stream(3)", "source"),
    ("gradients.Penalty(-1, rate)", "strength=-1"),
    ("gradients.Penalty(nan, rate)", "strength=nan"),
    ("gradients.Penalty(1, rate, eps=0)", "eps=0"),
    ("gradients.Penalty(1, rate, eps=nan)", "eps=nan"),
    ("gradients.Penalty(1, rate, 'backward')", "form='backward'"),
    ("gradients.Penalty(1, 0.1)", "rate=0.1|function"),
    ("gradients.heavy_tailed(oracle, 2.5, 1.0)", "alpha=2.5"),
    ("gradients.heavy_tailed(oracle, 0, 1.0)", "alpha=0"),
    ("gradients.heavy_tailed(oracle, nan, 1.0)", "alpha=nan"),
    ("gradients.heavy_tailed(oracle, 1.5, nan)", "size=nan"),
    ("gradients.heavy_tailed(oracle, 1.5, -1.0)", "size=-1.0"),
    ("gradients.signed_mix(oracle, nan)", "noise_gain=nan"),
    ("gradients.signed_mix(oracle, 0.5)", "noise_gain=0.5"),
    ("oracle.squared(0)", "count=0"),
]

TASKS = [
    ("task(train=(x, y - 1))", "train has labels from -1|0 to 2"),
    ("task(train=(x, y + 1))", "train has labels|to 3"),
    ("task(test=(x, y - 1))", "test has labels from -1"),
    ("task(test=(x, y + 1))", "test has labels"),
    ("task(train=(x, y[:5]))", "train has|5|8"),
    ("task(test=(x[:5], y))", "test has|5|8"),
    ("task(train=(x[:0], y[:0]))", "train|0 examples"),
    ("task(test=(x[:0], y[:0]))", "test|0 examples"),
    ("task(train=(x.tolist(), y))", "train=|needs arrays of one row"),
    ("task(train=(x, y + 0.5))", "cross_entropy|float"),
    ("task(train=None)", "train|NoneType"),
    ("task(train=x)", "train"),
    ("task(train=data.Stream(data.Arrays(x, y - 1)), plain=x)", "train|-1"),
    ("task(train=data.Stream(data.Arrays(x, y + 1)), plain=x)", "train|3"),
    ("task(train=data.Stream(data.Arrays(x, y)))", "plain="),
    ("task().law(0)", "batch_size=0"),
    ("task().law(1.5)", "batch_size=1.5"),
    ("task().train_loss(rows=0)", "rows=0"),
    ("task().evaluation(rows=-1)", "rows=-1"),
    ("task().evaluation(rows=1.5)", "rows=1.5"),
    ("minibatch(task().losses, (x, y - 1))(2)", "labels from -1"),
    ("minibatch(task().losses, (x, y + 1))(2)", "labels|to 3"),
    ("epochs(task().losses, (x, y - 1))(2)", "labels from -1"),
    ("full_batch(task().losses, (x, y + 1))()", "labels|to 3"),
    ("models.build('no_net', 10)", "no_net"),
    ("models.build('mlp', 10, hidden=(0,))", "hidden=(0,)"),
    ("models.build('mlp', 10, hidden=(-1,))", "hidden=(-1,)"),
    ("models.build('mlp', 0)", "classes=0"),
    ("models.build('mlp', 10, activation='no')", "'no'|relu"),
    ("init(models.build('transformer', 10, width=33))", "width=33|heads=4"),
    ("models.build('transformer', 10, heads=0)", "heads=0"),
    ("models.build('transformer', 10, depth=-1)", "depth=-1"),
    ("models.build('transformer', 10, width=0)", "width=0"),
    ("models.build('mlp', 10, nothing=1)", "nothing"),
]

RUNS = [
    ("fit(keys=None)", "keys|jax.random"),
    ("fit(keys=3)", "keys|jax.random"),
    ("fit(keys=key)", "keys|split"),
    ("fit(keys=key[None][:0])", "keys"),
    ("fit(keys=[1, 2])", "keys|jax.random"),
    ("fit(keys=jax.random.PRNGKey(0))", "keys|jax.random.key"),
    ("fit(keys=np.zeros((2, 2), np.uint32))", "keys|jax.random.key"),
    ("fit(keys=keys[:, None])", "keys|(2, 1)"),
    ("fit(keys=keys[np.array([0, 0])])", "keys|twice"),
    ("fit(keys=keys[np.array([0, 1, 0])])", "keys|twice"),
    ("fit(by_lr, keys=three, members=lrs)", "members|(2,)|3 keys"),
    ("fit(by_lr, keys=key[None], members=lrs)", "members|(2,)|1 key"),
    ("fit(by_lr, keys=keys, members=o.Adam(lr=0.1))", "members|()"),
    ("fit(by_lr)", "members"),
    ("fit(keys=keys, members=lrs)", "members"),
    (
        "fit(by_lr, keys=keys[np.array([0, 0])], members=np.array([0.1, 0.1]))",
        "keys|twice",
    ),
    ("fit(None)", "dynamics"),
    ("fit(good)", "dynamics|Plan"),
    ("fit(horizon=nan)", "horizon=nan"),
    ("fit(horizon=inf)", "horizon=inf"),
    ("fit(horizon=-1)", "horizon"),
    ("fit(horizon=1e20)", "horizon|2147483647"),
    ("fit(horizon='4')", "horizon='4'"),
    ("fit(every=0)", "every=0|positive"),
    ("fit(every=-1)", "every=-1"),
    ("fit(every=nan)", "every=nan"),
    ("fit(every=inf)", "every=inf"),
    ("fit(every=0.5)", "0.5"),
    ("fit(every='1')", "every='1'"),
    ("fit(probes=[norm])", "times"),
    ("fit(probes=[norm.at(-1)])", "-1"),
    ("fit(probes=[norm.at(nan)])", "nan"),
    ("fit(probes=[norm.at([nan])])", "nan"),
    ("fit(probes=[norm.at([inf])])", "inf"),
    ("fit(probes=[norm.at([-1.0])])", "rise"),
    ("fit(probes=[norm.at([2.0, 1.0])])", "rise"),
    ("fit(probes=[norm.at('ab')])", "ab"),
    ("fit(probes=[norm.at([0.5])])", "0.5|between steps"),
    ("fit(probes=norm)", "probes"),
    ("fit(checkpoint_every=0)", "every=0"),
    ("fit(checkpoint_every=-1)", "every=-1"),
    ("fit(checkpoint_every=nan)", "every=nan"),
    ("fit(shards=0)", "shards=0"),
    ("fit(shards=1.5)", "shards=1.5"),
    ("fit(shards=99)", "99"),
    ("fit(by_lr, keys=keys, members=lrs, changes={nan: lrs})", "nan"),
    ("fit(by_lr, keys=keys, members=lrs, changes={-1.0: lrs})", "-1"),
    ("fit(by_lr, keys=keys, members=lrs, changes={9.0: lrs})", "time 9"),
    ("fit(by_lr, keys=keys, members=lrs, changes={1.0: three_lrs})", "(3,)|2 keys"),
    ("fit(state=state.optimizer)", "state|OptimizerState"),
    ("fit(state=state.params)", "state"),
    ("fit(state=other_state)", "State of EmptyState|AdamState"),
    ("fit(keys=three, state=state)", "state|2|3"),
    ("fit(state=coarse_state)", "steps of 2"),
    ("ensemble(times=[])", "times"),
    ("ensemble(times=[nan])", "nan"),
    ("ensemble(times=[inf])", "inf"),
    ("ensemble(times=[2.0, 1.0])", "rise"),
    ("ensemble(times=[-1.0])", "-1"),
    ("ensemble(times=['a'])", "'a'"),
    ("ensemble(times=3.0)", "times"),
    ("ensemble(keys=keys[np.array([1, 1])])", "keys|twice"),
    ("ensemble(observe=3)", "observe"),
    ("run(params='here')", "params|'here'|floats"),
    ("o.discrete(good, 3, x0)", "sampler"),
    ("o.discrete(good, oracle, x0)", "sampler"),
    ("o.discrete(None, sampler, x0)", "plan"),
    ("o.discrete(raw(horizon=nan), sampler, x0)", "horizon=nan"),
    ("o.discrete(raw(batch_size=0), sampler, x0)", "batch_size=0"),
    ("run(params=np.arange(3))", "params=array|floats"),
]

SDES = [
    ("o.sde(good, law, x0, substeps=0)", "substeps=0"),
    ("o.sde(good, law, x0, substeps=-1)", "substeps=-1"),
    ("o.sde(good, law, x0, substeps=1.5)", "substeps=1.5"),
    ("o.sde(good, law, x0, substeps=True)", "substeps=True"),
    ("o.sde(good, law, x0, parts=0)", "parts=0"),
    ("o.sde(good, law, x0, memory='x')", "memory='x'"),
    ("o.sde(raw(clip=1.0), law, x0)", "clip"),
    ("o.sde(raw(horizon=nan), law, x0)", "horizon=nan"),
    ("o.sde(raw(optimizer=o.Adam(b2=1.0)), law, x0)", "b2=1.0"),
    ("o.sde(good, None, x0)", "law|NoneType"),
    ("o.sde(good, sampler, x0)", "law is a function"),
    ("from_covariance(loss, noise, 0)", "batch_size=0"),
    ("from_covariance(loss, noise, -1)", "batch_size=-1"),
    ("from_covariance(loss, noise, 1.5)", "batch_size=1.5"),
    ("from_covariance(loss, noise, nan)", "batch_size=nan"),
    ("from_covariance(loss, matrix, 1)", "covariance is a ndarray|dense"),
    ("from_covariance(3, noise, 1)", "loss"),
    ("gradients.from_data(losses, (x, y), 0)", "batch_size=0"),
    ("gradients.from_data(losses, (x, y[:5]), 2)", "5 and 8 rows"),
    ("gradients.from_data(losses, (x[:0], y[:0]), 2)", "0 examples"),
    ("gradients.heavy_tailed_law(law, 3.0, 1.0)", "alpha=3.0"),
    ("gradients.heavy_tailed_law(law, 1.5, nan)", "size=nan"),
    ("gradients.by_blocks(losses, (x, y), 0)", "block=0"),
]

MEASURED = [
    ("gradient_noise(draws=0)", "draws=0"),
    ("gradient_noise(draws=-16)", "draws=-16"),
    ("gradient_noise(draws=17)", "draws=17"),
    ("gradient_noise(draws=nan)", "draws=nan"),
    ("gradient_noise(blocks=0)", "blocks=0"),
    ("gradient_noise(blocks=3, draws=30)", "blocks=3"),
    ("gradient_noise(kappas=(0,))", "kappas=(0,)"),
    ("gradient_noise(kappas=(nan,))", "kappas=(nan,)"),
    ("gradient_noise(kappas=())", "kappas=()"),
    ("measure.noise_probe(good, sampler, draws=0)", "draws=0"),
    ("measure.noise_probe(good, sampler, kappas=(-1,))", "kappas=(-1,)"),
    ("measure.noise_probe(lion, sampler)", "Lion"),
    ("measure.tail_index(oracle, x0, draw, group=0)", "group=0"),
    ("measure.tail_index(oracle, x0, draw, sums=1)", "sums=1"),
    ("measure.tail_index(oracle, x0, draw, blocks=1)", "blocks=1"),
    ("measure.tail_index(oracle, x0, draw, coordinates=0)", "coordinates=0"),
    ("measure.two_batches((32, 1.9), (32, 0.4))", "32"),
    ("measure.two_batches((32, nan), (256, 0.4))", "small=(32, nan)"),
    ("measure.two_batches((32, 0.4), (256, 1.9))", "negative"),
    ("measure.two_batches((0, 1.9), (256, 0.4))", "small|0"),
    ("measure.two_batches((-1, 1.9), (256, 0.4))", "small|-1"),
    ("measure.two_batches((32, inf), (256, 0.4))", "inf"),
    ("measure.holds_up_to(adam, nan)", "ratio=nan"),
    ("measure.holds_up_to(adam, inf)", "ratio=inf"),
    ("measure.holds_up_to(adam, 1.0, close=1.0)", "close=1.0"),
    ("measure.holds_up_to(adam, 1.0, close=nan)", "close=nan"),
    ("measure.holds_up_to(adam, 1.0, 'x')", "memory='x'"),
    ("measure.noise_scale(noises, 0)", "batch_size=0"),
    ("measure.noise_scale(noises, nan)", "batch_size=nan"),
    ("measure.predict(good, 3)", "noises|int"),
    ("measure.predict(good, noises, kappas=(0,))", "kappas=(0,)"),
    ("measure.predict(good, noises, kappas=(nan,))", "kappas=(nan,)"),
    ("measure.predict(good, noises, close=0.5)", "close=0.5"),
    ("measure.predict(good, noises, memory='x')", "memory='x'"),
    ("measure.predict(raw(horizon=nan), noises)", "horizon=nan"),
    ("measure.signal_boost(good, noises, [1.0, 2.0], 4)", "noises|times=[1.0, 2.0]"),
    ("measure.signal_boost(good, noises, [1.0], 3)", "3 is not among"),
    ("measure.signal_boost(good, spoilt, [1.0], 4)", "finite"),
    (
        "measure.loss_difference(good, pair, [1.0, 2.0], (t, both), [1.0])",
        "noises|2 times",
    ),
    ("measure.loss_difference(good, spoilt, [1.0], (t, both), [1.0])", "finite"),
    ("measure.loss_difference(good, pair, [1.0], (t, both[:, 1:]), [1.0])", "curve"),
    ("measure.loss_difference(good, pair, [1.0], (t, nan * both), [1.0])", "curve"),
    ("measure.loss_difference(good, pair, [1.0], (t, both), [nan])", "at=[nan]"),
    ("measure.trace(product, x0, key, samples=1)", "samples=1"),
    ("measure.trace(product, x0, key, samples=0)", "samples=0"),
    ("measure.top_eigenvalues(product, x0[None], key, tolerance=nan)", "tolerance=nan"),
    ("measure.top_eigenvalues(product, x0[None], key, tolerance=-1)", "tolerance=-1"),
    ("measure.top_eigenvalues(product, x0[None], key, restarts=0)", "restarts=0"),
    ("measure.spectral_density(product, x0, key, samples=0)", "samples=0"),
    ("measure.spectral_density(product, x0, key, dimension=0)", "dimension=0"),
    ("measure.ntk_probe(apply, x, loss='none')", "loss='none'"),
    ("measure.ntk_probe(apply, x, iterations=0)", "iterations=0"),
    ("measure.ntk_probe(apply, x[:0])", "0 examples"),
    ("measure.sharpness_probe(good, losses, (x, y), group=0)", "group=0"),
    ("measure.sharpness_probe(good, losses, (x, y[:5]))", "5 and 8 rows"),
    ("measure.agop(apply2, x0, x, block=0)", "block=0"),
]

ANALYSED = [
    ("agrees('c', e, inf, '%')", "bound=inf|positive"),
    ("agrees('c', e, nan, '%')", "bound=nan"),
    ("agrees('c', e, -1, '%')", "bound=-1"),
    ("agrees('c', e, 0, '%')", "bound=0"),
    ("agrees('c', e, '1', '%')", "bound='1'"),
    ("agrees('c', 0.5, 1, '%')", "'c'|float|estimate"),
    ("above('c', e, inf, '%')", "bound=inf"),
    ("above('c', e, nan, '%')", "bound=nan"),
    ("above('c', e, -inf, '%')", "bound=-inf"),
    ("above('c', e, 0, '%', errors=-1)", "errors=-1"),
    ("above('c', e, 0, '%', errors=nan)", "errors=nan"),
    ("below('c', e, inf, '%')", "bound=inf"),
    ("below('c', e, nan, '%')", "bound=nan"),
    ("within('c', i, nan, 1, '%')", "low=nan"),
    ("within('c', i, -inf, inf, '%')", "low=-inf"),
    ("within('c', i, 2, 1, '%')", "low=2|high=1"),
    ("all_agree('c', [], 1, '%')", "'c'|no estimates"),
    ("all_agree('c', [e], inf, '%')", "bound=inf"),
    ("all_above('c', [], 1, '%')", "'c'|no estimates"),
    ("all_above('c', [e], nan, '%')", "bound=nan"),
    ("least_above('c', [1.0], nan, '%')", "bound=nan"),
    ("share('c', [True], nan)", "bound=nan"),
    ("share('c', [True], 120)", "bound=120"),
    ("share('c', [nan], 100)", "'c'|True or False"),
    ("none('c', [nan, 0.0])", "'c'|True or False"),
    ("family('f', [none('c', [False])])", "no p-value"),
    ("equivalence(e, inf)", "bound=inf"),
    ("equivalence(e, nan)", "bound=nan"),
    ("equivalence(e, 1, alpha=0)", "alpha=0"),
    ("equivalence(e, 1, alpha=0.7)", "alpha=0.7"),
    ("estimate([1.0])", "1 replica"),
    ("estimate([])", "0 replica"),
    ("estimate(3.0)", "3.0|replicas"),
    ("estimate(['a', 'b'])", "'a'|needs numbers"),
    ("paired([1.0, 2.0], [1.0])", "2|1"),
    ("paired([1.0, 2.0, 3.0], [1.0, 2.0])", "3|2"),
    ("percent_paired([1.0, 2.0], [1.0])", "2|1"),
    ("percent_each([1.0, 2.0], [1.0])", "2|1"),
    ("percent_of_mean([1.0, 2.0], [1.0])", "2|1"),
    ("interval(e, level=0)", "level=0"),
    ("interval(e, level=1.0)", "level=1.0"),
    ("interval(e, level=95)", "level=95"),
    ("interval(e, level=nan)", "level=nan"),
    ("jackknife(np.mean, [1.0])", "at least 2"),
    ("jackknife(np.mean, [1.0, 2.0], [1.0])", "[2, 1]"),
    ("order([0.1], [0.2])", "sizes|at least 2"),
    ("order([0.1, 0.2], [0.1])", "sizes|errors"),
    ("order([0.1, 0.2], [0.0, 0.1])", "errors|positive"),
    ("order([0.1, -0.2], [0.1, 0.2])", "sizes|positive"),
    ("order([0.1, 0.1], [0.1, 0.2])", "sizes|differ"),
    ("log_slope([0.1], e1)", "x|at least 2"),
    ("log_slope([0.1, -0.2], e2)", "x|positive"),
    ("combination((1.0,), (e, e))", "1 weight|2 estimates"),
    ("find_spikes(np.array([1.0, 2.0]), np.array([1.0]))", "2|1"),
]

DATA = [
    ("data.load('no_such_set')", "no_such_set|digits"),
    ("data.load('')", "''|digits"),
    ("data.load('digits', train_size=0)", "train_size=0"),
    ("data.load('digits', train_size=-1)", "train_size=-1"),
    ("data.load('digits', train_size=99999)", "train_size=99999"),
    ("data.load('digits', train_size=1.5)", "train_size=1.5"),
    ("data.load('digits', train_size=5, subset=-1)", "subset=-1"),
    ("data.load('digits', nothing=1)", "nothing"),
    ("data.load('/no/such/file.npz')", "/no/such/file.npz"),
    ("data.from_arrays(x, y[:5])", "8|5"),
    ("data.from_arrays(x[:0], y[:0])", "no training examples"),
    ("data.from_arrays(nan * x, y)", "inputs[0, 0] is nan"),
    ("data.from_arrays(x, y - 1)", "-1"),
    ("data.from_arrays(x, nan * x)", "targets[0, 0] is nan"),
    ("data.imbalanced((x, y), 0)", "ratio=0"),
    ("data.imbalanced((x, y), nan)", "ratio=nan"),
    ("data.imbalanced((x, y), 2)", "ratio=2"),
    ("data.crop(-1)", "pad=-1"),
    ("data.crop(1.5)", "pad=1.5"),
    ("data.mask_tokens(rate=2.0)", "rate=2.0"),
    ("data.mask_tokens(rate=nan)", "rate=nan"),
    ("data.frozen((x, y), data.flip(), copies=0)", "copies=0"),
    ("data.frozen((x, y), data.flip(), copies=1.5)", "copies=1.5"),
]

TABLE: dict[str, list[Row]] = {
    "plans": PLAN,
    "rescaling": RESCALED,
    "schedules": SCHEDULES,
    "optimizers": OPTIMIZERS,
    "samplers": SAMPLERS,
    "tasks": TASKS,
    "runs": RUNS,
    "SDEs": SDES,
    "measurements": MEASURED,
    "analysis": ANALYSED,
    "data": DATA,
}


@functools.cache
def names() -> dict[str, Any]:
    """Returns what the code of the table can use."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    import optsde as o
    from optsde import analysis, gradients, measure, models, run, schedules
    from optsde.gradients import Draw, diagonal, from_covariance

    x = np.linspace(-1, 1, 24, dtype=np.float32).reshape(8, 3)
    y = np.arange(8, dtype=np.int32) % 3
    x0 = jnp.ones(3)
    key = jax.random.key(0)
    three, lrs = jax.random.split(key, 3), np.array([0.1, 0.2])

    def raw(**changes):
        return o.Plan(
            **(dict(optimizer=o.Adam(lr=0.1), batch_size=8, horizon=100.0) | changes)
        )

    def plan(**changes):
        return raw(**changes).checked()

    def losses(params, examples):
        inputs, targets = examples
        return (inputs @ params - targets) ** 2

    def loss(params):
        return jnp.sum(params**2)

    def oracle_of(batch_size):
        return gradients.minibatch(losses, (x, y))(batch_size)

    def lone(optimizer=None, params=x0):
        chosen = raw() if optimizer is None else raw(optimizer=optimizer)
        made = o.discrete(chosen, oracle_of, params)
        return o.fit(made, key[None], 2.0)

    def fit(dynamics=..., keys=three[:2], horizon=4.0, **options):
        made = o.discrete(raw(), oracle_of, x0) if dynamics is ... else dynamics
        return o.fit(made, keys, horizon, **options)

    def ensemble(times=(1.0,), keys=three[:2], observe=lambda s: s.params):
        return o.ensemble(o.discrete(raw(), oracle_of, x0), keys, times, observe)

    def task(loss=models.cross_entropy, train=(x, y), test=(x, y), **options):
        return run.Task(nn.Dense(3), loss, train=train, test=test, **options)

    def state_of(chosen):
        made = o.discrete(chosen, oracle_of, x0)
        return jax.vmap(made.init)(three[:2])

    poisoned = x.copy()
    poisoned[3, 1] = np.nan
    draw = Draw(key, jnp.int32(0))
    oracle = oracle_of(8)
    noises = measure.gradient_noise(oracle, x0, draw, kappas=(1, 4))
    noises = jax.tree.map(lambda x: x[None], noises)
    state = state_of(raw())
    own = dict(
        raw=raw,
        plan=plan,
        good=raw(),
        adam=o.Adam(),
        lion=raw(optimizer=o.Lion()),
        memory=jax.tree.map(lambda x: x[0], state.optimizer),
        groups=lambda parts, labels=lambda p: "a": (
            plan(optimizer=o.Groups(parts, labels)).optimizer
        ),
        from_optax=lambda chain, batch_size=8, horizon=10: o.from_optax(
            chain, x0, batch_size=batch_size, horizon=horizon
        ),
        x=x,
        y=y,
        x0=x0,
        t=np.arange(1.0, 5.0),
        key=key,
        keys=three[:2],
        three=three,
        lrs=lrs,
        three_lrs=np.array([0.1, 0.2, 0.3]),
        by_lr=lambda lr: o.discrete(raw(optimizer=o.Adam(lr=lr)), oracle_of, x0),
        losses=losses,
        loss=loss,
        rate=lambda t: 0.1,
        poisoned=poisoned,
        stream=o.data.Stream(o.data.Arrays(x, y)),
        draw=draw,
        oracle=oracle,
        sampler=oracle_of,
        run=lone,
        fit=fit,
        ensemble=ensemble,
        task=task,
        norm=measure.probe(lambda _, state: {"norm": jnp.sum(state.params)}),
        state=state,
        other_state=state_of(raw(optimizer=o.SGD())),
        coarse_state=state_of(raw(dt=2.0)),
        noise=diagonal(jnp.ones_like),
        matrix=-np.eye(3),
        law=from_covariance(loss, diagonal(jnp.ones_like), 8),
        noises=noises,
        pair=jax.tree.map(lambda x: jnp.stack([x, x]), noises),
        both=np.ones((2, 4)),
        spoilt=jax.tree.map(lambda x: np.nan * jnp.stack([x, x]), noises),
        gradient_noise=lambda **options: measure.gradient_noise(
            oracle, x0, draw, **options
        ),
        product=lambda v: 2 * v,
        init=lambda net: jax.eval_shape(net.init, key, np.zeros((1, 4), np.int32)),
        apply=lambda params, inputs: inputs @ params,
        apply2=lambda params, inputs: (inputs @ params)[:, None],
        squared_error=models.squared_error,
        e=analysis.Estimate(0.1, 0.01, 9),
        e1=analysis.Estimate(np.array([0.1]), np.array([0.01]), 9),
        e2=analysis.Estimate(np.array([0.1, 0.2]), np.array([0.01, 0.01]), 9),
        i=analysis.Interval(0.5, 0.4, 0.6),
        o=o,
        jax=jax,
        np=np,
        optax=optax,
        nan=float("nan"),
        inf=float("inf"),
        schedules=schedules,
        optimizers=o.optimizers,
        gradients=gradients,
        measure=measure,
        models=models,
        data=o.data,
        from_covariance=from_covariance,
        minibatch=gradients.minibatch,
        epochs=gradients.epochs,
        full_batch=gradients.full_batch,
    )
    return {name: getattr(analysis, name) for name in analysis.__all__} | own


def call(code: str) -> object:
    """Runs the code of a row."""
    return eval(code, dict(names()))
