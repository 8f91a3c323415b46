"""Device, precision and compilation: the only place that decides them."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch._functorch.config

from engine.errors import Refused
from engine.home import cache_folder

COMPILING = "limbeck-compiles"  # the name of the threads that compile
# Share of a compiled step's activations to keep for its backward pass; the others are computed again from these. Left
# alone, Inductor keeps masks and normalised maps whose writing and reading back takes half of a second-order step.
ACTIVATIONS = 0.5
_one_at_a_time = threading.Lock()  # several compilations at once only delay the first that is ready


def compiling() -> bool:
    """Whether something is being compiled in the background."""
    return any(thread.name == COMPILING for thread in threading.enumerate())


def _trace_in_own_thread_only() -> None:
    """Keep torch.fx from disturbing other threads while it traces.

    Tracing replaces methods of ``nn.Module`` for the whole process, so that a step that runs while another thread
    compiles would call the tracer and fail ("module is not installed as a submodule"). With this, a replaced method
    works as ever in every thread but the one that replaced it. It can go once torch does so itself.
    """
    from torch.fx import _symbolic_trace

    patcher = getattr(_symbolic_trace, "_Patcher", None)
    if patcher is None or not hasattr(patcher, "patch_method") or hasattr(patcher, "limbeck_original"):
        return
    patcher.limbeck_original = patcher.patch_method

    def patch_method(self: Any, cls: type, name: str, new_fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        original, owner = getattr(cls, name), threading.get_ident()

        @functools.wraps(new_fn)
        def replaced(*a: Any, **k: Any) -> Any:
            return (new_fn if threading.get_ident() == owner else original)(*a, **k)

        return patcher.limbeck_original(self, cls, name, replaced, *args, **kwargs)

    patcher.patch_method = patch_method


_trace_in_own_thread_only()


def _keep_freed_memory() -> None:
    """Have glibc keep the memory of freed tensors for the next ones.

    By default every large tensor is mapped from the system and given back, and the kernel fills its pages with zeros
    each time: a third to a half of the time of a training step on a CPU, where each step asks for the same sizes.
    """
    with contextlib.suppress(OSError, AttributeError):  # another system's C library
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(_M_MMAP_MAX, 0)
        library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def give_memory_back() -> None:
    """Return to the system what a finished job no longer needs."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # names and numbers of malloc.h
_keep_freed_memory()


@dataclass(frozen=True)
class Accel:
    """How tensors are computed.

    ``device``: cpu, cuda or mps. ``bf16``: whether ``autocast`` lowers precision. ``compile``: whether ``compiled``
    compiles at all. ``deterministic``: one numeric path from the first call to the last, so nothing switches while it
    runs.
    """

    device: torch.device
    bf16: bool = False
    compile: bool = False
    deterministic: bool = False

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """bf16 autocast where this machine computes bf16 fast, else nothing."""
        return lowered(self.device.type, torch.bfloat16) if self.bf16 else contextlib.nullcontext()

    def compiled(
        self, function: Callable[..., Any], background: bool = True, meanwhile: Callable[..., Any] | None = None
    ) -> Callable[..., Any]:
        """``function``, compiled where that pays; ``meanwhile`` until the compiled one is ready when ``background``.

        ``meanwhile`` computes the same (``function`` itself unless given). It must be given where calling ``function``
        changes something that another thread could see half-done: ``functional_call`` swaps a module's parameters, so
        the function that is traced in the background and the one that is called need a module each. Where arguments
        require gradients, the backward pass is compiled as well, for one pass a call. Numbers that change from call to
        call go in as tensors.
        """
        if not self.compile or self.deterministic:
            return meanwhile or function
        return _Compiled(function, background, meanwhile or function)

    def programs(self, build: Callable[[], tuple[Callable[..., Any], ...]]) -> tuple[Callable[..., Any], ...]:
        """What ``build`` makes, compiled; built twice, as tracing and calling need a network object each."""
        return tuple(self.compiled(f, meanwhile=m) for f, m in zip(build(), build(), strict=True))

    def describe(self) -> str:
        """One line for people: device, precision, compilation, threads."""
        parts = [self.device.type, "bf16" if self.bf16 else "fp32", "compiled" if self.compile else "eager"]
        if self.device.type == "cpu":
            threads = torch.get_num_threads()
            parts.append(f"{threads} thread{'s' if threads > 1 else ''}")
        if self.device.type == "cuda":
            parts[0] = torch.cuda.get_device_name(self.device)
        return ", ".join(parts)


def lowered(device: str, dtype: torch.dtype) -> torch.autocast:
    """``torch.autocast`` without its cache of casts, which all threads share under one lock.

    A thread that leaves autocast empties the cache and, with the lock held, waits for Python's own; one that compiles
    asks for the lock with Python's own held: both stand still for good, and the process with them. The cache would
    spare casts of weights that are used twice within one autocast, of which there are few.
    """
    return torch.autocast(device, dtype, cache_enabled=False)


