"""Parity: what it promises comes back bit for bit, what is beyond it is refused, and nothing else happens."""

from __future__ import annotations

import hashlib
import os
import random
import re
from itertools import combinations
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framefold.pipeline.archive import ArchiveError, galois, parity
from framefold.pipeline.archive.parity_layout import PARITY_HEADER_BYTES, ParityHeader, Plan, pack_table

TEXT = (Path(__file__).parents[3] / "docs" / "archive-parity.md").read_text(encoding="utf-8")
BLOCK = 1024


@pytest.fixture
def plan():
    return Plan(file_bytes=20 * BLOCK - 100, block_bytes=BLOCK, piece_bytes=64, data_blocks=20, parity_blocks=2)


@pytest.fixture
def file(tmp_path, plan):
    path = tmp_path / "a.fold"
    path.write_bytes(random.Random(1).randbytes(plan.file_bytes))
    parity.create(path, plan=plan)
    return path


class Blocks:
    """A file and its parity as one row of blocks: those of the file, then those of the parity."""

    def __init__(self, path: Path, plan: Plan) -> None:
        self.path, self.beside, self.plan = path, parity.path_beside(path), plan
        self.data, self.parity = path.read_bytes(), self.beside.read_bytes()
        self.out = path.with_name("healed")

    def damage(self, *ranges: tuple[int, int, int]) -> None:
        """Change all bytes of each (block, first, length); blocks from the data's number on are the parity's."""
        data, blocks = bytearray(self.data), bytearray(self.parity)
        for block, first, length in ranges:
            own = block < self.plan.data_blocks
            at = (block if own else block - self.plan.data_blocks) * self.plan.block_bytes + first
            target, start = (data, at) if own else (blocks, at + self.plan.parity_start)
            piece = target[start : start + length]
            target[start : start + length] = bytes(byte ^ 0xA5 for byte in piece)
        self.path.write_bytes(data)
        self.beside.write_bytes(blocks)

    def heal(self) -> parity.Damage:
        """Heal and compare; what is left behind is only the result."""
        try:
            damage = parity.heal(self.path, self.beside, self.out, replace=True)
            assert self.out.read_bytes() == self.data
        finally:
            self.out.unlink(missing_ok=True)
            assert sorted(self.path.parent.iterdir()) == [self.path, self.beside]
        return damage


@pytest.fixture
def blocks(file, plan):
    return Blocks(file, plan)


def whole(*numbers: int) -> list[tuple[int, int, int]]:
    return [(number, 0, BLOCK) for number in numbers]


# The field


def test_the_field_is_one():
    assert galois.multiply(2, 0x80) == 0x1D
    values = range(1, 256)
    assert all(galois.multiply(value, galois.inverse(value)) == 1 for value in values)
    assert all(galois.multiply(left, right) == galois.multiply(right, left) for left in values for right in values)
    dice = random.Random(0)
    for a, b, c in (dice.choices(range(256), k=3) for _ in range(500)):
        assert galois.multiply(a, galois.multiply(b, c)) == galois.multiply(galois.multiply(a, b), c)
        assert galois.multiply(a, b ^ c) == galois.multiply(a, b) ^ galois.multiply(a, c)
    with pytest.raises(ZeroDivisionError):
        galois.inverse(0)


def test_every_square_part_of_the_matrix_can_be_inverted():
    matrix = galois.cauchy(3, 6)
    for size in (1, 2, 3):
        for rows in combinations(range(3), size):
            for columns in combinations(range(6), size):
                part = [[matrix[row][column] for column in columns] for row in rows]
                back = galois.inverted(part)
                inner = zip(*back, strict=True)
                cells = [[_dot(row, column) for column in zip(*part, strict=True)] for row in zip(*inner, strict=True)]
                assert cells == np.eye(size, dtype=int).tolist()


def _dot(left, right) -> int:
    total = 0
    for a, b in zip(left, right, strict=True):
        total ^= galois.multiply(a, b)
    return total


def test_a_product_is_what_the_definition_says():
    dice = random.Random(3)
    blocks = [dice.randbytes(50) for _ in range(4)]
    matrix = [[dice.randrange(256) for _ in range(4)] for _ in range(2)]
    for row, made in zip(matrix, galois.product(matrix, blocks), strict=True):
        assert made.tolist() == [_dot(row, column) for column in zip(*blocks, strict=True)]


