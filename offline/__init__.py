"""The offline job: makes a release bundle from a shop's files. Only here are LLM calls, training and export."""

import os

# Lets idle OpenMP threads sleep instead of spin. On a machine that runs other work too, spinning threads wait for each
# other's time slices, and training runs 7 times slower (docs/lab-notebook.md). The first library with OpenMP reads the
# variable when it is loaded, so it is set here.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
