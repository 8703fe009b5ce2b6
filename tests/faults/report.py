"""Counts what malformed inputs meet with: python -m tests.faults.report

From the root of another tree, with this one on PYTHONPATH, it counts what they meet
with there.
"""

import collections
import sys
from collections.abc import Callable, Iterator

from tests.faults import calls, commands, main_commands
from tests.faults.outcomes import KINDS, LINE, outcome

SECONDS = 20


def cases() -> Iterator[tuple[str, str, Callable[[], object], tuple[str, ...]]]:
    """Yields group, name, call and the words that its line must have."""
    for group, rows in calls.TABLE.items():
        for code, words in rows:
            yield (
                group,
                code,
                lambda code=code: calls.call(code),
                tuple(words.split("|")),
            )
    for command in commands.swept():
        if not commands.is_taken(command):
            words = commands.words_of(command)
            call = lambda command=command: commands.check(command)  # noqa: E731
            yield "single settings", str(command), call, words
    for command, words in commands.coupled():
        call = lambda command=command: commands.check(command, True)  # noqa: E731
        yield "settings together", str(command), call, tuple(words.split("|"))
    for line, words in main_commands.TABLE.items():
        call = lambda line=line: main_commands.call(line)  # noqa: E731
        yield "python -m optsde", line, call, tuple(words.split("|"))


def main() -> None:
    """Prints a table of counts; with --all, every input that met with no clear line."""
    counts: dict[str, collections.Counter] = {}
    for group, name, call, words in cases():
        found = outcome(call, words, SECONDS)
        counts.setdefault(group, collections.Counter())[found.kind] += 1
        if found.kind != LINE and "--all" in sys.argv:
            print(f"{found.kind}: {name}: {' '.join(found.text.split())[:200]}")
    head = ("tried", *KINDS)
    print(f"{'':18}" + "".join(f"{word:>12}" for word in head))
    counts["all"] = sum(counts.values(), collections.Counter())
    for group, of_group in counts.items():
        numbers = of_group.total(), *(of_group[kind] for kind in KINDS)
        print(f"{group:18}" + "".join(f"{number:12}" for number in numbers))


if __name__ == "__main__":
    main()
