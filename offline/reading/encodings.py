"""Recognises the encoding and the line ends of a text file. It knows nothing of columns."""

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from isrf.contract.errors import DataError
from isrf.contract.shown import shown
from offline.reading.files import open_bytes

BLOCK_BYTES = 1 << 23
MAX_LINE_BYTES = 1 << 25
"""A longer line is none: the file is of another kind, or its line ends are lost."""
_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_UNDEFINED = bytes((0x81, 0x8D, 0x8F, 0x90, 0x9D))
"""Bytes that cp1252 has no character for."""


class Encoding(NamedTuple):
    """How a file's bytes are text.

    Attributes:
        codec: Python's name.
        mark: length of the byte order mark, bytes.
        example: where the encoding was recognised without a mark and is not UTF-8: the first byte that shows it.
        cr_only: whether lines end at a lone carriage return.
    """

    codec: str
    mark: int = 0
    example: str = ""
    cr_only: bool = False

    @property
    def is_bytewise(self) -> bool:
        """Whether a line feed is one byte, and no other character holds that byte."""
        return not codecs.lookup(self.codec).name.startswith(("utf-16", "utf-32"))

    def describe(self) -> str:
        """For people: `UTF-8`, `cp1252 (line 8: byte 0xe9 is "é")`."""
        name = self.codec.upper() if self.codec.startswith("utf") else self.codec
        return f"{name} ({self.example})" if self.example else name


def recognise_encoding(path: Path, setting: str = "auto") -> Encoding:
    """The encoding of a file.

    A file that is not UTF-8 and holds no character of several bytes in UTF-8 is in cp1252. One that holds both is in
    UTF-8 with damaged lines.

    Args:
        path: a text file, also packed with gzip.
        setting: `auto`, or the name of an encoding.

    Raises:
        DataError: `data.unreadable_file`; `data.line_too_long`.
    """
    with open_bytes(path) as file:
        start = file.read(BLOCK_BYTES)
    mark, codec = next(((mark, codec) for mark, codec in _MARKS.items() if start.startswith(mark)), (b"", ""))
    if setting != "auto":
        fits = codecs.lookup(setting).name in (codec, codec.removesuffix("-le"), codec.removesuffix("-be"))
        found = Encoding(codec or setting, len(mark)) if fits else Encoding(setting)
    elif codec and codec != "utf-8":
        found = Encoding(codec, len(mark))
    else:
        found = _utf8_or_cp1252(path)._replace(mark=len(mark))
    head = start[len(mark) :].decode(found.codec, errors="ignore")
    return found._replace(cr_only="\r" in head.rstrip("\r") and "\n" not in head)


def _utf8_or_cp1252(path: Path) -> Encoding:
    number = 1
    example = ""
    for block in _blocks(path, Encoding("utf-8")):
        if not block.isascii():
            valid = block.decode("utf-8", errors="ignore")
            if not valid.isascii():
                return Encoding("utf-8")
            if block.translate(None, _UNDEFINED) != block:
                return Encoding("utf-8")
            if not example:
                example = _first_byte(block, number)
        number += block.count(b"\n")
    return Encoding("cp1252", example=example) if example else Encoding("utf-8")


def _first_byte(block: bytes, number: int) -> str:
    place = next(place for place, byte in enumerate(block) if byte > 0x7F)
    line = number + block.count(b"\n", 0, place)
    return f"line {line}: byte 0x{block[place]:02x} is {shown(block[place : place + 1].decode('cp1252'))}"


def text_blocks(path: Path, encoding: Encoding, *, block_bytes: int = BLOCK_BYTES) -> Iterator[str | bytes]:
    """Whole lines, many at once, that end with a line feed except perhaps the last.

    Yields:
        The text; or bytes, where a block is not valid in an encoding whose line feed is one byte.

    Raises:
        DataError: `data.unreadable_file`, `data.line_too_long`, `data.not_decodable`.
    """
    if encoding.is_bytewise:
        for block in _blocks(path, encoding, block_bytes):
            try:
                yield block.decode(encoding.codec)
            except UnicodeDecodeError:
                yield block
        return
    decoder = codecs.getincrementaldecoder(encoding.codec)()
    rest = ""
    with open_bytes(path) as file:
        file.read(encoding.mark)
        try:
            while chunk := file.read(block_bytes):
                text = decoder.decode(chunk)
                text = rest + (text.replace("\r", "\n") if encoding.cr_only else text)
                end = text.rfind("\n") + 1
                rest = text[end:]
                _check_length(path, len(rest))
                if end:
                    yield text[:end]
            rest += decoder.decode(b"", final=True)
        except UnicodeError as error:  # not always a `UnicodeDecodeError`: a missing byte order mark is none
            reason = str(error)
            if isinstance(error, UnicodeDecodeError):
                reason = f"{error.reason} at byte {error.start + 1} of a block"
            raise DataError(
                "data.not_decodable",
                f"{path} is not {encoding.codec}: {reason}.",
                fix="Save the file as UTF-8, or name its encoding with --set ingest.encoding=NAME.",
            ) from error
    if rest:
        yield rest


def _blocks(path: Path, encoding: Encoding, block_bytes: int = BLOCK_BYTES) -> Iterator[bytes]:
    rest = b""
    with open_bytes(path) as file:
        file.read(encoding.mark)
        for chunk in _chunks(file, block_bytes):
            block = rest + (chunk.replace(b"\r", b"\n") if encoding.cr_only else chunk)
            end = block.rfind(b"\n") + 1
            rest = block[end:]
            if end:
                yield block[:end]
            _check_length(path, len(rest))
    if rest:
        yield rest


def _chunks(file: IO[bytes], block_bytes: int) -> Iterator[bytes]:
    while chunk := file.read(block_bytes):
        yield chunk


def _check_length(path: Path, length: int) -> None:
    if length > MAX_LINE_BYTES:
        raise DataError(
            "data.line_too_long",
            f"{path} has a line of more than {MAX_LINE_BYTES >> 20} MiB.",
            fix="Export it as CSV or JSON Lines, with a line end after each row.",
        )
