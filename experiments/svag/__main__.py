"""python -m experiments.svag"""

from experiments.svag import main

main()
