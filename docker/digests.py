"""Updates the digests of the images in docker-compose.yml and the Dockerfiles: `make digests`; needs docker buildx.

python docker/digests.py            rewrites every name:tag@sha256:… in place
python docker/digests.py --check    writes nothing; exits with 1 if a tag has another digest now
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILES = (ROOT / "docker-compose.yml", *sorted((ROOT / "docker").glob("*.Dockerfile")))
PINNED = re.compile(r"(?P<tag>[a-z0-9][a-z0-9./-]*:[\w.-]+)@(?P<digest>sha256:[0-9a-f]{64})")


def digest_of(tag: str) -> str:
    """Returns the digest of the tag's index, which lists the images of all platforms."""
    command = ["docker", "buildx", "imagetools", "inspect", tag, "--format", "{{.Manifest.Digest}}"]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", found):
        sys.exit(f"{tag}: the registry answered {found[:80]!r}, which is not a digest.")
    return found


def main() -> int:
    moved = False
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        for tag, digest in set(PINNED.findall(text)):
            current = digest_of(tag)
            if current != digest:
                moved = True
                print(f"{path.name}: {tag} was {digest}, is now {current}")
                text = text.replace(f"{tag}@{digest}", f"{tag}@{current}")
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
    return int(moved and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
