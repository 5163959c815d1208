"""Reads framefold archives (.fold) with Python's standard library alone; written from archive-format.md alone."""

import argparse
import hashlib
import json
import re
import struct
import sys
import zlib
from collections import namedtuple
from pathlib import Path

MAX_PAYLOAD, MAX_CHUNKS, MAX_ATTACHMENT, MAX_PIXELS, MAX_ITEMS = 2**28, 2**20, 2**40, 2**28, 65536
MAX_JSON, MAX_COMMAS, MAX_DEPTH, MOST = 2**24, 2**20, 32, {int: 2**53 - 1, float: sys.float_info.max}
KNOWN = b"Srce", b"Cdec", b"Unit", b"Tabl", b"Pack", b"qual", b"pckt", b"atch", b"copy", b"Mani", b"Indx"
Entry = namedtuple("Entry", "offset size stream t0 duration items kind first_item codec sha256")
FIELDS = {  # of JSON objects, and what they must be
    b"Srce": "name:path kind:kind width:uint height:uint time_base:ratio",
    b"Cdec": "name:name config:dict",
    b"Mani": "generator:name created:time",
    b"qual": "unit:name measured:dict",
    b"Tabl": "sources:dicts units:dicts",
    b"Pack": "key:hex source:uint codec:uint bytes:uint first_frame:uint pts:list duration_ticks:uint measured:dict",
    "commit": "sha256:hex number:uint version:uint created:time generator:name shards:dicts retired:dicts",
    "shard": "sha256:hex bytes:uint index_sha256:hex units:uint",
}
MUST_BE = {
    "path": lambda v: MUST_BE["name"](v) and not {"", ".", ".."} & set(v.split("/")) and not {"\\", "\0"} & set(v),
    "name": lambda v: isinstance(v, str) and 1 <= len(v) <= 1024,
    "time": lambda v: re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d([.]\d+)?(Z|[+]00:00)", str(v), re.ASCII),
    "hex": lambda v: isinstance(v, str) and re.fullmatch("[0-9a-f]{64}", v),
    "kind": lambda v: v in ("video", "image"),
    "uint": lambda v: type(v) is int and v >= 0,
    "ratio": lambda v: isinstance(v, list) and len(v) == 2 and all(type(n) is int and n >= 1 for n in v),
    "list": lambda v: isinstance(v, list) and 1 <= len(v) <= MAX_ITEMS and all(type(n) is int for n in v),
    "dict": lambda v: isinstance(v, dict),
    "dicts": lambda v: isinstance(v, list) and all(isinstance(inner, dict) for inner in v),
}


class Problem(Exception):
    """What is wrong: a code of the specification, then words."""


def need(condition, problem):
    if not condition:
        raise Problem(problem)


def read_file(path, offset=0, size=None):
    need(path.is_file() and offset + (size or 0) <= path.stat().st_size, "F021 it ends too early, or is no file")
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)


def inflate(data, least, most):
    """One zlib stream and nothing after it, in no more memory than `most` bytes."""
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(data, most + 1)
    except zlib.error as error:
        raise Problem(f"F033 the zlib stream is damaged: {error}") from None
    need(stream.eof and not stream.unused_data and least <= len(plain) <= most, "F033 a zlib stream of another length")
    return plain


def parse_json(data, what, commas=MAX_COMMAS):
    """One JSON object as the specification allows it, with the fields of what it is."""
    need(len(data) <= MAX_JSON and sum(map(data.count, (b",", b"[", b"{"))) <= commas, "F014 too much JSON")
    hooks = {"object_pairs_hook": lambda v: need(len(dict(v)) == len(v), "F015 a key is repeated") or dict(v)}
    hooks["parse_int"] = lambda text: int(text[:18])  # of an integer that is too large, the first digits tell as much
    try:
        document = json.loads(data.decode("utf-8"), **hooks)
    except (ValueError, RecursionError) as error:
        raise Problem(f"F015 this is no JSON: {error}") from None
    level = [document]
    for _ in range(MAX_DEPTH + 1):
        need(all(abs(v) <= MOST[type(v)] for v in level if type(v) in MOST), "F015 a number is too large, or none")
        inner = [v for v in level if isinstance(v, (dict, list))]
        level = [v for values in inner for v in (values.values() if isinstance(values, dict) else values)]
    need(isinstance(document, dict) and not inner, "F015 it is no object, or nested too deeply")
    return check(document, what)


def check(document, what):
    for field, kind in (pair.split(":") for pair in FIELDS[what].split()):
        need(MUST_BE[kind](document.get(field)), f"F016 {field} is not allowed")
    w, h = (document["width"], document["height"]) if what == b"Srce" else (1, 1)
    need(1 <= w <= 32768 >= h >= 1 and w * h <= MAX_PIXELS, "F014 the picture is too large, or has no size")
    need(what != b"Cdec" or len(document) == 2, "F016 it has other fields than name and config")
    return document


