"""Shows that a byte costs the parser the same in boxes of 10 pairs and in one of 10,000.

Run it as `python tests/benchmarks/parser.py`. Both streams have the same bytes in total, and each is
fed whole, in pieces of 64 KiB and byte by byte. The rounds are interleaved, so that what else the
machine does falls on all of them; the table has the medians.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from statistics import median

from amp_asyncio import AmpBox, BoxParser

FEW, MANY = 10, 10_000
ROUNDS = 15
# How many boxes of MANY pairs are in a stream.
BOXES = 4


def stream(pairs: int) -> bytes:
    """Return MANY pairs in boxes of `pairs` each, `BOXES` times over; the length is always the same."""
    boxes = []
    for start in range(0, MANY, pairs):
        box = AmpBox({b"key-%05d" % n: b"some value" for n in range(start, start + pairs)})
        boxes.append(box.serialize())
    # More boxes have more ends: the last value makes up for those that are missing.
    ends = 2 * (MANY // FEW - len(boxes))
    if ends:
        box[b"key-%05d" % (start + pairs - 1)] += bytes(ends)
        boxes[-1] = box.serialize()
    return b"".join(boxes) * BOXES


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def parsed(data: Sequence[bytes]) -> tuple[float, int]:
    """Return the seconds that it took to parse, and the pairs that there were."""
    parser = BoxParser()
    pairs = 0
    start = time.perf_counter()
    for piece in data:
        parser.feed(piece)
        while (box := parser.next_box()) is not None:
            pairs += len(box)
    return time.perf_counter() - start, pairs


def main() -> None:
    streams = {pairs: stream(pairs) for pairs in (FEW, MANY)}
    size = len(streams[FEW])
    assert len(streams[MANY]) == size
    cuts = {"whole": size, "64 KiB": 65_536, "1 byte": 1}
    cases = {
        (cut, pairs): pieces(data, length)
        for cut, length in cuts.items()
        for pairs, data in streams.items()
    }
    times: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
    for _ in range(ROUNDS):
        for case, data in cases.items():
            seconds, pairs = parsed(data)
            assert pairs == MANY * BOXES
            times[case].append(seconds / size * 1e9)

    print(f"Python {sys.version.split()[0]}, {size:,} bytes, {ROUNDS} rounds; ns per byte (median)")
    print(f"{'fed':>8} {f'{FEW} pairs':>12} {f'{MANY:,} pairs':>14} {'ratio':>8}")
    for cut in cuts:
        few, many = (median(times[cut, pairs]) for pairs in (FEW, MANY))
        print(f"{cut:>8} {few:>12.2f} {many:>14.2f} {many / few:>8.2f}")


if __name__ == "__main__":
    main()
