"""Compares two runs of one study: python -m experiments.compare DIR DIR."""

import sys

from optsde.study.compare import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
