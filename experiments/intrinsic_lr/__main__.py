"""python -m experiments.intrinsic_lr"""

from experiments.intrinsic_lr import main

main()
