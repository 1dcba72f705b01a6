"""The counts of answers, shown items and clicks in the embedded store; the process holds the marks in memory."""

from collections.abc import Mapping, Sequence

from service.state.sqlite.database import Database, OnDatabase

MOST_MARKS = 100_000


class EmbeddedCounters(OnDatabase):
    """The `Counters` of the embedded store."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._marks: dict[str, None] = {}

    async def first(self, marks: Sequence[str], _ttl_s: int) -> list[bool]:
        known = [mark in self._marks for mark in marks]
        self._marks |= dict.fromkeys(marks)
        while len(self._marks) > MOST_MARKS:
            del self._marks[next(iter(self._marks))]
        return [not is_known for is_known in known]

    async def count(self, counts: Mapping[str, int]) -> None:
        rows = list(counts.items())
        query = (
            "INSERT INTO counts (name, value) VALUES (?, ?) "
            "ON CONFLICT (name) DO UPDATE SET value = value + excluded.value"
        )
        await self.database.write(lambda db: db.executemany(query, rows) and None)

    async def counts(self) -> dict[str, int]:
        return await self.database.read_behind(lambda db: dict(db.execute("SELECT name, value FROM counts")))
