"""Makes the manifest's decoding section from the configuration."""

from isrf.contract.manifest import Decoding
from offline.config import RunConfig


def decoding_of(config: RunConfig) -> Decoding:
    """Beam counts and history lengths of a release that is made with this configuration."""
    return Decoding(
        num_beams=config.search.num_beams,
        num_dense=config.search.num_dense,
        history_length=config.model.history_length,
        interest_length=config.model.interest_length,
    )