class Archive:
    """One file; opening it checks its own records, and each chunk is checked whenever it is read."""

    def __init__(self, path):
        self.path, self.first = path, read_file(path, 0, 64)
        magic, major, _, size, self.id, shard_id, must, _, zero, crc = struct.unpack("<8s2HI16s16s4I", self.first)
        need(magic == b"\x89FLD\r\n\x1a\n", "F002 it does not begin as an archive does")
        need(crc == zlib.crc32(self.first[:60]) and size == 64 and not zero, "F004 the file header is damaged")
        need(major == 1 and not must, "F003 this is an archive of a newer version")
        end, self.tag = path.stat().st_size, zlib.crc32(shard_id)
        last = read_file(path, max(64, end - 64), 64)
        self.end, size, count, self.digest, crc, magic = struct.unpack("<QQQ32sI4s", last)
        need(magic == b"FLCE" and crc == zlib.crc32(last[:56]), "F005 the footer is damaged or lost")
        need(count <= MAX_CHUNKS and size == 80 * count and self.end + size + 128 == end, "F007 the footer is wrong")
        index = self.payload(count, Entry(self.end, size, 0, 0, 0, 0, b"Indx", 0, 0, self.digest))
        self.entries = [Entry(*fields) for fields in struct.iter_unpack("<Q2I2qI4s2I32s", index)]
        self.known = list(self.check_entries())
        self.names = [f"{entry.kind[:1].decode().lower()}{count:06d}" for count, entry in enumerate(self.entries)]

    def check_entries(self):
        """Ranges, order and references of the index; how many sources and codecs there are before each chunk."""
        place, sources, codecs, kinds = 64, 0, 0, [entry.kind for entry in self.entries] + [b"Indx"]
        need(kinds.count(b"Mani") == 1 and kinds[-2] == b"Mani", "F007 the manifest is not the last chunk")
        for number, (kind, e) in enumerate(zip(kinds, self.entries)):
            yield sources, codecs
            after, named = kinds[number + 1], kinds[e.first_item] if e.first_item < number else b""
            for right, problem in (
                (kind.isalpha() and (kind in KNOWN or kind[:1].islower()), "F013 its type is unknown"),
                (kind != b"Indx" and (kind != b"copy" or after == b"Mani") and e.offset == place, "F007 its place"),
                ((kind == b"Tabl") == (after == b"Pack") and kinds[0] != b"Pack", "F007 a pack has no table"),
                (kind not in (b"Srce", b"Tabl") or e.stream == sources, "F007 it is out of turn"),
                (kind != b"Cdec" or e.stream == codecs, "F007 it is out of turn"),
                (e.size <= MAX_PAYLOAD and abs(e.t0) <= MOST[int] and e.duration >= 0, "F014 size, time"),
                (kind not in (b"Unit", b"Pack", b"pckt") or 1 <= e.items <= MAX_ITEMS, "F014 wrong count of items"),
                (kind not in (b"Unit", b"qual", b"pckt") or e.stream < sources, "F017 its source is not there"),
                (kind != b"Unit" or e.codec < codecs, "F017 its codec is not there"),
                (kind != b"qual" or named in (b"Unit", b"Pack"), "F017 its unit is not there"),
            ):
                need(right, f"{problem} (chunk {number})")
            place += 64 + e.size + -e.size % 8
            sources += e.items if kind == b"Tabl" else kind == b"Srce"
            codecs += kind == b"Cdec"
        need(place == self.end, "F007 the chunks do not end where the index begins")

    def payload(self, number, entry):
        """The bytes of a chunk that agrees with all its checksums and with its index entry."""
        raw = read_file(self.path, entry.offset, 64)
        sync, kind, *form, stream, tag, size, n, t0, span, items, full, crc, own = struct.unpack("<8s4s2H4I2q4I", raw)
        need(sync == b"\xf1FLC\r\n\x1a\n" and own == zlib.crc32(raw[:60]), "F008 the chunk's header is damaged")
        agreed = Entry(entry.offset, size, stream, t0, span, items, kind, *entry[7:]) == entry
        need((n, tag) == (number, self.tag) and agreed, "F009 the chunk and the index disagree")
        need(kind not in KNOWN or (*form, full) == (1, 0, size), "F003 the payload's layout is unknown")
        need(zlib.crc32(data := read_file(self.path, entry.offset + 64, size)) == crc, "F010 its CRC-32 is another")
        need(not any(read_file(self.path, entry.offset + 64 + size, -size % 8)), "F012 the padding is not zero")
        need(hashlib.sha256(raw + data).digest() == entry.sha256, "F011 the chunk does not match its SHA-256")
        return data

    def content(self, number):
        """What a chunk says, as values for JSON, and the bytes that it carries by their names."""
        entry, name, data = self.entries[number], self.names[number], self.payload(number, self.entries[number])
        if entry.kind in (b"Srce", b"Cdec", b"Mani"):
            return parse_json(data, entry.kind), {name: data}
        read = getattr(self, entry.kind.decode().lower()) if entry.kind in KNOWN else lambda *_: ({}, {name: data})
        return read(number, name, entry, data)

    def unit(self, _, name, entry, data):
        key, codec, first, ticks, count = struct.unpack_from("<32sIIQI", data.ljust(52, b"\0"))
        need(1 <= count <= MAX_ITEMS and 52 + 20 * count <= len(data), "F014 it is too short for its runs of times")
        runs = list(struct.iter_unpack("<qqI", data[52 : 52 + 20 * count]))
        need(all(run[2] for run in runs) and sum(run[2] for run in runs) <= MAX_ITEMS, "F014 wrong count of frames")
        pts = [start + step * frame for start, step, frames in runs for frame in range(frames)]
        need(max(map(abs, [*pts, ticks])) <= MOST[int], "F014 a time is out of range")
        need((min(pts), max(pts) - min(pts) + ticks, len(pts), entry.kind, first, codec) == entry[3:9], "F009 the head")
        return {"key": key.hex(), "pts": pts, "duration_ticks": ticks}, {name: data[52 + 20 * count :]}

    def tabl(self, number, name, entry, data):
        values = parse_json(inflate(data, 0, min(16 * len(data) + 4096, MAX_JSON)), b"Tabl", len(data))
        pack, (sources, codecs) = self.entries[number + 1], self.known[number + 1]
        absent = {"first_frame": 0, "pts": [0], "duration_ticks": 1}
        units = values["units"] = [{**absent, **unit} for unit in values["units"]]
        size = sum(check({"measured": {}, **unit}, b"Pack")["bytes"] for unit in units)
        counts = (len([check(source, b"Srce") for source in values["sources"]]), len(units), size)
        need(counts == (entry.items, pack.items, pack.size), "F007 table, pack and index disagree")
        need(all(unit["source"] < sources and unit["codec"] < codecs for unit in units), "F017 no such source or codec")
        return values, {name: data}

    def pack(self, number, name, _, data):
        parts, place = {}, 0
        for inner, unit in enumerate(self.content(number - 1)[0]["units"]):
            parts[f"{name}.{inner}"] = data[place : place + unit["bytes"]]
            place += unit["bytes"]
        return {}, parts

    def pckt(self, _, name, entry, data):
        key, track, part, count, size = struct.unpack_from("<32sIIII", data.ljust(48, b"\0"))
        need((count, track) == (entry.items, entry.first_item), "F009 the packets' head and the index disagree")
        columns = struct.unpack(f"<{3 * count}q{3 * count}I", inflate(data[48 : 48 + size], 36 * count, 36 * count))
        pts, dts, lasts, sizes, sides, flags = (columns[n * count : (n + 1) * count] for n in range(6))
        need(48 + size + sum(sizes) + sum(sides) == len(data), "F016 the packets do not fill the chunk")
        values = {"key": key.hex(), "part": part, "pts": pts, "dts": dts, "duration": lasts, "flags": flags}
        return {**values, "bytes": sizes, "side_bytes": sides}, {name: data[48 + size :]}

    def qual(self, _, name, entry, data):
        values, unit, own = parse_json(data, b"qual"), self.entries[entry.first_item], self.names[entry.first_item]
        found = re.fullmatch(own + ("[.](0|[1-9][0-9]{0,4})" if unit.kind == b"Pack" else "()"), values["unit"])
        need(found and int(found[1] or 0) < unit.items and (found[1] or unit.stream == entry.stream), "F009 its unit")
        return values, {name: data}

    def atch(self, _, name, entry, data):
        digest, total, start = struct.unpack_from("<32sQQ", data.ljust(48, b"\0"))
        need(len(data) >= 48 and start + len(data) - 48 <= total <= MAX_ATTACHMENT, "F014 a wrong length")
        return {"total_bytes": total, "start": start}, {digest.hex(): data[48:]}

    def copy(self, _, name, entry, data):
        chunks = [e for kinds in ((b"Srce", b"Cdec"), (b"Unit",)) for e in self.entries if e.kind in kinds]
        places = ((e.offset + 64, 32 if e.kind == b"Unit" else e.size) for e in chunks)
        plain = self.first + b"".join(read_file(self.path, *place) for place in places)
        need(inflate(data, len(plain), len(plain)) == plain, "F035 the copy differs from its chunks")
        return {}, {name: data}

    def examine(self):
        """Of each chunk name, index entry, what it says (or a Problem) and carries; at last whole attachments."""
        keys, files = set(), {}
        for number, (name, entry) in enumerate(zip(self.names, self.entries)):
            entry = entry._replace(kind=entry.kind.decode(), sha256=entry.sha256.hex())
            try:
                values, parts = self.content(number)
                for unit in {"Unit": [values], "Tabl": values.get("units")}.get(entry.kind, []):
                    need(unit["key"] not in keys, "F007 another unit has the same key")
                    keys.add(unit["key"])
                for digest, data in parts.items() if entry.kind == "atch" else ():
                    total, end, hashed = files.setdefault(digest, (values["total_bytes"], 0, hashlib.sha256()))
                    need((total, end) == (values["total_bytes"], values["start"]), "F007 pieces leave a gap or overlap")
                    files[digest] = total, end + len(data), hashed
                    hashed.update(data)
                yield name, entry, values, {part: hashlib.sha256(data).hexdigest() for part, data in parts.items()}
            except Problem as problem:
                yield name, entry, problem, {}
        for name, (total, end, hashed) in files.items():
            if (total, name) != (end, hashed.hexdigest()):
                yield name, (), Problem("F036 the attachment is not whole, or not what its name says"), {}

    def extract(self, name, raw):
        """The bytes that a name stands for; with `raw` the payload of a chunk."""
        is_file, chunk = len(name) == 64, name.split(".")[0]
        wanted = [n for n, e in enumerate(self.entries) if (e.kind == b"atch" if is_file else self.names[n] == chunk)]
        parts = [{name: self.payload(n, self.entries[n])} if raw else self.content(n)[1] for n in wanted]
        found = [part[name] for part in parts if name in part]
        need(found and (not is_file or hashlib.sha256(b"".join(found)).hexdigest() == name), "F017 there is none")
        return b"".join(found)


