"""The card: is one usable, how much memory it has, arrays of other libraries on it, and graphs of launches.

`numba.cuda` is imported here when a function is called, never when `adjoint_rd` is.
"""

import importlib.util
import threading
import warnings
from collections.abc import Callable, Hashable
from types import ModuleType
from typing import Any

import numpy as np

from .errors import BackendError, InputError

INSTALL = "pip install 'adjoint-rd[cuda]'"
MOST_GRAPHS = 256
MOST_GRAPH_STEPS = 2**15  # in all of them: some hundred launches take about 1 MB of host memory
CUDA_DEVICE = 2  # kDLCUDA of DLPack

# While a stream that waits for the legacy default stream is captured, as Numba's streams do, no other thread may use
# that stream or wait for the whole card: held by what does.
outside_captures = threading.RLock()


def module() -> ModuleType:
    """Return `numba.cuda`.

    Raises
    ------
    BackendError
        If numba-cuda, the toolkit's wheels, the driver or a card is missing; it says which, and what to do.
    """
    if importlib.util.find_spec("numba_cuda") is None:
        raise BackendError(f"backend='cuda' needs numba-cuda and the CUDA toolkit's wheels, not found here: {INSTALL}.")
    from numba import config, cuda

    if not config.ENABLE_CUDASIM:
        _check_card(cuda, *_toolkit())
    return cuda


def _toolkit() -> tuple[tuple[int, int], tuple[int, int]]:
    """The CUDA version that the toolkit's wheels belong to, and the least compute capability they compile for."""
    from numba.cuda.cudadrv import nvrtc, nvvm, runtime

    try:
        nvvm.NVVM()
    except Exception as error:  # of several types, by what is missing
        raise BackendError(
            f"backend='cuda' needs the CUDA toolkit's wheels (NVVM does not load: {_first_line(error)}): {INSTALL}."
        ) from error
    try:
        return runtime.get_version(), min(nvrtc.get_supported_ccs())
    except Exception as error:
        raise BackendError(
            f"backend='cuda' needs the CUDA toolkit's wheels (NVRTC does not load: {_first_line(error)}): {INSTALL}."
        ) from error


def _check_card(cuda: ModuleType, toolkit: tuple[int, int], least: tuple[int, int]) -> None:
    """Raise a `BackendError` unless there is a card, and the toolkit's code runs on it and on its driver."""
    from numba.cuda.cudadrv.driver import driver

    if not cuda.is_available():
        reason = _first_line(cuda.cuda_error() or "the driver finds no device")
    elif driver.get_version()[0] < toolkit[0]:
        known, wanted = (".".join(map(str, version)) for version in (driver.get_version(), toolkit))
        reason = f"the driver is for CUDA {known}, older than the toolkit's {wanted}; update the driver"
    elif (found := cuda.get_current_device().compute_capability) < least:
        known, wanted = (".".join(map(str, version)) for version in (found, least))
        reason = f"the card's compute capability is {known}, and CUDA {toolkit[0]} compiles for {wanted} and more"
    else:
        return
    raise BackendError(f"backend='cuda' needs an NVIDIA card and its driver ({reason}). Use backend='cpu' or 'auto'.")


def is_usable() -> bool:
    """Whether `module` would succeed."""
    try:
        module()
    except BackendError:
        return False
    return True


def _first_line(error: Any) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (
        lines[-1] if lines and lines[0].startswith("Error at") else lines[0] if lines else "no reason given"
    ).rstrip(".")


def free_bytes() -> float:
    """Device memory that is free now."""
    return float(module().current_context().get_memory_info().free)


