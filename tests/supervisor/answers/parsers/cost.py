"""The cost of each family's parser, in CPU time beside that of plain text.

    python -m tests.supervisor.answers.parsers.cost

Prints µs a piece of four characters, for an answer of prose and for the arguments of one call, and
the time for 100 KB and 200 KB of arguments.
"""

import time

from gpufc.protocol import FinishReason
from supervisor.answers.parser import NewParser, PlainText
from supervisor.answers.parsers import FAMILIES, parser_for
from tests.supervisor.answers.parsers.test_long_arguments import LINE, SCHEMAS, pieces_of, text_of

PROSE = "the quick brown fox jumps over a lazy dog and then <b>it</b> [sleeps] {a: 1}, \n" * 1000
ROUNDS = 7


def seconds(new_parser: NewParser, pieces: list[str]) -> float:
    """CPU time for all pieces, the best of several rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        parser = new_parser()
        started = time.thread_time()
        for piece in pieces:
            parser.feed(piece)
        parser.end(FinishReason.STOP)
        best = min(best, time.thread_time() - started)
    return best


def main() -> None:
    prose = pieces_of(PROSE)
    plain = seconds(PlainText, prose) / len(prose)
    print(f"plain text: {plain * 1e6:.2f} µs a piece")
    print("| family | prose | arguments | 100 KB | 200 KB |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for family in FAMILIES:
        new_parser = parser_for(None, tools=True, override=family.name, schemas=SCHEMAS)
        in_prose = seconds(new_parser, prose) / len(prose) - plain
        sizes = [pieces_of(text_of(family, LINE * (n // len(LINE)))) for n in (100_000, 200_000)]
        first, second = (seconds(new_parser, pieces) for pieces in sizes)
        in_arguments = first / len(sizes[0]) - plain
        print(
            f"| {family.name} | +{in_prose * 1e6:.1f} µs | +{in_arguments * 1e6:.1f} µs "
            f"| {first * 1e3:.0f} ms | {second * 1e3:.0f} ms |"
        )


if __name__ == "__main__":
    main()
