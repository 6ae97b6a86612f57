"""Peak memory of this process, and what the machine still has. Linux; elsewhere the peak is that of the whole process
life."""

import resource
import sys
from pathlib import Path

MIB = 1024 * 1024


def _status(key):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def _lifetime_peak():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class Peak:
    """Bytes by which resident memory rose above its level when this object was made."""

    def __init__(self):
        try:
            Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM back to VmRSS
            self.base, self.exact = _status("VmRSS"), True
        except (OSError, KeyError):
            self.base, self.exact = _lifetime_peak(), False

    def above(self):
        return max(0, (_status("VmHWM") if self.exact else _lifetime_peak()) - self.base)


def available():
    """Bytes that can still be had: the least of the machine's and the container's."""
    found = []
    try:
        text = Path("/proc/meminfo").read_text()
        found.append(int(text.partition("MemAvailable:")[2].split()[0]) * 1024)
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        if limit != "max":
            found.append(int(limit) - int(Path("/sys/fs/cgroup/memory.current").read_text()))
    except (OSError, IndexError, ValueError):
        pass
    return min(found, default=8 << 30)
