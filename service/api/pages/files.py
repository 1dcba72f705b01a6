"""Serves the files of HTML pages, with a content policy that only allows calls to this service."""

from collections.abc import Awaitable, Callable, Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePath

from fastapi import APIRouter, Request, Response

from service.api.conditional import content_tag, has_already, tag_headers

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_PAGE = "index.html"


def page_headers(*, images: str = "'self'") -> dict[str, str]:
    """Returns headers that forbid inline scripts and styles, other origins, and frames around the page."""
    return {
        "Content-Security-Policy": f"default-src 'none'; script-src 'self'; style-src 'self'; img-src {images}; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
    }


def add_page(router: APIRouter, path: str, folder: str, headers: dict[str, str]) -> None:
    """Adds the files of a folder beside this module: `index.html` at the path itself, the others below it.

    A folder in it is the JavaScript client, which both pages use.
    """
    for name, content, media_type in _files(files(__package__).joinpath(folder)):
        file_path = path if name == _PAGE else f"{path}/{name}"
        router.add_api_route(file_path, _answer(content, media_type, headers), include_in_schema=False)


def _files(folder: Traversable, below: str = "") -> Iterator[tuple[str, bytes, str]]:
    for file in folder.iterdir():
        media_type = _TYPES.get(PurePath(file.name).suffix)
        if file.is_dir():
            yield from _files(file, f"{file.name}/")
        elif media_type is not None:
            yield below + file.name, file.read_bytes(), media_type


def _answer(content: bytes, media_type: str, headers: dict[str, str]) -> Callable[[Request], Awaitable[Response]]:
    tag = content_tag(content)
    tagged = {**headers, **tag_headers(tag)}

    async def answer(request: Request) -> Response:
        if has_already(request, tag):
            # With the page's own policy: a browser takes the headers of 304 for the file that it has.
            return Response(status_code=304, headers=tagged)
        return Response(content, headers=tagged, media_type=media_type)

    return answer
