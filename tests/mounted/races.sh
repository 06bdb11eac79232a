#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Two things that happen at once, race by race: staging, warm-up, eviction, forgetting and unmounting against changes
# behind the mount and through it.  Every file's content says what it is a version of, so that a mixture shows.
# variants: default pagecache
# sanitizers:
# timeout: 400

set -euo pipefail
# shellcheck source=tests/lib/harness.sh
. "$TOP/tests/lib/harness.sh"
# shellcheck source=tests/lib/slow-source.sh
. "$TOP/tests/lib/slow-source.sh"

STAGECTL=("${T_WRAP[@]}" "$BUILD_DIR/client/stagectl")
seconds=2
[ "$SANITIZER" = none ] || seconds=4

cat >"$TMPDIR/races.py" <<'PYTHON'
"""races.py RACE SOURCE MOUNT SECONDS STAGECTL...: one race; ends with a traceback where a promise is broken."""
import ctypes, errno, fcntl, mmap, os, random, struct, subprocess, sys, threading, time

race, source, mount, seconds, *stagectl = sys.argv[1:]
race, *details = race.split(":")
over = threading.Event()
broken = []
random.seed(1)


class Broken(Exception):
    pass


# ---- content ----

def make(name, version, blocks):
    """Blocks of 64 bytes, each of which says of what it is which part."""
    return b"".join(b"%-20s %10d %10d %10d %9s\n" % (name.encode(), version, i, blocks, b"") for i in range(blocks))


