"""The vault on disk: replaced as a whole, old bytes overwritten, crashes in between, who holds old keys."""

import os
import signal
import subprocess
import sys
import textwrap
from itertools import count

import pytest

from api.vault.directory import Follower, Kept, Vault, VaultUnusable, encode
from api.vault.tree import Frontier
from tests.parts import ROOT

GONE = 2**40 + 7


def fresh():
    numbers = count(1)
    return lambda size: next(numbers).to_bytes(size, "big")


@pytest.fixture
def vault(tmp_path):
    return Vault(tmp_path / "vault", fresh())


def test_a_new_subject_writes_nothing_and_every_process_derives_the_same(vault, tmp_path):
    before = vault.stamp()
    other = Vault(tmp_path / "vault", lambda size: pytest.fail("there are keys already"))
    assert vault.read().frontier.leaf(5) == other.read().frontier.leaf(5) is not None
    assert vault.stamp() == before
    assert (vault.directory / "keys").stat().st_mode & 0o777 == 0o600


def test_destroying_replaces_the_file_and_leaves_no_byte_of_the_key_behind(vault):
    key = vault.read().frontier.leaf(GONE)
    root = vault.read().frontier.secrets
    old = os.open(vault.directory / "keys", os.O_RDONLY)
    before, after = vault.destroy([GONE])
    assert (before.version, after.version) == (1, 2)
    assert before.digest != after.digest
    assert after.frontier.leaf(GONE) is None
    assert after.frontier.leaf(GONE + 1) == before.frontier.leaf(GONE + 1)
    # The very bytes of the old file, through a handle from before: zeros.
    assert set(os.pread(old, 1 << 20, 0)) == {0}
    os.close(old)
    assert sorted(p.name for p in vault.directory.iterdir()) == ["keys", "lock", "pending", "seats"]
    for path in vault.directory.rglob("*"):
        if path.is_file():
            assert key not in path.read_bytes()
            assert root not in path.read_bytes()
    assert vault.destroy([GONE]) == (after, after)


def test_destroyed_keys_stay_destroyed_for_whoever_opens_the_vault_later(vault, tmp_path):
    vault.destroy([GONE, 3, 9])
    again = Vault(tmp_path / "vault", fresh()).read()
    assert [again.frontier.covers(i) for i in (GONE, 3, 9, 4)] == [False, False, False, True]


# The writer dies at a call of the operating system, one after the other.
DYING = textwrap.dedent("""
    import os, signal, sys
    from pathlib import Path
    from api.vault.directory import Vault
    vault, left = Vault(Path(sys.argv[1]), os.urandom), [int(sys.argv[2])]
    def dying(call):
        def called(*args, **more):
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **more)
        return called
    for name in ("open", "write", "pwrite", "fsync", "link", "replace", "unlink"):
        setattr(os, name, dying(getattr(os, name)))
    vault.destroy([int(sys.argv[3])])
""")


def test_a_crash_at_any_step_leaves_the_old_keys_or_the_new_ones_and_the_next_start_tidies_up(vault):
    killed = 0
    for step in range(100):
        index = GONE + 1_000 * step
        before = vault.read()
        done = subprocess.run(
            [sys.executable, "-c", DYING, str(vault.directory), str(step), str(index)], cwd=ROOT
        )
        assert done.returncode in (0, -signal.SIGKILL)
        kept = vault.read()
        assert kept.version in (before.version, before.version + 1)
        assert kept.frontier.covers(index) == (kept.version == before.version)
        assert kept.frontier.covers(index + 1)
        Vault(vault.directory, fresh())
        assert sorted(p.name for p in vault.directory.iterdir()) == ["keys", "lock", "pending", "seats"]
        assert vault.read() == kept
        vault.destroy([index])
        assert not vault.read().frontier.covers(index)
        if done.returncode == 0:
            break
        killed += 1
    assert killed > 8


def test_whoever_destroys_sees_which_processes_have_not_followed(vault):
    one, two = Follower(vault, "service-0"), Follower(vault, "door-0")
    assert not one.changed()
    _, after = vault.destroy([GONE])
    names = [f"door-0.{os.getpid()}", f"service-0.{os.getpid()}"]
    assert vault.behind(after.version) == names
    assert one.changed()
    assert one.read() == after
    assert vault.behind(after.version) == names  # read, but the old one may be in use
    one.adopted()
    assert vault.behind(after.version) == names[:1]
    two.close()
    assert vault.behind(after.version) == []
    assert not one.changed()
    one.close()


def test_a_process_that_died_holds_up_nobody(vault):
    code = (
        "import os, sys, signal\nfrom pathlib import Path\nfrom api.vault.directory import Follower, Vault\n"
        "Follower(Vault(Path(sys.argv[1]), os.urandom), 'service-0')\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(vault.directory)], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    assert len(list((vault.directory / "seats").iterdir())) == 1
    _, after = vault.destroy([GONE])
    assert vault.behind(after.version) == []
    assert list((vault.directory / "seats").iterdir()) == []


def test_a_file_that_is_not_what_was_written_is_refused(vault):
    path = vault.directory / "keys"
    good = path.read_bytes()
    for bad in (good[:-1], good[:20] + b"x" + good[21:], b""):
        path.write_bytes(bad)
        with pytest.raises(VaultUnusable, match="keys"):
            vault.read()
    path.unlink()
    with pytest.raises(VaultUnusable, match="No such file"):
        vault.read()
    root = Frontier.of_root(bytes(32))
    assert Kept.decode(encode(b"12345678", 7, root)).version == 7
