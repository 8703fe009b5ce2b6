"""Does a seed-step cost the same in an ensemble of 1 and of 4,096 seeds?

The ensemble of `benchmarks.ensemble` with other numbers of seeds, on all cores, without
observations. One seed cannot fill more than one core. A call takes all states in and
gives copies of them, which of 4,096 seeds costs about thirty of their steps.
"""

from benchmarks import problem
from benchmarks.question import Answer, Picture, Row, asked
from benchmarks.timing import race

SEEDS = (1, 4, 16, 64, 256, 1024, 4096)
SEED_STEPS, LEAST = 2**17, 256  # of each call, and its least number of steps
BASE = 64
TINY = dict(SEEDS=(1, 4), BASE=1, SEED_STEPS=8, LEAST=1)
FLAT = 1.1


def ask(seconds: float) -> Answer:
    steps = {seeds: max(SEED_STEPS // seeds, LEAST) for seeds in SEEDS}
    contenders = {str(n): problem.run_on(n, steps[n], looks=0) for n in SEEDS}
    base, most = BASE, SEEDS[-1]
    found = race(contenders, [(str(most), str(base))], seconds)
    work = {n: n * steps[n] for n in SEEDS}
    ratio = found.ratio(str(most), str(base), work[base] / work[most])
    each = [found.seconds(str(n), 1e6 / work[n]) for n in SEEDS]
    rows = [Row(f"seed-step of {most:,} seeds ÷ of {base}", ratio, aim=FLAT)]
    rows += [
        Row(f"seed-step of {n:,}", x, "µs") for n, x in zip(SEEDS, each, strict=True)
    ]
    picture = Picture("seeds", "µs per seed-step", SEEDS, {"engine": each})
    told = f"calls of {steps[most]:,} steps of {most:,} seeds"
    return Answer(rows, [f"{found.rounds} rounds; {told}"], picture)


if __name__ == "__main__":
    asked(ask)
