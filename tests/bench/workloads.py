# SPDX-License-Identifier: GPL-2.0-only
"""What is done: the files that each workload needs, and one timed run of it below the
root of one system. Knows nothing of daemons, rounds or ratios."""

import os
import random
import shutil
import subprocess
import time

from systems import Failure


class Sizes:
    """How much of everything; `quick` is for checking that it works, not for numbers."""

    def __init__(self, quick):
        self.seconds = 0.05 if quick else 0.3
        self.small_files = 200 if quick else 2000
        self.hot_mib = 16 if quick else 256
        self.long_mib = 64 if quick else 1024
        self.known_files = 5000 if quick else 100000
        self.sources = 8 if quick else 100
        self.timeout = 600


class Context:
    def __init__(self, top, build, source, sizes):
        self.top = top
        self.build = build
        self.source = source  # the folder that all systems serve
        self.sizes = sizes
        self.load = os.path.join(build, "load")
        self.made = set()
        self.compile = None  # the command line, once the tree is there


# ---- files ----

def make_small(context):
    rng = random.Random(1)
    for i in range(context.sizes.small_files):
        folder = os.path.join(context.source, "small", f"d{i // 50}")
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, f"file{i}.h"), "wb") as f:
            f.write(rng.randbytes(rng.randrange(500, 16000)))


def make_big(context, name, mib):
    block = os.urandom(1 << 20)
    with open(os.path.join(context.source, name), "wb") as f:
        for _ in range(mib):
            f.write(block)
        f.flush()
        os.fsync(f.fileno())


def make_known(context):
    for i in range(context.sizes.known_files):
        folder = os.path.join(context.source, "known", f"d{i // 500}")
        if i % 500 == 0:
            os.makedirs(folder)
        with open(os.path.join(folder, f"a-file-name-{i}"), "wb"):
            pass


ZLIB_STAND_IN = """\
typedef struct { unsigned char *next_in, *next_out; unsigned avail_in, avail_out;
                 unsigned long total_in, total_out; char *msg; } z_stream;
#define ZLIB_VERNUM 0x12d0
#define Z_BEST_COMPRESSION 9
#define Z_DEFAULT_COMPRESSION (-1)
enum { Z_OK, Z_STREAM_END, Z_NO_FLUSH = 0, Z_FINISH = 4, Z_BUF_ERROR = -5 };
unsigned long crc32(unsigned long crc, const unsigned char *data, unsigned bytes);
unsigned long deflateBound(z_stream *stream, unsigned long bytes);
"""


def make_code(context):
    """The distribution's git sources; of its C files, those that the compiler takes as they are."""
    tree = os.path.join(context.source, "code")
    fetched = subprocess.run([os.path.join(context.top, "mount-helpers", "fetch-source"), "git", tree],
                             stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if fetched.returncode:
        raise Failure("the sources of git cannot be fetched: " + fetched.stderr.strip()[-300:])
    flags = ["gcc", "-fsyntax-only", "-w", "-O2", "-I.", "-DSHA1_DC", "-DSHA256_BLK", '-DGIT_HOST_CPU="any"']
    if not os.path.exists("/usr/include/zlib.h"):
        os.mkdir(os.path.join(tree, "stand-in"))
        with open(os.path.join(tree, "stand-in", "zlib.h"), "w", encoding="utf-8") as f:
            f.write(ZLIB_STAND_IN)
        flags.append("-Istand-in")
    good = []
    for folder in ("builtin", "."):
        for name in sorted(os.listdir(os.path.join(tree, folder))):
            path = os.path.normpath(os.path.join(folder, name))
            if name.endswith(".c") and len(good) < context.sizes.sources and subprocess.run(
                    flags + [path], cwd=tree, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL, check=False).returncode == 0:
                good.append(path)
    if len(good) < context.sizes.sources:
        raise Failure(f"only {len(good)} files of git's compile here")
    context.compile = flags + good


# ---- one run ----

def run_load(context, kind, path, argument=None, seconds=None):
    """(nanoseconds, operations) of one call of the C program."""
    arguments = [context.load, kind, str(context.sizes.seconds if seconds is None else seconds), path]
    if argument is not None:
        arguments.append(str(argument))
    try:
        done = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=context.sizes.timeout, check=False)
    except subprocess.TimeoutExpired as e:
        raise Failure(f"not finished after {context.sizes.timeout} s") from e
    if done.returncode:
        raise Failure(done.stderr.strip() or f"status {done.returncode}")
    nanoseconds, operations = map(int, done.stdout.split())
    return nanoseconds, operations