def version_of(name, data, cut=False):
    """The version of which data is the whole; where it may be cut, at least half, and zeros after that."""
    if cut:
        data = data.rstrip(b"\0")
    lines = data.split(b"\n")
    if lines.pop() or not lines:
        raise Broken("%s: %d bytes do not end as a block does: %r" % (name, len(data), data[-64:]))
    first = lines[0].split()
    count = len(lines)
    for i, line in enumerate(lines):
        words = line.split()
        if len(words) != 4 or words[0] != name.encode() or int(words[2]) != i or words[1] != first[1]:
            raise Broken("%s: block %d of %d says %r, the first %r" % (name, i, count, line[:64], lines[0]))
    whole = int(first[3])
    if count != whole and not (cut and whole // 2 <= count <= whole):
        raise Broken("%s: version %s has %d blocks, not %d" % (name, first[1].decode(), whole, count))
    return int(first[1])


def versions(data):
    """For people: the versions in it, and where each begins."""
    seen = []
    for i, line in enumerate(data.split(b"\n")[:-1]):
        version = line.split()[1:2]
        if not seen or seen[-1][1] != version:
            seen.append((i, version))
    return "%d bytes %s" % (len(data), ["block %d: %s" % (i, version) for i, version in seen])


def read(path):
    with open(path, "rb", buffering=0) as file:
        data = file.read(1 << 20)
        while True:
            more = file.read(1 << 20)
            if not more:
                return data
            data += more


def read_if_there(path):
    """The content of what may go meanwhile; None: it is gone."""
    try:
        return read(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        # Nobody tells the daemon of opens there; the case of held files is about that.
        if error.errno != errno.ESTALE or os.environ["VARIANT"] != "pagecache":
            raise
        return None


def put(path, data):
    with open(path, "wb", buffering=0) as file:
        file.write(data)


def replace(folder, name, data, spare):
    """The name leads to the new version, or to what it led to before: never to a part."""
    put(os.path.join(folder, spare), data)
    os.rename(os.path.join(folder, spare), os.path.join(folder, name))


# ---- threads ----

def forever(step):
    """A thread that repeats the step until the race is over; what it raises ends the race."""
    def run():
        try:
            while not over.is_set():
                step()
        except BaseException as error:
            broken.append(error)
            over.set()
    thread = threading.Thread(target=run)
    thread.start()
    return thread


def join(threads):
    over.set()
    for thread in threads:
        thread.join()
    if broken:
        raise broken[0]


def run_for(*steps):
    threads = [forever(step) for step in steps]
    over.wait(float(seconds))
    join(threads)


def rounds(count=1000000):
    """Numbers until the time is over, one at least."""
    end = time.monotonic() + float(seconds)
    for number in range(count):
        yield number
        if time.monotonic() > end or over.is_set():
            return


def control(*words, must=True):
    done = subprocess.run([*stagectl, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          stdin=subprocess.DEVNULL)
    if must and done.returncode:
        raise Broken("%s: status %d: %s" % (words, done.returncode, done.stdout.decode()))


def sync():
    control("sync", "-t", "50", mount)


# ---- comparing ----

def facts(path):
    info = os.lstat(path)
    return (info.st_ino, oct(info.st_mode), info.st_nlink, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


def compare(folder=""):
    """Everything below, while nothing changes: names, attributes and content."""
    ours, theirs = os.path.join(mount, folder), os.path.join(source, folder)
    names = sorted(os.listdir(theirs))
    if sorted(os.listdir(ours)) != names:
        raise Broken("%s: names differ: %s" % (folder, set(names) ^ set(os.listdir(ours))))
    for name in names:
        at, to = os.path.join(ours, name), os.path.join(theirs, name)
        if os.path.isdir(to):
            compare(os.path.join(folder, name))
            continue
        if facts(at) != facts(to):
            raise Broken("%s: attributes are %s, not %s" % (at, facts(at), facts(to)))
        got, want = read(at), read(to)
        if got != want:
            raise Broken("%s: %s, not %s; a moment later it is %s" % (at, versions(got), versions(want),
                                                                       versions(read(at))))


# ---- the races ----

def race_prefetch(how, by, kept):
    """Fetches while files are deleted, renamed over, truncated; what is gone is kept elsewhere, with its number."""
    names = ["file%d" % i for i in range(6)]
    under = os.path.join(os.path.dirname(source), "slow-under")
    folder = source if by == "behind" else mount
    latest = dict.fromkeys(names, 0)
    for name in names:
        replace(source, name, make(name, 0, 300), "spare")

    def change():
        name = random.choice(names)
        latest[name] += 1
        os.link(os.path.join(under, name), os.path.join(kept, "%s-%d" % (name, latest[name])))
        if how == "delete":
            os.unlink(os.path.join(folder, name))
        elif how == "truncate":
            size = os.stat(os.path.join(folder, name)).st_size
            os.truncate(os.path.join(folder, name), size // 128 * 64)
        time.sleep(random.random() * 0.01)
        replace(folder, name, make(name, latest[name], random.choice([40, 200, 300])), "spare")
        time.sleep(random.random() * 0.03)

    def look():
        name = random.choice(names)
        known = latest[name]
        data = read_if_there(os.path.join(mount, name))
        if data is None:
            if how != "delete" and not os.path.exists(os.path.join(mount, name)):
                raise Broken("%s: it is not there, though nobody deletes it" % name)
            return
        got = version_of(name, data, cut=how == "truncate")
        if by == "through" and got < known - 1:
            raise Broken("%s: version %d after %d was put in its place" % (name, got, known - 1))

    def stage():
        control("stage", *(os.path.join(mount, name) for name in names), must=False)

    run_for(change, look, look, look, stage)
    sync()
    compare()
    if latest == dict.fromkeys(names, 0):
        raise Broken("nothing was changed")


def race_number(by):
    """The source gives the number of a file that is gone to a new one."""
    folder, path = (source if by == "behind" else mount), os.path.join(mount, "file")
    reused = 0
    for number in rounds(40):
        put(os.path.join(folder, "file"), make("file", 2 * number, 100))
        sync()
        if version_of("file", read(path)) != 2 * number:
            raise Broken("before: %r" % read(path)[:64])
        before = os.stat(path).st_ino
        held = os.open(path, os.O_RDONLY)
        os.unlink(os.path.join(folder, "file"))
        put(os.path.join(folder, "file"), make("file", 2 * number + 1, 50))
        sync()
        reused += os.stat(os.path.join(source, "file")).st_ino == before
        for i in range(2):
            if version_of("file", read(path)) != 2 * number + 1:
                raise Broken("after: %r" % read(path)[:64])
        os.close(held)
        os.unlink(os.path.join(folder, "file"))
        sync()
    print("the number was given again in %d of %d rounds" % (reused, number + 1))


def race_held():
    """What is open stays what it was when its name goes, whether it was read before or not."""
    for number in rounds():
        put(os.path.join(source, "file"), make("file", number, 100))
        sync()
        held = os.open(os.path.join(mount, "file"), os.O_RDONLY)
        if number % 4 >= 2:
            os.pread(held, 1, 0)
        if number % 2:
            replace(source, "file", make("file", -1, 50), "spare")
        else:
            os.unlink(os.path.join(source, "file"))
        if version_of("file", os.pread(held, 1 << 20, 0)) != number:
            raise Broken("at once")
        sync()
        if version_of("file", os.pread(held, 1 << 20, 0)) != number:
            raise Broken("after a sync")
        os.close(held)


def race_warm():
    """A warm-up that goes on, and files that are rewritten behind it: what is so after a sync."""
    names = ["file%d" % i for i in range(60)]
    for name in names:
        put(os.path.join(source, name), make(name, 0, 300))
    threads = [forever(lambda: control("stage", "-r", mount, must=False))]
    version = 0
    for number in rounds():
        for name in random.sample(names, 40):
            version += 1
            if version % 3:
                with open(os.path.join(source, name), "r+b", buffering=0) as file:
                    file.write(make(name, version, 300))
            else:
                replace(source, name, make(name, version, 300), "spare")
        sync()
        compare()
    join(threads)


def race_long():
    """What is read while a long write(2) goes on, whose times were set when it began, is not kept for its end."""
    size, part = 64 << 20, 4096
    at, to = os.path.join(source, "file"), os.path.join(mount, "file")
    met = 0
    for number in rounds(8):
        old, new = b"%c" % (97 + number % 26), b"%c" % (98 + number % 26)
        put(at, old * size)
        sync()
        before = os.stat(at).st_mtime_ns
        with open(at, "r+b", buffering=0) as writer, open(to, "rb", buffering=0) as reader:
            thread = threading.Thread(target=lambda: os.pwrite(writer.fileno(), new * size, 0))
            thread.start()
            while os.stat(at).st_mtime_ns == before:
                pass
            os.stat(to)
            met += os.pread(reader.fileno(), part, size - part) == old * part
            thread.join()
            sync()
            got = os.pread(reader.fileno(), part, size - part)
        if got != new * part:
            raise Broken("after the write and a sync its end is still the old one")
    if not met:
        raise Broken("no read came before the end of a write")


def race_evict():
    """Many who open, and room for few copies."""
    names = ["file%d" % i for i in range(60)]
    for i, name in enumerate(names):
        put(os.path.join(source, name), make(name, i, 50 + 10 * i))

    def look():
        i = random.randrange(len(names))
        with open(os.path.join(mount, names[i]), "rb", buffering=0) as file:
            if file.read(1 << 20) != make(names[i], i, 50 + 10 * i):
                raise Broken(names[i])
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    run_for(*[look] * 16)
    compare()


def race_forget():
    """The kernel forgets, while the watcher tells it of changes."""
    folders = ["d%d" % i for i in range(4)]
    paths = [os.path.join(folder, "file%d" % i) for folder in folders for i in range(8)]
    for folder in folders:
        os.mkdir(os.path.join(source, folder))
    version = [0]
    held = []

    def change():
        path = os.path.join(source, random.choice(paths))
        version[0] += 1
        data = make(os.path.basename(path), version[0], 100)
        act = random.randrange(6)
        try:
            if act == 0:
                os.unlink(path)
            elif act == 1:
                os.rename(path, os.path.join(source, random.choice(paths)))
            elif act == 2:
                os.chmod(path, 0o600 + version[0] % 8)
            else:
                put(path, data)
        except FileNotFoundError:
            put(path, data)

    def look():
        path = os.path.join(mount, random.choice(paths))
        read_if_there(path)
        try:
            os.stat(path)
            held.append(os.open(path, os.O_RDONLY))
        except FileNotFoundError:
            pass
        while len(held) > 8:
            os.close(held.pop(0))

    def drop():
        with open("/proc/sys/vm/drop_caches", "w") as file:
            file.write("2")
        time.sleep(0.02)

    for path in paths:
        put(os.path.join(source, path), make(os.path.basename(path), 0, 100))
    for number in range(2):
        over.clear()
        threads = [forever(step) for step in (change, look, look, drop)]
        over.wait(float(seconds) / 2)
        join(threads)
        sync()
        compare()


def race_twice():
    """A folder that has two paths: what is done by one is seen by the other."""
    def check(path, want):
        got = read(os.path.join(mount, path))
        if got != want:
            raise Broken("%s: %r, not %r" % (path, got[:64], want[:64]))

    os.mkdir(os.path.join(source, "a/sub"))
    for number in rounds():
        one, other = ("a", "b") if number % 2 else ("b", "a")
        here, there = os.path.join(mount, one), os.path.join(mount, other)
        name = "file%d" % (number % 5)
        fresh = "fresh%d" % number
        put(os.path.join(here, name), b"before")
        sync()
        check(os.path.join(other, name), b"before")
        for gone in (fresh, "moved"):
            if os.path.exists(os.path.join(there, gone)):
                raise Broken("%s is there too soon" % gone)
        data = make(name, number, 200)
        with open(os.path.join(here, name), "r+b", buffering=0) as file:
            file.write(data)
        put(os.path.join(here, fresh), data)
        os.chmod(os.path.join(here, name), 0o600 + number % 8)
        os.rename(os.path.join(here, fresh), os.path.join(here, "sub", fresh))
        put(os.path.join(here, fresh), b"again")
        sync()
        check(os.path.join(other, name), data)
        check(os.path.join(other, fresh), b"again")
        check(os.path.join(other, "sub", fresh), data)
        if facts(os.path.join(there, name))[1:] != facts(os.path.join(source, "a", name))[1:]:
            raise Broken("attributes: %s" % (facts(os.path.join(there, name)),))
        os.link(os.path.join(here, fresh), os.path.join(here, "moved"))
        os.unlink(os.path.join(here, fresh))
        os.unlink(os.path.join(here, "sub", fresh))
        sync()
        if os.path.exists(os.path.join(there, fresh)) or fresh in os.listdir(os.path.join(there, "sub")):
            raise Broken("%s is still there" % fresh)
        check(os.path.join(other, "moved"), b"again")
        os.unlink(os.path.join(here, "moved"))
        sync()


def race_link():
    """A second name in a folder that the mount does not know, and a write by it."""
    for number in rounds():
        first = os.path.join(mount, "first%d" % number)
        put(os.path.join(source, "first%d" % number), make("first", 0, 100))
        os.makedirs(os.path.join(source, "unknown%d" % number, "deep"))
        second = os.path.join("unknown%d" % number, "deep", "second")
        sync()
        version_of("first", read(first))
        facts(first)
        if number % 2:  # as it is, then by the mount, which comes by the folder for the first time
            os.link(os.path.join(source, "first%d" % number), os.path.join(source, second))
            second = os.path.join(mount, second)
        else:
            second = os.path.join(source, second)
            os.link(os.path.join(source, "first%d" % number), second)
        data = make("first", 1, 100)
        with open(second, "r+b", buffering=0) as file:
            file.write(data)
        sync()
        if read(first) != data or os.stat(first).st_nlink != 2:
            raise Broken("%s: %r, %s" % (first, read(first)[:64], facts(first)))
        compare()
        for path in (first, second):
            os.unlink(path)


def race_new():
    """What is found for the first time while it changes: the last state is what is seen."""
    current = ["none"]

    def look():
        path = os.path.join(mount, current[0])
        if os.path.exists(path):
            read_if_there(path)

    def list_names():
        with os.scandir(mount) as entries:
            for entry in entries:
                try:
                    entry.stat()
                except FileNotFoundError:
                    pass

    threads = [forever(step) for step in (look, look, list_names)]
    for number in rounds():
        for i in range(20):
            name = "new-%d-%d" % (number, i)
            path = os.path.join(source, name)
            current[0] = name
            time.sleep(random.random() * 0.0003)
            put(path, make(name, 0, 100))
            if number % 2:
                time.sleep(random.random() * 0.0005)
            act = i % 5
            if act == 0:
                put(path, make(name, 1, 50))
            elif act == 1:
                with open(path, "r+b", buffering=0) as file:
                    file.write(make(name, 1, 100))
            elif act == 2:
                os.chmod(path, 0o640)
            elif act == 3:
                os.unlink(path)
            else:
                replace(source, name, make(name, 1, 70), "spare")
        sync()
        compare()
        for name in os.listdir(source):
            os.unlink(os.path.join(source, name))
    join(threads)


def race_list():
    """A folder that is listed, with attributes, while names come and go."""
    os.mkdir(os.path.join(source, "dir"))
    inside = os.path.join(source, "dir")
    names = ["a-name-%d" % i for i in range(150)]

    def list_names():
        with os.scandir(os.path.join(mount, "dir")) as entries:
            seen = []
            for entry in entries:
                seen.append(entry.name)
                try:
                    entry.stat()
                except FileNotFoundError:
                    pass
        unknown = [name for name in seen if name not in names]
        if unknown:
            raise Broken("nobody made %s" % unknown)

    threads = [forever(list_names) for i in range(3)]
    for number in rounds():
        for i in range(100):
            path = os.path.join(inside, random.choice(names))
            act = random.randrange(3)
            try:
                if act == 0:
                    os.unlink(path)
                elif act == 1:
                    os.rename(path, os.path.join(inside, random.choice(names)))
                else:
                    put(path, b"x" * random.randrange(1000))
            except FileNotFoundError:
                put(path, b"new")
        sync()
        compare()
    join(threads)


def race_strict():
    """Who opens a file after a change has ended reads what it is then, whoever else looks at it meanwhile."""
    shared = mmap.mmap(-1, 4096)  # the changes that have begun, and that have ended
    path, name = os.path.join(source, "file"), "file"
    end = time.monotonic() + 3 * float(seconds)

    def number(which):
        return struct.unpack_from("q", shared, 8 * which)[0]

    def change():
        version = number(0) + 1
        struct.pack_into("q", shared, 0, version)
        fd = os.open(path, os.O_RDWR | os.O_CREAT)
        before = os.fstat(fd)
        if version % 3 == 0:
            os.ftruncate(fd, 0)
        os.pwrite(fd, make(name, version, 600), 0)
        if version % 3:  # nothing but the ctime tells of it
            os.utime(fd, ns=(before.st_atime_ns, before.st_mtime_ns))
        os.close(fd)
        struct.pack_into("q", shared, 8, version)
        time.sleep(random.random() * 0.003)

    def look():
        since = number(1)
        data = read(os.path.join(mount, name))
        if number(0) == since and data != make(name, since, 600):
            raise Broken("%s, where version %d had been there before the open" % (versions(data), since))

    def reader():  # a process of its own: threads of Python come one after the other
        child = os.fork()
        if child:
            return child
        status = 1
        try:
            while time.monotonic() < end:
                look()
            status = 0
        except BaseException as error:
            print(error, flush=True)
        os._exit(status)

    change()
    readers = [reader() for i in range(4)]
    while time.monotonic() < end:
        change()
    statuses = [os.waitpid(child, 0)[1] for child in readers]
    if any(statuses):
        raise Broken("readers ended with %s" % statuses)


def race_touched():
    """Stats of a file and of its folder while the mount itself changes them, which no event need tell."""
    folder, name = os.path.join(mount, "folder"), os.path.join(mount, "folder", "file")
    os.mkdir(folder)
    put(name, make("file", 1, 1000))
    libc = ctypes.CDLL(None, use_errno=True)
    KEEP_SIZE, PUNCH_HOLE, GET_FLAGS, SET_FLAGS, NOATIME = 1, 2, 0x80086601, 0x40086602, 0x80

    def punch(number):
        offset, length = ctypes.c_long(number * 4096), ctypes.c_long(4096)
        fd = os.open(name, os.O_WRONLY)
        if libc.fallocate(fd, KEEP_SIZE | PUNCH_HOLE, offset, length):
            raise OSError(ctypes.get_errno(), "fallocate")
        os.close(fd)

    def turn_flag():
        fd = os.open(name, os.O_RDONLY)
        flags, = struct.unpack("L", fcntl.ioctl(fd, GET_FLAGS, struct.pack("L", 0)))
        fcntl.ioctl(fd, SET_FLAGS, struct.pack("L", flags ^ NOATIME))
        os.close(fd)

    change = [lambda j: os.setxattr(name, "user.number", b"%d" % j), punch, lambda _: turn_flag()]

    def look(going):
        while going.is_set():
            os.stat(name)
            os.stat(folder)

    def times(path):
        found = os.stat(path)
        return found.st_ctime_ns, found.st_mtime_ns, found.st_nlink, found.st_blocks

    for i in range(300):
        going = threading.Event()
        going.set()
        lookers = [threading.Thread(target=look, args=(going,)) for _ in range(3)]
        for looker in lookers:
            looker.start()
        for j in range(6):
            change[i % 3](j)
            os.mkdir(os.path.join(folder, "%d" % (i * 6 + j)))
        going.clear()
        for looker in lookers:
            looker.join()
        for path in (name, folder):
            seen, there = times(path), times(os.path.join(source, os.path.relpath(path, mount)))
            if seen != there:
                raise Broken("round %d: %s has %s, and %s in the source" % (i, path, seen, there))


def race_busy():
    """Events and reads until the mount is gone; the file of the detail is there when all is going on."""
    names = ["file%d" % i for i in range(20)]
    count = [0]

    def change():
        name = random.choice(names)
        put(os.path.join(source, name), make(name, 1, 100))

    def look():
        read(os.path.join(mount, random.choice(names)))
        count[0] += 1
        if count[0] == 200:
            put(details[0], b"")

    for name in names:
        put(os.path.join(source, name), make(name, 0, 100))
    threads = [forever(step) for step in (change, look, look)]
    over.wait(100)
    try:
        join(threads)
    except OSError:
        pass  # the mount is gone


globals()["race_" + race](*(details if race in ("prefetch", "number") else []))
PYTHON

race() { # RACE
    timeout -k 5 "$PATIENCE" python3 "$TMPDIR/races.py" "$1" "$SRC" "$MNT" "$seconds" "${STAGECTL[@]}"
}
ended() { unmount_fs && pass "$1: the mount ends cleanly"; }
# A source that answers at once would be taken for a local one, and one that keeps attributes would not show changes.
start_slow() { new_dirs && mount_slow "latency_us=300,timeout=0"; }
end_slow() { # NAME
    ended "$1" || true
    unmount_slow || true
}

# ---- prefetch against delete, rename and truncate ----

if have_slowfs; then
    for how in delete rename truncate; do
        for by in behind through; do
            start_slow
            mount_fs stage=prefetch,settle=0,ttl=0.05 || done_testing
            check "prefetch against $how, $by the mount: what is read is one version" race "prefetch:$how:$by:$NATIVE"
            end_slow "prefetch, $how, $by"
        done
    done
else
    skip "prefetch against changes" "slowfs is not built"
fi

# ---- a number that is given again ----

if have_slowfs; then
    for by in behind through; do
        start_slow
        mount_fs stage=prefetch,settle=0,ttl=0.05 || done_testing
        check "a number that the source gives again, $by the mount: what is read is the new file" race "number:$by"
        end_slow "number, $by"
    done
else
    skip "a number that is given again" "slowfs is not built"
fi

# ---- a warm-up against invalidation ----

for mode in watch ttl,ttl=60; do
    [ "$VARIANT" = default ] || continue # it says itself how it serves
    new_dirs
    mount_fs "serve=pagecache,coherence=$mode" || done_testing
    check "a warm-up against changes, $mode: after a sync all is as in the source" race warm
    ended "a warm-up, $mode"
done

# ---- attributes that were asked for before the mount itself changed them ----

for mode in watch frozen; do
    new_dirs
    mount_fs "coherence=$mode" || done_testing
    check "$mode: attributes asked for during a change through the mount are not kept" race touched
    ended "attributes, $mode"
done

# ---- a read in the middle of a write ----

for mode in watch ttl,ttl=0.001 strict; do
    new_dirs
    mount_fs "coherence=$mode" || done_testing
    check "$mode: what is read in the middle of a long write is not kept" race long
    ended "a long write, $mode"
done

# ---- a fetch that ends after what it fetched has changed ----

as_source() { cmp "$SRC/$1" "$MNT/$1"; }
change_file() { # HOW: behind the mount
    case $1 in
    rewrite) printf 'new' | dd of="$SLOW_UNDER/file" conv=notrunc status=none ;;
    truncate) truncate -s 4096 "$SLOW_UNDER/file" ;;
    rename) seq 3 30000 >"$SLOW_UNDER/spare" && mv "$SLOW_UNDER/spare" "$SLOW_UNDER/file" ;;
    esac
}
fetch_against() { # HOW WHEN: look, or sync, begins while the fetch is held
    local staging waiting
    start_slow
    seq 1 30000 >"$SLOW_UNDER/file"
    mount_fs stage=prefetch,settle=0,attr_timeout=0,entry_timeout=0 || return 0
    stat "$MNT/file" >/dev/null
    slow_control gate=READ
    "${STAGECTL[@]}" stage "$MNT/file" </dev/null >/dev/null 2>&1 &
    staging=$!
    own_process "$staging"
    check "$1, $2: a fetch is under way" slow_wait_held
    change_file "$1"
    # The source may hold up what asks it for the attributes of a file whose pages it is reading.
    case $2 in
    sync) "${STAGECTL[@]}" sync -t 50 "$MNT" </dev/null >/dev/null 2>&1 & ;;
    look) stat "$MNT/file" </dev/null >/dev/null 2>&1 & ;;
    esac
    waiting=$!
    own_process "$waiting"
    slow_control ""
    check "$1, $2: the $2 ends" wait "$waiting"
    wait "$staging" || true
    check "$1, $2: what is read after it is new" as_source file
    check "$1, $2: and again" as_source file
    end_slow "a late fetch, $1, $2"
}
if have_slowfs; then
    for how in rewrite truncate rename; do
        for when in look sync; do
            fetch_against $how $when
        done
    done