# The promise


def test_any_two_of_22_blocks_come_back_bit_for_bit(blocks):
    for pair in combinations(range(22), 2):
        blocks.damage(*whole(*pair))
        damage = blocks.heal()
        assert damage.parity_bytes == BLOCK * sum(number >= 20 for number in pair)
        assert damage.file_bytes == sum(BLOCK - 100 * (number == 19) for number in pair if number < 20), pair


def test_any_three_of_22_blocks_are_refused(blocks):
    dice = random.Random(2)
    refused = 0
    for _ in range(50):
        triple = dice.sample(range(22), 3)
        blocks.damage(*whole(*triple))
        with pytest.raises(ArchiveError, match="F029"):
            blocks.heal()
        refused += 1
    assert refused == 50


def test_damage_at_different_places_of_many_blocks_does_not_add_up(blocks):
    pieces = [(number, 64 * (number // 2), 64) for number in range(22)]
    blocks.damage(*pieces)
    assert blocks.heal().parity_bytes == 128
    blocks.damage(*pieces, (5, 0, 1))  # three in the first column
    with pytest.raises(ArchiveError, match=r"F029.*at 1 places more than any 2 of every 22 blocks of 1 KiB"):
        blocks.heal()


def test_what_the_parity_cannot_give_back_does_not_keep_the_rest_from_being_mended(blocks):
    blocks.damage(*whole(3), (4, 0, 64), (5, 0, 64), (9, 512, 64))
    out = blocks.out
    damage = parity.heal_in_part(blocks.path, blocks.beside, out)
    assert damage.ranges == ((3 * BLOCK, BLOCK + 64), (5 * BLOCK, 64), (9 * BLOCK + 512, 64))
    mended, data = out.read_bytes(), blocks.data
    wrong = {at // 64 * 64 for at in range(len(data)) if mended[at] != data[at]}
    assert wrong == {3 * BLOCK, 4 * BLOCK, 5 * BLOCK}


@pytest.mark.parametrize("left", [0, 1, 63, 64, 18 * BLOCK, 20 * BLOCK - 101])
def test_what_was_cut_off_comes_back_as_far_as_promised(blocks, left):
    os.truncate(blocks.path, left)
    if left < 18 * BLOCK:
        with pytest.raises(ArchiveError, match="F029"):
            blocks.heal()
    else:
        blocks.heal()


def test_bytes_after_the_end_are_left_out(blocks):
    blocks.path.write_bytes(blocks.data + b"more")
    assert blocks.heal().ranges == ()


def test_a_file_that_is_gone_is_refused_unless_its_parity_holds_it_all(tmp_path):
    path, out = tmp_path / "a", tmp_path / "b"
    path.write_bytes(b"twice")
    beside = parity.create(path, data_blocks=1, parity_blocks=1)
    path.unlink()
    assert parity.heal(path, beside, out).file_bytes == 5
    assert out.read_bytes() == b"twice"
    out.unlink()
    out.write_bytes(b"x" * 3000)
    beside = parity.create(out, data_blocks=3, parity_blocks=2)
    with pytest.raises(ArchiveError, match="F029"):
        parity.heal(path, beside, path)
    assert not path.exists()


def test_a_contiguous_hole_of_a_tenth_of_a_large_file_is_healed(tmp_path):
    plan = Plan(file_bytes=200_000, block_bytes=512, piece_bytes=64, data_blocks=20, parity_blocks=2)
    path = tmp_path / "a"
    data = random.Random(5).randbytes(plan.file_bytes)
    path.write_bytes(data)
    beside = parity.create(path, plan=plan)
    hole = plan.groups * 2 * 512 - 64
    assert hole / plan.file_bytes > 0.1
    for start in (0, 1, 77_777, plan.file_bytes - hole):
        path.write_bytes(data[:start] + bytes(hole) + data[start + hole :])
        parity.heal(path, beside, tmp_path / "out", replace=True)
        assert (tmp_path / "out").read_bytes() == data


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_numbers_of_blocks_keep_their_promise(tmp_path_factory, data):
    k, m = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 6))
    piece = data.draw(st.sampled_from([16, 32, 48]))
    block = piece * data.draw(st.integers(1, 4))
    size = data.draw(st.integers(1, 3 * k * block))
    plan = Plan(file_bytes=size, block_bytes=block, piece_bytes=piece, data_blocks=k, parity_blocks=m)
    path = tmp_path_factory.mktemp("p") / "a"
    content = random.Random(size).randbytes(size)
    path.write_bytes(content)
    beside = parity.create(path, plan=plan)
    wounded, blocks = bytearray(content), bytearray(beside.read_bytes())
    for group in range(plan.groups):
        for row in data.draw(st.sets(st.integers(0, k + m - 1), max_size=m)):
            target, base = (wounded, 0) if row < k else (blocks, plan.parity_start)
            at = base + plan.block_at(row if row < k else row - k, group)
            end = min(at + block, len(content) if row < k else len(blocks))
            target[at:end] = bytes(byte ^ 1 for byte in target[at:end])
    path.write_bytes(wounded)
    beside.write_bytes(blocks)
    parity.heal(path, beside, path, replace=True)
    assert path.read_bytes() == content


def test_large_blocks_are_worked_on_strip_by_strip(tmp_path):
    plan = Plan(file_bytes=3 * 2**20 + 5, block_bytes=2**20, piece_bytes=2**16, data_blocks=250, parity_blocks=2)
    assert len(list(plan.strips())) > 10
    path = tmp_path / "a"
    content = random.Random(1).randbytes(plan.file_bytes)
    path.write_bytes(content)
    beside = parity.create(path, plan=plan)
    path.write_bytes(content[: 2**20] + bytes(2**21) + content[3 * 2**20 :])
    assert parity.heal(path, beside, path, replace=True).file_bytes == 2**21
    assert path.read_bytes() == content


def test_the_usual_sizes(tmp_path):
    plan = Plan.of(9_000)
    assert (plan.block_bytes, plan.piece_bytes, plan.groups) == (512, 512, 1)
    plan = Plan.of(10 * 2**30)
    assert (plan.block_bytes, plan.piece_bytes, plan.groups) == (2**20, 4096, 512)
    assert plan.guarantee == (
        "any 2 of every 22 blocks of 1 MiB may be lost or damaged, in the archive or in the parity file"
    )
    assert plan.parity_file_bytes / plan.file_bytes < 0.103


# Damage to the parity file itself


def test_either_header_will_do(blocks):
    blocks.damage(*whole(0, 1))
    wounded = blocks.beside.read_bytes()
    for at in (0, 20, 70, 150):
        for start in (0, len(wounded) - PARITY_HEADER_BYTES):
            spoilt = bytearray(wounded)
            spoilt[start + at] ^= 1
            blocks.beside.write_bytes(spoilt)
            blocks.heal()
    spoilt[20] ^= 1
    blocks.beside.write_bytes(spoilt)
    with pytest.raises(ArchiveError, match="F029"):
        blocks.heal()


def test_each_page_of_the_table_is_taken_from_where_it_is_whole(tmp_path):
    plan = Plan(file_bytes=50_000, block_bytes=2048, piece_bytes=16, data_blocks=20, parity_blocks=2)
    path = tmp_path / "a.fold"
    path.write_bytes(random.Random(1).randbytes(plan.file_bytes))
    beside = parity.create(path, plan=plan)
    blocks = Blocks(path, plan)
    assert plan.table_bytes > 3 * 4096
    tables = (PARITY_HEADER_BYTES, plan.parity_start + plan.parity_bytes)
    spoilt = bytearray(blocks.parity)
    spoilt[tables[0] + 10] ^= 1
    spoilt[tables[1] + 4096 + 10] ^= 1
    blocks.parity = bytes(spoilt)
    blocks.damage((0, 0, 100))
    blocks.heal()
    spoilt[tables[1] + 20] ^= 1  # the first page is now damaged in both
    beside.write_bytes(spoilt)
    with pytest.raises(ArchiveError, match=r"F029.*both copies"):
        blocks.heal()


def test_a_parity_file_that_was_cut_helps_as_far_as_it_goes(blocks, plan):
    blocks.damage(*whole(7))
    os.truncate(blocks.beside, plan.parity_start + BLOCK)
    assert blocks.heal().parity_bytes == BLOCK
    os.truncate(blocks.beside, plan.parity_start + BLOCK - 1)
    with pytest.raises(ArchiveError, match="F029"):
        blocks.heal()
    os.truncate(blocks.beside, plan.parity_start - 1)
    with pytest.raises(ArchiveError, match=r"F029.*no room for its table"):
        blocks.heal()


def test_the_parity_of_another_file_is_refused(blocks):
    blocks.path.write_bytes(random.Random(9).randbytes(len(blocks.data)))
    with pytest.raises(ArchiveError, match="F029"):
        blocks.heal()


def test_every_byte_of_a_parity_file_may_be_wrong(tmp_path):
    plan = Plan(file_bytes=100, block_bytes=32, piece_bytes=16, data_blocks=2, parity_blocks=1)
    path = tmp_path / "a.fold"
    path.write_bytes(bytes(range(100)))
    parity.create(path, plan=plan)
    blocks = Blocks(path, plan)
    blocks.path.write_bytes(b"\xff" + blocks.data[1:])
    healed = 0
    for at in range(len(blocks.parity)):
        spoilt = bytearray(blocks.parity)
        spoilt[at] ^= 1 << at % 8
        blocks.beside.write_bytes(spoilt)
        try:
            blocks.heal()
            healed += 1
        except ArchiveError as error:
            assert error.code == "F029"
    assert healed == len(blocks.parity) - 16  # all but the piece of the parity block that is needed


# A stranger's parity file


def forged(plan: Plan, file_sha256: bytes = bytes(32), table: bytes = b"") -> bytes:
    return ParityHeader(plan=plan, file_sha256=file_sha256, table_sha256=hashlib.sha256(table).digest()).pack() + table


@pytest.mark.parametrize(
    ("at", "value", "size"),
    [
        (16, 0, 8),  # a file of no bytes
        (16, 2**63, 8),
        (24, 0, 4),  # blocks
        (24, 2**20 + 64, 4),
        (24, 1000, 4),  # no multiple of the pieces
        (28, 0, 4),
        (28, 8, 4),
        (28, 2**31, 4),
        (32, 0, 2),
        (32, 254, 2),  # with 2 parity blocks too many
        (34, 0, 2),
        (34, 65535, 2),
        (36, 2, 4),  # groups
        (8, 2, 2),  # version
        (12, 200, 4),
        (40, 1, 1),  # not zero
    ],
)
def test_numbers_out_of_range_are_refused(blocks, at, value, size):
    body = bytearray(blocks.parity[:128])
    body[at : at + size] = value.to_bytes(size, "little")
    blocks.beside.write_bytes(bytes(body) + hashlib.sha256(body).digest() + blocks.parity[160:])
    with pytest.raises(ArchiveError, match=r"F014|F016|F003"):
        blocks.heal()


def test_a_claim_of_petabytes_costs_nothing(tmp_path):
    path, beside = tmp_path / "a", tmp_path / "a.parity"
    path.write_bytes(b"small")
    beside.write_bytes(forged(Plan.of(2**52)) + bytes(100_000))
    with pytest.raises(ArchiveError, match=r"F029.*no room for its table"):
        parity.heal(path, beside, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == [path, beside]


def test_a_table_of_zeros_does_not_make_a_file_of_zeros(tmp_path):
    """However many bytes a true table stands for, none comes out that did not go in."""
    path, beside = tmp_path / "a", tmp_path / "a.parity"
    plan = Plan(file_bytes=2**30, block_bytes=2**20, piece_bytes=2**20, data_blocks=2, parity_blocks=2)
    table = pack_table(np.full(plan.file_pieces + plan.parity_pieces, crc32(bytes(2**20)), np.uint32))
    path.write_bytes(b"")
    beside.write_bytes(forged(plan, table=table))
    with pytest.raises(ArchiveError, match=r"F029.*1073741824 of 1073741824 bytes are lost"):
        parity.heal(path, beside, tmp_path / "out")


def test_random_bytes_behind_a_true_header_make_no_other_error(blocks):
    dice = random.Random(4)
    for _ in range(200):
        blocks.beside.write_bytes(blocks.parity[:PARITY_HEADER_BYTES] + dice.randbytes(dice.randrange(4000)))
        with pytest.raises(ArchiveError, match="F029"):
            blocks.heal()


def test_what_comes_out_has_the_promised_sha256(blocks):
    """A table that calls damage whole is found out in the end."""
    header = ParityHeader.unpack(blocks.parity[:PARITY_HEADER_BYTES])
    other = ParityHeader(plan=header.plan, file_sha256=bytes(32), table_sha256=header.table_sha256)
    blocks.beside.write_bytes(other.pack() + blocks.parity[PARITY_HEADER_BYTES:])
    with pytest.raises(ArchiveError, match=r"F029.*another SHA-256"):
        blocks.heal()


# The medium


def test_sectors_that_cannot_be_read_are_lost_like_any_others(blocks, monkeypatch):
    real, inode = os.pread, blocks.path.stat().st_ino

    def failing(fd: int, length: int, offset: int) -> bytes:
        if os.fstat(fd).st_ino == inode and offset < 3000 < offset + length:
            raise OSError(5, "made to fail")
        return real(fd, length, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", failing)
        damage = parity.heal(blocks.path, blocks.beside, blocks.out)
    assert damage.ranges == ((2944, 64),)
    assert blocks.out.read_bytes() == blocks.data


@pytest.mark.parametrize("name", ["pwrite", "fdatasync", "link", "open"])
def test_a_disk_that_fails_leaves_nothing(blocks, monkeypatch, name):
    def fail(*args: object, **_: object) -> None:
        raise OSError(28, "made to fail")

    real = os.open

    def fail_to_create(path, flags, *rest: int) -> int:
        return fail() if flags & os.O_CREAT else real(path, flags, *rest)

    monkeypatch.setattr(os, name, fail_to_create if name == "open" else fail)
    if name != "link":
        with pytest.raises(ArchiveError, match="F018"):
            parity.create(blocks.path)
    else:
        parity.heal(blocks.path, blocks.beside, blocks.out)  # there are file systems without links
        blocks.out.unlink()
    assert sorted(blocks.path.parent.iterdir()) == [blocks.path, blocks.beside]
    assert blocks.beside.read_bytes() == blocks.parity


def test_a_file_that_is_there_is_not_replaced_unasked(blocks):
    blocks.out.write_bytes(b"mine")
    with pytest.raises(ArchiveError, match="F018"):
        parity.heal(blocks.path, blocks.beside, blocks.out)
    assert blocks.out.read_bytes() == b"mine"


def test_only_files_with_bytes_are_protected(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    os.mkfifo(tmp_path / "fifo")
    for name in ("empty", "missing", "fifo", "."):
        with pytest.raises(ArchiveError, match=r"F014|F001"):
            parity.create(tmp_path / name)
        with pytest.raises(ArchiveError, match=r"F029|F001"):
            parity.heal(tmp_path / "empty", tmp_path / name, tmp_path / "out")


# The specification


def test_the_header_is_described_without_gap():
    section = TEXT.split("### Header, 160 bytes", 1)[1].split("\n#", 1)[0]
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (\w+) \|", section, re.MULTILINE)
    at = 0
    for offset, size, kind in rows:
        assert int(offset) == at
        assert not kind.startswith("u") or int(kind[1:]) == 8 * int(size)
        at += int(size)
    assert at == PARITY_HEADER_BYTES


def test_the_worked_example_is_what_gets_written(tmp_path):
    section = TEXT.split("## Worked example", 1)[1]
    dump = bytes.fromhex("".join(line[6:53] for line in section.split("```")[1].strip().splitlines()))
    path = tmp_path / "a"
    path.write_bytes(re.search(r"bytes `([^`]+)`", section)[1].encode())
    plan = Plan(file_bytes=38, block_bytes=16, piece_bytes=16, data_blocks=2, parity_blocks=1)
    assert parity.create(path, plan=plan).read_bytes() == dump
