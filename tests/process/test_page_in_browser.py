"""The page in a browser: filled in as a person would, it answers as Python does."""

import html
import json
import shutil
import subprocess

import pytest
from helpers import ROOT
from helpers.rule_page import compare, questions

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]

FILL_IN = """
<script>
function enter(q) {
  const set = (id, value) => {
    const input = document.getElementById(id);
    if (input.type === "checkbox") input.checked = value;
    else input.value = value === null ? "" : String(value);
    input.dispatchEvent(new Event("input", {bubbles: true}));
  };
  set("optimizer", q.optimizer);
  const run = ["batch", "to", "memory", "steps", "warmup", "clip", "ema"];
  for (const name of run) set(name, q[name]);
  const fields = Object.keys(DATA.optimizers[q.optimizer].fields);
  for (const name of fields) set(`of-${name}`, q[name]);
}

function read() {
  const refused = document.getElementById("refused");
  const answer = document.getElementById("answer");
  if (refused.hidden === answer.hidden) throw new Error("both or neither are shown");
  if (!refused.hidden) return {refused: refused.textContent};
  const rows = [...document.querySelectorAll("#rows tr")].map((row) => {
    const [name, before, after, factor, why] = row.children;
    return {name: name.textContent, before: Number(before.dataset.value),
            after: Number(after.dataset.value), why: why.textContent};
  });
  const lines = {};
  for (const framework of ["optax", "torch", "hf"]) {
    const pasted = document.getElementById(`lines-${framework}`).textContent;
    lines[framework] = pasted.split("\\n");
  }
  return {rows, lines};
}

/* Browsers allow a page few changes of its address in a second. */
function recalled(q) {
  enter(q);
  const before = JSON.stringify(read());
  document.getElementById("to").dispatchEvent(new Event("change", {bubbles: true}));
  const address = location.hash;
  enter(ASKED[0]);
  location.hash = address;
  recall();
  return JSON.stringify(read()) === before;
}

const found = ASKED.map((q) => { enter(q); return read(); });
const linked = ASKED.filter((_, i) => i % 8 === 0).map(recalled);
const result = document.createElement("pre");
result.id = "result";
result.textContent = JSON.stringify({found, linked});
document.body.append(result);
</script>
"""


def in_browser(asked, folder):
    page = (ROOT / "docs" / "rule.html").read_text(encoding="utf-8")
    script = FILL_IN.replace("<script>", f"<script>const ASKED = {json.dumps(asked)};")
    path = folder / "filled_in.html"
    path.write_text(page.replace("</body>", script + "</body>"), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    profile = f"--user-data-dir={folder / 'profile'}"
    run = subprocess.run(
        [str(CHROMIUM), *options, profile, path.as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    result = run.stdout.split('<pre id="result">')[1].split("</pre>")[0]
    return json.loads(html.unescape(result))


def test_answers_and_refusals_are_python_s(tmp_path):
    """Also after the question went into the address and came back from it."""
    asked = questions(16, seed=1)
    seen = in_browser(asked, tmp_path)
    refusals = compare(asked, seen["found"])
    assert 10 < refusals < len(asked) / 2
    assert len(seen["linked"]) == len(asked) / 8
    assert all(seen["linked"])
