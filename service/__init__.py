"""The online service: opens a release bundle and answers over HTTP. Never imports torch, transformers or offline."""

import os

# Each call of the model, of FAISS and of NumPy takes one thread, and as many run at once as there are CPUs: threads
# inside a call would spin beside each other (twice the CPU for each request, and slower). It is read when the first
# library with OpenMP is loaded, hence here.
for _library in ("OMP", "OPENBLAS"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")
