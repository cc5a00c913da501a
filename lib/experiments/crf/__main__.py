"""Record the experiments of chapter 4."""

import sys

from lib.experiments.crf.sweeps import main

if __name__ == "__main__":
    sys.exit(main())