else
    skip "a late fetch" "slowfs is not built"
fi

# ---- a copy in use that is being fetched anew, against a sync ----

# Who opens a file of which a stale copy is in use has that fetched anew; a sync that comes meanwhile must not be over
# before that is.
renewal_against_sync() {
    local reader
    new_dirs
    mount_slow "latency_us=300,timeout=0,coarse" # there is no ctime: a file is as old as it says
    version() { # LETTER AGE
        head -c 20000 /dev/zero | tr '\0' "$1" >"$SLOW_UNDER/file"
        touch -d "$2 ago" "$SLOW_UNDER/file"
    }
    version a "2 hours"
    mount_fs stage=prefetch,coherence=frozen || done_testing
    exec 3<"$MNT/file"
    check "renewal: a copy is in use" "${STAGECTL[@]}" unstage "$MNT/file"
    version b "1 hour"
    stat "$SRC/file" >/dev/null # else the source's own client would have the sync's look wait for the READ
    # An open, with what the kernel knows already: for a lookup or a stat a sync waits anyway.
    slow_control gate=READ
    cat "$MNT/file" </dev/null >/dev/null 2>&1 3<&- &
    reader=$!
    own_process "$reader"
    check "renewal: an open fetches it anew" slow_wait_held
    check "renewal: a sync waits for that" exits 3 timeout 20 "${STAGECTL[@]}" sync -t 1 "$MNT"
    slow_control ""
    check "renewal: and is over after it" timeout 20 "${STAGECTL[@]}" sync "$MNT"
    same "renewal: who has it open sees what it is" b "$(head -c 1 <&3)"
    wait "$reader" || true
    exec 3<&-
    end_slow "renewal"
}
exits() { # STATUS CMD...
    local status=0
    "${@:2}" || status=$?
    [ "$status" = "$1" ] || { echo "status $status" && return 1; }
}
if ! have_slowfs; then
    skip "renewal against a sync" "slowfs is not built"
