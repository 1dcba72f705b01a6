"""The offline job: from a shop's files to a release bundle. The only place with LLM calls, training and export."""

import os

# Idle OpenMP threads sleep instead of spinning. On a machine that is busy with something else, spinning threads wait
# for each other's time slices and training runs 7 times slower (docs/lab-notebook.md). It is read when the first
# library with OpenMP is loaded, hence here.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
