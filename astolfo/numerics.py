"""The numerics class: everything besides the recipe that decides the last bit, set in one place and named.

On a CPU the class is x86-64 with AVX2 and FMA: its vendor, its model and newer instructions are no part of it, since the switches
keep every library from asking for them. `tests/processors` shows that, on emulated processors.

`pin()` must run before numpy and torch are imported; every verb of the engine calls it first, and it refuses a processor that
cannot compute these bits. `make_deterministic()` turns torch's switches and puts the operators of `astolfo.operators` in place.
`numerics_class()` then says which class this process computes in. Recorded digests are promises within one class
only; which classes a measurement found equal is part of the record (`astolfo.provenance.digests`).
"""

import contextlib
import functools
import importlib.util
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from astolfo import deferred_imports
from astolfo.errors import NumericsError

THREADS = 1
REQUIRED = ("avx2", "fma")  # of the processor, as Linux names them
_CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Switch:
    """One setting, why it is set, and whether it belongs to the class on a CPU, on a GPU, on both or on none."""

    name: str
    value: str
    reason: str
    decides: tuple[str, ...] = ("cpu", "cuda")


_CPU, _GPU, _NONE = ("cpu",), ("cuda",), ()
ENVIRONMENT = (
    Switch("OMP_NUM_THREADS", str(THREADS), "a matrix product split over two threads sums in another order", _CPU),
    Switch("MKL_NUM_THREADS", str(THREADS), "the same, in MKL's own threads", _CPU),
    Switch("ATEN_CPU_CAPABILITY", "avx2", "a CPU with a newer instruction set would choose other kernels", _CPU),
    Switch("ONEDNN_MAX_CPU_ISA", "AVX2", "the same, in oneDNN", _CPU),
    Switch(
        "MKL_CBWR",
        "COMPATIBLE",
        "MKL takes another path for another vendor; its results also depend on the alignment of memory",
        _CPU,
    ),
    Switch(
        "NPY_DISABLE_CPU_FEATURES",
        "X86_V4 AVX512_ICL AVX512_SPR",
        "a CPU that has these would choose numpy's other kernels",
        _CPU,
    ),
    Switch("OPENBLAS_CORETYPE", "Haswell", "numpy's matrix products would be written for the CPU's model", _CPU),
    Switch("OPENBLAS_NUM_THREADS", str(THREADS), "such a product split over two threads sums in another order", _CPU),
    Switch("TORCHINDUCTOR_CPP_MARCH", "haswell", "what torch compiles would be written for the CPU at hand", _CPU),
    Switch("CUBLAS_WORKSPACE_CONFIG", ":4096:8", "cuBLAS picks the same algorithm every time only with a fixed workspace", _GPU),
    Switch("PYTHONHASHSEED", "0", "hashes of strings must not order anything differently from process to process", _NONE),
    Switch("PYTORCH_NVML_BASED_CUDA_CHECK", "1", "counting GPUs must not start CUDA, which a fork would not survive", _NONE),
    Switch("CUDA_DEVICE_ORDER", "PCI_BUS_ID", "a card's number is the one that nvidia-smi gives it", _NONE),
    Switch("HF_HUB_OFFLINE", "1", "nothing is fetched from anywhere while a job runs", _NONE),
    Switch("TRANSFORMERS_OFFLINE", "1", "the same, in older releases", _NONE),
)
"""What numeric libraries read when they load."""

SWITCHES = (
    Switch("use_deterministic_algorithms", "True", "an operator without such an algorithm is an error, not a surprise"),
    Switch("cudnn.benchmark", "False", "its timing picks a different convolution from run to run", _GPU),
    Switch("cudnn.deterministic", "True", "convolutions whose sums have a fixed order", _GPU),
    Switch("matmul.allow_tf32", "False", "10-bit mantissas would depend on the card's generation", _GPU),
    Switch("cudnn.allow_tf32", "False", "the same, in convolutions", _GPU),
    Switch("matmul.allow_fp16_reduced_precision_reduction", "False", "split sums would round in between, by the shape", _GPU),
    Switch("matmul.allow_bf16_reduced_precision_reduction", "False", "the same, in bf16", _GPU),
    Switch("fill_uninitialized_memory", "False", "we never read memory that nothing wrote; filling it costs time", _NONE),
)
"""What torch is told once it is there, by the names that it has for these."""

_LIBRARIES = (
    "torch", "bitsandbytes", "deepspeed", "diffusers", "numpy", "pytorch-optimizer", "sd-mecha", "torchao", "transformers",
)  # fmt: skip
_EARLY = {
    "torch": ("ATEN_CPU_CAPABILITY", "MKL_CBWR", "ONEDNN_MAX_CPU_ISA"),
    "numpy": ("NPY_DISABLE_CPU_FEATURES", "OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS"),
}
"""What a library reads when it is imported, and never again."""
_REFUSED = re.compile(r"^(?P<operator>\S+) does not have a deterministic implementation")
_CUBLAS = "this operation is not deterministic because it uses CuBLAS"


def pin() -> None:
    """Sets the environment that numeric libraries read when they load. Call before torch and numpy are imported.

    Raises NumericsError for a processor without the instructions that these numerics use, and when a library is loaded already
    without its settings: they would come too late.
    """
    check_processor()
    late = {switch.name for switch in ENVIRONMENT if os.environ.get(switch.name) != switch.value}
    for library, names in _EARLY.items():
        if library in sys.modules and (missed := late.intersection(names)):
            raise NumericsError(
                f"{library} was imported before the numerics were pinned ({', '.join(sorted(missed))} not set). "
                "Call astolfo.numerics.pin() first, or start the program with these variables set."
            )
    os.environ.update({switch.name: switch.value for switch in ENVIRONMENT})
    deferred_imports.defer()