elif [ "$VARIANT" = default ]; then
    renewal_against_sync
fi

# ---- eviction against open ----

if have_slowfs; then
    start_slow
    mount_fs stage=prefetch,settle=0,mem=256K,cold=128K || done_testing
    check "eviction against open: contents are right" race evict
    end_slow "eviction"
else
    skip "eviction against open" "slowfs is not built"
fi

# ---- forget against the watcher ----

if [ -w /proc/sys/vm/drop_caches ]; then
    new_dirs
    mount_fs coherence=watch || done_testing
    check "forget against watch: after a sync all is as in the source" race forget
    ended "forget"
else
    skip "forget against watch" "/proc/sys/vm/drop_caches cannot be written"
fi

# ---- held opens ----

for mode in watch ttl,ttl=60; do
    new_dirs
    mount_fs "coherence=$mode" || done_testing
    check "$mode: what is open stays what it was when its name goes" race held
    ended "held, $mode"
done

# ---- looks at once ----

new_dirs
mount_fs coherence=strict || done_testing
check "strict: what is opened is what the last change has made of it" race strict
ended "strict"

# ---- one file system twice below the source ----

for mode in watch ttl,ttl=60; do
    new_dirs
    mkdir "$SRC/a" "$SRC/b"
    mount --bind "$SRC/a" "$SRC/b"
    mount_fs "coherence=$mode" || done_testing
    check "twice below the source, $mode: a change by one path is seen by the other" race twice
    ended "twice, $mode"
    umount "$SRC/b"
