# SPDX-License-Identifier: GPL-2.0-only
"""What is measured: the plain directory, stagefs, and its peers, each as a way to
start a daemon in the foreground and to end it again. Knows nothing of workloads."""

import os
import shutil
import signal
import subprocess
import time

START_SECONDS = 60
STOP_SECONDS = 60


class Failure(Exception):
    """A system that could not be started or did not do its work."""


def is_mounted(path):
    want = path.replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011")
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as f:
        return any(line.split(" ", 5)[4] == want for line in f)


def poll(seconds, condition):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def started_as(arguments):
    """The process that was started with these, and is still there, or None."""
    wanted = b"".join(os.fsencode(a) + b"\0" for a in arguments)
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                is_it = f.read() == wanted
            with open(f"/proc/{pid}/comm", "rb") as f:
                # Not the one that writes to the disk, nor one that waited for the mount: a session of its own.
                if is_it and f.read() != b"stagefs-disk\n" and os.getsid(int(pid)) == int(pid):
                    return int(pid)
        except OSError:
            pass  # gone meanwhile
    return None


class System:
    """One row of the table. `command` takes the source, the mount point and a scratch
    folder on the source's file system, and returns the daemon's argument list."""

    def __init__(self, name, command, note=""):
        self.name = name
        self.command = command
        self.note = note
        self.process = None
        self.root = None
        self.shown_command = ""

    def start(self, source, mounts, scratch, log_folder):
        if self.command is None:
            self.root = source
            return
        self.root = os.path.join(mounts, self.name)
        os.makedirs(self.root, exist_ok=True)
        arguments = self.command(source, self.root, scratch)
        self.shown_command = " ".join(
            a.replace(source, "SOURCE").replace(self.root, "MOUNTPOINT").replace(scratch, "SCRATCH")
            for a in [os.path.basename(arguments[0])] + arguments[1:])
        log = os.path.join(log_folder, self.name + ".log")
        with open(log, "ab") as out:
            began = out.tell()
            # pylint: disable-next=consider-using-with
            self.process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=out,
                                            stderr=out, start_new_session=True)
        ready = poll(START_SECONDS, lambda: is_mounted(self.root) or self.process.poll() is not None)
        if not ready or self.process.poll() is not None or not self._answers():
            with open(log, "rb") as f:
                f.seek(began)
                tail = " / ".join(f.read().decode(errors="replace").strip().split("\n")[-6:])
            self.stop()
            raise Failure(f"{self.name} did not mount: {tail}")

    def _answers(self):
        try:
            return subprocess.run(["stat", self.root + "/."], stdin=subprocess.DEVNULL,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                  timeout=START_SECONDS, check=False).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def stop(self):
        """Unmounts and waits for the daemon; never raises."""
        if self.process is None:
            return
        try:
            if is_mounted(self.root):
                quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL,
                         "stderr": subprocess.DEVNULL, "check": False}
                if not poll(10, lambda: subprocess.run(["umount", self.root], **quiet).returncode == 0):
                    subprocess.run(["umount", "-l", self.root], **quiet)
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def resident_bytes(self):
        with open(f"/proc/{self.process.pid}/status", encoding="utf-8") as f:
            for line in f:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
        return 0

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


class BackgroundSystem(System):
    """One that goes to the background by itself, once it is ready."""

    pid = None  # of the daemon

    def start(self, source, mounts, scratch, log_folder):
        self.root = os.path.join(mounts, self.name)
        os.makedirs(self.root, exist_ok=True)
        arguments = self.command(source, self.root, scratch)
        with open(os.path.join(log_folder, self.name + ".log"), "ab") as out:
            started = subprocess.run(arguments, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False,
                                     timeout=START_SECONDS)
        self.pid = started_as(arguments)
        if started.returncode or not self.pid:
            self.stop()
            raise Failure(f"{self.name} did not mount: see its log")

    def stop(self):
        if is_mounted(self.root) and not poll(10, lambda: subprocess.run(
                ["umount", self.root], stderr=subprocess.DEVNULL, check=False).returncode == 0):
            subprocess.run(["umount", "-l", self.root], check=False)
        if self.pid and not poll(STOP_SECONDS, lambda: not os.path.exists(f"/proc/{self.pid}")):
            os.kill(self.pid, signal.SIGKILL)
        self.pid = None


