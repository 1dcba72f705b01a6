"""What MkDocs does for the site beside its own work (`hooks` in mkdocs.yml).

A link from a page to a file outside of docs/ works where the repository is read. The site does not hold that file:
there the link becomes its text. A page with a diagram loads Mermaid from the site itself.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.utils import get_relative_url

ROOT = Path(__file__).parents[2]
MERMAID = "assets/mermaid.tiny.js"
_DIAGRAM = re.compile(r'<pre class="mermaid">.*?</pre>', re.DOTALL)
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(((?:\.\./)+[^)#\s]*)(?:#[^)\s]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Links to the repository's other files become text; one to a file that is missing stays, and fails the build."""
    folder = Path(page.file.abs_src_path).parent

    def text_of(match: re.Match[str]) -> str:
        target = (folder / match[2]).resolve()
        outside = target.is_relative_to(ROOT) and not target.is_relative_to(ROOT / "docs")
        return match[1] if outside and target.exists() else match[0]

    return _LINK.sub(text_of, markdown)


def on_post_page(output: str, *, page: Any, **_: Any) -> str:
    """Adds Mermaid to a page with a diagram, and a frame that lets a wide diagram scroll on a phone.

    Material looks for a global `mermaid` before it loads one from elsewhere.
    """
    if '<pre class="mermaid">' not in output:
        return output
    script = f'<script src="{get_relative_url(MERMAID, page.url)}"></script>'
    framed = _DIAGRAM.sub(lambda diagram: f'<div class="diagram">{diagram[0]}</div>', output)
    return framed.replace("</head>", f"{script}</head>", 1)