@contextlib.contextmanager
def at_most(threads: int | None) -> Iterator[None]:
    """Compute with at most so many threads inside the block; None: with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(before, threads or before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Compiled:
    """Calls ``meanwhile`` while a thread compiles ``function`` on a call's shapes, then the compiled one.

    Every new combination of shapes, layouts and modes is compiled once, one at a time, and computed eagerly until that
    is done: nothing is ever compiled in the caller's time, unless ``background`` is False. A failed compilation (no
    C++ compiler, an operator Inductor does not know) leaves it eager for good.
    """

    def __init__(self, function: Callable[..., Any], background: bool, meanwhile: Callable[..., Any]):
        self.function, self.background, self.meanwhile = function, background, meanwhile
        self.fast: Callable[..., Any] | None = None
        self.ready: set[Any] = set()
        self.thread: threading.Thread | None = None
        self.failed: str | None = None
        self.seconds = 0.0

    def __call__(self, *args: Any) -> Any:
        if self.failed is not None:
            return self.meanwhile(*args)
        modes = _Modes.current()
        signature = (modes, _signature(args))
        if signature in self.ready and self.fast is not None:
            return self.fast(*args)
        if not self.background:
            return self._compile(signature, modes, args)
        if self.thread is None or not self.thread.is_alive():
            example = tuple(_detached_copy(a) for a in args)
            self.thread = threading.Thread(
                target=self._compile, args=(signature, modes, example), daemon=True, name=COMPILING
            )
            self.thread.start()
        return self.meanwhile(*args)

    def _compile(self, signature: Any, modes: _Modes, args: tuple[Any, ...]) -> Any:
        with _one_at_a_time:
            return self._compile_now(signature, modes, args)

    def _compile_now(self, signature: Any, modes: _Modes, args: tuple[Any, ...]) -> Any:
        began = time.perf_counter()
        if self.background and hasattr(os, "setpriority"):
            with contextlib.suppress(OSError):  # on Linux this is the thread's own priority: a third of a busy core, so
                # that the run goes first and the compiler yet comes to an end
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 3)
        try:
            torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
            fast = self.fast or torch.compile(self.function, dynamic=False)
            with torch._functorch.config.patch(activation_memory_budget=ACTIVATIONS), modes.entered():
                result = fast(*args)
                if self.background:
                    _go_back(result, args)
            self.fast = fast
            self.ready.add(signature)
        except Exception as error:
            self.failed = f"{type(error).__name__}: {error}"
            result = None if self.background else self.meanwhile(*args)
        self.seconds += time.perf_counter() - began
        return result


@dataclass(frozen=True)
class _Modes:
    """What torch keeps per thread and a compiled function depends on: gradients on or off, autocast."""

    grad: bool
    inference: bool
    autocast: tuple[tuple[str, torch.dtype], ...]

    @staticmethod
    def current() -> _Modes:
        casts = [(d, torch.get_autocast_dtype(d)) for d in ("cpu", "cuda") if torch.is_autocast_enabled(d)]
        return _Modes(torch.is_grad_enabled(), torch.is_inference_mode_enabled(), tuple(casts))

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            if self.inference:
                stack.enter_context(torch.inference_mode())
            stack.enter_context(torch.set_grad_enabled(self.grad))
            for device, dtype in self.autocast:
                stack.enter_context(lowered(device, dtype))
            yield


def _signature(value: Any) -> Any:
    """What a compilation is for: shape, layout, type and device of the tensors, and all other values as they are."""
    leaves, structure = torch.utils._pytree.tree_flatten(value)
    parts = [
        (t.shape, t.stride(), t.dtype, t.device, t.requires_grad) if isinstance(t, torch.Tensor) else t for t in leaves
    ]
    return str(structure), tuple(parts)


def _go_back(result: Any, args: tuple[Any, ...]) -> None:
    """Run the backward pass, which may only be compiled when it first runs."""
    ends, leaves = (
        [t for t in torch.utils._pytree.tree_leaves(tree) if isinstance(t, torch.Tensor) and t.requires_grad]
        for tree in (result, args)
    )
    if ends and leaves:
        torch.autograd.grad(ends, leaves, [torch.zeros_like(t) for t in ends], allow_unused=True)


def _detached_copy(value: Any) -> Any:
    """A copy of the tensors in ``value`` that the compiling thread may use while the caller updates its own.

    With the strides of the original, also where these leave gaps or repeat values: what is compiled for other strides
    would not do for the caller's, who would then have to wait for another compilation.
    """

    def copy(tensor: Any) -> Any:
        if not isinstance(tensor, torch.Tensor):
            return tensor
        once = tensor.detach()[tuple(slice(1) if step == 0 else slice(None) for step in tensor.stride())]
        same = torch.empty_strided(once.shape, once.stride(), dtype=once.dtype, device=once.device).copy_(once)
        return same.expand(tensor.shape).requires_grad_(tensor.requires_grad)

    return torch.utils._pytree.tree_map(copy, value)


def fast_bf16_cpu() -> bool:
    """Whether this CPU has bf16 matrix instructions (AMX or AVX-512 BF16); without them bf16 is slower than fp32."""
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name, bool)() for name in checks)


def pick_accel(device: str = "auto", deterministic: bool = False, compile: bool | None = None) -> Accel:
    """The accelerator for ``device`` (auto, cpu, cuda, mps).

    Compilation is on for CUDA, and for CPUs with a C++ compiler; ``LIMBECK_COMPILE=0`` switches it off. bf16 is on for
    CUDA, and for CPUs that are fast with it; ``LIMBECK_BF16=0`` switches it off, so that machines agree. Raises
    ``Refused`` when the named device is not there.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device, False):
        names = ", ".join(name for name, here in there.items() if here)
        raise Refused(f"Device “{device}” is not on this machine; choose auto or one of: {names}.")
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder("inductor")))
    if compile is None:
        able = device == "cuda" or (device == "cpu" and bool(shutil.which("g++") or shutil.which("clang++")))
        compile = able and os.environ.get("LIMBECK_COMPILE", "1") != "0"
    allowed = not deterministic and os.environ.get("LIMBECK_BF16", "1") != "0"
    bf16 = allowed and (device == "cuda" or (device == "cpu" and fast_bf16_cpu()))
    if deterministic:
        torch.use_deterministic_algorithms(True, warn_only=True)
    return Accel(torch.device(device), bf16, compile, deterministic)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block (network construction, say) under its own global seed and put the generators back afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