done

# ---- links in unknown folders, new objects, listings ----

for mode in watch ttl,ttl=60; do
    for what in link new list; do
        new_dirs
        mount_fs "coherence=$mode" || done_testing
        case $what in
        link) name="a write by a link that the mount does not know is seen by the first name" ;;
        new) name="what is new and changes is seen as it is at last" ;;
        list) name="a listing is as the source's after names came and went" ;;
        esac
        check "$mode: $name" race $what
        ended "$what, $mode"
    done
done

# ---- the end of the mount, in the middle of things ----

end_mount() { # HOW
    case $1 in
    umount) umount -l "$MNT" ;;
    TERM) kill -TERM "$DAEMON" ;;
    esac
}
mount_gone() { # NAME PID...: the mount is gone, and so is who was busy with it
    local name=$1 pid
    shift
    check "$name: the mount is gone" wait_for 20 not_mounted "$MNT"
    for pid; do
        check "$name: who was busy with it goes on" wait_for 30 process_gone "$pid"
    done
}
background() { # CMD...: sets $BUSY
    "$@" </dev/null >/dev/null 2>&1 &
    BUSY=$!
    own_process "$BUSY"
}

for how in umount TERM; do
    new_dirs
    mount_fs coherence=watch || done_testing
    background python3 "$TMPDIR/races.py" "busy:$WORK/going" "$SRC" "$MNT" "$seconds"
    check "$how, events and reads: they are under way" wait_for 30 test -e "$WORK/going"
    end_mount $how
    if wait_daemon_end; then pass "$how, events and reads: the daemon ends"; fi
    mount_gone "$how, events and reads" "$BUSY"

    new_dirs
    for i in $(seq 300); do echo "$i" >"$SRC/$i"; done
    mount_fs coherence=ttl,ttl=60 || done_testing
    ls -l "$MNT" >/dev/null
    syncs() { while "${STAGECTL[@]}" sync -t 20 "$MNT"; do : >"$WORK/going"; done; }
    background syncs
    check "$how, syncs: they are under way" wait_for 30 test -e "$WORK/going"
    end_mount $how
    if wait_daemon_end; then pass "$how, syncs: the daemon ends"; fi
    mount_gone "$how, syncs" "$BUSY"
