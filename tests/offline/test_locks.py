"""What the offline job's locks promise."""

import subprocess
import sys
from pathlib import Path

import pytest

from isrf.contract.errors import StageError
from offline.runtime.locks import file_lock, lock_or_refuse

REFUSAL = StageError("stage.locked", "somebody is at work.", fix="Wait.")

HOLDER = """
import sys
from pathlib import Path
from offline.runtime.locks import file_lock
with file_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_is_free_when_its_holder_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StageError) as refused, lock_or_refuse(path, REFUSAL):
            pass
        assert refused.value is REFUSAL
        holder.kill()
    with lock_or_refuse(path, REFUSAL), pytest.raises(StageError), lock_or_refuse(path, REFUSAL):
        pass
    with file_lock(path, timeout_s=0.0):
        assert path.read_bytes() == b""
