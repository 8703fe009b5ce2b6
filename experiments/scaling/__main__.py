"""python -m experiments.scaling"""

from experiments.scaling import main

main()
