"""The Java ends of the Flink jobs without Flink between them: `Drive` answers a line with a line."""

import subprocess
from collections.abc import Mapping
from types import TracebackType

from tests.parts import FLINK_PYTHON, ROOT

FLINK_LIB = FLINK_PYTHON.parents[1] / "lib" / "python3.12" / "site-packages" / "pyflink" / "lib"


class Drive:
    """A process of `stream/java`'s test main; what it understands is written there."""

    def __enter__(self) -> "Drive":
        jars = [*(ROOT / ".jars" / "flink").glob("*.jar"), *(ROOT / ".jars" / "flink" / "test").glob("*.jar")]
        path = ":".join(map(str, [*jars, *FLINK_LIB.glob("flink-*.jar")]))
        command = [
            "java",
            "-Xmx256m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-cp",
            path,
            "cordon.Drive",
        ]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def ask(self, *words: object) -> str:
        """The answer to one command."""
        return self.ask_all([words])[0]

    def ask_all(self, commands: list[tuple[object, ...]]) -> list[str]:
        """The answers to many; of so few characters that they fit a pipe (thousands of events)."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        found = []
        for first in range(0, len(commands), 100):
            some = commands[first : first + 100]
            self._process.stdin.write("".join(f"{' '.join(map(str, words))}\n" for words in some))
            self._process.stdin.flush()
            found += [self._process.stdout.readline().strip() for _ in some]
        return found

    def open(self, options: Mapping[str, str]) -> None:
        """Start a feeder with these options of the store's table."""
        for name, value in options.items():
            assert self.ask("option", name, value.encode().hex()) == "ok"
        assert self.ask("open") == "ok"

    def __exit__(self, _kind: type[BaseException] | None, _error: object, _at: TracebackType | None) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(timeout=20)
