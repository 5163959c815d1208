"""From weights to bytes: framefold's quantisation and coding beside NNCodec, zstd -19, Huffman and float16.

    python benchmarks/weights.py [--only sizes speed excess targets] [--quick] [--json FILE]

`sizes`: networks fitted here, bytes of a whole stream and PSNR of the frames decoded from it, for each way; and at
each point of NNCodec ours with no less PSNR. `speed`: the same integers through each system, in rounds in which each
has its turn; then from float weights. `excess`: what is taken beyond the entropy. `targets`: what was wanted of a
stream, and what it has (see `weights_targets`).

Networks are fitted for so many steps, once, and kept under out/bench-weights, as are the QPs that NNCodec's own search
has found (some minutes at first). NNCodec lives in an environment of its own under out/bench-venv, made on first use
with pip. One thread for everything; compare speeds within one run only.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from weights_networks import FRAMES, Network, Subject, bunny, picture
from weights_peers import PEERS, NNCodec
from weights_sizes import sizes
from weights_speed import excess, speed
from weights_targets import lines

Row = dict[str, Any]
Columns = Mapping[str, str]
"""Heading to format; both may name the row's fields."""

SUBJECTS = (
    Subject(
        title=f"NeRV M, {FRAMES} frames of bunny",
        codec="nerv",
        config={"size": "M"},
        steps=3600,
        draw=bunny,
        qps=(-24, -20),
        qps_dependent=(-24,),
        opt_qp=True,
    ),
    Subject(
        title=f"gridnerv S, {FRAMES} frames of bunny",
        codec="gridnerv",
        config={"size": "S"},
        steps=3600,
        draw=bunny,
        qps=(-28,),
        qps_dependent=(-32,),
        opt_qp=True,
    ),
    Subject(
        title="SIREN M, girl",
        codec="siren",
        config={"size": "M"},
        steps=4000,
        draw=picture("girl.png"),
        qps=(-44,),
        qps_dependent=(-48,),
    ),
    Subject(
        title="COIN 5x30, caps",
        codec="coin",
        config={"preset": "5x30"},
        steps=4000,
        draw=picture("caps.png"),
        qps=(-44,),
        qps_dependent=(-48,),
    ),
)


# What is shown.

WAYS: Columns = {
    "way": "{what}",
    "bytes": "{bytes:,}",
    "bits per weight": "{bits_per_weight:.2f}",
    "PSNR dB": "{psnr_db:.2f}",
    "below 8 bits, zstd": "{below_zstd}",
    "in our coder": "{below}",
    "CPU s": "{cpu}",
}
BESIDE: Columns = {
    "NNCodec": "{what}",
    "bytes": "{bytes:,}",
    "PSNR dB": "{psnr_db:.3f}",
    "ours, uniform": "{uniform_bytes:,}",
    "PSNR dB ": "{uniform_db:.3f}",
    "of NNCodec's": "{uniform_ratio:.3f}",
    "ours, trellis": "{trellis_bytes:,}",
    "PSNR dB  ": "{trellis_db:.3f}",
    "of NNCodec's ": "{trellis_ratio:.3f}",
}
SPEED: Columns = {
    "system": "{system}",
    "bytes": "{bytes:,}",
    "encode Msymbols/s": "{encode_ms_s:.3f}",
    "times NNCodec's": "{encode_ratio:.2f}",
    "decode Msymbols/s": "{decode_ms_s:.3f}",
    "times NNCodec's ": "{decode_ratio:.2f}",
}
MANY: Columns = {
    "symbols": "{input}",
    "empirical entropy, bytes": "{ideal:,.0f}",
    "system": "{system}",
    "bytes": "{bytes:,}",
    "over": "{over:,.0f}",
    "%": "{percent:.3f}",
}
TARGETS: Columns = {
    "input": "{name}",
    "target": "{target}",
    "reached": "{told}",
    "deviation": "{deviation}",
    "weights": "{weights:,}",
    "bytes": "{bytes:,}",
    "PSNR dB": "{psnr_db:.2f}",
    "tries": "{tries}",
    "fit s": "{fit_seconds:.1f}",
    "seek s": "{seek_seconds:.1f}",
    "": "{verdict}",
}


def table(columns: Columns, rows: Sequence[Row]) -> str:
    """Markdown."""
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    lines += [f"| {' | '.join(text.format(**row) for text in columns.values())} |" for row in rows]
    return "\n".join(lines) + "\n"


def show_sizes(rows: Sequence[Row], networks: Sequence[Network]) -> Iterator[str]:
    """Two tables for each network."""
    for network in networks:
        own = [row for row in rows if row["network"] == network.subject.title]
        about = f"{network.weights:,} weights, {network.steps} steps, {network.before_db:.2f} dB in float32"
        yield f"### {network.subject.title}: {about}\n"
        yield table(WAYS, [row | _share(row) for row in own if row["part"] == "ways"])
        yield "NNCodec's points, and ours with no less PSNR:\n"
        yield table(BESIDE, [row for row in own if row["part"] == "nncodec"])
    yield from _verdicts(rows)


