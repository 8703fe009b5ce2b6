"""The page is that of the registry, and its functions answer as Python does."""

import dataclasses
import json
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import ROOT
from helpers.rule_page import compare, expected, questions

import optsde
from optsde.__main__ import main
from optsde.optimizers import REGISTRY, Memory, Power, register
from optsde.plans.javascript import function
from optsde.plans.page import page

NODE = shutil.which("node")
needs_node = pytest.mark.skipif(NODE is None, reason="node is not installed")


def node(script):
    run = subprocess.run(
        [str(NODE), "-"], input=script, capture_output=True, text=True, check=True
    )
    return json.loads(run.stdout)


def answers(html, asked):
    """What the page's script answers, without a browser."""
    script = html.split("<script>")[1].split("</script>")[0]
    return node(f"""{script}
    const asked = {json.dumps(asked)};
    const tried = (q) => {{
      try {{ return answer(q); }} catch (error) {{ return {{refused: error.message}}; }}
    }};
    console.log(JSON.stringify(asked.map(tried)));""")


@pytest.fixture(scope="module")
def html():
    return page()


def test_the_page_in_docs_is_the_generated_one(html):
    committed = (ROOT / "docs" / "rule.html").read_text(encoding="utf-8")
    assert committed == html, "run `python -m optsde page docs/rule.html`"


def test_the_page_needs_nothing_else(html):
    for word in ("http:", "https:", "import ", "src=", "<link"):
        assert word not in html.replace("import optax", ""), word


@needs_node
def test_answers_are_python_s(html):
    asked = questions(30)
    refusals = compare(asked, answers(html, asked))
    assert 10 < refusals < len(asked) / 2


@needs_node
def test_its_command_says_the_same(html, capsys):
    asked = questions(2, seed=2)
    seen = [x for x in answers(html, asked) if "refused" not in x]
    assert len(seen) > 10
    for answer in seen:
        main(answer["command"].split()[3:])
        text = capsys.readouterr().out
        for lines in answer["lines"].values():
            assert all(line in text for line in lines)


@needs_node
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(lr=0.0), "lr=0: needs a positive number"),
        (dict(b1=1.0), "b1=1: needs 0 ≤ decay < 1"),
        (dict(batch="2.5"), "2.5 is no batch"),
        (dict(to="8x4"), "8x4 is no batch"),
        (dict(to=""), "nothing is no batch"),
        (dict(b1=0.99, b2=0.9, to="2"), "b1=0.99, b2=0.9: at κ < 1"),
        (dict(clip=0.0), "clip=0: needs a positive norm"),
        (dict(steps=9, warmup=10), "warmup=10: needs at most all steps, 9"),
        (dict(eps_root="no"), None),
    ],
)
def test_refusals(html, change, words):
    lion = dict(lr=1e-4, b1=0.9, b2=0.99, l2=0, weight_decay=0, absolute_decay=0)
    run = dict(steps=None, warmup=None, clip=None, ema=None, memory="auto")
    asked = dict(optimizer="lion", batch="4", to="8", **lion, **run)
    (seen,) = answers(html, [asked | change])
    assert ("refused" in seen) == (words is not None)
    assert words is None or words in seen["refused"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Toy(optsde.SGD):
    """Descent with a strange rule."""

    lr: float = 0.5
    beta: float = 0.3
    sure: bool = True
    rule = {"lr": Power(1.5, "why not"), "beta": Memory("as it is said")}

    def lr_factor(self, kappa, decays):
        return jnp.exp(jnp.log(kappa)) * jnp.sqrt(jnp.maximum(decays["beta"], 0.5))


@needs_node
@pytest.mark.usefixtures("x64")  # its rule is computed by jax
def test_a_registered_optimizer_is_on_the_page():
    register(Toy)
    try:
        html = page()
        asked = [q for q in questions(12) if q["optimizer"] == "toy"]
        assert "Descent with a strange rule." in html
        assert "as it is said" in html
        compare(asked, answers(html, asked))
        assert any(expected(question) for question in asked)
    finally:
        del REGISTRY["toy"]


@needs_node
def test_functions_are_jax_s():
    def run(s):
        x, y = s["x"], s["y"]
        both = jnp.where(s["flag"], jnp.minimum(x, y), jnp.maximum(x, -y))
        tall = (x > y) & jnp.logical_not(y >= 2)
        return {
            "a": x**y + x**2 - 3 / y,
            "b": (both, jnp.log1p(x) * jnp.exp(-y), jnp.ceil(x), jnp.floor(x)),
            "c": jnp.where(tall, jnp.abs(-x), jnp.tanh(y)),
            "d": jax.jit(lambda z: jnp.sqrt(z) + 1)(x),
        }

    rng = np.random.default_rng(0)
    examples = [
        dict(flag=bool(rng.integers(2)), x=float(x), y=float(y))
        for x, y in rng.uniform(0.1, 3, size=(10, 2))
    ]
    text = function(run, examples[0])
    seen = node(f"console.log(JSON.stringify({json.dumps(examples)}.map({text})))")
    with jax.enable_x64(True):
        told = [run(example) for example in examples]
    for ours, theirs in zip(told, seen, strict=True):
        leaves = jax.tree.leaves(theirs)
        np.testing.assert_allclose(jax.tree.leaves(ours), leaves, rtol=1e-12)


def test_what_cannot_be_translated_is_refused():
    with pytest.raises(NotImplementedError, match="jax's erf_inv has no translation"):
        function(lambda s: jax.scipy.special.erfinv(s["x"]), {"x": 0.5})
    with pytest.raises(NotImplementedError, match=r"array of shape \(2,\)"):
        function(lambda s: jnp.array([1.0, 2.0]), {"x": 0.5})
