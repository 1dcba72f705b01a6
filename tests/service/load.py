"""Shoppers who ask without pause, each over connections of their own, and what they were answered."""

import threading
from typing import Any

import httpx

from tests.service.servers import PATIENCE_S, wait_until


class Load:
    """Clients that read until told to stop; what went wrong is kept, nothing is tried again."""

    def __init__(self, url: str, user_ids: list[str], session: list[str], *, clients: int = 4) -> None:
        self.answers: list[tuple[str, list[str]]] = []  # release_id, item_ids
        self.wrong: list[str] = []
        self._url, self._users, self._session = url, user_ids, session
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._read, args=(number,)) for number in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def await_answers(self, release_id: str, count: int) -> None:
        """Until `count` more answers came from a release."""
        before = len(self.answers)

        def came() -> bool:
            return sum(found == release_id for found, _ in self.answers[before:]) >= count

        wait_until(came, what=f"answers from {release_id}; {self.wrong[:3]}", alive=lambda: not self.wrong)

    def _read(self, number: int) -> None:
        with httpx.Client(base_url=self._url, timeout=PATIENCE_S) as http:
            k = number
            while not self._stop.is_set():
                k += 1
                try:
                    answer = self._ask(http, k)
                    if answer.status_code != 200:
                        self.wrong.append(answer.text)
                    else:
                        self._keep(answer.json())
                except httpx.TransportError as error:
                    self.wrong.append(repr(error))

    def _ask(self, http: httpx.Client, k: int) -> httpx.Response:
        user_id = self._users[k % len(self._users)]
        match k % 5:
            case 0:
                return http.get("/popular?n=3")
            case 1:
                return http.post("/recommend", json={"history": self._session, "n": 5, "explain": True})
            case 2:
                return http.get(f"/users/{user_id}")
            case _:
                return http.get(f"/recommend/{user_id}?explain=true")

    def _keep(self, body: dict[str, Any]) -> None:
        items = [item["item_id"] for item in body.get("items", [])]
        reasons = [reason for item in body.get("items", []) for reason in item.get("reasons") or []]
        items += [item for reason in reasons for item in reason.get("items") or []]
        self.answers.append((body["meta"]["release_id"], items or body.get("history", [])))
