"""The command line: ``python -m lib.experiments.initializers --scale cpu``."""

from __future__ import annotations

import sys

from lib.experiments.initializers import matrices, training
from lib.workbench import records

RECORDS = {
    "matrices": matrices.record_matrices,
    "gradients": training.record_gradients,
    "causes": training.record_causes,
    "depth": training.record_depth,
}

if __name__ == "__main__":
    sys.exit(records.main(matrices.CHAPTER, RECORDS))
