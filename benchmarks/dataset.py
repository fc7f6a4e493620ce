"""Measures datasets at the record's size, on data that it makes itself, and prints the numbers beside what is to be reached.

    python benchmarks/dataset.py FOLDER [--rows 12446670] [--index-rows 1000000] [--only open loaders index npz reads verify]

Needs some 6 GB in FOLDER, a folder of its own, and leaves it empty. The large store has a true index and true captions for every
sample; its thousands of shards are one sparse file under many names. Memory is read from /proc/self/smaps_rollup: RSS counts
mapped pages of files, PSS shares them out among the processes that map them, dirty is what a process alone has and no file
backs. Bare is the same interpreter before it imports anything. Ratios alternate the two sides and take medians; run it on an
idle machine.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("open", "loaders", "index", "npz", "reads", "verify")
RECORD = 12_446_670
SHAPE = (4, 128, 128)


def main() -> None:
    """Makes, measures, prints, removes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=RECORD)
    parser.add_argument("--index-rows", type=int, default=1_000_000)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if any(options.folder.iterdir()):
        sys.exit(f"{options.folder} is not empty: give this benchmark a folder of its own.")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    if {"open", "loaders"} & set(options.only):
        child("make-large", options.folder / "large", options.rows)
    for part in options.only:
        for line in child(part, options.folder, options.rows if part in ("open", "loaders") else options.index_rows):
            print(line, flush=True)
    shutil.rmtree(options.folder)


