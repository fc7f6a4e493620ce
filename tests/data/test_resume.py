"""An import that is killed goes on, and ends as the same store."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from astolfo.data.ingest.kohya import Kohya
from astolfo.data.ingest.run import run
from astolfo.data.store import Store
from astolfo.errors import InputError
from tests.conftest import ROOT
from tests.data.conftest import Given, sample
from tests.data.test_kohya import save

PROGRAM = """
import sys
from pathlib import Path
from astolfo.data import write
write.SHARD_ROWS = 8
from astolfo.data.ingest.kohya import Kohya
from astolfo.data.ingest.run import run
run(Kohya(Path(sys.argv[1], "meta.json"), Path(sys.argv[1])), Path(sys.argv[2]), workers=2)
"""


class Stop(BaseException):
    """What a test raises in the middle of an import: nothing on the way may handle it."""


def many(count=40):
    """Samples of two buckets; every seventh cannot be used, and one ID comes twice."""
    found = [sample(index, ((64, 64), (48, 80))[index % 2]) for index in range(count)]
    found[20] = (found[3][0], *found[20][1:])
    return [(*row[:2], "it is the seventh", *row[3:]) if index % 7 == 6 else row for index, row in enumerate(found)]


class Interrupted(Given):
    """The same samples, until the `after`-th call of any of its methods."""

    def __init__(self, samples, after):
        super().__init__(samples)
        self.left = after

    def rows(self, workers):
        for row in super().rows(workers):
            self._count()
            yield row

    def load(self, row):
        self._count()
        return super().load(row)

    def _count(self):
        self.left -= 1
        if self.left < 0:
            raise Stop


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("seed", range(3))
def test_interrupted_anywhere(tmp_path, monkeypatch, seed):
    """Stopped again and again at random moments, in the listing and in any shard, the store ends as it would have uninterrupted."""
    monkeypatch.setattr("astolfo.data.write.SHARD_ROWS", 4)
    run(Given(many()), tmp_path / "whole")
    moments, stops = random.Random(seed), 0
    while True:
        try:
            run(Interrupted(many(), moments.randrange(10, 60)), tmp_path / "store", workers=3)
            break
        except Stop:
            stops += 1
            assert not (tmp_path / "store/store.json").exists()
    assert stops >= 1
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")
    assert sorted(os.listdir(tmp_path)) == ["store", "whole"]


def test_killed_when_it_was_done(tmp_path, monkeypatch):
    """A kill between the manifest and the tidying up leaves a whole store; the next call says so and tidies."""

    def stop(*_, **__):
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr("astolfo.data.ingest.run.shutil.rmtree", stop)
        with pytest.raises(Stop):
            run(Given(many()), tmp_path / "store")
    assert list(Store(tmp_path / "store").verify()) == []
    with pytest.raises(InputError, match="is a store already"):
        run(Given(many()), tmp_path / "store")
    assert not (tmp_path / ".store.importing").exists()


def test_a_machine_without_descriptors_is_no_samples_fault(tmp_path, monkeypatch):
    """When the process itself lacks something the import stops, rather than leave samples out."""

    def lacking(*_):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Given, "load", lacking)
    with pytest.raises(OSError, match="Too many open files"):
        run(Given(many()), tmp_path / "store")


def test_what_is_done_is_not_done_again(tmp_path, monkeypatch):
    """A resumed import reads the samples of finished shards no more."""
    monkeypatch.setattr("astolfo.data.write.SHARD_ROWS", 4)
    with pytest.raises(Stop):
        run(Interrupted(many(), 60), tmp_path / "store", workers=1)
    again = Interrupted(many(), 10**9)
    run(again, tmp_path / "store", workers=1)
    assert 10**9 - again.left <= 40 - 20 + 8  # no listing, and at most the shard that was being made


def made(tmp_path):
    """How many files an import into tmp_path/store has made so far: some 50 shards and their records, and what is unfinished."""
    return sum(1 for place in ("store", ".store.importing") for _ in (tmp_path / place).rglob("*"))


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path):
    """`kill -9` of an import of 400 .npz, twelve times at random moments, leaves no trace in its store."""
    data, index = tmp_path / "data", {}
    for number in range(400):
        size = ((64, 96), (96, 64), (64, 64))[number % 3]
        save(data / f"d/{number}.npz", number, size, (1000, 1501))
        index[f"d/{number}"] = {"tags": f"tag {number}", "train_resolution": list(size)}
    (data / "d/17.npz").write_bytes(b"")
    (data / "meta.json").write_text(json.dumps(index))
    command = [sys.executable, "-c", PROGRAM, str(data)]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, cwd=ROOT)
    moments, kills = random.Random(7), 0
    for _ in range(12):
        process = subprocess.Popen([*command, str(tmp_path / "store")], cwd=ROOT, stderr=subprocess.DEVNULL)
        until = made(tmp_path) + moments.randrange(12)
        while process.poll() is None and made(tmp_path) < until:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    subprocess.run([*command, str(tmp_path / "store")], check=True, cwd=ROOT)
    assert kills == 12
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")
    assert len(Store(tmp_path / "store")) == 399


def test_threads_decide_nothing(tmp_path):
    """One reader or eight: the same store, although samples are read in another order."""
    index = {}
    for number in range(30):
        save(tmp_path / f"data/{number}.npz", number, (64, 64), (100, 100))
        index[str(number)] = {"tags": "a", "train_resolution": [64, 64]}
    (tmp_path / "data/meta.json").write_text(json.dumps(index))
    for workers in (1, 8):
        run(Kohya(tmp_path / "data/meta.json", tmp_path / "data"), tmp_path / f"{workers}", workers=workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "8")
    assert np.isfinite(Store(tmp_path / "1").latents(29)).all()
