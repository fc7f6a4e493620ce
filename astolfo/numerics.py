"""The numerics class: everything besides the recipe that decides the last bit, set in one place and named.

`pin()` must run before torch is imported; every verb of the engine calls it first. `numerics_class()` then says which
class this process computes in. Recorded digests are promises within one class only.
"""

import functools
import os
import platform
import sys
from importlib import metadata

from astolfo import quiet
from astolfo.errors import NumericsError

THREADS = 1
_ENVIRONMENT = {
    # One thread per process: a matrix product split over two threads sums in another order than over one.
    "OMP_NUM_THREADS": str(THREADS),
    "MKL_NUM_THREADS": str(THREADS),
    # The same instruction set on every CPU that has AVX2, so that a newer one does not choose other kernels.
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "AVX2",
    # cuBLAS picks the same algorithm every time only with a fixed workspace.
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    # Hashing of strings must not order anything differently from process to process.
    "PYTHONHASHSEED": "0",
    # Counting GPUs must not start the CUDA runtime, which a fork would not survive.
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    # Nothing is fetched from anywhere while a job runs.
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}
_LIBRARIES = (
    "torch", "bitsandbytes", "deepspeed", "diffusers", "numpy", "pytorch-optimizer", "sd-mecha", "torchao", "transformers",
)  # fmt: skip


def pin() -> None:
    """Sets the environment that numeric libraries read when they load. Call before torch is imported.

    Raises NumericsError when torch is loaded already without these settings: they would come too late.
    """
    late = [name for name, value in _ENVIRONMENT.items() if os.environ.get(name) != value]
    if "torch" in sys.modules and {"ATEN_CPU_CAPABILITY", "MKL_CBWR", "ONEDNN_MAX_CPU_ISA"} & set(late):
        raise NumericsError(
            f"torch was imported before the numerics were pinned ({', '.join(late)} not set). "
            "Call astolfo.numerics.pin() first, or start the program with these variables set."
        )
    os.environ.update(_ENVIRONMENT)
    quiet.hide()


def make_deterministic() -> None:
    """Turns on torch's deterministic algorithms; an operator that has none raises an error that names it."""
    import torch

    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False  # its timing picks a different convolution from run to run
    torch.backends.cudnn.deterministic = True
    torch.backends.cuda.matmul.allow_tf32 = False  # 10-bit mantissas would depend on the card's generation
    torch.backends.cudnn.allow_tf32 = False
    torch.utils.deterministic.fill_uninitialized_memory = False  # we never read memory that nothing wrote


@functools.cache
def numerics_class() -> dict[str, str]:
    """The class this process computes in, as names and values that sort and compare."""
    versions = {name: metadata.version(name) for name in _LIBRARIES}
    return {"device": "cpu", "processor": _processor(), "isa": "avx2", "threads": str(THREADS), **versions}


def _processor() -> str:
    """Vendor, family, model and stepping of the CPU as Linux tells them."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            first = file.read().split("\n\n", 1)[0]
    except OSError:
        return platform.machine()
    fields = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in first.splitlines())}
    names = ("vendor_id", "cpu family", "model", "stepping")
    return " ".join([platform.machine(), *(fields.get(name, "?") for name in names)])
