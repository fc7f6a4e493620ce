"""The wheels that a machine with a card but without a network needs, collected beforehand: `benchmarks/card.py --wheels FOLDER`.

    python benchmarks/carry.py FOLDER

The files are those of envs/exact.txt, by its digests, for Python 3.12. Left out is what comes with torch (numpy too), and what
only the workflow wants. Some wheels are cut down: bitsandbytes to the one CUDA library that is used, others to what is imported.
`FOLDER/wheels.json` records the sha256 of every file that is carried.
"""

import argparse
import base64
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

LOCK = Path(__file__).resolve().parent.parent / "envs" / "exact.txt"
MOST = 60e6  # bytes, all of them together
NAMES = (
    "accelerate", "annotated-types", "anyio", "bitsandbytes", "certifi", "charset-normalizer", "click", "diffusers", "h11",
    "httpcore2", "httpx2", "huggingface-hub", "idna", "iniconfig", "packaging", "pillow", "pluggy", "psutil", "pyarrow",
    "pydantic", "pydantic-core", "pygments", "pytest", "pytorch-optimizer", "pyyaml", "regex", "requests", "safetensors",
    "tokenizers", "tqdm", "transformers", "truststore", "typing-inspection", "urllib3",
)  # fmt: skip
_ARROW = (r"tests/", r"include/", r"src/", r".*\.(pyx|pxd|pxi|h|cc)$", r"_?(libarrow_)?(flight|s3|gcs|azure|hdfs|orc)", "gandiva",
          r"libarrow_python\.so(\.\d+\.|$)")  # fmt: skip
STRIPPED = {
    "bitsandbytes": r"bitsandbytes/libbitsandbytes_(?!cpu|cuda130)",
    "pyarrow": rf"pyarrow/({'|'.join(_ARROW)})",
    "transformers": r"transformers/models/(?!__init__|auto/|clip/)",
    "diffusers": r"diffusers/(modular_)?pipelines/\w+/",
    "pillow": r"PIL/_avif|pillow.libs/libavif",
}
"""Wheel -> names of files that are left out: other CUDA's libraries, parts of Arrow and models that nothing here imports."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as found:
        download(Path(found))
        recorded = {}
        for wheel in sorted(Path(found).glob("*.whl")):
            name = wheel.name.partition("-")[0]
            carried = folder / wheel.name
            if name in STRIPPED:
                strip(wheel, carried, STRIPPED[name])
            else:
                carried.write_bytes(wheel.read_bytes())
            recorded[wheel.name] = hashlib.sha256(carried.read_bytes()).hexdigest()
    (folder / "wheels.json").write_text(json.dumps(recorded, indent=2) + "\n")
    size = sum((folder / name).stat().st_size for name in recorded)
    print(f"{len(recorded)} wheels, {size / 1e6:.1f} MB: {folder}")
    if size > MOST:
        raise SystemExit(f"expected at most {MOST / 1e6:.0f} MB, found {size / 1e6:.1f}: leave something out (NAMES, STRIPPED).")


def download(folder: Path) -> None:
    """The locked files, each checked by pip against its sha256."""
    lines = [line.split("  #")[0] for line in LOCK.read_text().splitlines()]
    wanted = [line for line in lines if re.split("=+", line)[0] in NAMES]
    missing = set(NAMES) - {re.split("=+", line)[0] for line in wanted}
    if missing:
        raise SystemExit(f"{LOCK} lacks {', '.join(sorted(missing))}")
    (folder / "wanted.txt").write_text("\n".join(wanted))
    tags = [f"--platform=manylinux_2_{minor}_x86_64" for minor in range(39, 16, -1)] + ["--platform=manylinux2014_x86_64"]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps", "--require-hashes",
               "--only-binary=:all:", "--python-version=3.12", "--implementation=cp", *tags, "-r", "wanted.txt"]  # fmt: skip
    subprocess.run(command, cwd=folder, check=True)


def strip(wheel: Path, out: Path, without: str) -> None:
    """Writes a wheel without the files whose names the pattern matches; the same wheel gives the same bytes."""
    pattern = re.compile(without)
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as target:
        names = [name for name in source.namelist() if not pattern.match(name)]
        record = next(name for name in names if name.endswith(".dist-info/RECORD"))
        rows = []
        for name in (*(one for one in names if one != record and not one.endswith("/")), record):
            data = source.read(name) if name != record else "".join([*rows, f"{record},,\n"]).encode()
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            rows.append(f"{name},sha256={digest},{len(data)}\n")
            about = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            about.external_attr, about.compress_type = source.getinfo(name).external_attr, zipfile.ZIP_DEFLATED
            target.writestr(about, data)


if __name__ == "__main__":
    main()
