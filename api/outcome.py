"""What a decision can be, in order of severity."""

from enum import IntEnum


class Outcome(IntEnum):
    """`CHALLENGE` is step-up authentication, for example 3-D Secure."""

    APPROVE = 0
    CHALLENGE = 1
    REVIEW = 2
    DECLINE = 3

    @property
    def word(self) -> str:
        """The name on the wire."""
        return _WORDS[self]


_WORDS = {outcome: outcome.name.lower() for outcome in Outcome}
BY_WORD = {outcome.name.lower(): outcome for outcome in Outcome}
