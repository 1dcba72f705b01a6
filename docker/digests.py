"""Writes the digest of every image that compose or a Dockerfile names: `make digests`, with docker buildx.

python docker/digests.py            name:tag@sha256:… anew, in place
python docker/digests.py --check    1 if a tag has moved since, and nothing is written
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = (ROOT / "docker-compose.yml", *sorted((ROOT / "docker").glob("*.Dockerfile")))
PINNED = re.compile(r"(?P<tag>[a-z0-9./-]+:[\w.-]+)@(?P<digest>sha256:[0-9a-f]{64})")


def digest_of(tag: str) -> str:
    """The digest of the tag's index, which names the image of every platform."""
    command = ["docker", "buildx", "imagetools", "inspect", tag, "--format", "{{.Manifest.Digest}}"]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", found):
        sys.exit(f"{tag}: the registry answered {found[:80]!r}, which is no digest.")
    return found


def main() -> int:
    moved = False
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        for tag, digest in set(PINNED.findall(text)):
            now = digest_of(tag)
            if now != digest:
                moved = True
                print(f"{path.name}: {tag} was {digest}, is {now}")
                text = text.replace(f"{tag}@{digest}", f"{tag}@{now}")
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
    return int(moved and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
