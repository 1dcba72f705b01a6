"""Serves a GGUF model over the OpenAI protocol on one CPU thread; runs in an environment with `xllamacpp`.

    python llm_model_server.py PACKAGE PORT

PACKAGE is an installed package that carries the weights. It runs until it is killed.
"""

import importlib.util
import sys
import threading
from pathlib import Path

import xllamacpp


def main() -> None:
    package, port = sys.argv[1:]
    spec = importlib.util.find_spec(package)  # importing it would need its own dependencies
    if spec is None or spec.origin is None:
        sys.exit(f"the package {package} is not installed")
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(next(Path(spec.origin).parent.rglob("*.gguf")))
    parameters.n_ctx, parameters.n_parallel = 8192, 2
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    parameters.hostnames, parameters.port = ["127.0.0.1"], int(port)
    server = xllamacpp.Server(parameters)
    print(f"serving at {server.listening_address}", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
