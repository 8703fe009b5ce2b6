"""report.html: all of a run on one page, and nothing from anywhere else."""

import base64
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest

from optsde.analysis import Estimate, above
from optsde.analysis.plots import new_figure, save
from optsde.study import Numbers, RunDir, Seeds, Study, setting
from optsde.study.study import run

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
ATTACK = "<script>alert(1)</script>"


class Settings(Seeds):
    rates: Numbers = setting((0.1, 0.5), "learning rates", above=0)
    title: str = setting("plain", "of the figure")


def simulate(s, rundir):
    return rundir.once("arm <b>", lambda: {"loss": np.ones(s.seeds)})


def claims(s, runs):
    for name, mean in {"rises": 9.0, "grows": 0.1, "lifts": -9.0}.items():
        yield above(name, Estimate(mean, 1.0, 9), 0.0, "% of <loss>", name != "lifts")


def figure(s, runs, path):
    drawing, (ax,) = new_figure(1)
    ax.plot(runs["loss"])
    save(drawing, path)


STUDY = Study(
    __name__,
    Settings,
    simulate,
    tables=lambda s, runs: ["loss\n────\n <1>"],
    claims=claims,
    figures={"loss": figure},
    answer=lambda s, runs, verdicts: "It is so & so.",
)


@pytest.fixture
def report(tmp_path, monkeypatch):
    """The file of a run whose title is an attack."""
    argv = ["/there/__main__.py", "--config=configs/toy.py:two", "--fresh"]
    monkeypatch.setattr(
        sys, "argv", [*argv, "--config.title=<script>alert(1)</script>"]
    )
    s = Settings(title="<script>alert(1)</script>", seeds=4).checked()
    run(STUDY, s, RunDir.open(tmp_path / "two-1a2b3c", "toy", s.config()))
    return tmp_path / "two-1a2b3c" / "report.html"


class Page(HTMLParser):
    """Checks that elements are closed in their order; keeps images and text."""

    EMPTY = ("meta", "img", "wbr")

    def __init__(self):
        super().__init__()
        self.open, self.images, self.words, self.links = [], [], [], []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.links += [values[name] for name in ("href", "src") if name in values]
        if tag == "img":
            self.images.append(values)
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)


def test_a_report_has_all_of_a_run_and_needs_no_other_file(report):
    page = Page()
    page.feed(report.read_text())
    assert not page.open
    (image,) = page.images
    kind, data = image["src"].split(",")
    assert kind == "data:image/png;base64"
    png = report.parent / "figures" / "loss.png"
    assert base64.b64decode(data) == png.read_bytes()
    assert page.links == [image["src"]]
    assert "url(" not in report.read_text()
    assert "<script" not in report.read_text()
    text = re.sub(r"\s+", " ", " ".join(page.words))
    for words in (
        "toy: two-1a2b3c",
        "Done on 20",
        "report.html: all of a run on one page",
        "rises holds 9 [6.74, 11.3] 0 % of <loss>",
        "grows open 0.1 [-2.16, 2.36] 0 % of <loss>",
        "fails , as expected",
        "loss ──── <1>",
        "It is so & so.",
        "python -m experiments.toy \\ --config=configs/toy.py:two \\ '--config.ti",
        "arm <b>",
    ):
        assert words in text
    assert "--fresh" not in text
    differing, others = text.split("The other")
    assert f"title {ATTACK} plain of the figure" in differing
    assert "seeds 4 16 runs of each arm" in differing
    assert "rates 0.1, 0.5" not in differing
    assert "rates 0.1, 0.5" in others
    stamp = json.loads((report.parent / "summary.json").read_text())["judged"]
    assert text.count(stamp["code"]) == 2  # of the arm, and of who judged it


@pytest.mark.full
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_browser_shows_it(report, tmp_path):
    """The page lays out, its image has a size, and it asks for nothing else."""
    script = (
        "<script>document.title = [...document.images].map(x => x.naturalWidth > 100 &&"
        " x.clientWidth <= document.body.clientWidth) + ' ' +"
        " performance.getEntriesByType('resource').filter("
        "x => !x.name.startsWith('data:')).length + ' ' +"
        " (document.documentElement.scrollWidth <= innerWidth)</script></body>"
    )
    probed = tmp_path / "probed.html"
    probed.write_text(report.read_text().replace("</body>", script))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=420,900"]
    ended = subprocess.run(
        [*command, "--virtual-time-budget=2000", "--dump-dom", probed.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "<title>true 0 true</title>" in ended.stdout, ended.stderr
