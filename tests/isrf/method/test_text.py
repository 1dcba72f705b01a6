"""The torch-free text encoder: equal to scikit-learn's path, at home in any script, honest about empty texts."""

import time
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from isrf.contract.errors import BundleError
from isrf.method.text.encoder import (
    ARRAY_FILES,
    TextEncoder,
    TextEncoderConfig,
    check_text_encoder,
    item_fields,
    tokenize,
)
from tests.slowness import slowness

TITLES = [
    "Gentle salicylic acid face wash", "Salicylic acid acne wash wash wash", "Waterproof black mascara",
    "Black volume mascara, waterproof", "Argan oil shampoo", "Volume shampoo with argan oil", "Gentle face cream",
]  # fmt: skip


def encoder_of(vectorizer: TfidfVectorizer, svd: TruncatedSVD, mean: np.ndarray) -> TextEncoder:
    return TextEncoder(
        config=TextEncoderConfig(kind="tfidf-linear", stands_for="test", agreement=1.0, field_weights={"title": 1.0}),
        vocabulary={str(term): int(row) for term, row in vectorizer.vocabulary_.items()},
        idf=vectorizer.idf_.astype(np.float32),
        components=svd.components_.T.astype(np.float32),
        mean=mean.astype(np.float32),
    )


def test_equal_to_scikit_learns_tfidf_svd_path() -> None:
    vectorizer = TfidfVectorizer(analyzer=tokenize, sublinear_tf=True).fit(TITLES)
    svd = TruncatedSVD(4, random_state=0).fit(vectorizer.transform(TITLES))
    mean = svd.transform(vectorizer.transform(TITLES)).mean(axis=0)
    unseen = ["Waterproof gentle wash", "shampoo shampoo", "mascara"]
    expected = svd.transform(vectorizer.transform([*TITLES, *unseen])) - mean
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    encoded = encoder_of(vectorizer, svd, mean).encode([{"title": title} for title in [*TITLES, *unseen]])
    assert encoded.dtype == np.float32
    np.testing.assert_allclose(encoded, expected, atol=1e-5)


def small(field_weights: dict[str, float]) -> TextEncoder:
    """Two terms, two dimensions, nothing to subtract: the vector is the direction of the weighted counts."""
    return TextEncoder(
        config=TextEncoderConfig(kind="tfidf-linear", stands_for="test", agreement=1.0, field_weights=field_weights),
        vocabulary={"oil": 0, "wash": 1},
        idf=np.array([1.0, 2.0], dtype=np.float32),
        components=np.eye(2, dtype=np.float32),
        mean=np.zeros(2, dtype=np.float32),
    )


def test_fields_add_up_by_weight() -> None:
    encoded = small({"title": 1.0, "brand": 0.5}).encode([{"title": "oil oil", "brand": "Wash"}])
    by_hand = np.array([1 + np.log(2), 0.5 * 2.0])  # (1 + ln tf) · weight · idf
    np.testing.assert_allclose(encoded[0], by_hand / np.linalg.norm(by_hand), atol=1e-6)


def test_text_without_a_known_term_is_a_zero_row() -> None:
    encoder = small({"title": 1.0})
    texts = [{}, {"title": ""}, {"title": "unknown words"}, {"brand": "oil"}, {"title": "oil"}]
    assert encoder.encode(texts).any(axis=1).tolist() == [False, False, False, False, True]
    assert encoder.encode([]).shape == (0, 2)


@given(st.text(max_size=60))
def test_any_text_has_a_vector_of_length_one_or_zero(text: str) -> None:
    length = float(np.linalg.norm(small({"title": 1.0}).encode([{"title": text}])))
    assert length == pytest.approx(1.0, abs=1e-6) or length == 0.0
    assert all(token and not token.isspace() for token in tokenize(text))


def test_tokens_fold_case_and_width_and_split_scripts_without_spaces() -> None:
    assert tokenize("Crème-Öl  ＷＡＳＨ a 5x") == ["crème", "öl", "wash", "5x"]
    assert tokenize("日本語のNail") == ["日本", "本語", "語の", "nail"]
    assert tokenize("Маска для лица") == ["маска", "для", "лица"]


def test_item_fields_leave_out_what_is_missing() -> None:
    fields = item_fields(title="T", brand=None, categories=["A", "B"], description="")
    assert fields == {"title": "T", "categories": "A | B"}


def test_parts_that_do_not_fit_are_a_bundle_error() -> None:
    encoder = small({"title": 1.0})
    arrays = dict(zip(ARRAY_FILES, (encoder.idf, encoder.components, encoder.mean), strict=True))
    config = encoder.config.model_dump()
    again = check_text_encoder(config, ["oil", "wash"], arrays)
    np.testing.assert_array_equal(again.encode([{"title": "oil"}]), encoder.encode([{"title": "oil"}]))
    for vocabulary, changed in (
        (["oil"], {}),
        ({"oil": 0, "wash": 1}, {}),
        (["oil", "wash"], {"mean.npy": np.zeros(3, dtype=np.float32)}),
        (["oil", "wash"], {"idf.npy": np.ones(2)}),
    ):
        with pytest.raises(BundleError) as error:
            check_text_encoder(config, vocabulary, arrays | changed)
        assert error.value.code == "bundle.array_mismatch"


def test_letters_under_many_marks_take_no_longer_than_their_length() -> None:
    """16,000 pairs of marks in the wrong order took three seconds: they are sorted one by one."""
    for marks in ("\u0300\u0316", "\u0316\u0300", "\u0344\u0316", "\u05b4\u05b0\u0591"):
        started = time.process_time()
        words = tokenize("Caf" + "e" + marks * 16_000 + " pot")
        assert time.process_time() - started < 0.5 * slowness(), marks
        assert words[-1] == "pot"


def test_marks_of_any_language_are_read_as_before() -> None:
    for text in ("cafe\u0301", "Việt Nam", "שָׁלוֹם", "हिन्दी", "กำลัง", "ﷺ ½ ™", "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘!͖̬̰̙̗̿̋ͥͥ̂ͣ̐́́͜͞", "日本" * 40):
        normal = unicodedata.normalize("NFKC", text).casefold()
        assert tokenize(text) == tokenize(normal)
        assert "".join(tokenize("e\u0301" * 100)) == "\u00e9" * 100
