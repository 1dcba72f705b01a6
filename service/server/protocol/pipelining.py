"""Limits pipelined requests: where enough of them wait, it stops reading from the connection until later."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_PIPELINED = 16
"""Requests of a connection that may wait for the one before them."""
PIECE_BYTES = 8 * 1024
"""Bytes that are parsed at a time; a limit may be exceeded by this much before it is noticed."""


class PipelinedProtocol(HttpToolsProtocol):
    """uvicorn's protocol; it reads in pieces, and stops where enough requests wait."""

    _unread = b""
    """Bytes that wait to be parsed, because too many requests wait."""

    def read_piece(self, piece: bytes) -> None:
        super().data_received(piece)

    def is_over(self) -> bool:
        """Whether the connection reads no more."""
        return self.parser is None or self.transport.is_closing()

    def data_received(self, data: bytes) -> None:
        if self._unread:
            self._unread += data
            self.flow.pause_reading()
        else:
            self._read(data)

    def _read(self, data: bytes) -> None:
        for start in range(0, len(data), PIECE_BYTES):
            if len(self.pipeline) >= MAX_PIPELINED:
                self._unread = data[start:]
                self.flow.pause_reading()
                return
            self.read_piece(data if len(data) <= PIECE_BYTES else data[start : start + PIECE_BYTES])
            if self.is_over():
                return

    def next_has_begun(self) -> None:
        """To be called when the next waiting request starts."""
        if self.pipeline or self._unread:
            self.flow.pause_reading()
        self.read_on()

    def read_on(self) -> None:
        """Parses waiting bytes in the loop's next turn."""
        if self._unread:
            self.loop.call_soon(self._read_unread)

    def _read_unread(self) -> None:
        if self.parser is None or self.transport.is_closing() or len(self.pipeline) >= MAX_PIPELINED:
            return
        unread, self._unread = self._unread, b""
        self._read(unread)
        if not self._unread and self.parser is not None and not self.transport.is_closing():
            self.flow.resume_reading()
