"""python -m experiments.batches"""

from experiments.batches import main

main()
