"""The examples of docs/data.md in small form, on files made here."""

import re

import numpy as np
import pytest
from helpers import ROOT, run_study

pytestmark = pytest.mark.full
SMALL = {
    "svag": "sde_seeds=2 seeds=2 ells=1,2 times=10,20 small_batches= train_size=16",
    "scaling": "seeds=3 horizon=32 evaluations=4 kappas=2 ells= draws=32 probe_seeds=2 "
    "rules=rule,fixed schedule.warmup=4 controls_until=2",
    "fullbatch": "steps=4 log_every=2 evaluate_every=2 warmup=1 cosine=3",
}


@pytest.fixture
def folder(tmp_path):
    import PIL.Image

    random = np.random.RandomState(0)
    for number in range(40):
        place = tmp_path / "photos" / "abcd"[number % 4]
        place.mkdir(parents=True, exist_ok=True)
        pixels = random.randint(0, 256, (8, 8, 3), np.uint8)
        PIL.Image.fromarray(pixels).save(place / f"{number}.png")
    pages = [page.read_text() for page in sorted((ROOT / "docs").glob("*.md"))]
    (tmp_path / "novel.txt").write_text("".join(pages)[:120_000])
    rows = random.randn(60, 5)
    np.savetxt(tmp_path / "table.csv", rows, delimiter=",", header="a,b,c,d,y",
               comments="")  # fmt: skip
    return tmp_path


def commands():
    """Each command of the page: (study, its flags)."""
    text = (ROOT / "docs" / "data.md").read_text().partition("```sh")[2]
    joined = text.partition("```")[0].replace("\\\n", " ")
    return [
        re.findall(r"experiments\.(\w+) (.*)", line)[0]
        for line in joined.strip().splitlines()
    ]


@pytest.mark.parametrize(("study", "flags"), commands()[::2], ids=str)
def test_commands_of_the_page(folder, study, flags):
    """Every other one, in which each study and each kind of data has its turn."""
    given = flags.replace("configs/", f"{ROOT}/configs/").split()
    small = [f"--config.{setting}" for setting in SMALL[study].split()]
    run = run_study(study, *given, *small, "--workdir=run", cwd=folder)
    assert run.returncode == 0, run.stderr
    assert (folder / "run" / "summary.json").is_file()