def child(part: str, folder: Path, number: int) -> list[str]:
    """Runs one part in a process of its own; returns its lines."""
    command = [sys.executable, "-P", __file__, "--worker", part, str(folder), str(number)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{part} failed:\n{done.stderr}")
    return done.stdout.splitlines()


def memory() -> dict[str, float]:
    """This process's memory in MB: rss, pss, and dirty, that is what it alone has and no file backs."""
    fields = dict.fromkeys(("Rss", "Pss", "Private_Dirty"), 0.0)
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in fields:
            fields[name] = int(rest.split()[0]) / 1000
    return {"rss": fields["Rss"], "pss": fields["Pss"], "dirty": fields["Private_Dirty"]}


def peak() -> float:
    """This process's highest RSS so far, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000


# ---- the large store


def make_large(folder: Path, rows: int) -> None:
    """A store of `rows` samples of two buckets: index and captions in full, every shard the same sparse file."""
    import numpy as np
    import pyarrow as pa

    from astolfo.data.store import TABLE_ROWS
    from astolfo.data.write import PART_SCHEMA, shard_name, shard_rows, write_manifest, write_tables

    folder.mkdir(parents=True)
    each, size, start = shard_rows(SHAPE, "float16"), int(np.prod(SHAPE)) * 2, 80
    counts = [rows // 3, rows - rows // 3]
    buckets = [{"height": h, "width": w, "count": c, "latents": list(SHAPE), "dtype": "float16"}
               for (h, w), c in zip(((960, 1088), (1024, 1024)), counts, strict=True)]  # fmt: skip
    shards = []
    for number, bucket in enumerate(buckets):
        for first in range(0, bucket["count"], each):
            name, here = shard_name(bucket["height"], bucket["width"], first // each), min(each, bucket["count"] - first)
            source = folder / f".{here}"
            if not source.exists():
                source.touch()
                os.truncate(source, start + here * size)
            os.link(source, folder / name)
            shards.append({"file": name, "rows": here, "start": start, "sha256": "0" * 64, "bucket": number})
    text = "1girl, solo, long hair, looking at viewer, " * 7
    sentence = "a girl with long hair looks at the viewer and smiles, "

    def batches():
        for first in range(0, rows, TABLE_ROWS):
            at = np.arange(first, min(first + TABLE_ROWS, rows))
            bucket = (at >= counts[0]).astype(np.int64)
            names = pa.array([f"danbooru/{number}" for number in at.tolist()])
            within = at - bucket * counts[0]
            whole = [pa.array(np.full(len(at), value, np.int32)) for value in (1500, 1100, 0, 16)]
            digests = np.zeros((len(at), 4), np.uint64)
            digests[:, 0] = at
            digest = pa.FixedSizeBinaryArray.from_buffers(pa.binary(32), len(at), [None, pa.py_buffer(digests)])
            columns = [names, pa.array(bucket.astype(np.int16)), pa.array((within // each).astype(np.int32)),
                       pa.array((within % each).astype(np.int32)), *whole, digest,
                       pa.array([text] * len(at)), pa.array([sentence] * len(at))]  # fmt: skip
            yield pa.record_batch(columns, schema=PART_SCHEMA)

    write_tables(folder, batches())
    write_manifest(folder, buckets, shards, {"made by": "benchmarks/dataset.py"})


def open_(folder: Path, rows: int) -> None:
    """Opens the large store and serves the first step's samples."""
    bare = memory()
    begun = time.perf_counter()
    from astolfo.data.order import Order
    from astolfo.data.prefetch import Reader
    from astolfo.data.store import Store

    imported, with_imports = time.perf_counter(), memory()
    store = Store(folder / "large")
    order = Order(counts=store.counts, seed=1, ranks=4, batch_size=1, accumulation=4, wraps=True)
    reader = Reader(store, order, range(4), lambda _, samples: samples)
    served = [reader.batch(batch) for row in reader.step(0) for batch in row]
    opened = time.perf_counter()
    now = memory()
    assert len(served) == 16
    print(
        f"open {rows:,} samples, order, first 16: {opened - imported:.2f} s, {opened - begun:.2f} s with imports   (reach: 2 s)"
    )
    for kind in ("rss", "pss"):
        print(f"  {kind} above bare: {now[kind] - bare[kind]:.0f} MB, of which {with_imports[kind] - bare[kind]:.0f} for imports"
              "   (reach: 500 MB)")  # fmt: skip
    begun = time.perf_counter()
    for step in range(1, 101):
        for row in reader.step(step * 7001):  # far apart: nothing is read ahead in vain
            for batch in row:
                reader.batch(batch)
    print(f"  a step of 16 samples anywhere in the epoch: {(time.perf_counter() - begun) * 10:.1f} ms")


def loaders(folder: Path, rows: int) -> None:
    """Forks loader processes over an open store; each reads 300 steps."""
    from astolfo.data.order import Order
    from astolfo.data.prefetch import Reader
    from astolfo.data.store import Store

    store = Store(folder / "large")
    order = Order(counts=store.counts, seed=1, ranks=4, batch_size=1, accumulation=4, wraps=True)
    found, go = [], os.pipe()
    for rank in range(4):
        out = os.pipe()
        if not os.fork():
            reader = Reader(store, order, [rank], lambda _, samples: samples)
            for step in range(300):
                for row in reader.step(step):
                    reader.batch(row[rank])
            os.write(out[1], b"ready")
            os.close(go[1])
            os.read(go[0], 1)
            os.write(out[1], json.dumps(memory()).encode())
            os._exit(0)
        found.append(out[0])
    for descriptor in found:
        os.read(descriptor, 5)
    os.close(go[1])
    each = [json.loads(os.read(descriptor, 1000)) for descriptor in found]
    print(f"each of 4 loader processes after 300 steps: dirty {median(one['dirty'] for one in each):.0f} MB, "
          f"PSS {median(one['pss'] for one in each):.0f} MB   (reach: 50 MB)")  # fmt: skip


# ---- importing


def index(folder: Path, rows: int) -> None:
    """Lists an index of a quarter of the rows and of all of them, each in a process of its own."""
    for number in (rows // 4, rows):
        path = folder / "meta_lat.json"
        with open(path, "w") as file:
            separator = "{\n"
            for at in range(number):
                entry = {"tags": f"1girl, solo, long hair, looking at viewer, smile, blue eyes, shirt, holding, tag {at}" * 3,
                         "caption": f"a girl with long hair looks at the viewer, number {at}, in front of a cloudy sky",
                         "train_resolution": [(1024, 832, 704)[at % 3], (1024, 1216, 1344)[at % 3]]}  # fmt: skip
                file.write(f'{separator}  "danbooru/{at}": {json.dumps(entry)}')
                separator = ",\n"
            file.write("\n}\n")
        for line in child("list", folder, number):
            print(line)
        path.unlink()


def list_(folder: Path, rows: int) -> None:
    """Lists one index."""
    bare = peak()
    from concurrent.futures import ThreadPoolExecutor

    from astolfo.data.ingest.kohya import Kohya
    from astolfo.data.ingest.listing import Listing

    size = (folder / "meta_lat.json").stat().st_size
    source, work = Kohya(folder / "meta_lat.json", folder), folder / "rows"
    work.mkdir()
    begun, used = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(2) as pool:
        Listing(work).write(source.rows(pool), source, "float32")
    taken, used = time.perf_counter() - begun, time.process_time() - used
    shutil.rmtree(work)
    print(f"meta_lat.json of {rows:,} rows, {size / 1e6:.0f} MB: {rows / taken:,.0f} rows/s ({rows / used:,.0f} per CPU second), "
          f"peak RSS {peak() - bare:.0f} MB above bare   (reach: 50,000 rows/s, 1,000 MB)")  # fmt: skip


def npz(folder: Path, rows: int) -> None:
    """Imports some thousand .npz of 4x128x128 float32, against unpacking them with their CRCs checked."""
    import zipfile

    import numpy as np

    from astolfo.data.ingest.kohya import Kohya
    from astolfo.data.ingest.run import run

    count, data = 2000, folder / "npz"
    data.mkdir()
    random = np.random.Generator(np.random.PCG64(1))
    for at in range(count):
        np.savez(data / f"{at}.npz", latents=random.standard_normal(SHAPE, np.float32), original_size=np.array([1024, 1024]),
                 crop_ltrb=np.array([0, 0, 1024, 1024]))  # fmt: skip
    (data / "meta.json").write_text(json.dumps({str(at): {"tags": "a", "train_resolution": [1024, 1024]} for at in range(count)}))
    ours, theirs, used = [], [], []
    for _ in range(3):
        begun = time.perf_counter()
        for at in range(count):
            with zipfile.ZipFile(data / f"{at}.npz") as file:
                file.testzip()
        theirs.append(time.perf_counter() - begun)
        begun, cpu = time.perf_counter(), time.process_time()
        run(Kohya(data / "meta.json", data), folder / "store", dtype="float16", workers=2)
        ours.append(time.perf_counter() - begun)
        used.append(time.process_time() - cpu)
        shutil.rmtree(folder / "store")
    shutil.rmtree(data)
    print(f".npz to store (float16, two digests each): {median(ours) / count * 1e3:.2f} ms a file "
          f"({median(used) / count * 1e3:.2f} of CPU), "
          f"{ratio(ours, theirs):.2f} x unzip with CRC ({median(theirs) / count * 1e3:.2f} ms)")  # fmt: skip


# ---- reading


def filled(folder: Path, count: int) -> None:
    """A store of `count` samples of SHAPE in float16, every byte of it real."""
    import numpy as np
    import pyarrow as pa

    from astolfo.data.write import PART_SCHEMA, shard_name, shard_rows, write_manifest, write_shard, write_tables

    random, each, shards = np.random.Generator(np.random.PCG64(1)), shard_rows(SHAPE, "float16"), []
    for first in range(0, count, each):
        values = random.standard_normal((min(each, count - first), *SHAPE), np.float32).astype(np.float16)
        shards.append({**write_shard(folder / shard_name(1024, 1024, first // each), values), "bucket": 0})
    columns = [[str(at) for at in range(count)], *([0] * count for _ in range(7)), [b"\0" * 32] * count, *([""] * count,) * 2]
    write_tables(folder, [pa.record_batch([pa.array(c, f.type) for c, f in zip(columns, PART_SCHEMA, strict=True)], PART_SCHEMA)])
    bucket = {"height": 1024, "width": 1024, "count": count, "latents": list(SHAPE), "dtype": "float16"}
    write_manifest(folder, [bucket], shards, {"made by": "benchmarks/dataset.py"})


def reads(folder: Path, rows: int) -> None:
    """Random reads of single latents, warm, against pread of the same bytes with every file open."""
    import numpy as np

    from astolfo.data.store import Store

    filled(folder / "filled", 4096)
    store = Store(folder / "filled")
    size, shards = int(np.prod(SHAPE)) * 2, store.manifest["shards"]
    descriptors = [os.open(store.folder / shard["file"], os.O_RDONLY) for shard in shards]
    each, start = shards[0]["rows"], shards[0]["start"]
    ours, theirs, whole = [], [], []
    for turn in range(11):
        chosen = np.random.Generator(np.random.PCG64(turn)).integers(0, len(store), 1000).tolist()
        places = [(descriptors[row // each], start + row % each * size) for row in chosen]
        begun = time.perf_counter()
        for descriptor, place in places:
            os.pread(descriptor, size, place)
        theirs.append(time.perf_counter() - begun)
        for read, times in ((store.latents, ours), (store.sample, whole)):
            begun = time.perf_counter()
            for row in chosen:
                read(row)
            times.append(time.perf_counter() - begun)
    print(f"random latents, warm: {median(ours) * 1e3:.1f} us each, {ratio(ours, theirs):.2f} x pread   (reach: 1.5); "
          f"whole samples {ratio(whole, theirs):.2f} x")  # fmt: skip


def verify(folder: Path, rows: int) -> None:
    """Verifying a store against sha256sum of its files."""
    from astolfo.data.store import Store

    if not (folder / "filled").exists():
        filled(folder / "filled", 4096)
    store = Store(folder / "filled")
    files = [str(path) for path in store.folder.iterdir() if path.suffix in (".arrow", ".safetensors")]
    ours, theirs = [], []
    for _ in range(5):
        begun = time.perf_counter()
        subprocess.run(["sha256sum", *files], check=True, capture_output=True)
        theirs.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        assert not list(store.verify())
        ours.append(time.perf_counter() - begun)
    print(f"verify 0.5 GB: {median(ours):.2f} s, {ratio(ours, theirs):.2f} x sha256sum   (reach: 1.3)")


def ratio(ours: list[float], theirs: list[float]) -> float:
    """The median of the rounds' ratios."""
    return median(a / b for a, b in zip(ours, theirs, strict=True))


WORKERS = {"make-large": make_large, "open": open_, "loaders": loaders, "index": index, "list": list_, "npz": npz,
           "reads": reads, "verify": verify}  # fmt: skip

if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        WORKERS[sys.argv[2]](Path(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
