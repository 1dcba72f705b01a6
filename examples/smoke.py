"""Starts the service and makes a shop's calls: prints four answers, exits with 0 only if all are right.

    python examples/smoke.py --releases var/demo/releases --data var/demo/data
    ISRF_API_KEY=isrf_… python examples/smoke.py --url http://127.0.0.1:8000 --data shop

With `--url` it calls a service that runs already. It requests items for a known shopper and an unknown one, posts a
purchase of the known one, and requests items again.
"""

import argparse
import csv
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import defaultdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

START_TIMEOUT_S = 60.0


def call(base: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Sends a GET, or a POST if there is a body, with the key of `ISRF_API_KEY`; returns the decoded answer."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "X-API-Key": os.environ.get("ISRF_API_KEY", "")}
    request = urllib.request.Request(base + path, data=data, headers={k: v for k, v in headers.items() if v})
    with urllib.request.urlopen(request, timeout=10) as response:
        answer: dict[str, Any] = json.load(response)
        return answer


def show(title: str, answer: dict[str, Any]) -> None:
    print(f"\n== {title}\n{json.dumps(answer, indent=2, ensure_ascii=False)}")


def wait_until_ready(base: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(f"the service ended with status {process.returncode} before it was ready")
        try:
            call(base, "/readyz")
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
    sys.exit(f"the service was not ready after {START_TIMEOUT_S:.0f} s")


def histories(data: Path) -> dict[str, set[str]]:
    purchases: dict[str, set[str]] = defaultdict(set)
    with (data / "interactions.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row.get("event") in (None, "", "purchase"):
                purchases[row["user_id"]].add(row["item_id"])
    return purchases


def converse(base: str, bought: dict[str, set[str]]) -> list[str]:
    """Makes the calls; returns the problems of the answers."""
    problems = []
    shopper = sorted(bought)[0]
    path = f"/recommend/{quote(shopper, safe='')}?n=5"
    known = call(base, path)
    show(f"GET {path}   (a known shopper)", known)
    first = [item["item_id"] for item in known["items"]]
    if len(first) != 5 or set(first) & bought[shopper]:
        problems.append("the known shopper needs five items, none bought before")

    unknown = call(base, "/recommend/a-visitor-nobody-knows?n=5")
    show("GET /recommend/a-visitor-nobody-knows?n=5", unknown)
    if len(unknown["items"]) != 5 or unknown["meta"]["source"] != "popular":
        problems.append("the unknown shopper needs five popular items")

    event = {"event_id": "smoke-1", "user_id": shopper, "item_id": first[0], "event": "purchase"}
    posted = call(base, "/interactions", {"events": [event]})
    show("POST /interactions   (the shopper buys the first item)", posted)
    if [result["status"] for result in posted["results"]] != ["accepted"]:
        problems.append("the purchase was not accepted")

    again = call(base, path)
    show(f"GET {path}   (again)", again)
    second = [item["item_id"] for item in again["items"]]
    if len(second) != 5 or first[0] in second or again["meta"]["user_version"] == known["meta"]["user_version"]:
        problems.append("the second answer must consider the purchase")
    return problems


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--releases", type=Path, help="starts a service on this folder")
    where.add_argument("--url", help="calls this service")
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.url:
        problems = converse(arguments.url, histories(arguments.data))
    else:
        problems = converse_with_own(arguments.releases, arguments.data)
    print("\n" + ("all four answers are right" if not problems else "WRONG: " + "; ".join(problems)))
    sys.exit(1 if problems else 0)


def converse_with_own(releases: Path, data: Path) -> list[str]:
    """Starts a service, makes the calls, ends it; returns the problems."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as state:
        command = [sys.executable, "-m", "service", "--releases", str(releases), "--port", str(port)]
        process = subprocess.Popen([*command, "--state-dir", state], stderr=subprocess.DEVNULL)
        try:
            base = f"http://127.0.0.1:{port}"
            wait_until_ready(base, process)
            return converse(base, histories(data))
        finally:
            process.terminate()
            process.wait(timeout=30)


if __name__ == "__main__":
    main()
