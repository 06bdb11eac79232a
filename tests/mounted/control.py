# SPDX-License-Identifier: GPL-2.0-only
"""The mount's ioctl protocol (client/protocol.h) from Python, for tests; run as a program it sends one request, or,
with `each`, one for each line of its stdin."""
import ctypes
import errno
import fcntl
import json
import os
import sys
import time

VERSION = 1
TYPE = 0xF5
DEFAULT = 4
MODES = {"none": 0, "mmap": 1, "prefetch": 2, "adaptive": 3, "default": DEFAULT}
STATES = ["absent", "filling", "hot", "cold", "stale"]
UNCHANGED = 2**64 - 1


class Stage(ctypes.Structure):
    number = 1
    _fields_ = [("version", ctypes.c_uint32), ("flags", ctypes.c_uint32), ("mode", ctypes.c_uint32),
                ("names_bytes", ctypes.c_uint32), ("set", ctypes.c_char * 64), ("job", ctypes.c_uint64),
                ("reserved", ctypes.c_uint64), ("names", ctypes.c_char * 15360)]


class Unstage(Stage):
    number = 2


class Job(ctypes.Structure):
    number = 3
    _fields_ = [("version", ctypes.c_uint32), ("running", ctypes.c_uint32), ("job", ctypes.c_uint64),
                ("files", ctypes.c_uint64), ("done", ctypes.c_uint64), ("failed", ctypes.c_uint64),
                ("bytes", ctypes.c_uint64), ("first_error", ctypes.c_uint32), ("reserved", ctypes.c_uint32),
                ("first_failed", ctypes.c_char * 4096)]


class Query(ctypes.Structure):
    number = 4
    _fields_ = [("version", ctypes.c_uint32), ("flags", ctypes.c_uint32), ("name", ctypes.c_char * 4096),
                ("mode", ctypes.c_uint32), ("state", ctypes.c_uint32), ("opens", ctypes.c_uint32),
                ("copied", ctypes.c_uint32), ("hits", ctypes.c_uint64), ("size_bytes", ctypes.c_uint64),
                ("staged_bytes", ctypes.c_uint64), ("set", ctypes.c_char * 64), ("why", ctypes.c_char * 96)]


class Set(ctypes.Structure):
    number = 5
    _fields_ = [("version", ctypes.c_uint32), ("index", ctypes.c_uint32), ("name", ctypes.c_char * 64),
                ("files", ctypes.c_uint64), ("staged_files", ctypes.c_uint64), ("size_bytes", ctypes.c_uint64),
                ("staged_bytes", ctypes.c_uint64)]


STAT_NAMES = """hot_hits cold_hits misses source_opens prefetch_fills range_fills filled_bytes advised failed_fills
changed_fills refused_fills packed unpacked incompressible evicted evicted_unused evicted_unused_bytes invalidated
corrupt hot_bytes hot_peak_bytes hot_limit_bytes cold_bytes cold_peak_bytes cold_limit_bytes cold_raw_bytes queued
inodes fetch_mean_ns fetch_p50_ns fetch_p90_ns fetch_p99_ns pressure_events hot_range_hits
range_misses mmap_opens coherence events invalidated_names
invalidated_files overflows syncs unwatched leases""".split()


class Stats(ctypes.Structure):
    number = 6
    _fields_ = [("version", ctypes.c_uint32), ("serve", ctypes.c_uint32)] + \
        [(name, ctypes.c_uint64) for name in STAT_NAMES] + \
        [("spare", ctypes.c_uint64 * 4), ("serve_why", ctypes.c_char * 96)]


class Config(ctypes.Structure):
    number = 7
    _fields_ = [("version", ctypes.c_uint32), ("mode", ctypes.c_uint32), ("threshold_bytes", ctypes.c_uint64),
                ("hot_bytes", ctypes.c_uint64), ("cold_bytes", ctypes.c_uint64), ("reserved", ctypes.c_uint64 * 4)]


class Advise(ctypes.Structure):
    number = 8
    _fields_ = [("version", ctypes.c_uint32), ("advice", ctypes.c_uint32), ("offset", ctypes.c_uint64),
                ("length", ctypes.c_uint64)]