def check_processor(cpuinfo: Path = _CPUINFO) -> None:
    """Raises NumericsError, with the processor's name, unless it is an x86-64 with AVX2 and FMA, as far as Linux tells."""
    fields = _fields(cpuinfo)
    if fields and (missing := set(REQUIRED) - set(fields.get("flags", "").split())):
        raise NumericsError(
            f"Expected an x86-64 processor with AVX2 and FMA (Intel since Haswell, AMD since Zen), found {_named(fields)}, "
            f"which has no {' and no '.join(one.upper() for one in REQUIRED if one in missing)}. Use another machine."
        )


@functools.cache
def _survive_forks() -> None:
    """Has every fork of this process make torch's pool of threads anew before it has threads of its own.

    Torch does so when a fork first asks for the pool, without a lock: where two threads ask at once (a backward pass and a
    gloo transfer), one finds no pool and ends the process. Source: pytorch's issue 178535.
    """
    import torch

    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(torch.get_num_threads()))


def make_deterministic() -> None:
    """Turns torch's switches: deterministic algorithms only, one thread, no shortened mantissas; and puts operators in place."""
    import torch

    from astolfo import operators

    torch.set_num_threads(THREADS)
    _survive_forks()
    homes = {"cudnn": torch.backends.cudnn, "matmul": torch.backends.cuda.matmul}
    for switch in SWITCHES:
        home, _, name = switch.name.rpartition(".")
        if home:
            setattr(homes[home], name, switch.value == "True")
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a property of the module
    operators.replace()


@contextlib.contextmanager
def naming_operators(what: str) -> Iterator[None]:
    """Turns torch's complaint about an operator that cannot be deterministic into an error with the operator and `what`.

    Raises NumericsError.
    """
    try:
        yield
    except RuntimeError as error:
        refused = _REFUSED.match(str(error))
        if not refused and _CUBLAS not in str(error):
            raise
        operator = refused["operator"] if refused else "a matrix product of cuBLAS"
        raise NumericsError(
            f"{what}: expected operators that give the same bits every time, found {operator}, which has no deterministic "
            "implementation on this device. The run needs another operator, or a device or a release of torch that has one."
        ) from error


@functools.cache
def numerics_class(device: str = "cpu") -> dict[str, str]:
    """The class that this machine computes in on a kind of device ("cpu", "cuda"), as names and values that compare.

    Of a CPU it is what the processor must have, whatever this one is, and the threads; of a GPU its name, compute capability and
    driver, with CUDA, cuDNN and NCCL; of both the libraries, torch's build, and the switches that decide bits there. Asking about
    "cuda" imports torch. Raises NumericsError when there is no such device.
    """
    machine = {"cpu": _cpu, "cuda": _gpu}[device]()
    decisive = [switch for switch in (*ENVIRONMENT, *SWITCHES) if device in switch.decides]
    switches = " ".join(f"{switch.name}={switch.value}" for switch in decisive)
    versions = {name: _version(name) for name in _LIBRARIES}
    return {"device": device, **machine, **versions, "torch build": _torch_build(), "switches": switches}


def class_here(device: str) -> dict[str, str]:
    """The class of a kind of device, or where this machine has none, of its CPU: what files that lie here are compared in."""
    try:
        return numerics_class(device)
    except NumericsError:
        return numerics_class("cpu")


def explain() -> list[str]:
    """One line per switch and per operator that is put in place of torch's: name, value and reason. Imports torch."""
    from astolfo.operators import REPLACED

    switches = [f"{switch.name}={switch.value}: {switch.reason}" for switch in (*ENVIRONMENT, *SWITCHES)]
    return [*switches, *(f"{one.name} on the CPU: {one.reason}" for one in REPLACED)]


def _version(library: str) -> str:
    """The version of a library; of one that is not there, it says so."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "not installed"


def _cpu() -> dict[str, str]:
    return {"processor": f"{platform.machine()} with {' and '.join(REQUIRED)}", "isa": "avx2", "threads": str(THREADS)}


def _gpu() -> dict[str, str]:
    import torch

    if not torch.cuda.is_available():
        raise NumericsError("There is no class of a GPU to name: expected a CUDA device and its driver, torch finds none.")
    about = torch.cuda.get_device_properties(0)
    return {
        "gpu": about.name,
        "compute capability": f"{about.major}.{about.minor}",
        "driver": _driver(),
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
        "nccl": ".".join(map(str, torch.cuda.nccl.version())),
    }


def _driver(version: Path = Path("/proc/driver/nvidia/version")) -> str:
    """The version of NVIDIA's driver, as the kernel module or else `nvidia-smi` tells it."""
    with contextlib.suppress(OSError):
        if found := re.search(r"Kernel Module\s+(?:for \S+\s+)?([\d.]+)", version.read_text()):
            return found[1]
    command = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        raise NumericsError(f"Expected the driver's version in {version} or from nvidia-smi, found neither.") from None


def _torch_build() -> str:
    """torch's own version, with the CUDA it was built for and its commit, read without importing it."""
    spec = importlib.util.find_spec("torch")
    source = Path(str(spec and spec.origin)).with_name("version.py").read_text(encoding="utf-8")
    found = dict(re.findall(r"^(\w+)\s*=\s*'([^']+)'", source, re.MULTILINE))
    return f"{found['__version__']} {found['git_version'][:12]}"


def _named(fields: dict[str, str]) -> str:
    """A processor as a person calls it."""
    return fields.get("model name") or f"an unnamed {platform.machine()} processor"


def _fields(cpuinfo: Path) -> dict[str, str]:
    """What Linux tells of the first processor; empty where it tells nothing."""
    try:
        first = cpuinfo.read_text(encoding="utf-8").split("\n\n", 1)[0]
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())}
