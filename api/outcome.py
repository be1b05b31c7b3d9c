"""What a decision can be, in order of severity."""

from enum import IntEnum


class Outcome(IntEnum):
    """`CHALLENGE` is step-up authentication, for example 3-D Secure. `word`: the name on the wire."""

    word: str

    APPROVE = 0
    CHALLENGE = 1
    REVIEW = 2
    DECLINE = 3


# Plain attributes: an enumeration hashes its members by name, in Python.
for _outcome in Outcome:
    _outcome.word = _outcome.name.lower()
BY_WORD = {outcome.word: outcome for outcome in Outcome}
