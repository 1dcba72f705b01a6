"""The encoder `hf:<name or directory>`: a model from the Hugging Face hub or a local directory.

Documented models: `hf:sentence-transformers/all-MiniLM-L6-v2` and `hf:hkuds/easyrec-roberta-large`. Pooling is always
the mean over a text's tokens, so that a release does not depend on which packages are installed.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from isrf.contract.errors import ConfigError
from isrf.method.interest import FloatArray

MAX_TOKENS = 256


class HuggingFaceEncoder:
    """Embeds texts with a transformer model, on the GPU where there is one."""

    def __init__(self, name_or_dir: str) -> None:
        """Loads the model; raises `ConfigError` (`config.encoder`) where that fails."""
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(name_or_dir)
            self._model = AutoModel.from_pretrained(name_or_dir).eval()
        except (OSError, ValueError) as error:
            raise ConfigError(
                "config.encoder",
                f"the text encoder {name_or_dir!r} cannot be loaded: {str(error).splitlines()[0]}",
                fix="Name a model of the hub, or a directory made by save_pretrained.",
            ) from error
        self._name_or_dir = name_or_dir
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model.to(self._device)
        limit = getattr(self._model.config, "max_position_embeddings", MAX_TOKENS)
        self._max_tokens = min(MAX_TOKENS, limit - 2)  # RoBERTa's positions start after the padding's position
        self.name = f"hf:{name_or_dir}:{_fingerprint(name_or_dir)}"

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> FloatArray:
        """The texts' vectors, (B, W) float32: the mean of the last layer over a text's tokens."""
        batch = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=self._max_tokens, return_tensors="pt"
        ).to(self._device)
        hidden = self._model(**batch).last_hidden_state.float()  # (B, S, W)
        mask = batch["attention_mask"].unsqueeze(-1).float()  # (B, S, 1)
        mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1.0)
        return np.asarray(mean.cpu().numpy(), dtype=np.float32)

    def __reduce__(self) -> tuple[type["HuggingFaceEncoder"], tuple[str]]:
        return HuggingFaceEncoder, (self._name_or_dir,)

    def close(self) -> None:
        """Frees the model."""
        del self._model


def _fingerprint(name_or_dir: str) -> str:
    """A hash of a local directory's weights, because retrained weights are another encoder; "hub" for a hub name."""
    folder = Path(name_or_dir)
    if not folder.is_dir():
        return "hub"
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")) + sorted(folder.glob("*.bin")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
