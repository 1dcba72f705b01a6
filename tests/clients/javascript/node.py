"""Runs code with the JavaScript client under Node, Playwright's own: it is there wherever the tests are."""

import json
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

from tests.service.servers import PATIENCE_S

NODE = Path(str(files("playwright"))) / "driver" / "node"
PACKAGE = Path(__file__).parents[3] / "clients" / "javascript"
START = """
const { IsrfClient, IsrfError, prepare } = await import(process.argv[1]);
const data = JSON.parse(process.argv[2]);
const isrf = new IsrfClient(data.url, data.options);
const told = (error) => error instanceof IsrfError && error.message && error.fix !== undefined
  ? [error.code, error.message] : [`NO IsrfError: ${error}`];
const code = async (work) => { try { return await work(); } catch (error) { return told(error)[0]; } };
"""


def node(code: str, url: str = "http://127.0.0.1:1", *, binary: str = str(NODE), **data: Any) -> Any:
    """What the code says by `said`, as JSON."""
    script = f"{START}\nlet said;\n{code}\nconsole.log(JSON.stringify(said ?? null)); process.exit(0);"
    command = [
        binary,
        "--input-type=module",
        "--eval",
        script,
        str(PACKAGE / "src" / "index.js"),
        json.dumps({"url": url, **data}),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)