def examine_folder(path):
    """Follow the chain of commits from the first as far as it is whole, and examine the shards that its last lists."""
    parent, last, first = None, None, path / "data" / "commits" / "00000001.json"
    for number, file in enumerate(sorted(first.parent.glob("*.json")) or [first], 1):
        try:
            commit = parse_json(data := read_file(file), "commit")
            need((commit["version"], commit.get("requires")) == (1, []), "F003 it needs a newer reader")
            rest = {field: value for field, value in commit.items() if field != "sha256"}
            plain = json.dumps(rest, sort_keys=True, separators=(",", ":"))
            need(commit["sha256"] == hashlib.sha256(plain.encode()).hexdigest(), "F023 it is not what was written")
            said = [file.name, commit.get("format"), commit["number"], commit.get("parent")]
            need(said == [f"{number:08d}.json", "framefold-commit", number, parent], "F024 it breaks the chain")
            need(all(check(shard, "shard") for shard in commit["shards"]), "F023 it lists a wrong shard")
            parent, last = hashlib.sha256(data).hexdigest(), commit
        except Problem as problem:
            yield file.name, (), problem, {}
            need(last and str(problem)[:4] != "F003", "F024 there is no commit to read")
            break
    for shard in last["shards"]:
        try:
            file = path / "data" / "shards" / (shard["sha256"] + ".fold")
            need(file.is_file(), "F025 the shard is not there")
            data = read_file(file)
            need(hashlib.sha256(data).hexdigest() == shard["sha256"], "F026 its bytes are not those of its name")
            archive = Archive(file)
            units = sum(e.items if e.kind == b"Pack" else e.kind == b"Unit" for e in archive.entries)
            said = (last["archive_id"], shard["bytes"], shard["index_sha256"], shard["units"])
            need(said == (archive.id.hex(), len(data), archive.digest.hex(), units), "F009 commit and shard disagree")
            yield from archive.examine()
        except Problem as problem:
            yield file.name, (), problem, {}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("list", "verify", "extract", "dump"))
    parser.add_argument("path", type=Path, help="a file; to verify also a folder")
    parser.add_argument("name", nargs="?", default="", help="to extract: u000002, p000012.3 or an attachment's SHA-256")
    parser.add_argument("-o", dest="out", type=Path, help="a file to extract to; otherwise it goes to standard output")
    parser.add_argument("--raw", action="store_true", help="extract the whole payload of a chunk")
    path, failed = (asked := parser.parse_args()).path, 0
    try:
        if asked.command == "extract":
            data = Archive(path).extract(asked.name, asked.raw)
            sys.exit((asked.out.write_bytes if asked.out else sys.stdout.buffer.write)(data) * 0)
        for name, entry, values, parts in examine_folder(path) if path.is_dir() else Archive(path).examine():
            if isinstance(values, Problem):
                failed = print(values, name) or 1
            elif asked.command != "verify":
                line = json.dumps([name, entry, values, parts])
                print(line if asked.command == "dump" else " ".join(map(str, [name, *entry[:7], *parts])))
        sys.exit(failed)
    except (Problem, OSError) as problem:
        sys.exit(problem)
