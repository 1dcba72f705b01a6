"""Runs Lua scripts on a Redis or a Redis Cluster, many calls in one pipeline, and waits for replicas.

A script is sent by its hash; a server that does not know the hash gets the text.
"""

import hashlib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any, NamedTuple

from redis.exceptions import NoScriptError

from isrf.contract.event_log import NUM_BUCKETS
from service.state.redis.failures import FAILURES, NotReplicatedError

ScriptCall = tuple[int, Sequence[Any]]
"""Number of keys, and keys and arguments."""


class Replicas(NamedTuple):
    """How many replicas must have a write before it is acknowledged, and how long to wait for them."""

    required: int = 0
    timeout_s: float = 1.0


NO_REPLICAS = Replicas()

ITEMS_MARK = "isrf:{items}:ping"


def lua_script(name: str) -> str:
    """Returns the text of `lua/<name>.lua`."""
    return files(__package__).joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")


def mark_key(bucket: int) -> str:
    """Returns a bucket's mark: a key that probes write, and that is written before a wait for replicas."""
    return f"isrf:{{b{bucket}}}:ping"


class Scripts:
    """Runs scripts on the client with the long timeout."""

    def __init__(self, client: Any, replicas: Replicas) -> None:
        self._client, self._replicas = client, replicas
        self._hashes: dict[str, str] = {}

    async def run(self, script: str, calls: Sequence[ScriptCall]) -> list[Any]:
        """Sends calls together; returns the answer or the exception of each."""
        if not calls:
            return []
        if script not in self._hashes:
            # Not SCRIPT LOAD: in a cluster it goes to every server, even to one that is gone.
            self._hashes[script] = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        pipe = self._client.pipeline(transaction=False)
        for num_keys, arguments in calls:
            # As a command: redis-py forbids the method `evalsha` in a cluster's pipeline, not the command.
            pipe.execute_command("EVALSHA", self._hashes[script], num_keys, *arguments)
        answers: list[Any] = await pipe.execute(raise_on_error=False)
        for index, answer in enumerate(answers):
            if isinstance(answer, NoScriptError):
                num_keys, arguments = calls[index]
                try:
                    answers[index] = await self._client.eval(script, num_keys, *arguments)
                except FAILURES as error:
                    answers[index] = error
        return answers

    async def run_one(self, script: str, call: ScriptCall) -> Any:
        """Runs one call; returns its answer, or raises its exception."""
        (answer,) = await self.run(script, [call])
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def confirm(self, marks: Sequence[str]) -> dict[str, Exception]:
        """Waits until all writes so far on the marks' servers are on the replicas; returns the failures by mark.

        It writes the mark first, because WAIT waits for the last write of the same connection.
        """
        if not self._replicas.required or not marks:
            return {}
        failed: dict[str, Exception] = {}
        for together in self._by_master(marks):
            pipe = self._client.pipeline(transaction=False)
            pipe.execute_command("SET", together[0], "1", "EX", 60)
            timeout_ms = max(1, round(self._replicas.timeout_s * 1000))
            pipe.execute_command("WAIT", self._replicas.required, timeout_ms, **self._on_master_of(together[0]))
            try:
                _, reached = await pipe.execute()
                if reached >= self._replicas.required:
                    continue
                error: Exception = NotReplicatedError(f"on {reached} of {self._replicas.required} replicas")
            except FAILURES as failure:
                error = failure
            failed |= dict.fromkeys(together, error)
        return failed

    async def confirm_one(self, mark: str) -> None:
        """As `confirm` for one mark; raises its failure."""
        for error in (await self.confirm([mark])).values():
            raise error

    async def one_of_each_master(self) -> list[str]:
        """Returns a mark of every master."""
        if self._is_cluster:
            await self._client.initialize()
        return [together[0] for together in self._by_master([mark_key(bucket) for bucket in range(NUM_BUCKETS)])]

    def _by_master(self, marks: Sequence[str]) -> list[list[str]]:
        """Groups marks by their master."""
        if not self._is_cluster:
            return [list(marks)]
        groups: dict[str, list[str]] = {}
        for mark in marks:
            groups.setdefault(self._client.get_node_from_key(mark).name, []).append(mark)
        return list(groups.values())

    def _on_master_of(self, mark: str) -> dict[str, Any]:
        return {"target_nodes": self._client.get_node_from_key(mark)} if self._is_cluster else {}

    @property
    def _is_cluster(self) -> bool:
        return hasattr(self._client, "get_node_from_key")
