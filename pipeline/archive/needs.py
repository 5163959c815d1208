"""What a codec's bytes need beside them: attachments, named by their SHA-256 in the codec's own document.

Units may build on bytes that many of them share. The container does not know what those are: it keeps them in each file
that has such units, and can say which units are lost without them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from framefold.pipeline.archive.documents import Document, pack_document
from framefold.pipeline.archive.errors import ArchiveError, Code

FIELD = "needs"
"""Of the object `config` in a codec's document."""
MAX_NEEDS = 16

_SHA256 = re.compile("[0-9a-f]{64}")


def parted(config: Document) -> tuple[Document, tuple[str, ...]]:
    """A stored configuration as the codec's own options, and the SHA-256 of what its units need.

    What stands under the name and is no list of such is an option of the codec's.
    """
    needs = config.get(FIELD)
    if not isinstance(needs, list) or not 1 <= len(needs) <= MAX_NEEDS or not all(map(_is_sha256, needs)):
        return config, ()
    return {name: value for name, value in config.items() if name != FIELD}, tuple(needs)


def codec_document(name: str, config: Document, needs: Sequence[str]) -> bytes:
    """The JSON of a codec's document; F016 if its options have the field in which needs are named."""
    if parted(config)[1] or (needs and FIELD in config):
        raise ArchiveError(Code.RECORD, f"codec {name!r:.80} has an option {FIELD!r}; choose another name for it")
    if len(needs) > MAX_NEEDS:
        raise ArchiveError(Code.LIMIT, f"codec {name!r:.80} needs {len(needs)} attachments; {MAX_NEEDS} are allowed")
    return pack_document({"name": name, "config": {**config, FIELD: list(needs)} if needs else config})


def _is_sha256(text: object) -> bool:
    return isinstance(text, str) and _SHA256.fullmatch(text) is not None
