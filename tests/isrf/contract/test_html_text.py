"""Texts as people read them: markup goes, what only looks like it stays."""

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isrf.contract.html_text import clean_text
from tests.slowness import slowness


@pytest.mark.parametrize(
    "text",
    [
        "A cup of tea", "a < b", "5 > 3", "<3", "I <3 you", "a<b", "10<20 and 30>20", "if x<y then z>w", "AT&T", "R&D",
        "M&M's", "press <Ctrl> + <Alt>", "<USB-C> cable", "Size <Large>", "x <b and c> d", "?a=1&copy=2", "a -> b",
        "<-", "<<<", "&", "&;", "", "100% & more", "<>", "a </ b", "mail <ann@example.com>", "日本 <3", "5' 6\"",
    ],
)  # fmt: skip
def test_what_is_no_markup_stays(text: str) -> None:
    assert clean_text(text) == text


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("<p>Hello<br>World</p>", "Hello World"),
        ("<ul><li>oak</li><li>tin</li></ul>", "oak tin"),
        ("<TABLE><TR><TD>a</TD><TD>b</TD></TR></TABLE>", "a b"),
        ("<b>Bold", "Bold"),
        ("</div>Rest", "Rest"),
        ("H<sub>2</sub>O and w<wbr>ord", "H2O and word"),
        ("a<hr/>b<br />c", "a b c"),
        ('<a href="http://x.y/?a=1&b=2" title="more">Cup</a>', "Cup"),
        ("<img alt='a > b' src=x>Cup", "Cup"),
        ('<div\nclass="x"\n>Cup</div\n>', "Cup"),
        ("<SCRIPT>if (a < b) alert('<b>x</b>')</SCRIPT >Cup", "Cup"),
        ("Cup<style type='text/css'>p { color: red }</style>", "Cup"),
        ("<script>never closed", ""),
        ("<!-- a <b>comment</b> -->Cup<!-- cut", "Cup"),
        ("<!DOCTYPE html><?xml version='1.0'?>Cup", "Cup"),
        ("<![CDATA[<p>Cups &amp; pots</p>]]>", "Cups & pots"),
        ("<o:p></o:p><my-card>Cup</my-card>", "Cup"),
        ("<name>Cup</name>", "Cup"),
        ('Cup of <a href="http://cut-o', "Cup of"),
        ("Cup <br", "Cup"),
        ("Cup &amp; pot", "Cup & pot"),
        ("Cup &amp;amp; pot &amp;#38;amp; pan", "Cup & pot & pan"),
        ("&lt;p&gt;Cup&lt;/p&gt;", "Cup"),
        ("&amp;lt;p&amp;gt;Cup&amp;lt;/p&amp;gt;", "Cup"),
        ("1 &lt; 2 &gt; 0", "1 < 2 > 0"),
        ("a&nbsp;b&nbsp c&#160;d&#xA0;e\u00a0f", "a b c d e f"),
        ("Fu&szlig;ball f&uuml;r &#8364;5 &copy 2020", "Fußball für €5 © 2020"),
        ("Fuß&shy;ball \u200bx\ufeff", "Fußball x"),
        ("<\u00adp>Cup</\u200bp> &\u00adamp; pot", "Cup & pot"),
        ("  two\n\tlines\r\n and \x00more\x1b[31m ", "two lines and more [31m"),
        ("&#7;&#0;", "\ufffd"),
        ("&unknown; &lt", "&unknown; <"),
    ],
)
def test_markup_goes(text: str, read: str) -> None:
    assert clean_text(text) == read


PIECES = st.sampled_from(
    ["<", ">", "&", "&amp;", "lt;", "&#38;", "<b>", "</p>", "<p", " ", "a", "<!--", "-->", "<![CDATA[", "]]>", '"', "'",
     "=", "<script>", "</script>", "&nbsp;", "&#60;", "b>", "/", "x", "\n", "\u00ad", "\u200b"]
)  # fmt: skip


@given(st.one_of(st.lists(PIECES, max_size=30).map("".join), st.text(max_size=60)))
def test_a_clean_text_stays_as_it_is(text: str) -> None:
    once = clean_text(text)
    assert clean_text(once) == once


@pytest.mark.parametrize(
    "piece",
    ["<a", '<a "', "<!--", "<!", "&", "</", "<script>", "<a b='", "<", "<![CDATA[", "<?", "&#", "&a", "<a\t", "&amp;",
     "<zz>", "<a\"'", "&l&#116;;", "<a>", "<x y", "<b ='", "<!a"],
)  # fmt: skip
def test_hostile_texts_take_no_longer_than_their_length(piece: str) -> None:
    """Eight times as much takes about eight times as long; what is allowed beyond is for a busy machine."""
    times = []
    for size in (1 << 14, 1 << 17):
        started = time.process_time()
        clean_text(piece * (size // len(piece)))
        times.append(time.process_time() - started)
    assert times[1] < 24 * times[0] + 0.2 * slowness()


BEGINS = ["", "<", "</", "<!", "<?", "<a ", "<a b='", '<a b="x', "<x:", "<script", "<![CDATA[", "&", "&#"]
MIDDLES = ["a", "a-", "x:", "1", " ", "\t", "=", "a=", "'", '"', "/", "]", "&", "<", "-"]
ENDS = ["", "<", ">", "/", ";", "=", "]]>"]


@pytest.mark.slow
def test_one_long_piece_of_markup_takes_no_longer_than_many() -> None:
    """A name of 32,000 letters without an end took half a minute, in which the service answered nobody."""
    for begin, middle, end in itertools.product(BEGINS, MIDDLES, ENDS):
        started = time.process_time()
        clean_text(begin + middle * ((1 << 15) // len(middle)) + end)
        assert time.process_time() - started < 0.5 * slowness(), (begin, middle, end)
