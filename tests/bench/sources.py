# SPDX-License-Identifier: GPL-2.0-only
"""The sources that staging is measured on: slow ones and the local disk, each with a way to make its caches
cold. Knows nothing of what is measured."""

import os
import shutil
import socket
import subprocess

from machine import mount_image, quiet
from systems import Failure, System, is_mounted, poll

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


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class SshfsSource(Source):
    """sshfs to an sshd of this machine, on its own port and with its own keys, over a line of so many microseconds
    each way. `options` are sshfs's."""

    TUNED = ("dir_cache=yes,dcache_timeout=3600,entry_timeout=3600,attr_timeout=3600,negative_timeout=3600,"
             "kernel_cache,max_conns=4,compression=no")

    def __init__(self, name, title, proxy, one_way_us, options=TUNED):
        super().__init__()
        self.name, self.title, self.proxy, self.one_way_us, self.options = name, title, proxy, one_way_us, options
        self.keys = self.port = None
        self.processes = []

    def prepare(self, temporary, logs):
        self.under = os.path.join(temporary, self.name)
        self.root = os.path.join(temporary, self.name + ".mount")
        self.keys = os.path.join(temporary, self.name + ".keys")
        for folder in (self.under, self.root, self.keys):
            os.mkdir(folder)
        os.chmod(self.keys, 0o700)
        programs = {n: shutil.which(n) or shutil.which(n, path="/usr/sbin") for n in ("sshfs", "sshd", "ssh-keygen")}
        for name, path in programs.items():
            if path is None:
                raise Failure(f"{name} is not installed (mount-helpers/setup --bench does that)")
        if not os.access(self.proxy, os.X_OK):
            raise Failure(f"there is no {self.proxy}: build it first (meson compile -C build)")
        for name in ("host", "user"):
            quiet(programs["ssh-keygen"], "-q", "-t", "ed25519", "-N", "", "-f", os.path.join(self.keys, name))
        shutil.copy(os.path.join(self.keys, "user.pub"), os.path.join(self.keys, "authorized"))
        server, self.port = free_port(), free_port()
        config = os.path.join(self.keys, "sshd_config")
        with open(config, "w", encoding="utf-8") as f:
            f.write(f"Port {server}\nListenAddress 127.0.0.1\nHostKey {self.keys}/host\nPidFile none\n"
                    f"AuthorizedKeysFile {self.keys}/authorized\nStrictModes no\nUsePAM no\n"
                    "PasswordAuthentication no\nPermitRootLogin yes\nMaxStartups 100\n"
                    "Subsystem sftp internal-sftp\n")
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # sshd insists on it
        for name, command in (("sshd", [programs["sshd"], "-D", "-e", "-f", config]),
                              ("proxy", [self.proxy, str(self.port), str(server), str(self.one_way_us)])):
            with open(os.path.join(logs, f"{self.name}.{name}.log"), "ab") as log:
                # pylint: disable-next=consider-using-with
                self.processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
        if not poll(20, self._is_up):
            raise Failure("sshd did not start: " + os.path.join(logs, f"{self.name}.sshd.log"))

    def _is_up(self):
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    def ssh_options(self):
        return [f"port={self.port}", f"IdentityFile={self.keys}/user", "IdentitiesOnly=yes",
                "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"]

    def command(self, root):
        """What mounts it there, in the foreground."""
        options = ",".join(self.ssh_options() + ["allow_other", self.options])
        return ["sshfs", "-f", "-o", options, f"root@127.0.0.1:{self.under}", root]

    def remotely(self, *command):
        """What runs a command where the files are, over the same line."""
        options = [word for option in self.ssh_options() for word in ("-o", option)]
        return ["ssh", "-F", "/dev/null", *options, "root@127.0.0.1", *command]

    def rclone_remote(self):
        """The same files as rclone's own client for SFTP names them."""
        return f":sftp,host=127.0.0.1,port={self.port},user=root,key_file={self.keys}/user,shell_type=none:{self.under}"

    def fresh(self):
        self.unmount()
        # pylint: disable-next=consider-using-with
        process = subprocess.Popen(self.command(self.root), stdin=subprocess.DEVNULL)
        self.processes.append(process)
        if not poll(30, lambda: is_mounted(self.root) or process.poll() is not None) or process.poll() is not None:
            raise Failure("sshfs did not mount")

    def unmount(self):
        if len(self.processes) > 2:
            if not poll(20, lambda: quiet("umount", self.root).returncode == 0):
                quiet("umount", "-l", self.root)
            process = self.processes.pop()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def stop(self):
        self.unmount()
        for process in self.processes:
            process.terminate()
            process.wait()
        self.processes = []


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
    proxy = os.path.join(top, "build", "tests", "delayproxy")
    return [
        SlowSource("slow1", "network source, 1 ms for each operation", slowfs, "latency_us=1000"),
        SlowSource("slow10", "network source, 10 ms for each operation", slowfs, "latency_us=10000"),
        SshfsSource("sshfs1", "sshfs, 1 ms for a round trip", proxy, 500),
        SshfsSource("sshfs10", "sshfs, 10 ms for a round trip", proxy, 5000),
        ThrottledDisk("iops150", "ext4 on a disk with 150 operations a second", 150),
        DiskSource("local", "ext4 on the local disk"),
        DiskSource("xfs", "XFS on the local disk (has reflinks)", "xfs"),
        DiskSource("btrfs", "btrfs on the local disk (has reflinks)", "btrfs"),
    ]


def remove_files(source):
    if isinstance(source, (SlowSource, SshfsSource)) and source.under:
        shutil.rmtree(source.under, ignore_errors=True)
