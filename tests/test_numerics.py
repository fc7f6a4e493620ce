"""The numerics class is set in one place, named in full, and what cannot be deterministic is an error that says so."""

import os
import platform
import subprocess
import sys
import threading

import pytest
import torch
from click.testing import CliRunner

from astolfo import numerics, operators
from astolfo.cli import cli
from astolfo.errors import NumericsError
from tests.conftest import STAND_INS


def test_the_class_of_a_cpu_is_named_without_torch():
    """What a CPU must have, threads, every library and torch's build; asking for it does not import torch."""
    code = (
        "import sys; from astolfo.numerics import numerics_class as n; found = n(); assert 'torch' not in sys.modules\n"
        "print(found['processor'], found['isa'], found['threads'], found['torch build'], sep='|')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (
        done.stdout.strip()
        == f"{platform.machine()} with avx2 and fma|avx2|1|{torch.__version__} {torch.version.git_version[:12]}"
    )


def test_the_switches_are_what_torch_says():
    """After `make_deterministic` torch answers as the table of switches says, and computes with one thread."""
    numerics.make_deterministic()
    homes = {"cudnn": torch.backends.cudnn, "matmul": torch.backends.cuda.matmul}
    said = {
        "use_deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "fill_uninitialized_memory": torch.utils.deterministic.fill_uninitialized_memory,
    }
    for switch in numerics.SWITCHES:
        home, _, name = switch.name.rpartition(".")
        assert str(getattr(homes[home], name) if home else said[name]) == switch.value, switch.name
    assert torch.get_num_threads() == numerics.THREADS
    assert torch.backends.cpu.get_cpu_capability() == "AVX2"


def test_threads_of_a_fork_may_start_at_once():
    """Eight threads whose first sums coincide end none of twenty forks; without the hook, three of four end."""
    numerics.make_deterministic()
    torch.ones(100_000).add_(1)

    def add(together):
        together.wait()
        try:
            torch.ones(100_000).add_(1)
        except RuntimeError:
            os._exit(1)

    ended = []
    for _ in range(20):
        child = os.fork()
        if child == 0:
            together = threading.Barrier(8)
            threads = [threading.Thread(target=add, args=(together,)) for _ in range(8)]
            for step in (threading.Thread.start, threading.Thread.join):
                list(map(step, threads))
            os._exit(0)
        ended.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    assert ended == [0] * 20


def test_every_switch_has_a_reason():
    """`astolfo numerics` prints the class, and each switch and replaced operator with the reason for it."""
    shown = CliRunner().invoke(cli, ["numerics"]).output
    reasons = [one.reason for one in (*numerics.ENVIRONMENT, *numerics.SWITCHES, *operators.REPLACED)]
    assert all(reasons)
    assert [line for line in numerics.explain() if line not in shown] == []
    assert f"processor          {numerics.numerics_class()['processor']}" in shown


def test_the_class_of_a_cpu_names_no_processor(monkeypatch):
    """Two machines of other vendors are one class: nothing of what Linux tells of a processor is in it."""
    intel = "vendor_id : GenuineIntel\ncpu family : 6\nmodel : 60\nmodel name : Haswell\nstepping : 3\nflags : avx2 fma avx512f\n"
    found = numerics.numerics_class()
    numerics.numerics_class.cache_clear()
    monkeypatch.setattr(numerics, "_fields", lambda _: dict(line.split(" : ") for line in intel.splitlines()))
    assert numerics.numerics_class() == found
    assert not {"vendor", "family", "model", "stepping"} & set(found)
    assert {"MKL_CBWR=COMPATIBLE", "NPY_DISABLE_CPU_FEATURES=X86_V4"} < set(found["switches"].split())


