"""python -m experiments.landscape"""

from experiments.landscape import main

main()
