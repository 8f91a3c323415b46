"""Compilation in the background: the caller never waits, and always gets the right numbers."""

import subprocess
import sys
import threading
import time
from functools import partial

import pytest
import torch
from torch.func import functional_call, grad, grad_and_value
from torch.nn.functional import cross_entropy

import engine.accel
from engine.accel import COMPILING, Accel, _Compiled, _Modes, pick_accel
from engine.networks import make_network

CPU = Accel(torch.device("cpu"), compile=True)


@pytest.fixture
def plain_compiler(monkeypatch):
    """``torch.compile`` without Inductor: quick, and it records which thread compiled which shapes."""
    compiled = []

    def compile(function, dynamic):
        def fast(*args):
            compiled.append((args[0].shape, torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")))
            return function(*args)

        return fast

    monkeypatch.setattr(torch, "compile", compile)
    return compiled


def wait(made):
    made.thread.join(10)
    assert not made.thread.is_alive()


def test_each_shape_is_compiled_once_and_eager_until_then(plain_compiler):
    made = CPU.compiled(lambda x: x * 2, meanwhile=lambda x: x * 2 + 100)
    small, large = torch.ones(2), torch.ones(3)
    assert made(small).tolist() == [102, 102]
    wait(made)
    assert made(small).tolist() == [2, 2]
    assert made(large).tolist() == [102, 102, 102]
    wait(made)
    assert made(large).tolist() == [2, 2, 2]
    assert [shape[0] for shape, *_ in plain_compiler] == [2, 2, 3, 3]


def test_the_thread_works_in_the_callers_modes(plain_compiler):
    made = CPU.compiled(lambda x: x * 2)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        made(torch.ones(2))
        wait(made)
    assert plain_compiler == [(torch.Size([2]), False, True)]
    made(torch.ones(2))  # gradients are on now: another compilation
    wait(made)
    assert plain_compiler[-1] == (torch.Size([2]), True, False)
    assert _Modes.current() == _Modes(True, False, ())


def test_nothing_is_compiled_again_for_the_callers_strides(monkeypatch):
    compilers = []

    def backend(graph, inputs):
        compilers.append(threading.current_thread().name)
        return graph.forward

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    made = CPU.compiled(lambda a, b, c, d: (a + b.sum(), c * 2, d * 2))
    arguments = (
        torch.arange(10)[::2],
        torch.ones(3, 1).expand(3, 4),
        torch.rand(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
        torch.tensor(2.0, requires_grad=True),
    )
    first = made(*arguments)
    wait(made)
    later = made(*arguments)
    assert compilers == [COMPILING]
    assert all(torch.equal(a, b) for a, b in zip(first, later, strict=True))


def test_what_cannot_be_compiled_stays_eager(monkeypatch):
    def compile(function, dynamic):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(torch, "compile", compile)
    for background in (True, False):
        made = CPU.compiled(lambda x: x + 1, background)
        assert made(torch.ones(1)).item() == 2
        if made.thread:
            wait(made)
        assert "no compiler" in made.failed and made(torch.ones(1)).item() == 2


def test_deterministic_and_eager_accelerators_compile_nothing():
    def function(x):
        return x

    assert Accel(torch.device("cpu")).compiled(function) is function
    assert Accel(torch.device("cpu"), compile=True, deterministic=True).compiled(function) is function


def test_forward_and_backward_compile_in_a_thread():
    step = grad_and_value(lambda w, x: (torch.tanh(x @ w) ** 2).mean())
    made = CPU.compiled(step)
    assert isinstance(made, _Compiled)
    w, x = torch.randn(4, 3), torch.randn(8, 4)
    gradient, value = step(w, x)
    deadline = time.monotonic() + 120
    while not made.ready and made.failed is None and time.monotonic() < deadline:
        got = made(w, x)
        assert torch.allclose(got[0], gradient, atol=1e-6) and torch.allclose(got[1], value, atol=1e-6)
        time.sleep(0.05)
    if made.failed:
        pytest.skip(made.failed[:200])
    got = made(w, x)
    assert torch.allclose(got[0], gradient, atol=1e-6) and torch.allclose(got[1], value, atol=1e-6)


def test_a_backward_pass_outside_is_compiled_in_the_thread_as_well(monkeypatch):
    """What the caller goes back through later is ready by then, whatever the compiler leaves for the first pass."""
    passes = []

    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, slope):
            passes.append(threading.current_thread().name)
            return 2 * ctx.saved_tensors[0] * slope

    monkeypatch.setattr(torch, "compile", lambda function, dynamic: lambda x: {"y": Square.apply(x)})
    made = CPU.compiled(lambda x: {"y": x * x})
    x = torch.tensor([3.0], requires_grad=True)
    made(x)["y"].backward()
    wait(made)
    assert x.grad.tolist() == [6] and passes == [COMPILING]
    made(x)["y"].backward()
    assert x.grad.tolist() == [12] and len(passes) == 2


def test_a_program_can_end_while_it_compiles():
    code = (
        "import torch; from engine.accel import Accel\n"
        "made = Accel(torch.device('cpu'), compile=True).compiled(lambda x: (x.sin() * x.cos()).sum())\n"
        "made(torch.ones(64)); print('done')"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0 and ended.stdout == "done\n", ended.stderr


def test_steps_in_bf16_go_on_while_another_thread_traces():
    code = """
import sys, threading, time, torch
from torch.func import functional_call, grad
from engine.accel import Accel

sys.setswitchinterval(1e-3)
accel, end = Accel(torch.device("cpu"), bf16=True), time.monotonic() + 10


def program():
    net = torch.nn.Sequential(*(torch.nn.Linear(8, 8) for _ in range(5)))

    def loss(params, x):
        with accel.autocast():
            return functional_call(net, params, (x,)).float().sum()

    return dict(net.named_parameters()), grad(loss)


def trace():
    while time.monotonic() < end:
        params, function = program()
        torch._dynamo.reset()
        torch.compile(function, backend="eager")(params, torch.ones(4, 8))


thread = threading.Thread(target=trace)
thread.start()
params, step = program()
while time.monotonic() < end:
    step(params, torch.ones(4, 8))
thread.join()
print("done")
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0 and ended.stdout == "done\n", ended.stderr


def test_a_module_can_be_called_while_another_thread_traces():
    tracing, called = threading.Event(), threading.Event()

    class Slow(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.nn.Linear(2, 2)

        def forward(self, x):
            tracing.set()
            called.wait(20)
            return self.inner(x)

    traced = []
    thread = threading.Thread(target=lambda: traced.append(torch.fx.symbolic_trace(Slow())))
    thread.start()
    try:
        assert tracing.wait(20)
        outside = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.ReLU())
        assert outside(torch.ones(1, 3)).shape == (1, 3)
    finally:
        called.set()
        thread.join()
    assert [n.op for n in traced[0].graph.nodes] == ["placeholder", "call_module", "output"]


def test_full_precision_can_be_asked_for_where_bf16_is_fast(monkeypatch):
    monkeypatch.setattr("engine.accel.fast_bf16_cpu", lambda: True)
    monkeypatch.delenv("LIMBECK_BF16")
    assert pick_accel("cpu").bf16
    monkeypatch.setenv("LIMBECK_BF16", "0")
    assert not pick_accel("cpu").bf16


def test_a_compiled_step_keeps_half_of_what_its_backward_pass_could_use(monkeypatch):
    """Counted in one step of gradient descent that is gone back through; the gradient stays what it was.

    The backend divides forward from backward as Inductor does, and needs no C++ compiler.
    """
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager_decomp_partition"))
    network = make_network("convnet", 3, 32, 10, 8)
    weights = {name: p.detach().requires_grad_() for name, p in network.named_parameters()}
    images, labels = torch.randn(4, 3, 32, 32), torch.arange(4)

    def advance(weights):
        slope = grad(lambda w: cross_entropy(functional_call(network, w, (images,)), labels))(weights)
        return {name: w - 0.1 * slope[name] for name, w in weights.items()}

    def kept(step):
        step(weights)  # compiled here
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.nbytes) or t, lambda t: t):
            after = step(weights)
        found = torch.autograd.grad(sum(w.square().sum() for w in after.values()), list(weights.values()))
        return sum(sizes), found

    ours, gradient = kept(CPU.compiled(advance, background=False))
    monkeypatch.setattr(engine.accel, "ACTIVATIONS", 1.0)
    all_of_it, exact = kept(CPU.compiled(lambda w: advance(w), background=False))
    assert ours < 0.7 * all_of_it
    for a, b in zip(gradient, exact, strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-5)