def test_libraries_read_the_switches():
    """numpy says that it uses what its switch names, and nothing else that this processor has."""
    code = (
        "from astolfo import numerics; numerics.pin()\n"
        "from numpy._core._multiarray_umath import __cpu_features__ as has\n"
        "print([name for name in ('X86_V4', 'AVX512_ICL', 'AVX512_SPR') if has[name]], has['X86_V3'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] True"


def test_a_library_that_came_too_early_is_named(monkeypatch):
    """Where numpy was imported without its switches, the pinning says so."""
    monkeypatch.delenv("NPY_DISABLE_CPU_FEATURES", raising=False)
    monkeypatch.setattr(sys, "modules", {"numpy": None})
    with pytest.raises(NumericsError, match="numpy was imported before .*NPY_DISABLE_CPU_FEATURES"):
        numerics.pin()


@pytest.mark.parametrize(
    ("told", "found"),
    [
        (
            "model name\t: Intel(R) Xeon(R) X5550\nflags\t\t: fpu sse sse4_2\n\nprocessor: 1",
            "X5550, which has no AVX2 and no FMA",
        ),
        ("model name\t: Ivy\nflags\t\t: avx fma\n", "Ivy, which has no AVX2[.]"),
        ("processor\t: 0\nFeatures\t: fp asimd\n", "an unnamed .* processor, which has no AVX2 and no FMA"),
    ],
)
def test_a_processor_that_cannot_is_refused_by_name(tmp_path, told, found):
    """A processor without AVX2 or FMA is refused with its name; this machine's, and one of which nothing is told, are not."""
    (tmp_path / "cpuinfo").write_text(told)
    with pytest.raises(NumericsError, match=found):
        numerics.check_processor(tmp_path / "cpuinfo")
    numerics.check_processor()
    numerics.check_processor(tmp_path / "nothing")


def test_a_job_asks_the_processor_first(monkeypatch, tmp_path):
    """A job on a processor that is refused ends before it reads or makes anything."""
    (tmp_path / "cpuinfo").write_text("model name : Old\nflags : sse\n")
    monkeypatch.setattr(numerics.check_processor, "__defaults__", (tmp_path / "cpuinfo",))
    done = CliRunner().invoke(cli, ["job", "vocabulary", "--spec", '{"verb": "vocabulary"}', "--out", str(tmp_path / "made")])
    assert isinstance(done.exception, NumericsError)
    assert not (tmp_path / "made").exists()


def test_an_operator_that_cannot_is_named():
    """An operator without a deterministic algorithm ends the job with its name; other errors pass as they are."""
    numerics.make_deterministic()
    said = "run 25112201: expected operators that give the same bits every time, found put_,"
    with pytest.raises(NumericsError, match=said), numerics.naming_operators("run 25112201"):
        torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2))
    with pytest.raises(NumericsError, match="a matrix product of cuBLAS"), numerics.naming_operators("run 25112201"):
        raise RuntimeError(
            "Deterministic behavior was enabled with either `torch.use_deterministic_algorithms(True)` or "
            "`at::Context::setDeterministicAlgorithms(true)`, but this operation is not deterministic because it uses CuBLAS"
        )
    with pytest.raises(RuntimeError, match="shape"), numerics.naming_operators("run 25112201"):
        torch.zeros(3).view(2, 2)


@pytest.mark.parametrize(
    ("told", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 01:44:30 UTC 2024\n", "550.54.14"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  575.57.08  Release Build\n", "575.57.08"),
    ],
)
def test_the_driver_is_read_from_the_kernel_module(tmp_path, told, version):
    """Both of NVIDIA's kernel modules tell the driver's version."""
    (tmp_path / "version").write_text(told)
    assert numerics._driver(tmp_path / "version") == version


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_no_gpu_has_no_class():
    """Without a CUDA device there is no class of one to name."""
    with pytest.raises(NumericsError, match="expected a CUDA device and its driver"):
        numerics.numerics_class("cuda")


def test_files_are_compared_in_a_class_that_is_here():
    """Without a card what was made for one is compared in the CPU's class; a card's own class is named where there is a card."""
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert numerics.class_here("cuda") == numerics.numerics_class(expected)


@pytest.mark.parametrize("verb", ["import", "sheet", "mecha"])
def test_a_verb_that_computes_pins_before_a_library_loads(tmp_path, verb):
    """Typed in a shell that sets nothing: no verb loads numpy or torch before the switches are set."""
    (tmp_path / "pictures").mkdir()
    (tmp_path / "recipe.mecha").write_text(
        'version 0.1.0\nmodel "a"\nmodel "b"\nmerge "weighted_sum" &0 &1 alpha=0.3\n', encoding="utf-8"
    )
    models = [f"{name}={STAND_INS / 'sdxl-eps.safetensors'}" for name in "ab"]
    typed = {
        "import": ["dataset", "import", "folder", "pictures", "-o", "store"],
        "sheet": ["dataset", "sheet", "no-store", "-o", "sheet.png"],
        "mecha": ["mecha", "recipe.mecha", *models, "-o", "out.safetensors"],
    }[verb]
    shell = {name: value for name, value in os.environ.items() if name not in {one.name for one in numerics.ENVIRONMENT}}
    encoder = ["--autoencoder", str(STAND_INS / "sdxl-vae.safetensors")] if verb != "mecha" else []
    done = subprocess.run(
        [sys.executable, "-m", "astolfo", *typed, *encoder], cwd=tmp_path, env=shell, capture_output=True, text=True, check=False
    )
    said = {"import": "No sample can be used", "sheet": "no-store", "mecha": ""}[verb]
    assert (done.returncode, said in done.stderr) == (int(verb != "mecha"), True), done.stderr
    assert "were pinned" not in done.stderr
