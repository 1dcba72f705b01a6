"""The objects of a connection that the protocol puts into the extensions of a request's scope."""

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

CALLER_CONNECTION = "isrf.caller_connection"
"""Key of the caller's connection (`service.inference.deadline.CallerConnection`)."""
CALLER = "isrf.caller"
"""Key of the caller by the head (`service.server.load_shedding.CallerAtWire`)."""
CONNECTION = "isrf.connection"
"""Key of the `RequestConnection`."""


class RequestConnection:
    """Tells how far a request's body has arrived and its answer has been read."""

    __slots__ = ("_cycle", "_flow")

    def __init__(self, flow: FlowControl, cycle: RequestResponseCycle) -> None:
        self._flow, self._cycle = flow, cycle

    def body_is_there(self) -> bool:
        """Whether the whole body has arrived."""
        return not self._cycle.more_body

    async def answer_was_read(self) -> None:
        """Waits until the caller has read most of the answer or has disconnected."""
        if self._flow.write_paused:
            await self._flow.drain()
