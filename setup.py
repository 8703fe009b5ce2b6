"""What pyproject.toml cannot say: the packages of a wheel, and README on an index.

The wheel holds the studies, and their presets as `experiments.configs`, so that only
one name besides `optsde` is taken.
"""

import re
import tomllib
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def standing_alone(text: str, source: str | None) -> str:
    """Returns Markdown whose relative links hold wherever it is read.

    Args:
        text: Markdown.
        source: address of the repository, at which the links then point; None: links
            become their words, and pictures are left out.
    """

    def replace(link: re.Match) -> str:
        picture, words, target = link.groups()
        if target.startswith(("http", "#")):
            return link[0]
        if source:
            place = f"{source}/{'raw' if picture else 'blob'}/main/{target}"
            return f"{picture}[{words}]({place})"
        return "" if picture else words

    return re.sub(r"(!?)\[([^][]*)\]\(([^()\s]+)\)", replace, text)


if __name__ == "__main__":
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    source = project["urls"].get("Source")
    setup(
        packages=[
            *find_packages(include=["optsde*", "experiments*"]),
            "experiments.configs",
        ],
        package_dir={"experiments.configs": "configs"},
        long_description=standing_alone((ROOT / "README.md").read_text(), source),
        long_description_content_type="text/markdown",
    )
