"""Globs, compared with their definition on every short pattern and name."""

from __future__ import annotations

from itertools import product

from guard.policy.globs import fits, overlap


def words(letters: str, longest: int) -> list[str]:
    return ["".join(word) for length in range(longest + 1) for word in product(letters, repeat=length)]


def covers(pattern: str, name: str) -> bool:
    """The definition, letter by letter: `*` is nothing, or one character and `*` again."""
    if not pattern:
        return not name
    if pattern[0] == "*":
        return covers(pattern[1:], name) or (name != "" and covers(pattern, name[1:]))
    return name != "" and pattern[0] in ("?", name[0]) and covers(pattern[1:], name[1:])


def test_a_glob_fits_what_its_definition_says() -> None:
    """Every pattern of up to five characters and every name of up to five agree with the definition."""
    names = words("ab", 5)
    for pattern in [*words("ab*?", 5), "*ab*ab*", "*a?*b?*", "*?b*a*a", "a*ab*ab*b"]:
        for name in [*names, "abab", "abbabb", "aababb"]:
            assert fits(pattern, name) == covers(pattern, name), (pattern, name)


def test_two_globs_overlap_where_one_name_fits_both() -> None:
    """Every two patterns of up to three characters overlap exactly where some name fits both."""
    names, patterns = words("ab", 6), words("ab*?", 3)
    fitting = {pattern: {name for name in names if covers(pattern, name)} for pattern in patterns}
    for one, other in product(patterns, repeat=2):
        assert overlap(one, other) == bool(fitting[one] & fitting[other]), (one, other)