def _share(row: Row) -> Row:
    return {
        **{name: f"{100 * row[name]:.1f} %" if name in row else "" for name in ("below", "below_zstd")},
        "cpu": f"{row['cpu_s']:.1f}" if "cpu_s" in row else "",
    }


def _verdicts(rows: Sequence[Row]) -> Iterator[str]:
    """The largest of our shares of NNCodec's bytes, uniform beside uniform and trellis beside dependent."""
    for dependent, ours in ((False, "uniform"), (True, "trellis")):
        for settings in ("defaults", "tuned"):
            those = [row for row in rows if row.get("dependent") == dependent and row["settings"] == settings]
            worst = max(those, key=lambda row: row[f"{ours}_ratio"])
            ratio = worst[f"{ours}_ratio"]
            yield f"- {ours}: at most {ratio:.3f} of NNCodec's bytes ({worst['network']}, {worst['what']})"
    yield ""


def show_speed(rows: Sequence[Row], _networks: Sequence[Network]) -> Iterator[str]:
    """A table for each input."""
    for title in dict.fromkeys(row["input"] for row in rows):
        own = [row for row in rows if row["input"] == title]
        what = "the same integers" if own[0]["part"] == "integers" else "float weights quantised and coded"
        yield f"### {title}: {own[0]['symbols']:,} symbols, {what}\n"
        yield table(SPEED, own)


def show_excess(rows: Sequence[Row], _networks: Sequence[Network]) -> Iterator[str]:
    """Many symbols, then few."""
    many = [row | {"percent": 100 * row["over"] / row["ideal"]} for row in rows if row["part"] == "many"]
    few = [row for row in rows if row["part"] == "few"]
    yield "### Independent symbols: a million, everything in the stream counted\n"
    yield table(MANY, many)
    draws = few[0]["draws"]
    yield f"### Few symbols: bytes over the ideal code of their distribution, mean and worst of {draws} draws\n"
    columns = {what: f"{{{what}}}" for what in few[0]["mean"]}
    shown = [
        {"count": row["count"], **{what: f"{row['mean'][what]:.2f}, {row['worst'][what]:.2f}" for what in columns}}
        for row in few
    ]
    yield table({"symbols": "{count}", **columns}, shown)


def targets(*, quick: bool) -> list[Row]:
    """All rows of this part."""
    return [
        asdict(line)
        | {"target": str(line.target), "told": line.target.told(line.reached)}
        | {"deviation": line.deviation, "verdict": line.verdict}
        for line in lines(quick=quick)
    ]


def show_targets(rows: Sequence[Row], _networks: Sequence[Network]) -> Iterator[str]:
    """One table."""
    yield "### What was wanted of a stream, and what it has\n"
    yield table(TARGETS, rows)


Measured = Callable[[Sequence[Network], NNCodec, bool], list[Row]]
Shown = Callable[[Sequence[Row], Sequence[Network]], Iterator[str]]
PARTS: dict[str, tuple[Measured, Shown]] = {
    "sizes": (lambda networks, peer, quick: sizes(networks, peer, quick=quick), show_sizes),
    "speed": (lambda networks, peer, quick: speed(networks, peer, quick=quick), show_speed),
    "excess": (lambda _networks, peer, quick: excess(peer, quick=quick), show_excess),
    "targets": (lambda _networks, _peer, quick: targets(quick=quick), show_targets),
}


def main() -> None:
    """Print the tables; `--json` also writes one line per row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), help="parts to run")
    parser.add_argument("--quick", action="store_true", help="less of everything: to try the script, not to quote")
    parser.add_argument("--json", type=Path, help="append the rows here")
    args = parser.parse_args()
    torch.set_num_threads(1)
    stamp = datetime.now(UTC).isoformat(timespec="minutes")
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before"
    versions = f"torch {torch.__version__}, zstandard {importlib.metadata.version('zstandard')}, {', '.join(PEERS)}"
    print(f"`python {' '.join(sys.argv)}`, {stamp}, {machine}. {versions}.\n", flush=True)
    networks = [subject.fitted(quick=args.quick) for subject in SUBJECTS]
    with NNCodec() as peer:
        for part in args.only:
            measure, show = PARTS[part]
            rows = measure(networks, peer, args.quick)
            print(*show(rows, networks), sep="\n", flush=True)
            if args.json:
                with args.json.open("a") as file:
                    file.writelines(json.dumps({"at": stamp, "table": part, **row}) + "\n" for row in rows)


if __name__ == "__main__":
    main()