def zeros(shape: tuple[int, ...], dtype: Any, what: str) -> Any:
    """A new device array of zeros.

    Raises
    ------
    BackendError
        If the device memory does not suffice.
    """
    cuda = module()
    nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    try:
        array = cuda.device_array(shape, dtype)
    except Exception as error:  # of a type that depends on who manages the memory
        if "memory" not in str(error).lower():
            raise
        raise BackendError(
            f"{what} of shape {shape} needs {nbytes / 1e9:.3g} GB of device memory, {free_bytes() / 1e9:.3g} GB are "
            "free. Use checkpoints='auto' or a number, dtype='float32', a smaller grid or batch, or backend='cpu'."
        ) from error
    if array.size:
        from .kernels.cuda import THREADS, helper, launcher

        blocks = max(1, min(-(-array.size // THREADS), 65535))
        with outside_captures:
            launcher(helper("fill"), blocks, THREADS)(array.reshape(array.size), array.dtype.type(0))
            cuda.synchronize()
    return array


def as_device_array(array: Any) -> Any | None:
    """Return a view of an array that is on the card (CuPy, torch, JAX, Numba), or None if it is not there.

    Both ``__cuda_array_interface__`` and DLPack are understood; nothing is copied.
    """
    cuda = module()
    if hasattr(array, "copy_to_host"):  # Numba's own, the simulator's too
        return array
    try:
        interface = getattr(array, "__cuda_array_interface__", None)
    except (RuntimeError, TypeError) as error:  # of torch, for tensors with a gradient
        raise InputError(f"an array on the card, a {type(array).__name__}, cannot be read: {error}") from None
    if interface is not None:
        return cuda.as_cuda_array(array)
    location = getattr(array, "__dlpack_device__", None)
    if location is None or int(location()[0]) != CUDA_DEVICE:
        return None
    from cuda.core.utils import StridedMemoryView

    view = StridedMemoryView.from_dlpack(array, stream_ptr=-1)
    strides = None if view.strides is None else tuple(s * view.dtype.itemsize for s in view.strides)
    interface = dict(
        shape=tuple(view.shape),
        strides=strides,
        typestr=np.dtype(view.dtype).str,
        data=(view.ptr, view.readonly),
        version=3,
    )
    return cuda.as_cuda_array(_Interface(interface, view))


class _Interface:
    def __init__(self, interface: dict[str, Any], owner: Any):
        self.__cuda_array_interface__ = interface
        self.owner = owner  # keeps the memory alive


def check_layout(argument: str, array: Any, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Raise an `InputError` unless a device array can be used as it is."""
    if tuple(array.shape) != shape:
        raise InputError(f"{argument} has shape {tuple(array.shape)}; this simulation needs {shape}.")
    if array.dtype != dtype or not array.is_c_contiguous():
        raise InputError(
            f"{argument} is on the card with dtype {array.dtype}, C-contiguous {array.is_c_contiguous()}; it is used "
            f"as it is, so it must be C-contiguous {dtype}. Convert it, or give a NumPy array."
        )


class Graphs:
    """Sequences of launches that are recorded once and then replayed as one CUDA graph.

    A launch from Python takes some 20 us, the steps of a small grid take 3: so the second time that a sequence is asked
    for, it is captured, and from then on it is launched as a whole. (The first time compiles kernels, which a capture
    does not allow.)
    """

    def __init__(self, stream: Any):
        self.stream = stream
        self.usable = hasattr(stream, "handle")  # the simulator's streams have none
        self.known: dict[Hashable, tuple[int, _Graph | None]] = {}  # the steps and the graph, if it was asked for twice

    def clear(self) -> None:
        """Forget all: the buffers that they use have moved."""
        self.known.clear()

    def launch(self, key: Hashable, enqueue: Callable[[], None], steps: int) -> None:
        """Do what `enqueue` launches on the stream, for so many steps; equal keys promise equal launches."""
        if not self.usable:
            enqueue()
            return
        if key not in self.known:
            enqueue()
            self._make_room(steps)
            self.known[key] = steps, None
            return
        graph = self.known[key][1] or self._capture(enqueue)
        if graph is None:
            enqueue()
            return
        self.known[key] = steps, graph
        graph.launch()

    def _make_room(self, steps: int) -> None:
        """Give up the oldest."""
        kept = sum(each for each, _ in self.known.values())
        while self.known and (len(self.known) >= MOST_GRAPHS or kept + steps > MOST_GRAPH_STEPS):
            kept -= self.known.pop(next(iter(self.known)))[0]

    def _capture(self, enqueue: Callable[[], None]) -> "_Graph | None":
        try:
            with outside_captures, module().defer_cleanup():  # freeing memory waits for the card
                return _Graph(self.stream, enqueue)
        except _GraphError as error:
            self.usable = False
            warnings.warn(
                f"CUDA graphs cannot be used here ({error}); steps are launched one by one, slower on small grids.",
                RuntimeWarning,
                stacklevel=2,
            )
            return None


class _GraphError(Exception):
    """The driver refused to record or to instantiate a graph."""


class _Graph:
    def __init__(self, stream: Any, enqueue: Callable[[], None]):
        from cuda.bindings import driver

        self.driver = driver
        self.stream = driver.CUstream(int(stream.handle))
        self._call(driver.cuStreamBeginCapture, self.stream, driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED)
        try:
            enqueue()
        except BaseException as error:
            driver.cuStreamEndCapture(self.stream)
            if isinstance(error, Exception):  # if it is not the capture's fault, it will come again without it
                raise _GraphError(_first_line(error)) from error
            raise
        graph = self._call(driver.cuStreamEndCapture, self.stream)
        try:
            self.executable = self._call(driver.cuGraphInstantiate, graph, 0)
        finally:
            driver.cuGraphDestroy(graph)

    def launch(self) -> None:
        """Replay it."""
        self._call(self.driver.cuGraphLaunch, self.executable, self.stream)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        status, *results = function(*arguments)
        if int(status) != 0:
            raise _GraphError(f"{function.__name__}: {status}")
        return results[0] if results else None

    def __del__(self) -> None:
        if hasattr(self, "executable"):
            self.driver.cuGraphExecDestroy(self.executable)
