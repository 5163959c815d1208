"""What a reader takes from a stranger's file; checked before memory is asked for."""

MAX_PAYLOAD = 256 * 2**20
"""Bytes of one chunk's payload."""
MAX_CHUNKS = 2**20
"""Chunks of one file."""
MAX_FRAMES = 65_536
"""Frames of one unit."""
MAX_PACKED = 65_536
"""Units of one pack."""
MAX_PACKETS = 65_536
"""Packets of one `pckt` chunk."""
MAX_SIDE_DATA = 8
"""Pieces of side data of one packet."""
MAX_ATTACHMENT = 2**40
"""Bytes of one attachment, in all its chunks."""
MAX_COMMITS = 2**20
"""Commits of a folder archive."""
MAX_JSON = 16 * 2**20
"""Bytes of one JSON document."""
MAX_JSON_DEPTH = 32
MAX_JSON_VALUES = 2**20
"""Commas and opening brackets of one JSON document: bounds the objects that parsing makes."""
MAX_TICK = 2**53 - 1
"""Largest integer in JSON and largest time, in ticks: what every JSON reader carries exactly."""
MAX_SIDE = 32_768
"""Pixels along one side of a picture."""
MAX_PIXELS = 2**28
"""Pixels of one picture."""
MAX_NAME = 1024
"""Characters of a source's or a codec's name."""
TAIL = 64 * 2**10
"""Bytes that opening reads from the end of the file, in one piece."""