class Workload:
    """A timed one: `run` takes the context and a system's root."""

    def __init__(self, name, title, needs, run):
        self.name, self.title, self.needs, self.run = name, title, needs, run

    def prepare(self, context):
        for name in self.needs:
            if name in context.made:
                continue
            if name == "small":
                make_small(context)
            elif name == "hot":
                make_big(context, "hot", context.sizes.hot_mib)
            elif name == "long":
                make_big(context, "long", context.sizes.long_mib)
            elif name == "known":
                make_known(context)
            elif name == "code":
                make_code(context)
            context.made.add(name)


def load(kind, path, argument=None):
    return lambda context, root: run_load(context, kind, os.path.join(root, path), argument)


def run_seqwrite(context, root):
    path = os.path.join(root, "written")
    os.sync()
    try:
        return run_load(context, "seqwrite", path, context.sizes.long_mib)
    finally:
        if os.path.exists(path):
            os.unlink(path)


def run_compile(context, root):
    start = time.monotonic_ns()
    done = subprocess.run(context.compile, cwd=os.path.join(root, "code"), stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failure(done.stderr.strip()[-300:])
    return time.monotonic_ns() - start, 1


ONE_SMALL = "small/d0/file0.h"
WORKLOADS = [
    Workload("compile", "compile, hot (gcc -fsyntax-only of 100 files of git)", ["code"], run_compile),
    Workload("openclose", "open and close one small file", ["small"], load("openclose", ONE_SMALL)),
    Workload("orc1", "open, read, close 2000 small files, 1 thread", ["small"], load("orc", "small", 1)),
    Workload("orc4", "the same, 4 threads", ["small"], load("orc", "small", 4)),
    Workload("stat", "stat of known files", ["small"], load("stat", "small")),
    Workload("lookup-miss", "stat of names that are not there, again", ["small"], load("miss", "small")),
    Workload("pread4k", "random 4 KiB pread, 256 MiB hot", ["hot"], load("pread", "hot")),
    Workload("onepage", "4 KiB pread of one page", ["hot"], load("onepage", "hot")),
    Workload("readfstat", "4 KiB pread and fstat", ["hot"], load("readfstat", "hot")),
    Workload("seqread", "sequential read of 1 GiB, hot", ["long"], load("seqread", "long")),
    Workload("seqwrite", "sequential write of 1 GiB and fsync", [], run_seqwrite),
    Workload("mmapread", "mapped read of 256 MiB, hot", ["hot"], load("mmapread", "hot")),
]
MEMORY = Workload("memory", "daemon's memory and descriptors per known file", ["known"], None)


def run_memory(context, system):
    """(bytes per known file, descriptors gained) by a walk over many files."""
    before = system.resident_bytes(), system.descriptors()
    _, files = run_load(context, "walk", os.path.join(system.root, "known"), seconds=0)
    after = system.resident_bytes(), system.descriptors()
    return (after[0] - before[0]) / files, after[1] - before[1]


def build_load(top, build):
    source = os.path.join(top, "tests", "bench", "load.c")
    target = os.path.join(build, "load")
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        raise Failure("there is no C compiler")
    if os.path.exists(target) and os.path.getmtime(target) >= os.path.getmtime(source):
        return
    done = subprocess.run(compiler.split() + ["-std=gnu17", "-O2", "-Wall", "-o", target, source, "-pthread"],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failure("load.c does not build: " + done.stderr.strip())
