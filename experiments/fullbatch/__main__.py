"""python -m experiments.fullbatch"""

from experiments.fullbatch import main

main()
