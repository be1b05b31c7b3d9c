"""The one kind of error that the command line shows as a message instead of a traceback."""

from __future__ import annotations


class Failure(Exception):
    """Something outside the program is not as it must be; the message says what, and how to put it right.

    * settings.InvalidSettings    a setting does not parse: correct it
    * stack.supervisor.StackError a part does not start, keeps dying or is unknown: read its log
    * stack.flink.FlinkMissing    Flink is not installed: `make setup`
    * stack.port.NoFreePort       every port is taken: free some
    * stack.record.StackRecordError  a stack runs already, or none does: `cordon down`, `cordon up`
    """
