"""One peer in a process of its own: answers JSON lines on standard output, started by harness.py.

{"do": "prepare", "peer", "variant", "problem", "threads", "cores"}  -> {"seconds", "versions", "has"}
{"do": "first", "save": PATH | null}      one gradient, its result saved  -> {"seconds", "peak"}
                                          (peak: bytes above `prepare`)
{"do": "time", "what", "reps", "warm", "limit"}    -> {"wall": [s, ...], "cpu": [s, ...]}
                                          no new call after `limit` seconds
"""

import contextlib
import json
import os
import sys
import time


def prepare(peer, variant, problem, threads, cores):
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    from importlib.metadata import PackageNotFoundError, version

    from validation.bench import memory, peers
    from validation.bench.problem import PARAMS, Problem

    module, p = peers.load(peer), Problem(**problem)
    start = time.perf_counter()
    target = None if p.zero_target else p.target()
    case = module.prepare(p.n, p.dtype, p.steps, p.initial(), PARAMS, threads, target=target, dt=p.dt, variant=variant)
    seconds = time.perf_counter() - start
    versions = module.versions() if hasattr(module, "versions") else {}
    for name in module.PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    has = [what for what in ("gradient", "forward") if hasattr(case, what)]
    return (case, memory.Peak()), {"seconds": seconds, "versions": versions, "has": has}


def first(case, peak, save):
    import numpy as np

    start = time.perf_counter()
    value, params, initial = case.gradient()
    seconds, risen = time.perf_counter() - start, peak.above()
    if save:
        np.savez(save, value=value, initial=initial, **params)
    return {"seconds": seconds, "peak": risen, "peak_exact": peak.exact}


def timing(case, what, reps, warm, limit):
    call = getattr(case, what)
    if warm:
        call()
    wall, cpu = [], []
    while not wall or (len(wall) < reps and sum(wall) < limit):
        c, t = time.process_time(), time.perf_counter()
        call()
        wall.append(time.perf_counter() - t)
        cpu.append(time.process_time() - c)
    return {"wall": wall, "cpu": cpu}


def main():
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries that print on standard output must not break the protocol
    case = peak = None
    for line in sys.stdin:
        request = json.loads(line)
        do = request.pop("do")
        try:
            if do == "prepare":
                (case, peak), reply = prepare(**request)
            elif do == "first":
                reply = first(case, peak, **request)
            else:
                reply = timing(case, **request)
        except Exception as error:
            kind = type(error).__name__
            reply = {
                "error": str(error) if kind == "Unavailable" else f"{kind}: {error}",
                "missing": kind == "Unavailable",
            }
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
