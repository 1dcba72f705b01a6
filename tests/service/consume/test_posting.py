"""Which addresses and keys can be those of a service."""

import pytest

from isrf.contract.errors import ConfigError
from service.consume.posting import Poster


@pytest.mark.parametrize(
    "url",
    [
        "",
        "shop",
        "ftp://shop",
        "http://",
        "http://a:abc",
        "http://a:70000",
        "http://[::1",
        "http://a/b c",
        "http://a/é",
    ],
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Poster(url, None)
    assert refused.value.code == "config.consume_url"
    assert repr(url) in str(refused.value)


def test_a_key_that_no_header_holds_is_refused_unshown() -> None:
    for key in ("isrf_é", "isrf\n_a", "isrf_a b"):
        with pytest.raises(ConfigError) as refused:
            Poster("http://[::1]:8000/isrf", key)
        assert refused.value.code == "config.consume_key"
        assert "isrf" not in str(refused.value)
    Poster("http://[::1]:8000/isrf", "isrf_a")
