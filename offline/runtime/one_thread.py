"""FAISS on one thread where equal runs must give equal bytes: its sums are then made in one order on every machine."""

from collections.abc import Iterator
from contextlib import contextmanager

import faiss


@contextmanager
def one_faiss_thread() -> Iterator[None]:
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)
