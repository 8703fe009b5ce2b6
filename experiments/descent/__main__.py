"""python -m experiments.descent"""

from experiments.descent import main

main()
