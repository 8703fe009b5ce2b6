"""Two processes of four devices each, against one of eight and one of one."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, command, environment, run_child

pytestmark = pytest.mark.full

JOB = Path(__file__).parent / "job.py"
ROUNDING = 2e-6  # of numbers of order 1 after at most 24 steps, stated beforehand
PATIENCE = 60  # seconds in which the others must notice that a process was lost
SLURM = dict(SLURM_STEP_NODELIST="localhost", SLURM_NTASKS=2)
OPEN_MPI = dict(OMPI_COMM_WORLD_SIZE=2)


def a_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start(arguments, devices=4, **more):
    """Starts a process that sees so many devices."""
    own = {"JAX_NUM_CPU_DEVICES": str(devices)} | {k: str(v) for k, v in more.items()}
    return subprocess.Popen(
        [str(x) for x in arguments],
        cwd=ROOT,
        env=environment() | own,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(processes, seconds=400):
    """Waits for processes; returns the exit code and what was said, of each."""
    try:
        said = [process.communicate(timeout=seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [
        (process.returncode, *map(without_gloo, texts))
        for process, texts in zip(processes, said, strict=True)
    ]


def without_gloo(text):
    """What is said by others than the collectives of CPUs."""
    return "\n".join(x for x in text.splitlines() if not x.startswith("[Gloo]"))


def both(study, *arguments, devices=4):
    """Starts a study in two processes."""
    meet = f"--coordinator=127.0.0.1:{a_port()}", "--num_processes=2"
    return [
        start([*command(study, *arguments), *meet, f"--process_id={i}"], devices)
        for i in range(2)
    ]


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    """What the job finds on 2 × 4, on 1 × 8 and on 1 × 1 devices."""
    found = {}
    for name, processes, devices in (("2x4", 2, 4), ("1x8", 1, 8), ("1x1", 1, 1)):
        file = tmp_path_factory.mktemp(name) / "found.npz"
        meet = f"127.0.0.1:{a_port()}"
        alone = [[sys.executable, JOB, file]]
        each = [[*alone[0], meet, i] for i in range(2)] if processes > 1 else alone
        for code, _, error in ended([start(x, devices) for x in each]):
            assert code == 0, error
        found[name] = dict(np.load(file))
    assert [int(x.pop("devices")) for x in found.values()] == [8, 8, 1]
    return found


# Several devices add up the gradient of a replica.
SHARED = "shared", "svag", "split", "stream"


@pytest.mark.parametrize("other", ["1x8", "1x1"])
def test_the_numbers_are_those_of_one_process(numbers, other):
    """Bit for bit, but where devices share a gradient: sums are in another order."""
    assert numbers["2x4"].keys() == numbers[other].keys()
    for name, here in numbers["2x4"].items():
        exact = name.split("/")[0] not in SHARED and other == "1x8"
        bound = 0 if exact else ROUNDING
        np.testing.assert_allclose(here, numbers[other][name], rtol=0, atol=bound)


ROW = (
    "--config=configs/fullbatch.py:digits_fb",
    *("--config.train_size=64", "--config.test_size=32", "--config.statistics=64"),
    *("--config.block=8", "--config.evaluate_every=10", "--config.checkpoint_every=10"),
)


def test_a_command_in_two_processes(tmp_path):
    """Process 0 prints and writes; the numbers are those of one process."""
    row = [*ROW, "--config.steps=30"]
    here, there = ended(both("fullbatch", *row, f"--workdir={tmp_path / 'two'}"))
    assert here[0] == there[0] == 0, here[2] + there[2]
    assert "verdict" in here[1] or "summary" in here[1]
    assert there[1] == ""
    alone = run_child(
        command("fullbatch", *row, f"--workdir={tmp_path / 'one'}"),
        env=environment() | {"JAX_NUM_CPU_DEVICES": "8"},
    )
    assert alone.returncode == 0, alone.stderr
    two, one = (read_rows(tmp_path / name) for name in ("two", "one"))
    assert two.keys() == one.keys()
    for name in one:
        columns = [np.array(x[name], float) for x in (two, one)]  # None is NaN
        np.testing.assert_allclose(*columns, rtol=1e-4, err_msg=name)
    again = ended(both("fullbatch", *row, f"--workdir={tmp_path / 'two'}"))
    assert [code for code, *_ in again] == [0, 0]
    assert "read from" in again[0][1]


def read_rows(folder):
    from optsde.run.writers import read

    (file,) = folder.rglob("metrics.jsonl")
    return read(file)


@pytest.mark.parametrize(
    ("number", "whom", "codes"),
    [
        (signal.SIGTERM, 1, {130}),
        (signal.SIGKILL, 1, {3, -signal.SIGABRT}),
        (signal.SIGKILL, 0, {3, -signal.SIGABRT}),
    ],
    ids=["terminated", "other-killed", "first-killed"],
)
def test_one_is_stopped_and_the_other_ends_too(tmp_path, number, whom, codes):
    """With a reason, within a minute; and the same command goes on."""
    row = [*ROW, "--config.steps=400", f"--workdir={tmp_path / 'run'}"]
    processes = both("fullbatch", *row, devices=1)
    saved = tmp_path / "run" / "checkpoints"
    deadline = time.monotonic() + 200
    while not any(saved.glob("*/manifest.json")):
        assert time.monotonic() < deadline
        assert processes[0].poll() is None
        time.sleep(0.1)
    processes[whom].send_signal(number)
    begun = time.monotonic()
    found = ended(processes)
    assert time.monotonic() - begun < PATIENCE
    others = [x for i, x in enumerate(found) if i != whom or number == signal.SIGTERM]
    for code, _, error in others:
        assert code in codes, error
        assert "interrupted" in error or "process" in error
    row[-2] = "--config.steps=400"
    found = ended(both("fullbatch", *row, devices=1))
    assert [code for code, *_ in found] == [0, 0], found[0][2]
    assert "resumed at step" in found[0][2]


def test_a_launcher_tells_who_they_are(tmp_path):
    """What SLURM and Open MPI put into the environment is enough."""
    for name in ("slurm", "mpi"):
        job, processes = os.getpid() % 4096, []
        for i in range(2):
            told = dict(SLURM, SLURM_JOB_ID=job, SLURM_PROCID=i, SLURM_LOCALID=i)
            if name == "mpi":
                uri = f"{job * 4096}.0;tcp://127.0.0.1:1"
                told = dict(OPEN_MPI, OMPI_MCA_orte_hnp_uri=uri)
                told |= dict(OMPI_COMM_WORLD_RANK=i, OMPI_COMM_WORLD_LOCAL_RANK=i)
            said = (
                "print(hosts.index(), jax.process_count(), hosts.broadcast(lambda: 5))"
            )
            program = f"import jax; from optsde import hosts; hosts.connect(); {said}"
            processes.append(start([sys.executable, "-c", program], 1, **told))
        found = ended(processes)
        said = [out for _, out, _ in found]
        assert said == ["0 2 5", "1 2 5"]


def test_an_error_of_process_0_is_raised_in_all():
    program = """if True:
        import sys
        from optsde import hosts
        hosts.connect(sys.argv[1], 2, int(sys.argv[2]))
        def refuse(): raise ValueError(f"no, says {hosts.index()}")
        try: hosts.broadcast(refuse)
        except ValueError as error: print(error)
    """
    meet = f"127.0.0.1:{a_port()}"
    each = [start([sys.executable, "-c", program, meet, i], 1) for i in range(2)]
    assert [out.strip() for _, out, _ in ended(each)] == ["no, says 0"] * 2
