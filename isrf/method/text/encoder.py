"""Turns a text into a semantic vector without torch or scikit-learn: TF-IDF over weighted fields and one linear map.

value of term t = Σ over fields (weight · (1 + ln tf)) · idf. The row is scaled to length 1, mapped by `components`, the
mean of the fitted items is subtracted, and the result is scaled to length 1 again. The service encodes new items with
it; `offline.stages.embed.tfidf` fits it and has a fast path over many texts. Arrays in, arrays out; no files.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from isrf.contract.errors import BundleError
from isrf.method.interest import FloatArray

TextFields = Mapping[str, str]
"""Text by field name; a field without text may be absent."""

CONFIG_FILE = "config.json"
VOCABULARY_FILE = "vocabulary.json"
ARRAY_FILES = ("idf.npy", "components.npy", "mean.npy")

UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\u0e00-\u0e7f"  # kana, Han, Thai: no spaces between words
_TOKEN = re.compile(rf"[{UNSPACED}]+|[^\W{UNSPACED}]{{2,}}")
_UNSPACED_RUN = re.compile(rf"[{UNSPACED}]+")
MOST_MARKS = 30
"""Most accents and other marks on one letter, as in Unicode's stream-safe form (UAX 15, section 13)."""
_MAY_BE_MARKS = re.compile(f"[^\x00-\u02ff]{{{MOST_MARKS + 1},}}")

ROUNDING = 1e-4
"""Relative to the mean's length: a text nearer to the mean than this differs by rounding only (identical items)."""


class TextEncoderConfig(BaseModel):
    """`text_encoder/config.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["tfidf-linear"]
    stands_for: str  # the encoder that made the release's vectors
    agreement: Annotated[
        float, Field(ge=-1, le=1)
    ]  # mean cosine with that encoder on items left out of the fit; 1: it is that encoder
    field_weights: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class TextEncoder:
    """The fitted encoder: V terms, D_t dimensions."""

    config: TextEncoderConfig
    vocabulary: dict[str, int]  # term → row
    idf: FloatArray  # (V,)
    components: FloatArray  # (V, D_t)
    mean: FloatArray  # (D_t,)

    def encode(self, texts: Sequence[TextFields]) -> FloatArray:
        """The texts' vectors, (B, D_t) float32, rows of length 1; a zero row for a text without a known term."""
        vectors = np.zeros((len(texts), len(self.mean)), dtype=np.float32)
        for row, fields in enumerate(texts):
            terms, values = self._weigh(fields)
            if len(terms):
                vectors[row] = self.centre((values @ self.components[terms])[None])[0]
        return vectors

    def centre(self, mapped: FloatArray) -> FloatArray:
        """Mapped texts (B, D_t) minus the mean, at length 1; a text equal to the mean, but for rounding, is 0."""
        vectors = mapped - self.mean
        lengths = np.sqrt(np.sum(np.square(vectors), axis=1, keepdims=True))
        distinct = lengths > ROUNDING * np.sqrt(np.sum(np.square(self.mean)))
        return np.where(distinct, vectors / np.where(distinct, lengths, 1.0), 0.0).astype(np.float32)

    def _weigh(self, fields: TextFields) -> tuple[NDArray[np.int64], FloatArray]:
        weights: Counter[int] = Counter()
        for name, weight in self.config.field_weights.items():
            for term, count in Counter(tokenize(fields.get(name, ""))).items():
                row = self.vocabulary.get(term)
                if row is not None:
                    weights[row] += weight * (1.0 + math.log(count))  # type: ignore[assignment]
        terms = np.array(sorted(weights), dtype=np.int64)
        values = np.array([weights[term] for term in terms.tolist()], dtype=np.float32) * self.idf[terms]
        length = float(np.linalg.norm(values))
        return terms, (values / length if length > 0 else values).astype(np.float32)


def tokenize(text: str) -> list[str]:
    """The text's terms: words of at least two letters, case and width folded; character pairs in unspaced scripts."""
    tokens: list[str] = []
    for run in _TOKEN.findall(unicodedata.normalize("NFKC", _MAY_BE_MARKS.sub(_few_marks, text)).casefold()):
        if _UNSPACED_RUN.fullmatch(run):
            tokens += [run[i : i + 2] for i in range(max(len(run) - 1, 1))]
        else:
            tokens.append(run)
    return tokens


def _few_marks(run: re.Match[str]) -> str:
    """The run with at most `MOST_MARKS` marks per letter: normalisation takes time quadratic in their number."""
    characters: list[str] = []
    marks = 0
    for character in run[0]:
        marks = marks + 1 if unicodedata.combining(character) else 0
        if marks <= MOST_MARKS:
            characters.append(character)
    return "".join(characters)


def item_fields(
    *,
    title: str | None,
    brand: str | None,
    categories: Sequence[str] | None,
    description: str | None,
    feature: str | None = None,
    positive: str | None = None,
) -> dict[str, str]:
    """An item's text by field, for a catalogue row offline and for a new item in the service."""
    fields = {
        "title": title,
        "brand": brand,
        "categories": " | ".join(categories or ()),
        "description": description,
        "feature": feature,
        "positive": positive,
    }
    return {name: text for name, text in fields.items() if text}


def check_text_encoder(config: Mapping[str, Any], vocabulary: Any, arrays: Mapping[str, NDArray[Any]]) -> TextEncoder:
    """The encoder from the files of `text_encoder/`; raises `BundleError` where they do not fit together."""
    parsed = TextEncoderConfig.model_validate(config)
    idf, components, mean = (arrays[name] for name in ARRAY_FILES)
    num_terms = len(vocabulary) if isinstance(vocabulary, list) else -1
    sound = (
        all(array.dtype == np.float32 for array in (idf, components, mean))
        and idf.shape == (num_terms,)
        and components.shape == (num_terms, *mean.shape)
        and mean.ndim == 1
    )
    if not sound:
        raise BundleError(
            "bundle.array_mismatch",
            f"text_encoder/: {num_terms} terms, idf {idf.shape}, components {components.shape}, mean {mean.shape}.",
            fix="Publish the release again; its parts come from different runs.",
        )
    rows = {str(term): row for row, term in enumerate(vocabulary)}
    return TextEncoder(config=parsed, vocabulary=rows, idf=idf, components=components, mean=mean)
