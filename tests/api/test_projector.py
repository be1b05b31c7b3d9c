"""How long the projector gathers: nobody waits for it, and its commits are what costs."""

from api.projector import BATCH, GATHER_S, pause_s


def test_what_came_meanwhile_shares_a_commit():
    assert pause_s(1, 0.01) == pause_s(BATCH, 0.2) == GATHER_S


def test_a_backlog_is_worked_off_half_of_the_time():
    assert pause_s(BATCH + 1, 0.1) == 0.1
    assert pause_s(BATCH + 1, 9.0) == GATHER_S