done

# With status 1 it ended without what it was waiting for: it says so in its log, and a thread of it was never joined.
forgive() { # PID
    local report=$TMPDIR/sanitizer/report.$1
    : >"$LOG"
    [ ! -f "$report" ] || grep 'WARNING:' "$report" | grep -qv 'ThreadSanitizer: thread leak' || rm -f "$report"
}

# What a source does not answer must not hold up the end.  Who uses the mount is killed where only its name goes.
slow_end() { # HOW PID...
    [ "$1" = TERM ] || [ $# = 2 ] || kill -KILL "${@:3}"
    end_mount "$1"
    [ "$1" = TERM ] || kill -KILL "$2"
}
slow_gone() { # NAME SECONDS
    if ! wait_for "$2" process_gone "$DAEMON"; then
        fail "$1: the daemon ends though the source does not answer" "$(t_describe_process "$DAEMON")"
        slow_control "" || true
    fi
}
slow_ended() { # NAME PID
    local status=0
    check "$1: the daemon ends" wait_for 60 process_gone "$DAEMON"
    mount_gone "$1" "$2"
    # A thread that the kernel holds for the source cannot be ended before it answers, and is waited for here.
    slow_control "" || true
    wait "$DAEMON" || status=$?
    t_forget_process "$DAEMON"
    check "$1: its status says how" test "$status" -le 1
    [ "$status" != 1 ] || forgive "$DAEMON"
    check "$1: the source can be unmounted" wait_for 10 unmount_slow
}
sync_waits() { cat "/proc/$DAEMON/task/"*/stack | grep -qE 'invalidate_inode_pages2|__folio_lock'; }

# Mounts that have to give up after the time which a source is given to answer: they end together, as each has its own.
stuck=()
stuck_mount() { # NAME HOW PID...: $DAEMON's
    stuck+=("$DAEMON $LOG $SRC $MNT $SLOW_PID $SLOW_CONTROL $SLOW_STATS $2 $(IFS=, && echo "${*:3}") $1")
}
for_each_stuck() { # FUNCTION, called with NAME HOW PID...
    local record name how pids
    for record in "${stuck[@]}"; do
        read -r DAEMON LOG SRC MNT SLOW_PID SLOW_CONTROL SLOW_STATS how pids name <<<"$record"
        IFS=, read -r -a pids <<<"$pids"
        "$1" "$name" "$how" "${pids[@]}"
    done
}
stuck_end() { slow_end "${@:2}"; }
stuck_gone() { slow_gone "$1" $((stuck_until - SECONDS)); }
stuck_ended() { slow_ended "$1" "$3"; }

if have_slowfs; then
    for how in umount TERM; do
        start_slow
        for i in $(seq 400); do echo "$i" >"$SLOW_UNDER/$i"; done
        mount_fs stage=prefetch,settle=0 || done_testing
        slow_control latency_us=20000
        background "${STAGECTL[@]}" stage -r "$MNT"
        read_some() { [ "$(slow_count open)" -gt 20 ]; }
        check "$how, a stage job: it is under way" wait_for 30 read_some
        slow_end $how "$BUSY"
        slow_gone "$how, a stage job" 15
        slow_ended "$how, a stage job" "$BUSY"

        start_slow
        for i in $(seq 100); do echo "$i" >"$SLOW_UNDER/$i"; done
        mount_fs stage=prefetch,settle=0 || done_testing
        slow_control gate=READ
        background "${STAGECTL[@]}" stage -r "$MNT"
        check "$how, a stage job that waits: it is under way" slow_wait_held
        stuck_mount "$how, a stage job that waits" $how "$BUSY"

        [ "$VARIANT" = default ] || continue # these say themselves how they serve
        start_slow
        echo content >"$SLOW_UNDER/file"
        mount_fs serve=pagecache || done_testing
        slow_control gate=READ
        background cat "$MNT/file"
        check "$how, a READ without an answer: it is under way" slow_wait_held
        stuck_mount "$how, a READ without an answer" $how "$BUSY"

        new_dirs
        mkdir "$SRC/point"
        SRC=$SRC/point
        mount_slow latency_us=300,timeout=0
        echo content >"$SLOW_UNDER/file"
        SRC=${SRC%/point}
        mount_fs serve=pagecache,coherence=ttl || done_testing
        slow_control gate=READ
        background cat "$MNT/point/file"
        check "$how, a READ below a local source: it is under way" slow_wait_held
        SRC=$SRC/point
        stuck_mount "$how, a READ below a local source" $how "$BUSY"

        start_slow
        echo content >"$SLOW_UNDER/file"
        mount_fs serve=pagecache,coherence=ttl,ttl=60 || done_testing
        slow_control gate=READ
        background cat "$MNT/file"
        reader=$BUSY
        check "$how, a sync that waits for a READ: the READ is under way" slow_wait_held
        echo changed >"$SLOW_UNDER/file"
        background "${STAGECTL[@]}" sync -t 50 "$MNT"
        check "$how, a sync that waits for a READ: it is under way" wait_for 20 sync_waits
        stuck_mount "$how, a sync that waits for a READ" $how "$BUSY" "$reader"
    done
    for_each_stuck stuck_end
    stuck_until=$((SECONDS + 15))
    for_each_stuck stuck_gone
    for_each_stuck stuck_ended
else
    skip "the end of a mount over a slow source" "slowfs is not built"
fi
done_testing