def build_passthrough_hp(top, build):
    """libfuse's own example, built from the source that setup kept; the path or a reason."""
    deps = os.path.join(top, "build", "deps")
    source = os.path.join(deps, "src", "example", "passthrough_hp.cc")
    target = os.path.join(build, "passthrough_hp")
    if not os.path.exists(source):
        return None, "the source of libfuse is not there (mount-helpers/setup keeps it in build/deps/src)"
    if not shutil.which("g++"):
        return None, "g++ is not installed"
    if os.path.exists(target) and os.path.getmtime(target) >= os.path.getmtime(source):
        return target, ""
    os.makedirs(build, exist_ok=True)
    flags = subprocess.run(["pkg-config", "--static", "--cflags", "--libs", "fuse3"],
                           env={**os.environ, "PKG_CONFIG_PATH": os.path.join(deps, "lib/pkgconfig")},
                           capture_output=True, text=True, check=False)
    built = subprocess.run(
        ["g++", "-O2", "-std=c++20", "-D_FILE_OFFSET_BITS=64", "-I", os.path.join(deps, "src/include"),
         "-I", os.path.join(deps, "src/example"), source, "-o", target] + flags.stdout.split(),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if flags.returncode or built.returncode:
        return None, "it does not build: " + (flags.stderr + built.stderr).strip().split("\n")[0]
    return target, ""


def unionfs(source, mountpoint, _scratch):
    return [shutil.which("unionfs-fuse") or shutil.which("unionfs"), "-f", "-o",
            "allow_other,suid,dev", source + "=RW", mountpoint]


def overlay(source, mountpoint, scratch):
    for name in ("lower", "work"):
        os.makedirs(os.path.join(scratch, name), exist_ok=True)
    return [shutil.which("fuse-overlayfs"), "-f", "-o",
            f"lowerdir={scratch}/lower,upperdir={source},workdir={scratch}/work", mountpoint]


# Each as its own documentation starts it; nothing tuned. Name -> (programs, command, note).
PACKAGED = {
    "bindfs": (("bindfs",), lambda s, m, _:
               [shutil.which("bindfs"), "-f", "--multithreaded", "-o", "allow_other", s, m], ""),
    "mergerfs": (("mergerfs",), lambda s, m, _:
                 [shutil.which("mergerfs"), "-f", "-o", "allow_other,use_ino,cache.files=auto-full,minfreespace=0", s, m], ""),
    "unionfs-fuse": (("unionfs-fuse", "unionfs"), unionfs, ""),
    "fuse-overlayfs": (("fuse-overlayfs",), overlay, "the source is the upper layer"),
}
BASELINE = "stagefs-baseline"
PEERS = list(PACKAGED) + ["passthrough_hp"]


def choose(top, build, programs, options, peers, uring):
    """The systems that can run here, the plain directory first, and {name: reason} for the others. `programs` are
    our build and, or None, an earlier one to compare it with."""
    systems, missing = [System("native", None)], {}
    ours, baseline = programs
    for name, program, option in (("stagefs", ours, "uring=on,serve=passthrough"),
                                  (BASELINE, baseline, "uring=on,serve=passthrough"),
                                  ("stagefs-nouring", ours, "uring=off,serve=passthrough"),
                                  ("stagefs-pagecache", ours, "uring=on,serve=pagecache")):
        if program is None:
            continue
        if not os.access(program, os.X_OK):
            missing[name] = f"there is no {program}: build it first (meson compile -C build)"
        elif option.startswith("uring=on") and not uring:
            missing[name] = "the kernel has no fuse-over-io_uring, or it cannot be switched on"
        else:
            together = ",".join(filter(None, ["allow_other,dev,suid", option, options]))
            systems.append(System(name, lambda s, m, _, p=program, o=together: [p, s, m, "-f", "-o", o]))
    for name in peers:
        if name == "passthrough_hp":
            program, reason = build_passthrough_hp(top, build)
            if program is None:
                missing[name] = reason
                continue
            extra = ["-o", "io_uring"] if uring else []
            systems.append(System(name, lambda s, m, _, p=program, e=tuple(extra):
                                  [p, "--foreground", *e, s, m], "libfuse's example"))
        elif not any(shutil.which(p) for p in PACKAGED[name][0]):
            missing[name] = "the package is not installed"
        else:
            systems.append(System(name, PACKAGED[name][1], PACKAGED[name][2]))
    return systems, missing
