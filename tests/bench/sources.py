# SPDX-License-Identifier: GPL-2.0-only
"""The sources that staging is measured on: slow ones and the local disk, each with a way to make its caches
cold. Knows nothing of what is measured."""

import os
import shutil

from machine import mount_image, quiet
from systems import Failure, System, poll

DISK_GIB = 6


class Source:
    """`under` is where files are made, fast; `root` is what programs see, from fresh() to stop()."""

    name = title = ""
    is_slow = True

    def __init__(self):
        self.under = self.root = None

    def prepare(self, temporary, logs):
        """Makes the place for its files; a Failure where this machine cannot."""
        raise NotImplementedError

    def fresh(self):
        """Nothing of it is cached after this."""
        raise NotImplementedError

    def stop(self):
        """Takes it down, in whatever state it is; never raises."""


class SlowSource(Source):
    """slowfs over a plain directory: a server with everything in its memory, behind a slow network."""

    def __init__(self, name, title, slowfs, options):
        super().__init__()
        self.name, self.title, self.slowfs, self.options = name, title, slowfs, options
        self.system = self.temporary = self.logs = None

    def prepare(self, temporary, logs):
        if not os.access(self.slowfs, os.X_OK):
            raise Failure(f"there is no {self.slowfs}: build it first (meson compile -C build)")
        self.temporary, self.logs = temporary, logs
        self.under = os.path.join(temporary, self.name)
        os.mkdir(self.under)
        self.system = System(self.name + ".mount",
                             lambda s, m, _: [self.slowfs, s, m, "-f", "-o", self.options])

    def fresh(self):
        self.stop()
        self.system.start(self.under, self.temporary, self.temporary, self.logs)
        self.root = self.system.root

    def stop(self):
        if self.system is not None:
            self.system.stop()


class DiskSource(Source):
    """A file system on a loop device. Mounted anew, nothing of it is in the page cache."""

    def __init__(self, name, title, kind="ext4"):
        super().__init__()
        self.name, self.title, self.kind = name, title, kind
        self.is_slow = False
        self.device = None

    def prepare(self, temporary, logs):
        image = mount_image(temporary, DISK_GIB, self.kind, self.name)
        if image is None:
            raise Failure(f"no image of {self.kind} can be made and mounted here")
        self.under, self.device, direct = image
        self.root = self.under
        if direct != "on":
            raise Failure("the loop device has no direct I/O: a cold read would come from memory")

    def unmount(self):
        # What has just ended may still be on its way out of the mount.
        if not poll(20, lambda: quiet("umount", self.under).returncode == 0):
            raise Failure(f"{self.name} is busy")

    def fresh(self):
        self.unmount()
        if quiet("mount", "-t", self.kind, self.device, self.under).returncode:
            raise Failure(f"{self.name} cannot be mounted again")

    def stop(self):
        if self.device is not None:
            quiet("umount", "-l", self.under)
            quiet("losetup", "-d", self.device)
        self.device = None


def blkio_folder():
    """Where cgroup v1 limits block devices, or None."""
    with open("/proc/self/mounts", encoding="utf-8", errors="surrogateescape") as f:
        for line in f:
            fields = line.split()
            if fields[2] == "cgroup" and "blkio" in fields[3].split(","):
                return fields[1]
    return None


class ThrottledDisk(DiskSource):
    """The same with so many operations a second: what a spinning disk does."""

    def __init__(self, name, title, iops):
        super().__init__(name, title)
        self.iops = iops
        self.is_slow = True

    def limit(self, iops):
        """On the root group, so that it holds for whoever reads, daemons and the kernel's threads included."""
        folder = blkio_folder()
        number = os.stat(self.device).st_rdev
        for direction in ("read", "write"):
            name = os.path.join(folder or "", f"blkio.throttle.{direction}_iops_device")
            try:
                with open(name, "w", encoding="ascii") as f:
                    f.write(f"{os.major(number)}:{os.minor(number)} {iops}")
            except OSError as e:
                raise Failure(f"block devices cannot be throttled here ({e.strerror}: {name})") from e

    def prepare(self, temporary, logs):
        super().prepare(temporary, logs)
        self.limit(self.iops)  # does it work?
        self.limit(0)

    def fresh(self):
        self.limit(0)
        super().fresh()
        self.limit(self.iops)

    def stop(self):
        if self.device is not None:
            try:
                self.limit(0)
            except Failure:
                pass
        super().stop()


def choose(top):
    """All of them, in the order of the tables."""
    slowfs = os.path.join(top, "build", "tests", "slowfs")
    return [
        SlowSource("slow1", "network source, 1 ms for each operation", slowfs, "latency_us=1000"),
        SlowSource("slow10", "network source, 10 ms for each operation", slowfs, "latency_us=10000"),
        ThrottledDisk("iops150", "ext4 on a disk with 150 operations a second", 150),
        DiskSource("local", "ext4 on the local disk"),
        DiskSource("xfs", "XFS on the local disk (has reflinks)", "xfs"),
        DiskSource("btrfs", "btrfs on the local disk (has reflinks)", "btrfs"),
    ]


def remove_files(source):
    if isinstance(source, SlowSource) and source.under:
        shutil.rmtree(source.under, ignore_errors=True)
