"""The decoding part of a release, from the configuration."""

from isrf.contract.manifest import Decoding
from offline.config import RunConfig


def decoding_of(config: RunConfig) -> Decoding:
    """How a release made with this configuration searches and how far back it reads."""
    return Decoding(
        num_beams=config.search.num_beams,
        num_dense=config.search.num_dense,
        history_length=config.model.history_length,
        interest_length=config.model.interest_length,
    )
