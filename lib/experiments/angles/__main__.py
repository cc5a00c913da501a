"""The command line: ``python -m lib.experiments.angles --scale cpu``."""

from __future__ import annotations

import sys

from lib.experiments.angles import sampling
from lib.workbench import records

RECORDS = {"kolmogorov": sampling.kolmogorov, "worst-pairs": sampling.worst_pairs}

if __name__ == "__main__":
    sys.exit(records.main(sampling.CHAPTER, RECORDS))
