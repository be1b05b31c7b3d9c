"""What an event loop waits at instead of a connection: one descriptor, whichever socket is open."""

import os
import select
import socket


class Watch:
    """Readable when replies may be there, on a socket or taken in already. Linux only."""

    def __init__(self) -> None:
        self._set = select.epoll()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._set.register(self._bell, select.EPOLLIN)
        self._rung = False

    @property
    def descriptor(self) -> int:
        """For the loop."""
        return self._set.fileno()

    def add(self, sock: socket.socket) -> None:
        """Watch this one, too; it leaves by itself when it is closed."""
        self._set.register(sock, select.EPOLLIN)

    def ring(self) -> None:
        """Replies that somebody else waits for have been taken in: no socket tells of them any more."""
        if not self._rung:
            self._rung = True
            os.eventfd_write(self._bell, 1)

    def heard(self) -> None:
        """Everything is taken in."""
        if self._rung:
            self._rung = False
            os.eventfd_read(self._bell)

    def close(self) -> None:
        """Release the descriptors."""
        self._set.close()
        os.close(self._bell)


def watch() -> Watch | None:
    """One, where the system has such things."""
    return Watch() if hasattr(select, "epoll") and hasattr(os, "eventfd") else None
