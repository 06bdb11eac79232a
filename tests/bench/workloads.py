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
        self.large_folders = 20 if quick else 800
        self.large_sources = 8 if quick else 200
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
        self.compile_large = None


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


def run_git(context, root, *arguments):
    """On the tree below a root; nanoseconds. The repository lies beside the tree, so that those who walk the tree find
    the same with and without it."""
    command = ["git", "--git-dir=" + os.path.join(root, "code.git"), "--work-tree=" + os.path.join(root, "code"),
               "-c", "core.fsmonitor=false", "-c", "core.untrackedCache=false",
               "-c", "user.name=bench", "-c", "user.email=bench@localhost"]
    private = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}
    return run_command(context, command + list(arguments), os.path.join(root, "code"), private)


def make_repository(context):
    if not shutil.which("git"):
        raise Failure("git is not installed")
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "everything"]):
        run_git(context, context.source, *arguments)
    run_git(context, context.source, "status")  # files as young as the index are compared, and then known


# Folders that the compiler searches; files in each folder below those; what a source includes.
SEARCHED, PER_FOLDER, INCLUDES = 20, 100, 40


def header_name(number):
    """As a source includes it."""
    return f"m{number // PER_FOLDER}/h{number}.h"


def header(number):
    fields = "".join(f"    int field{i}; /* of module {number}, for those that include it */\n" for i in range(8))
    return f"""\
#ifndef H{number}_H
#define H{number}_H

struct s{number} {{
{fields}    const struct s{number} *next;
}};

static inline int f{number}(const struct s{number} *s) {{
    return s->next ? s->next->field0 : s->field7;
}}

#endif
"""


def make_large(context):
    """Many small headers in folders below each of those that the compiler searches, and between them sources, each of
    which includes some from all over the tree."""
    rng = random.Random(4)
    tree = os.path.join(context.source, "large")
    count, sources = context.sizes.large_folders * PER_FOLDER, []
    step = count // context.sizes.large_sources
    headers = [n for n in range(count) if n % step]
    for number in range(count):
        searched = number * SEARCHED // count
        name = header_name(number)
        text = header(number)
        if number % step == 0:
            name = name[:-1] + "c"
            text = "".join(f"#include <{header_name(n)}>\n" for n in rng.sample(headers, INCLUDES)) + text
            sources.append(os.path.join(f"r{searched}", name))
        if number % PER_FOLDER == 0:
            os.makedirs(os.path.join(tree, f"r{searched}", os.path.dirname(name)))
        with open(os.path.join(tree, f"r{searched}", name), "w", encoding="ascii") as f:
            f.write(text)
    context.compile_large = ["gcc", "-fsyntax-only", "-w"] + [f"-Ir{r}" for r in range(SEARCHED)] + sources


# ---- one run ----

def run_command(context, arguments, folder, environment=None, status=0):
    """Nanoseconds that a program took."""
    start = time.monotonic_ns()
    try:
        done = subprocess.run(arguments, cwd=folder, env={**os.environ, **(environment or {})},
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                              timeout=context.sizes.timeout, check=False)
    except subprocess.TimeoutExpired as e:
        raise Failure(f"not finished after {context.sizes.timeout} s") from e
    if done.returncode != status:
        raise Failure(done.stderr.strip()[-300:] or f"status {done.returncode}")
    return time.monotonic_ns() - start


def repeated(context, once):
    """(nanoseconds, operations): `once`, which returns nanoseconds, for the minimum of time."""
    nanoseconds, operations = once(), 1
    while nanoseconds < context.sizes.seconds * 1e9:
        nanoseconds, operations = nanoseconds + once(), operations + 1
    return nanoseconds, operations


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


MAKERS = {
    "small": make_small,
    "hot": lambda context: make_big(context, "hot", context.sizes.hot_mib),
    "long": lambda context: make_big(context, "long", context.sizes.long_mib),
    "known": make_known,
    "code": make_code,
    "repository": make_repository,
    "large": make_large,
}


class Workload:
    """A timed one: `run` takes the context and a system's root."""

    def __init__(self, name, title, needs, run):
        self.name, self.title, self.needs, self.run = name, title, needs, run

    def prepare(self, context):
        for name in self.needs:
            if name not in context.made:
                MAKERS[name](context)
                context.made.add(name)


def load(kind, path, argument=None):
    return lambda context, root: run_load(context, kind, os.path.join(root, path), argument)


def run_pread(context, root):
    # Random pages bring only themselves into a cache: what is measured is hot when all of it was read.
    with open(os.path.join(root, "hot"), "rb") as f:
        while f.read(1 << 20):
            pass
    return run_load(context, "pread", os.path.join(root, "hot"))


def run_seqwrite(context, root):
    path = os.path.join(root, "written")
    os.sync()
    try:
        return run_load(context, "seqwrite", path, context.sizes.long_mib)
    finally:
        if os.path.exists(path):
            os.unlink(path)


def program(folder, arguments, status=0):
    """Run in a folder of the root; `arguments` may be a function of the context."""
    def once(context, root):
        command = arguments(context) if callable(arguments) else arguments
        return run_command(context, command, os.path.join(root, folder), status=status)
    return lambda context, root: repeated(context, lambda: once(context, root))


def run_gitstatus(context, root):
    # Without the right to write: a system that shows other inode numbers would leave them in the index of all.
    return repeated(context, lambda: run_git(context, root, "--no-optional-locks", "status"))


ONE_SMALL = "small/d0/file0.h"
WORKLOADS = [
    Workload("compile", "compile, hot (gcc -fsyntax-only of 100 files of git)", ["code"],
             program("code", lambda context: context.compile)),
    Workload("compile-large", "compile, hot (200 sources in a tree of 80,000 files)", ["large"],
             program("large", lambda context: context.compile_large)),
    Workload("gitstatus", "git status, hot (the sources of git)", ["code", "repository"], run_gitstatus),
    Workload("find", "find . -type f, hot", ["code"], program("code", ["find", ".", "-type", "f"])),
    Workload("du", "du -s, hot", ["code"], program("code", ["du", "-s"])),
    # Into a pipe: tar does not read files for /dev/null.
    Workload("tar", "tar into a pipe, hot", ["code"],
             program("code", ["bash", "-o", "pipefail", "-c", "tar cf - . | cat"])),
    Workload("grep", "grep -r for a word that is not there, hot", ["code"],
             program("code", ["grep", "-r", "there-is-no-such-word-in-it", "."], status=1)),
    Workload("openclose", "open and close one small file", ["small"], load("openclose", ONE_SMALL)),
    Workload("orc1", "open, read, close 2000 small files, 1 thread", ["small"], load("orc", "small", 1)),
    Workload("orc4", "the same, 4 threads", ["small"], load("orc", "small", 4)),
    Workload("stat", "stat of known files", ["small"], load("stat", "small")),
    Workload("lookup-miss", "stat of names that are not there, again", ["small"], load("miss", "small")),
    Workload("pread4k", "random 4 KiB pread, 256 MiB hot", ["hot"], run_pread),
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
