"""What a person sees of a replay."""

import io

from stream.replay.progress import Bar, line


def test_a_line_says_how_far_how_fast_and_where_in_event_time():
    assert line(12_300, 50_000, 24.7, 1_704_280_800_000) == (
        "replay 12,300/50,000 transactions, 498/s, at 2024-01-03 11:20 UTC"
    )
    assert "0/s" in line(0, 5, 0.0, 0)


def test_elsewhere_than_on_a_terminal_a_line_every_few_seconds_and_the_last_one():
    stream = io.StringIO()
    with Bar(100_000, stream=stream) as bar:
        for done in range(20_000):
            bar.show(done, done / 1_000, 0)
        bar.show(20_000, 20.0, 0, last=True)
    lines = stream.getvalue().splitlines()
    assert 3 <= len(lines) <= 6
    assert lines[-1].startswith("replay 20,000/100,000 transactions, 1,000/s")


def test_on_a_terminal_a_bar():
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with Bar(10, stream=stream) as bar:
        bar.show(10, 1.0, 0, last=True)
    assert "10/10" in stream.getvalue()


def test_quiet_is_quiet():
    stream = io.StringIO()
    with Bar(10, stream=stream, quiet=True) as bar:
        bar.show(10, 9.0, 0, last=True)
    assert stream.getvalue() == ""
