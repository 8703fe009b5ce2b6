"""Malformed command lines of `python -m optsde`: what is typed, and what it is told."""

import contextlib
import io
import shlex

from optsde.__main__ import main

ADAM = "explain adam --batch 256 --to 512"
TABLE: dict[str, str] = {  # a command line: words of its line
    "explian": "'explian' is no command|explain, page",
    "--verbose": "'--verbose' is no command",
    "''": "'' is no command",
    "explain": "name an optimizer first|adam",
    "explain --batch 256 --to 512": "name an optimizer first",
    "explain adamm --batch 256 --to 512": "'adamm' is not known|adam",
    "explain '' --batch 256 --to 512": "'' is not known",
    "explain adam --to 512": "--batch is needed",
    "explain adam --batch 256": "--to",
    "explain adam --batch --to 512": "--batch",
    "explain adam --batch 0 --to 512": "--batch|0",
    "explain adam --batch -8 --to 512": "--batch",
    "explain adam --batch 2.5 --to 512": "--batch|2.5",
    "explain adam --batch nan --to 512": "--batch|nan",
    "explain adam --batch 8x --to 512": "--batch|8x",
    "explain adam --batch 8x0x4 --to 512": "--batch|8x0x4",
    "explain adam --batch 256 --to many": "--to|many",
    f"{ADAM} --lr": "--lr",
    f"{ADAM} --lr fast": "--lr|'fast' is no number",
    f"{ADAM} --lr nan": "lr=nan",
    f"{ADAM} --lr -1": "lr=-1",
    f"{ADAM} --lr 1e60": "lr=1e+60",
    f"{ADAM} --b1 1.5": "b1=1.5",
    f"{ADAM} --betas 0.9": "--betas",
    f"{ADAM} --eps -1": "eps=-1",
    f"{ADAM} --larning_rate 1": "has no --larning_rate",
    f"{ADAM} --like jax": "--like|jax",
    f"{ADAM} --like torch --betas 0.9": "betas=0.9: needs two numbers",
    f"{ADAM} --like torch --betas 0.9 x": "betas=0.9 x: needs two numbers",
    f"{ADAM} --like torch --betas 0.9 2": "2",
    f"{ADAM} --memory none": "--memory|linear",
    f"{ADAM} --steps nan": "steps=nan",
    f"{ADAM} --steps 0": "steps=0",
    f"{ADAM} --steps 100 --warmup 200": "warmup=200|100",
    f"{ADAM} --warmup -1": "warmup=-1",
    f"{ADAM} --clip 0": "clip=0",
    f"{ADAM} --clip nan": "clip=nan",
    f"{ADAM} --ema 1.5": "1.5",
    f"{ADAM} --small 32:1.9": "--small and --large: give both",
    f"{ADAM} --small 32 --large 64:1": "'32' is no batch",
    f"{ADAM} --small 32:nan --large 64:1": "'32:nan' is no batch",
    f"{ADAM} --small 64:1 --large 32:2": "64",
    f"{ADAM} --per_device_train_batch_size 8": "--per_device_train_batch_size",
    "explain adamw --like hf --to 64": "--per_device_train_batch_size",
    "explain adamw --like hf --to 64 --per_device_train_batch_size 0": "0x1x1",
    "page /no/such/folder/rule.html": "/no/such/folder/rule.html cannot be written",
    "page .": ". cannot be written",
    "page a.html b.html": "b.html",
    "page --lr 1": "--lr",
}


def call(command: str) -> None:
    """Runs a command line; raises ValueError with its one line, if it is refused.

    That is exit code 2, and nothing printed besides.
    """
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main(shlex.split(command))
    except SystemExit as leaving:
        if leaving.code == 2 and not out.getvalue():
            raise ValueError(err.getvalue().removesuffix("\n")) from None
        raise
