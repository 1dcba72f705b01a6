"""The default encoder: TF-IDF over weighted fields, truncated SVD, half-whitened and centred. It downloads nothing.

It is fitted only on items with training interactions, which takes seconds, and gives an
`isrf.method.text.encoder.TextEncoder`. `transform` is the fast path over many texts; a test checks that both agree.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.utils.extmath import randomized_svd

from isrf.method.interest import FloatArray
from isrf.method.text.encoder import TextEncoder, TextEncoderConfig, TextFields, tokenize

FIELD_WEIGHTS = {
    "title": 1.0,
    "brand": 0.7,
    "categories": 0.1,
    "description": 0.5,
    "feature": 0.2,
    "positive": 0.5,
    "likes": 1.0,
    "core": 1.0,
}
"""Weight of a term by field, chosen by measurement (docs/lab-notebook.md). The last two fields belong to users."""

MIN_ITEMS = 2
"""A term must occur in this many items: a word of a single title relates it to nothing."""

MAX_TERMS = 60_000
WHITENING = 0.5
"""Exponent: 0 keeps the SVD's scales (department before product), 1 makes all directions equal."""

MIN_SINGULAR_VALUE = 1e-4
"""Relative to the largest; a direction below this is rounding error, which whitening would amplify."""

_POWER_ITERATIONS = 7


def fit_tfidf(items: Sequence[TextFields], *, dim: int, seed: int) -> TextEncoder:
    """Fits the encoder on these items' texts; fewer directions than `dim` leave zero columns.

    If no item has text, the encoder has no terms and every vector is 0. Only the graphs give information then.
    """
    vocabulary, idf = _fit_vocabulary(items)
    encoder = TextEncoder(
        config=TextEncoderConfig(
            kind="tfidf-linear", stands_for="tfidf-svd", agreement=1.0, field_weights=FIELD_WEIGHTS
        ),
        vocabulary={term: row for row, term in enumerate(vocabulary)},
        idf=idf,
        components=np.zeros((len(vocabulary), dim), dtype=np.float32),
        mean=np.zeros(dim, dtype=np.float32),
    )
    if not vocabulary:
        return encoder
    weighted = weigh(encoder, items)
    rank = min(dim, *weighted.shape)
    _, lengths, right = randomized_svd(weighted, rank, n_iter=_POWER_ITERATIONS, random_state=seed)
    usable = lengths > MIN_SINGULAR_VALUE * lengths.max(initial=0.0)
    scale = np.where(usable, np.where(usable, lengths, 1.0) ** -WHITENING, 0.0)
    directions = _fix_signs(right) * scale[:, None]  # (rank, V)
    encoder.components[:, :rank] = directions.T
    present = np.diff(weighted.indptr) > 0
    encoder.mean[:] = (weighted[present] @ encoder.components).mean(axis=0)
    return encoder


def transform(encoder: TextEncoder, texts: Sequence[TextFields]) -> FloatArray:
    """The same as `encoder.encode`, but fast for many texts: (B, D_t) float32."""
    weighted = weigh(encoder, texts)
    vectors = encoder.centre(np.asarray(weighted @ encoder.components, dtype=np.float32))
    vectors[np.diff(weighted.indptr) == 0] = 0.0
    return vectors


def weigh(encoder: TextEncoder, texts: Sequence[TextFields]) -> sparse.csr_array:
    """The texts' TF-IDF rows, (B, V) float32 of length 1; a row without known terms is empty."""
    total = sparse.csr_array((len(texts), len(encoder.vocabulary)), dtype=np.float32)
    if not encoder.vocabulary:
        return total
    counter = CountVectorizer(analyzer=tokenize, vocabulary=encoder.vocabulary, dtype=np.float32)
    for name, weight in encoder.config.field_weights.items():
        if weight and any(name in fields for fields in texts):
            counts = sparse.csr_array(counter.transform([fields.get(name, "") for fields in texts]))
            counts.data = (weight * (1.0 + np.log(counts.data))).astype(np.float32)
            total = total + counts
    total = sparse.csr_array(total * encoder.idf[None, :]).astype(np.float32)
    lengths = np.sqrt(np.asarray(total.multiply(total).sum(axis=1)).ravel())
    inverse = np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    return sparse.csr_array(sparse.diags_array(inverse.astype(np.float32)) @ total)


def _fit_vocabulary(items: Sequence[TextFields]) -> tuple[list[str], FloatArray]:
    """Terms in alphabetical order and their smooth IDF (V,): ln((1 + n) / (1 + df)) + 1."""
    fields = [name for name, weight in FIELD_WEIGHTS.items() if weight]
    counter = CountVectorizer(analyzer=tokenize, binary=True)
    try:
        used = counter.fit_transform([" ".join(item.get(name, "") for name in fields) for item in items])
    except ValueError:  # scikit-learn raises it for an empty vocabulary: the catalogue has no texts
        return [], np.zeros(0, dtype=np.float32)
    frequency: NDArray[np.int64] = np.asarray(used.sum(axis=0), dtype=np.int64).ravel()
    terms = counter.get_feature_names_out()
    enough = frequency >= min(MIN_ITEMS, int(frequency.max()))
    order = np.lexsort((terms[enough], -frequency[enough]))[:MAX_TERMS]
    chosen = sorted(zip(terms[enough][order].tolist(), frequency[enough][order].tolist(), strict=True))
    counts = np.array([count for _, count in chosen], dtype=np.float64)
    idf = np.log((1.0 + len(items)) / (1.0 + counts)) + 1.0
    return [term for term, _ in chosen], idf.astype(np.float32)


def _fix_signs(directions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Makes every direction's largest entry positive, because the sign of a singular vector is arbitrary."""
    largest = np.abs(np.round(directions, 10)).argmax(axis=1)
    signs = np.sign(directions[np.arange(len(directions)), largest])
    return directions * np.where(signs == 0, 1.0, signs)[:, None]