class Sync(ctypes.Structure):
    number = 9
    _fields_ = [("version", ctypes.c_uint32), ("flags", ctypes.c_uint32), ("ticket", ctypes.c_uint64),
                ("done", ctypes.c_uint32), ("reserved", ctypes.c_uint32)]


def command(kind):
    return 3 << 30 | ctypes.sizeof(kind) << 16 | TYPE << 8 | kind.number


def send(path, request):
    """Sends the request on `path` and returns it, answered; an OSError where it is refused."""
    fd = path if isinstance(path, int) else os.open(path, os.O_RDONLY)
    try:
        request.version = request.version or VERSION
        buffer = bytearray(bytes(request))
        fcntl.ioctl(fd, command(type(request)), buffer)
        return type(request).from_buffer(buffer)
    finally:
        if fd != path:
            os.close(fd)


def wait(path, number, seconds=60):
    end = time.monotonic() + seconds
    while True:
        job = send(path, Job(job=number))
        if not job.running or time.monotonic() > end:
            return job
        time.sleep(0.002)


def stage(folder, names=(), mode="default", recursive=False, set_name="", kind=Stage):
    packed = b"".join(os.fsencode(name) + b"\0" for name in names)
    request = kind(flags=int(recursive), mode=0 if kind is Unstage else MODES[mode], names_bytes=len(packed),
                   set=set_name.encode())
    ctypes.memmove(ctypes.addressof(request) + kind.names.offset, packed, len(packed))
    number = send(folder, request).job
    return wait(folder, number) if number else None


def query(folder, name=""):
    answer = send(folder, Query(name=os.fsencode(name)))
    return {"state": STATES[answer.state], "mode": list(MODES)[answer.mode], "hits": answer.hits,
            "copied": bool(answer.copied), "opens": answer.opens, "staged": answer.staged_bytes,
            "size": answer.size_bytes, "set": answer.set.decode(), "why": answer.why.decode()}


def stats(mount):
    answer = send(mount, Stats())
    return {name: getattr(answer, name) for name in STAT_NAMES}


def describe(job):
    return None if job is None else {"files": job.files, "done": job.done, "failed": job.failed,
                                     "error": errno.errorcode.get(job.first_error, ""),
                                     "about": job.first_failed.decode()}


def main(arguments):
    what, mount, *rest = arguments
    if what == "stats":
        result = stats(mount)
    elif what == "query":
        result = query(mount, *rest)
    elif what in ("stage", "unstage"):
        options = dict(word[2:].split("=") for word in rest if word.startswith("--"))
        result = describe(stage(mount, [word for word in rest if not word.startswith("--")],
                                options.get("mode", "default"), options.get("recursive") == "1",
                                options.get("set", ""), Unstage if what == "unstage" else Stage))
    elif what == "set":
        answer = send(mount, Set(name=rest[0].encode()))
        result = {name: getattr(answer, name) for name in ("files", "staged_files", "size_bytes", "staged_bytes")}
    elif what == "config":
        values = dict(word.split("=") for word in rest)
        answer = send(mount, Config(mode=MODES[values.get("mode", "default")],
                                    threshold_bytes=int(values.get("threshold", UNCHANGED)),
                                    hot_bytes=int(values.get("mem", UNCHANGED)),
                                    cold_bytes=int(values.get("cold", UNCHANGED))))
        result = {"mode": list(MODES)[answer.mode], "threshold": answer.threshold_bytes, "mem": answer.hot_bytes,
                  "cold": answer.cold_bytes}
    else:
        raise SystemExit(f"control.py: {what}?")
    return json.dumps(result)


def answer_to(arguments):
    """What there is to print, and the exit status."""
    try:
        return main(arguments), 0
    except OSError as error:
        return errno.errorcode[error.errno], 1
    except (SystemExit, ValueError, KeyError, IndexError) as error:
        return f"{type(error).__name__}: {error}".replace("\n", " "), 2


if __name__ == "__main__":
    if sys.argv[1:] == ["each"]:
        for line in sys.stdin:
            text, status = answer_to(line.split())
            print(status, text, flush=True)
    else:
        text, status = answer_to(sys.argv[1:])
        print(text)
        sys.exit(status)
