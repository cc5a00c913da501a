"""Record the experiments of chapter 5."""

import sys

from lib.experiments.memm.sweeps import main

if __name__ == "__main__":
    sys.exit(main())
