# SPDX-License-Identifier: GPL-2.0-only
"""The machine under a benchmark: its mount namespace, temporary file systems, the kernel's switch for
fuse-over-io_uring. Knows nothing of systems or workloads."""

import os
import platform
import shutil
import subprocess
import sys

URING_SWITCH = "/sys/module/fuse/parameters/enable_uring"
INSIDE = "STAGEFS_BENCH_NAMESPACE"
MAKE = {"ext4": ["mke2fs", "-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0"],
        "xfs": ["mkfs.xfs", "-q", "-f"], "btrfs": ["mkfs.btrfs", "-q", "-f"]}


def say(text):
    print(text, file=sys.stderr, flush=True)


def quiet(*command):
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def enter_namespace(script):
    """Runs the program again in a mount namespace of its own, so that nothing it mounts is left behind."""
    if os.environ.get(INSIDE) == "1":
        del os.environ[INSIDE]
        return
    if os.geteuid() != 0:
        sys.exit(f"{script}: mounting needs root")
    os.environ[INSIDE] = "1"
    os.execvp("unshare", ["unshare", "-m", "--propagation", "private", sys.executable, os.path.realpath(script)]
              + sys.argv[1:])


class Uring:
    """The kernel's switch, on for the run and then as it was."""

    def __init__(self):
        self.before = None

    def __enter__(self):
        try:
            with open(URING_SWITCH, "r+", encoding="ascii") as f:
                if f.read().strip() == "N":
                    self.before = "N"
                    f.seek(0)
                    f.write("Y")
        except OSError:
            self.before = None
        return self

    def __exit__(self, *_):
        if self.before is not None:
            with open(URING_SWITCH, "w", encoding="ascii") as f:
                f.write(self.before)

    @staticmethod
    def is_on():
        try:
            with open(URING_SWITCH, encoding="ascii") as f:
                return f.read().strip() == "Y"
        except OSError:
            return False


def mount_image(temporary, gib, kind="ext4", name="disk", files=300000):
    """A new file system in a sparse file, with room for so many files: its mount point, its loop device and whether
    that is direct; None where this machine has no such thing. The device goes away with the last mount of it."""
    image, point = os.path.join(temporary, name + ".img"), os.path.join(temporary, name)
    os.mkdir(point)
    with open(image, "wb") as f:
        f.truncate(gib << 30)
    # The others make room for files as they need it.
    more = ["-N", str(files)] if kind == "ext4" else []
    if not shutil.which(MAKE[kind][0]) or quiet(*MAKE[kind], *more, image).returncode:
        return None
    for direct in ("on", "off"):
        attached = quiet("losetup", "--find", "--show", f"--direct-io={direct}", image)
        if attached.returncode:
            continue
        device = attached.stdout.strip()
        mounted = quiet("mount", "-t", kind, device, point)
        if mounted.returncode == 0:
            return point, device, direct
        quiet("losetup", "-d", device)
    return None


def describe(filesystem):
    return {"kernel": platform.release(), "processors": os.cpu_count(), "filesystem": filesystem,
            "compiler": quiet("gcc", "-dumpfullversion").stdout.strip(), "uring": Uring.is_on()}
