"""Compares the LLM reasoner's time with the ideal: 1,000 items, a server with 50 ms per answer, 64 calls at once.

    python benchmarks/reason_llm.py [--items 1000] [--latency-ms 50] [--concurrency 64]

The server runs in a separate process (`answering_server.py`). The three steps of an item wait for each other, so the
ideal for 1,000 items in 64 lanes is 16 rounds of three answers. It measures the chains, the client and the ledger,
without the attribute reasoner's fallback. The ledger writes each answer before the next step and syncs all at the end.
`cpu_s` is the time of this process, `server_cpu_s` that of the server. Ends in one JSON line.
"""

import argparse
import asyncio
import json
import math
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from offline.config import ReasonConfig
from offline.stages.reason.llm.calls import event_loop
from offline.stages.reason.llm.calls.client import OpenAIClient
from offline.stages.reason.llm.calls.ledger import Ledger
from offline.stages.reason.llm.calls.retries import RetryingCaller
from offline.stages.reason.llm.chains import ITEM_PROMPTS, reason_item
from offline.stages.reason.llm.step_runner import StepRunner
from offline.stages.reason.llm.tally import Tally

SERVER = Path(__file__).parent / "answering_server.py"


async def reason_items(config: ReasonConfig, folder: Path, num_items: int) -> tuple[float, float, Tally]:
    """Reasons about the items; returns wall and CPU seconds of this process, and the tally."""
    client = OpenAIClient(config)
    caller = RetryingCaller(
        client, concurrency=config.concurrency, max_attempts=2, max_server_failures=5, back_off_s=1.0
    )
    ledger = Ledger(folder / "ledger.sqlite3", model=config.model)
    await ledger.start()
    tally = Tally()
    runner = StepRunner(model=config.model, caller=caller, ledger=ledger, tally=tally)
    items: list[dict[str, Any]] = [
        {"title": f"Product {row} " + "with a title of the usual length " * 2, "brand": "Brand", "price": "$9.99"}
        for row in range(num_items)
    ]
    waiting = iter(items)

    async def work() -> None:
        for item in waiting:
            await reason_item(runner, item)

    wall_started, cpu_started = time.perf_counter(), time.process_time()
    await asyncio.gather(*(work() for _ in range(config.concurrency)))
    await ledger.close()
    times_s = time.perf_counter() - wall_started, time.process_time() - cpu_started
    await client.close()
    return *times_s, tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1000)
    parser.add_argument("--latency-ms", type=float, default=50.0)
    parser.add_argument("--concurrency", type=int, default=64)
    options = parser.parse_args()
    command = [sys.executable, str(SERVER), str(options.latency_ms / 1000)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server,
        tempfile.TemporaryDirectory() as folder,
    ):
        try:
            assert server.stdout is not None
            config = ReasonConfig(base_url=server.stdout.readline().strip(), concurrency=options.concurrency)
            wall_s, cpu_s, tally = event_loop.run(reason_items(config, Path(folder), options.items))
        finally:
            server.kill()
    server_usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    calls = options.items * len(ITEM_PROMPTS)
    rounds = math.ceil(options.items / options.concurrency) * len(ITEM_PROMPTS)
    ideal_s = rounds * options.latency_ms / 1000
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(json.dumps({
        "items": options.items, "calls": calls, "paid": tally.calls, "wall_s": round(wall_s, 2),
        "cpu_s": round(cpu_s, 2), "server_cpu_s": round(server_usage.ru_utime + server_usage.ru_stime, 2),
        "ideal_s": round(ideal_s, 2), "ratio": round(wall_s / ideal_s, 2),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
