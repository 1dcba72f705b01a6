"""Fills the items and users without an LLM answer: copies the answer of the most similar item or user with one.

The similarity is the cosine of TF-IDF vectors of the items' texts; a user's vector is the mean over the user's items.
Where no similarity reaches `MIN_SIMILARITY`, the attribute reasoner's answer is used.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

import faiss
import numpy as np

from isrf.method.interest import FloatArray
from isrf.method.text.encoder import item_fields
from offline.stages.embed.tfidf import fit_tfidf, transform
from offline.stages.reason.corpus import Corpus
from offline.stages.reason.schemas import ItemReasoning, Origin, Step, UserReasoning

MIN_SIMILARITY = 0.4
DIM = 128
_TITLE_WORDS = 12

StepT = TypeVar("StepT", bound=Step)


class Filled(NamedTuple, Generic[StepT]):
    """One answer per row and its origin; the answer is None where neither reasoner has one."""

    answers: list[StepT | None]
    origins: list[Origin]


def item_vectors(corpus: Corpus, *, seed: int) -> FloatArray:
    """Returns TF-IDF vectors of the items, (N, DIM) float32, rows of length 1 or 0; fits on training items alone."""
    texts = [
        item_fields(title=item.title, brand=item.brand, categories=item.categories, description=item.description)
        for item in corpus.items
    ]
    fitted = [text for text, taken in zip(texts, corpus.in_training(), strict=True) if taken and text]
    if not fitted:
        return np.zeros((len(texts), DIM), dtype=np.float32)
    return transform(fit_tfidf(fitted, dim=DIM, seed=seed), texts)


def user_vectors(corpus: Corpus, vectors: FloatArray) -> FloatArray:
    """Returns the mean vectors of the users' recent items, (U, DIM) float32, rows of length 1 or 0."""
    means = np.zeros((len(corpus.histories), vectors.shape[1]), dtype=np.float32)
    for user, history in enumerate(corpus.histories):
        if len(history):
            means[user] = vectors[corpus.recent(user)].mean(axis=0)
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    return np.asarray(means / np.where(lengths > 0, lengths, 1.0), dtype=np.float32)


def fill_items(
    corpus: Corpus,
    answered: Mapping[int, ItemReasoning],
    attribute: Sequence[ItemReasoning | None],
    vectors: FloatArray,
) -> Filled[ItemReasoning]:
    """Returns every item's answer: the LLM's, else the nearest training item's, else the attribute reasoner's."""
    in_training = corpus.in_training()

    def take_over(row: int) -> ItemReasoning:
        title = " ".join(corpus.items[row].title.split()[:_TITLE_WORDS]) or "a product of the same kind"
        return answered[row].model_copy(update={"justification": f"Taken over from the most similar product: {title}."})

    return _fill(answered, attribute, vectors, take_over, sources=[row for row in sorted(answered) if in_training[row]])


def fill_users(
    answered: Mapping[int, UserReasoning], attribute: Sequence[UserReasoning | None], vectors: FloatArray
) -> Filled[UserReasoning]:
    """Returns every user's answer: the LLM's, else the nearest answered user's, else the attribute reasoner's."""
    return _fill(answered, attribute, vectors, lambda row: answered[row], sources=sorted(answered))


def _fill(
    answered: Mapping[int, StepT],
    attribute: Sequence[StepT | None],
    vectors: FloatArray,
    take_over: Callable[[int], StepT],
    *,
    sources: list[int],
) -> Filled[StepT]:
    nearest = _nearest(sources, vectors, [row for row in range(len(attribute)) if row not in answered])
    answers: list[StepT | None] = []
    origins: list[Origin] = []
    for row, attribute_answer in enumerate(attribute):
        if row in answered:
            answers.append(answered[row])
            origins.append("llm")
        elif attribute_answer is not None and row in nearest:
            answers.append(take_over(nearest[row]))
            origins.append("distilled")
        else:
            answers.append(attribute_answer)
            origins.append("attribute")
    return Filled(answers, origins)


def _nearest(sources: list[int], vectors: FloatArray, rows: list[int]) -> dict[int, int]:
    """Returns the most similar source of every row that has one similar enough; ties go to the lower row."""
    rows = [row for row in rows if vectors[row].any()]
    sources = [row for row in sources if vectors[row].any()]
    if not sources or not rows:
        return {}
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors[sources]))
    similarity, found = index.search(np.ascontiguousarray(vectors[rows]), 1)
    return {
        row: sources[int(source)]
        for row, source, cosine in zip(rows, found[:, 0], similarity[:, 0], strict=True)
        if cosine >= MIN_SIMILARITY
    }
