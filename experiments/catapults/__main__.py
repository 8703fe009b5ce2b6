"""python -m experiments.catapults"""

from experiments.catapults import main

main()
