"""Runs FAISS on one thread, so that it sums in the same order on every machine and equal runs give equal bytes."""

from collections.abc import Iterator
from contextlib import contextmanager

import faiss


@contextmanager
def one_faiss_thread() -> Iterator[None]:
    """Sets FAISS to one thread while the context is open."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)
