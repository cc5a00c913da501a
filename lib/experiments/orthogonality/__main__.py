"""Record the experiments of chapter 3."""

import sys

from lib.experiments.orthogonality.sweeps import main

if __name__ == "__main__":
    sys.exit(main())
