"""Building the kernel: once, atomically, and with one clear line where it cannot be."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from models.kernel import build
from models.kernel.errors import NotBuilt

ROOT = Path(__file__).parents[2]


@pytest.fixture
def package(tmp_path):
    """A copy of the package without what was built, and an environment for it."""
    shutil.copytree(
        ROOT / "models" / "kernel", tmp_path / "models" / "kernel", ignore=shutil.ignore_patterns("build")
    )
    (tmp_path / "models" / "__init__.py").write_text("")
    return tmp_path


def run(package, **environment):
    """`python -m models.kernel.build` in the copy: its line."""
    done = subprocess.run(
        [sys.executable, "-m", "models.kernel.build"],
        cwd=package,
        env={"PATH": os.environ["PATH"], "HOME": str(package / "home"), **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=200,
    )
    assert done.stderr == ""
    (line,) = done.stdout.splitlines()
    return line


def quick_compiler(folder, script):
    """A command that stands for a compiler: answers --version, then does `script` with its arguments."""
    path = folder / "compiler"
    path.write_text(f'#!/bin/sh\nif [ "$1" = --version ]; then echo 1.0; exit 0; fi\n{script}\n')
    path.chmod(0o755)
    return str(path)


WRITES = 'while [ "$1" != -o ]; do shift; done; echo built > "$2"; echo x >> "$0.count"'


def test_the_library_of_this_checkout_is_there():
    path = build.library()
    assert path.is_file()
    assert build.library() == path


def test_it_is_built_once_and_again_for_other_sources(package):
    compiler = quick_compiler(package, WRITES)
    first = run(package, CC=compiler)
    assert first.startswith("compiled scoring: ")
    assert run(package, CC=compiler) == first
    count = package / "compiler.count"
    assert count.read_text() == "x\n"
    with (package / "models" / "kernel" / "score.c").open("a") as source:
        source.write("/* other */\n")
    assert run(package, CC=compiler) != first
    assert count.read_text() == "x\nx\n"


def test_several_processes_may_build_at_once(package):
    compiler = quick_compiler(package, WRITES)
    with ThreadPoolExecutor(4) as pool:
        lines = set(pool.map(lambda _: run(package, CC=compiler), range(4)))
    assert len(lines) == 1
    (line,) = lines
    folder = Path(line.removeprefix("compiled scoring: ")).parent
    assert [path.suffix for path in folder.iterdir()] == [".so"]


def test_without_a_compiler_it_says_so_in_one_line(package):
    line = run(package, CC="/nowhere/cc")
    assert line == (
        "no compiled scoring, XGBoost scores instead: "
        "no C compiler (cc, gcc, clang or $CC): install one for compiled scoring"
    )


def test_what_was_built_serves_without_a_compiler(package):
    built = run(package, CC=quick_compiler(package, WRITES))
    assert run(package, CC="/nowhere/cc") == built


def test_a_compiler_that_fails_is_quoted(package):
    line = run(package, CC=quick_compiler(package, "echo >&2; echo 'forest.h: no such luck' >&2; exit 1"))
    assert line.startswith("no compiled scoring, XGBoost scores instead: ")
    assert line.endswith("failed: forest.h: no such luck")
    assert not list((package / "models" / "kernel" / "build").iterdir())


def test_the_users_cache_serves_where_the_package_cannot_be_written(package):
    (package / "models" / "kernel" / "build").write_text("in the way")
    line = run(package, CC=quick_compiler(package, WRITES), XDG_CACHE_HOME=str(package / "cache"))
    assert f"{package}/cache/cordon/forest-" in line


def test_a_compiler_from_the_environment_may_have_arguments(monkeypatch):
    monkeypatch.setenv("CC", "cc -m64")
    compiler = build.find_compiler()
    assert compiler is None or compiler[1:] == (b"cc", b"-m64")
    monkeypatch.setenv("CC", "/nowhere/cc")
    assert build.find_compiler() is None


def test_what_was_built_is_said_in_one_line_and_what_was_not_is_no_error(capsys):
    def broken():
        raise NotBuilt("no compiler")

    assert build.report("vectors", build.library, "numba makes them") == 0
    assert capsys.readouterr().out == f"compiled vectors: {build.library()}\n"
    assert build.report("vectors", broken, "numba makes them") == 0
    assert capsys.readouterr().out == "no compiled vectors, numba makes them instead: no compiler\n"
