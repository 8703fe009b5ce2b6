"""Studies: one module each, run as `python -m experiments.NAME --config=...`."""

import importlib.util
import sys

NEEDED = ("diffrax", "grain", "matplotlib", "sklearn")
_missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
if _missing:
    message = f"experiments need {', '.join(_missing)}: pip install 'optsde[studies]'"
    if sys.argv[0] == "-m":  # as it is while `python -m` looks for the study
        print(message, file=sys.stderr)
        sys.exit(2)
    raise ImportError(message)
