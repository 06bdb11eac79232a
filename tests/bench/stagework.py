# SPDX-License-Identifier: GPL-2.0-only
"""What is done on a source with and without staging: the files of each workload and one timed pass over them.
The rows are those of the report that the staging engine was asked for by. Knows nothing of mounts or rounds."""

import os
import random
import subprocess
import time

from systems import Failure
from workloads import run_load

PASS = 0  # seconds: the C program does its work exactly once


class Sizes:
    """How much of everything: as the report has it on a local disk; less where one pass would take minutes."""

    FULL = {"seq_mib": 100, "random_mib": 1024, "reads": 1000, "copy_mib": 500, "files": 100, "parse": 50}
    LESS = {"slow1": {"random_mib": 256, "copy_mib": 100},
            "slow10": {"seq_mib": 25, "random_mib": 64, "reads": 200, "copy_mib": 10},
            "iops150": {"random_mib": 256, "reads": 300, "copy_mib": 200}}
    QUICK = {"seq_mib": 4, "random_mib": 8, "reads": 20, "copy_mib": 4, "files": 10, "parse": 5}

    def __init__(self, source, full, quick):
        values = dict(self.FULL)
        if not full:
            values.update(self.LESS.get(source, {}))
        if quick:
            values = {k: min(v, self.QUICK[k]) for k, v in values.items()}
        self.seq_mib, self.random_mib, self.copy_mib = values["seq_mib"], values["random_mib"], values["copy_mib"]
        self.reads, self.files, self.parse = values["reads"], values["files"], values["parse"]
        self.timeout = 600


class Context:
    def __init__(self, source, sizes, load, local):
        self.source, self.sizes, self.load = source, sizes, load
        self.local = local  # a folder on the local disk, for copies that leave the source
        self.made = set()


# ---- files ----

def make_big(path, mib):
    rng = random.Random(mib)
    with open(path, "wb") as f:
        for _ in range(mib):
            f.write(rng.randbytes(1 << 20))
        f.flush()
        os.fsync(f.fileno())


def make_small(folder, count):
    rng = random.Random(1)
    os.mkdir(folder)
    for i in range(count):
        with open(os.path.join(folder, f"file{i}.h"), "wb") as f:
            f.write(rng.randbytes(rng.randrange(500, 16000)))


WORDS = """int char unsigned struct return if else for while static const void size_t buffer length index node next
value result error handle stream offset count flags state entry table parent child head tail""".split()


def a_line(rng):
    kind = rng.randrange(5)
    if kind == 0:
        return "/* " + " ".join(rng.choices(WORDS, k=8)) + " */"
    if kind == 1:
        text, (left, right) = " ".join(rng.choices(WORDS, k=4)), rng.choices(WORDS, k=2)
        return f'    log_message("{text}: %d\\n", {left}->{right});'
    left, right = rng.choices(WORDS, k=2)
    return f"    {left}_{rng.randrange(100)} = {right}[{rng.randrange(4096)}] + 0x{rng.randrange(65536):x};"


def make_sources(folder, count):
    """C as far as a tokeniser can tell, about 25 KB a file."""
    rng = random.Random(2)
    os.mkdir(folder)
    for i in range(count):
        with open(os.path.join(folder, f"file{i}.h"), "w", encoding="ascii") as f:
            f.write("\n".join(a_line(rng) for _ in range(rng.randrange(200, 800))) + "\n")


def make_many(folder, count):
    rng = random.Random(3)
    block = rng.randbytes(20000)
    for i in range(count):
        if i % 100 == 0:
            os.makedirs(os.path.join(folder, f"d{i // 100}"))
        with open(os.path.join(folder, f"d{i // 100}", f"f{i}.h"), "wb") as f:
            start = rng.randrange(10000)
            f.write(block[start:start + rng.randrange(500, 8000)])


# ---- one pass ----

def copy(what, to):
    start = time.monotonic_ns()
    done = subprocess.run(["cp", what, to], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    end = time.monotonic_ns()
    if os.path.exists(to):
        os.unlink(to)
    if done.returncode:
        raise Failure(done.stderr.strip())
    return end - start


def loaded(kind, path, argument=None):
    def run(context, root):
        return run_load(context, kind, os.path.join(root, path), argument and argument(context.sizes), PASS)[0]
    return run


class Workload:
    """`make` takes a path and a size; `run` takes the context and a root and returns nanoseconds; `staged` is
    what is staged for it. Workloads with the same `path` share their files."""

    def __init__(self, name, title, path, make, size, run):
        self.name, self.title, self.path = name, title, path
        self.make, self.size, self.run = make, size, run

    def describe(self, sizes):
        return self.title.format(**vars(sizes))

    def prepare(self, context):
        if self.path not in context.made:
            self.make(os.path.join(context.source.under, self.path), self.size(context.sizes))
            context.made.add(self.path)


WORKLOADS = [
    Workload("seqread", "read {seq_mib} MiB sequentially", "seq", make_big, lambda s: s.seq_mib,
             loaded("seqread", "seq")),
    Workload("random", "{reads} random reads of 4 KiB in {random_mib} MiB", "random", make_big,
             lambda s: s.random_mib, loaded("scatter", "random", lambda s: str(s.reads))),
    Workload("copy", "copy {copy_mib} MiB within the tree (cp)", "copy", make_big, lambda s: s.copy_mib,
             lambda context, root: copy(os.path.join(root, "copy"), os.path.join(root, "copied"))),
    Workload("copy-out", "copy {copy_mib} MiB to the local disk (cp)", "copy", make_big, lambda s: s.copy_mib,
             lambda context, root: copy(os.path.join(root, "copy"), os.path.join(context.local, "copied"))),
    Workload("small", "open and read {files} small files", "small", make_small, lambda s: s.files,
             loaded("names", "small", lambda s: str(s.files))),
    Workload("parse", "read and tokenise {parse} source files", "sources", make_sources, lambda s: s.parse,
             loaded("tokens", "sources", lambda s: str(s.parse))),
]
# Reflinks are what these are there for.
ONLY = {"xfs": ("copy",), "btrfs": ("copy",)}


def of(source):
    return [w for w in WORKLOADS if w.name in ONLY.get(source.name, (w.name,))]
