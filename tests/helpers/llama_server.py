"""llama.cpp's own HTTP server in a process: llama_server.py MODEL.gguf; prints its address."""

from __future__ import annotations

import sys
import threading

import xllamacpp


def main(model: str) -> None:
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.n_ctx = 4096
    params.n_parallel = 1
    params.cpuparams.n_threads = 1
    params.warmup = False
    params.verbosity = 3
    params.port = 0
    server = xllamacpp.Server(params)
    print("\nlistening at", server.listening_address, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1])
