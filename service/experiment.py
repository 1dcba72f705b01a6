"""Two releases side by side: which users a second one answers.

`ISRF_EXPERIMENT=release_b:10%` answers a tenth of the users from `release_b`. A user's place is a hash of the release's
name and their id: the same on every replica and after every restart; with a larger share those who had it keep it.
"""

import hashlib
import re
from typing import NamedTuple

_FORM = re.compile(r"(?P<release>[A-Za-z0-9_-][A-Za-z0-9._-]{0,79}):(?P<percent>\d{1,3}(\.\d+)?)%")
_PLACES = 1 << 64


class Experiment(NamedTuple):
    release_id: str
    share: float  # of the users, above 0 and at most 1

    def holds(self, user_id: str) -> bool:
        """Whether this user is answered from the experiment's release."""
        text = f"{self.release_id}\n{user_id}".encode("utf-8", "surrogatepass")
        place = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())
        return place < self.share * _PLACES


def read_experiment(text: str) -> Experiment:
    """`<release_id>:<percent>%`; raises `ValueError`."""
    found = _FORM.fullmatch(text.strip())
    share = float(found["percent"]) / 100 if found else 0.0
    if found is None or not 0 < share <= 1:
        raise ValueError(f"{text[:100]!r} is no experiment; write release_id:10%, above 0% and at most 100%")
    return Experiment(found["release"], share)
