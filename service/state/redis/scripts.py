"""Lua scripts on a Redis or a Redis Cluster: many calls in one pipeline, and what they wrote on as many replicas as
the operator wants before anybody is told.

A script is sent by its hash; a server that does not know it is told.
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
    """How many replicas must have a write before it is answered, and how long they are waited for."""

    wanted: int = 0
    timeout_s: float = 1.0


NO_REPLICAS = Replicas()

ITEMS_MARK = "isrf:{items}:ping"


def lua_script(name: str) -> str:
    """The text of `lua/<name>.lua`."""
    return files(__package__).joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")


def mark_key(bucket: int) -> str:
    """A bucket's mark: a key that is written by probes and before replicas are waited for; nobody reads it."""
    return f"isrf:{{b{bucket}}}:ping"


class Scripts:
    """Behind one client, which may be slow."""

    def __init__(self, client: Any, replicas: Replicas) -> None:
        self._client, self._replicas = client, replicas
        self._hashes: dict[str, str] = {}

    async def run(self, script: str, calls: Sequence[ScriptCall]) -> list[Any]:
        """The answer or the exception of every call; they are sent together."""
        if not calls:
            return []
        if script not in self._hashes:
            # Not SCRIPT LOAD: of a cluster it asks every server, also one that is gone.
            self._hashes[script] = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        pipe = self._client.pipeline(transaction=False)
        for num_keys, arguments in calls:
            # Spelled out: redis-py keeps a cluster's pipeline from the method, not from the command.
            pipe.execute_command("EVALSHA", self._hashes[script], num_keys, *arguments)
        answers: list[Any] = await pipe.execute(raise_on_error=False)
        for at, answer in enumerate(answers):
            if isinstance(answer, NoScriptError):
                num_keys, arguments = calls[at]
                try:
                    answers[at] = await self._client.eval(script, num_keys, *arguments)
                except FAILURES as error:
                    answers[at] = error
        return answers

    async def run_one(self, script: str, call: ScriptCall) -> Any:
        """The answer; raises the exception."""
        (answer,) = await self.run(script, [call])
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def confirm(self, marks: Sequence[str]) -> dict[str, Exception]:
        """Waits until everything that was written beside these marks so far is on the replicas; by mark why it is not.

        A write of its own goes before it: a server waits for what this very connection wrote last.
        """
        if not self._replicas.wanted or not marks:
            return {}
        failed: dict[str, Exception] = {}
        for together in self._by_master(marks):
            pipe = self._client.pipeline(transaction=False)
            pipe.execute_command("SET", together[0], "1", "EX", 60)
            timeout_ms = max(1, round(self._replicas.timeout_s * 1000))
            pipe.execute_command("WAIT", self._replicas.wanted, timeout_ms, **self._on_master_of(together[0]))
            try:
                _, reached = await pipe.execute()
                if reached >= self._replicas.wanted:
                    continue
                error: Exception = NotReplicatedError(f"on {reached} of {self._replicas.wanted} replicas")
            except FAILURES as one:
                error = one
            failed |= dict.fromkeys(together, error)
        return failed

    async def confirm_one(self, mark: str) -> None:
        """As `confirm`; raises why it is not so."""
        for error in (await self.confirm([mark])).values():
            raise error

    async def one_of_each_master(self) -> list[str]:
        """A mark of every server that takes writes."""
        if self._is_cluster:
            await self._client.initialize()
        return [together[0] for together in self._by_master([mark_key(bucket) for bucket in range(NUM_BUCKETS)])]

    def _by_master(self, marks: Sequence[str]) -> list[list[str]]:
        """Marks, those of one server together."""
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
