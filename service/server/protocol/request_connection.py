"""What a request's scope is told of its connection, among the extensions."""

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

CALLER_CONNECTION = "isrf.caller_connection"
"""Where it has the caller's connection (`service.inference.deadline.CallerConnection`)."""
CALLER = "isrf.caller"
"""Where it has who its head says that its caller is (`service.server.load_shedding.CallerAtWire`)."""
CONNECTION = "isrf.connection"
"""Where it has its `RequestConnection`."""


class RequestConnection:
    """How far one request's body has come, and its answer gone."""

    __slots__ = ("_cycle", "_flow")

    def __init__(self, flow: FlowControl, cycle: RequestResponseCycle) -> None:
        self._flow, self._cycle = flow, cycle

    def body_is_there(self) -> bool:
        """Whether the whole body has come."""
        return not self._cycle.more_body

    async def answer_was_read(self) -> None:
        """Returns when most of what was written has been read, or nobody is left to read it."""
        if self._flow.write_paused:
            await self._flow.drain()
