"""The host's side of the CUDA backend, on the real numba-cuda with a card that computes nothing: none is needed.

    python tests/cuda_host.py

The simulator replaces Numba's arrays, streams and launches; here they are the real ones, down to the driver, whose
memory is the host's. Kernels are compiled to PTX. A launch is not carried out but checked: its arguments against the
parameters that the PTX declares, its grid against the limits of cards. While a graph is captured, whatever a capture
forbids is an error: memory that is allocated or freed, copies, waiting, loading a module. It is a script because it
replaces parts of numba-cuda: `test_cuda.py` runs it.
"""

import ctypes
import re
import sys
import warnings
from collections import Counter
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import setups
from cuda.bindings import driver as binding
from numba import cuda
from numba.cuda import codegen, dispatcher
from numba.cuda.cudadrv import devices
from numba.cuda.cudadrv import driver as numba_driver

import adjoint_rd as rd

TOTAL = 2**34
MOST_BLOCKS = (2**31 - 1, 65535, 65535)
DONE = binding.CUresult.CUDA_SUCCESS


class Card:
    """What the driver is told to do, in the host's memory; `log` has (what, ...) of each call since `clear`."""

    def __init__(self):
        self.memory = {}
        self.captured = None  # the stream that is being captured
        self.streams = 0
        self.log = []

    def did(self, what, *more):
        """Note a call that a capture forbids."""
        assert self.captured is None, f"{what} during a capture"
        self.log.append((what, *more))

    def allocate(self, nbytes):
        self.did("allocate")
        room = np.zeros(int(nbytes), np.uint8)
        self.memory[room.ctypes.data] = room
        return room.ctypes.data

    def free(self, pointer):
        self.did("free")
        del self.memory[int(pointer)]

    def left(self):
        return TOTAL - sum(room.size for room in self.memory.values()), TOTAL

    def copy(self, to, of, nbytes, stream=None):
        self.did("copy", stream)
        ctypes.memmove(int(to), int(of), int(nbytes))

    def new_stream(self, flags):
        assert int(flags) == 0  # it waits for the legacy default stream, on which some copies are
        self.streams += 1
        return binding.CUstream(1000 + self.streams)

    def begin(self, stream, mode):
        self.did("begin")
        self.captured = int(stream)
        return (DONE,)

    def end(self, stream):
        assert self.captured == int(stream)
        self.captured = None
        return DONE, binding.CUgraph(1)

    def replay(self, graph, stream):
        self.did("replay", int(graph), int(stream))
        return (DONE,)

    def launch(self, stream, config, kernel, *arguments):
        given = [8 if isinstance(each, int) else ctypes.sizeof(each) for each in arguments]
        assert given == kernel.parameters, (kernel.name, given, kernel.parameters)
        assert all(1 <= n <= most for n, most in zip(config.grid, MOST_BLOCKS, strict=True)), config.grid
        assert np.prod(config.block) <= 1024, config.block
        handle = int(stream.handle)
        assert self.captured in (None, handle)
        self.log.append(("launch" if self.captured is None else "captured", kernel.name, handle))

    def clear(self):
        counts = Counter(what for what, *_ in self.log)
        self.log = []
        return counts

    def install(self):
        """Put it in the driver's place."""
        driver = numba_driver.driver
        driver.is_initialized, driver.initialization_error = True, None
        numba_driver._logger = numba_driver.make_logger()
        calls = dict(
            cuMemAlloc=lambda nbytes: binding.CUdeviceptr(self.allocate(nbytes)),
            cuMemHostAlloc=lambda nbytes, flags: self.allocate(nbytes),
            cuMemFree=self.free,
            cuMemFreeHost=self.free,
            cuMemGetInfo=self.left,
            cuCtxSynchronize=lambda: self.did("wait"),
            cuStreamSynchronize=lambda stream: self.did("wait"),
            cuStreamCreate=self.new_stream,
            cuStreamDestroy=lambda stream: self.did("destroy"),
            get_version=lambda: (99, 0),
        )
        calls |= {f"cuMemcpy{way}{how}": self.copy for way in ("HtoD", "DtoH", "DtoD") for how in ("", "Async")}
        for name, call in calls.items():
            setattr(driver, name, call)
        device = SimpleNamespace(id=0, compute_capability=(9, 0))
        context = numba_driver.Context(device, 1)
        devices._runtime = Runtime(context)
        cuda.is_available, cuda.get_current_device = lambda: True, lambda: device
        codegen.CUDACodeLibrary.get_cufunc = lambda library: self.load(library)
        dispatcher.launch = self.launch
        binding.cuStreamBeginCapture, binding.cuStreamEndCapture = self.begin, self.end
        binding.cuGraphInstantiate = lambda graph, flags: (DONE, binding.CUgraphExec(7))
        binding.cuGraphLaunch = self.replay
        binding.cuGraphDestroy = binding.cuGraphExecDestroy = lambda graph: (DONE,)

    def load(self, library):
        if 0 not in library._cufunc_cache:
            self.did("load")
            name, ptx = library._entry_name, library.get_asm_str()
            head = re.search(rf"\.entry\s+{re.escape(name)}\s*\((.*?)\)", ptx, re.DOTALL).group(1)
            parameters = [int(bits) // 8 for bits in re.findall(r"\.param\s+(?:\.align\s+\d+\s+)?\.[busf](\d+)", head)]
            kernel = SimpleNamespace(name=name, parameters=parameters)
            library._cufunc_cache[0] = SimpleNamespace(kernel=kernel, module=SimpleNamespace(initialized=True))
        return library._cufunc_cache[0]


class Runtime:
    """Numba's, with one context that is always current."""

    def __init__(self, context):
        self.context = context

    @contextmanager
    def ensure_context(self):
        yield

    def get_or_create_context(self, number):
        self.context.prepare_for_use()
        return self.context


def main():
    card, wrong = Card(), []
    card.install()
    case = setups.draw("gray_scott", (6, 5), "dirichlet", "rk4", ("F",))
    dparams, t = setups.directions(case)
    sim = setups.simulation(case, backend="cuda")
    loss = rd.losses.Trajectory({2: rd.losses.L2(case.target, sigma=0.5), 4: setups.Wavy(case.target)})
    given = cuda.to_device(case.y0)
    both = np.stack([case.y0, case.y0])
    many = cuda.to_device(both)
    calls = {
        "run": lambda: sim.run(case.y0, case.params, steps=4, save_every=2).final,
        "gradient": lambda: sim.gradient(case.y0, case.params, loss, steps=4).initial,
        "checkpoints": lambda: sim.gradient(case.y0, case.params, loss, steps=5, checkpoints=2).initial,
        "disk": lambda: sim.gradient(case.y0, case.params, loss, steps=5, checkpoints="disk").initial,
        "tangent": lambda: sim.tangent(case.y0, case.params, steps=4, direction=dparams, initial=t).tangent,
        "hessian": lambda: sim.hessian_product(case.y0, case.params, loss, steps=4, direction=dparams).initial,
        "steady": lambda: sim.run_to_steady(case.y0, case.params, max_steps=4).final,
        "batch": lambda: sim.gradient(both, case.params, loss, steps=4, window=3).initial,
        "run on the card": lambda: sim.run(given, case.params, steps=4, save_every=2).final,
        "gradient on the card": lambda: sim.gradient(given, case.params, loss, steps=4, window=3).initial,
        "batch on the card": lambda: sim.gradient(many, case.params, loss, steps=4).initial,
    }
    for name, call in calls.items():
        for _ in range(3):
            card.clear()
            result = call()
            counts = card.clear()
        if counts["captured"] or counts["load"] or not counts["replay"]:
            wrong.append(f"{name}: the third time is not a replay: {dict(counts)}")
        shape = case.y0.shape if "batch" not in name else both.shape
        if result.shape != shape or isinstance(result, np.ndarray) != ("card" not in name):
            wrong.append(f"{name}: {type(result)} of shape {result.shape}")
    print("\n".join(wrong) or "no call that a card would refuse")
    return 1 if wrong else 0


if __name__ == "__main__":
    warnings.simplefilter("error")
    warnings.simplefilter("ignore", rd.errors.StabilityWarning)
    sys.exit(main())
