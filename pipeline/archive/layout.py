"""What lies where in the folder form of an archive: names below its root, the same in a folder and in a store."""

from __future__ import annotations

import re

SHARDS, COMMITS, OPEN = "data/shards/", "data/commits/", "open/"
README = "data/README.txt"
SHA256 = re.compile("[0-9a-f]{64}")
OPEN_SUFFIX, TEMPORARY_SUFFIX, PROBE = ".fold.open", ".tmp", "probe-"

README_TEXT = b"""\
This folder is a framefold archive: pictures and video, stored as small fitted networks.

shards/   The data. Each file is called by the SHA-256 of its bytes, so this checks all of them (it prints nothing
          if every shard is whole):
              cd shards; for f in *.fold; do echo "${f%.fold}  $f"; done | sha256sum --check --quiet
commits/  Which shards count. The commit with the highest number lists all of them; each names the SHA-256 of the
          commit before it.

Nothing here is ever changed; new data comes as new shards and a new commit. A damaged shard that the newest commit does
not list, or lists as retired, was replaced by a repaired one: no harm is done. Files in a folder `open` beside this one
are being written: no data yet, and no part of the archive.

The format is specified in docs/archive-format.md of framefold; a sealed archive carries it in spec/, with a
reader in plain Python. To look inside: pipeline info FOLDER, pipeline ls FOLDER, pipeline verify FOLDER.
"""


def shard_name(sha256: str) -> str:
    """Name of a shard, by the SHA-256 of its bytes in lower-case hex."""
    return f"{SHARDS}{sha256}.fold"


def shard_of(name: str) -> str | None:
    """The SHA-256 in a shard's name; None if it is no shard's."""
    sha256 = name.removeprefix(SHARDS).removesuffix(".fold")
    return sha256 if SHA256.fullmatch(sha256) and shard_name(sha256) == name else None


def commit_name(number: int) -> str:
    """Name of commit `number`, from 1: eight digits at least."""
    return f"{COMMITS}{number:08d}.json"


def commit_number(name: str) -> int | None:
    """The number in a commit's name; None if it is no commit's."""
    digits = name.removeprefix(COMMITS).removesuffix(".json")
    is_number = digits.isascii() and digits.isdigit() and len(digits) == 8
    return int(digits) if is_number and commit_name(int(digits)) == name else None
