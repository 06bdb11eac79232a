/* SPDX-License-Identifier: GPL-2.0-only */
/* Parity: fifos, sockets, devices, and ioctls that are not about inode flags. */
#include "parity.h"

#include <linux/fs.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

static void nodes(struct pt *t) {
    static const mode_t types[] = {0,       S_IFREG, S_IFIFO, S_IFSOCK, S_IFCHR,
                                   S_IFBLK, S_IFDIR, S_IFLNK, 0110000};
    for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++) {
        SAY("type %o", types[i]);
        T(mknod("n", types[i] | 0640, makedev(1, 3)));
        pt_show(t, "n");
        T(mknod("n", types[i] | 0640, makedev(1, 3)));
        T(unlink("n"));
    }
    T(mknod("none/n", S_IFIFO | 0600, 0));
    T(mknod("", S_IFIFO | 0600, 0));
    T(mknod("n/", S_IFIFO | 0600, 0));
}

static void devices(struct pt *t) {
    char buffer[8] = "junk";
    T(mknod("null", S_IFCHR | 0666, makedev(1, 3)));
    T(mknod("zero", S_IFCHR | 0666, makedev(1, 5)));
    T(mknod("big", S_IFCHR | 0600, makedev(4000, 1000000)));
    T(mknod("block", S_IFBLK | 0600, makedev(7, 200)));
    pt_show(t, "null");
    pt_show(t, "big");
    pt_show(t, "block");
    int fd = OK(open("null", O_RDWR));
    T(write(fd, "gone", 4));
    T(read(fd, buffer, 4));
    close(fd);
    fd = OK(open("zero", O_RDONLY));
    pt_bytes(t, "zero", buffer, read(fd, buffer, 4));
    close(fd);
    OK(open("big", O_RDONLY));
    T(rename("null", "moved"));
    pt_show(t, "moved");
    T(chmod("moved", 0600));
    T(chown("moved", PT_U1, PT_U1));
    pt_show(t, "moved");
    AS(PT_U2, PT_U2, 0) {
        OK(open("moved", O_RDWR));
        OK(open("zero", O_RDWR));
        T(mknod("mine", S_IFCHR | 0600, makedev(1, 3)));
    }
    T(mknod("whiteout", S_IFCHR, 0));
    pt_show(t, "whiteout");
}

static void fifo_data(struct pt *t) {
    char buffer[32];
    T(mkfifo("p", 0600));
    pid_t pid = pt_spawn(t);
    if (pid == 0) {
        int fd = open("p", O_WRONLY); /* waits for the reader */
        if (write(fd, "through the fifo", 16) != 16)
            pt_outcome(t, "write", -1);
        pt_end();
    }
    int fd = OK(open("p", O_RDONLY));
    ssize_t got = 0, n;
    while ((n = read(fd, buffer + got, sizeof(buffer) - (size_t)got)) > 0)
        got += n;
    pt_bytes(t, "received", buffer, got);
    pt_showfd(t, "p", fd);
    pt_reap(t, pid);
    close(fd);
}

static void fifo_rules(struct pt *t) {
    char buffer[8];
    int available = -1;
    T(mkfifo("p", 0600));
    OK(open("p", O_WRONLY | O_NONBLOCK));
    int r = OK(open("p", O_RDONLY | O_NONBLOCK));
    T(read(r, buffer, 8));
    int w = OK(open("p", O_WRONLY | O_NONBLOCK));
    T(read(r, buffer, 8));
    T(write(w, "abc", 3));
    T(ioctl(r, FIONREAD, &available));
    T(available);
    T(lseek(r, 0, SEEK_SET));
    T(pread(r, buffer, 1, 0));
    T(ftruncate(w, 0));
    T(fsync(w));
    struct pollfd polled[2] = {{r, POLLIN, 0}, {w, POLLOUT, 0}};
    T(poll(polled, 2, 0));
    T(polled[0].revents);
    T(rename("p", "q"));
    T(link("q", "p2"));
    int again = OK(open("p2", O_WRONLY | O_NONBLOCK));
    T(write(again, "def", 3));
    T(read(r, buffer, 8));
    close(w), close(again);
    T(read(r, buffer, 8));
    close(r);
    OK(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, OK(open("q", O_RDWR)), 0) == MAP_FAILED ? -1 : 0);
    T(unlink("q"));
    T(truncate("p2", 0));
}

static void sockets(struct pt *t) {
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "s"};
    char buffer[16];
    int server = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    T(bind(server, (struct sockaddr *)&address, sizeof(address)));
    pt_show(t, "s");
    int client = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    T(connect(client, (struct sockaddr *)&address, sizeof(address)));
    T(listen(server, 5));
    T(connect(client, (struct sockaddr *)&address, sizeof(address)));
    int peer = OK(accept(server, NULL, NULL));
    T(write(client, "hello", 5));
    pt_bytes(t, "received", buffer, read(peer, buffer, sizeof(buffer)));
    int second = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    T(bind(second, (struct sockaddr *)&address, sizeof(address)));
    OK(open("s", O_RDWR));
    T(rename("s", "moved"));
    T(connect(second, (struct sockaddr *)&address, sizeof(address)));
    strcpy(address.sun_path, "moved");
    T(connect(second, (struct sockaddr *)&address, sizeof(address)));
    T(unlink("moved"));
    int third = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    T(connect(third, (struct sockaddr *)&address, sizeof(address)));
    close(server), close(client), close(peer), close(second), close(third);
}

static void datagrams(struct pt *t) {
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "d"};
    char buffer[16];
    umask(077);
    int server = OK(socket(AF_UNIX, SOCK_DGRAM, 0)), client = OK(socket(AF_UNIX, SOCK_DGRAM, 0));
    T(bind(server, (struct sockaddr *)&address, sizeof(address)));
    pt_show(t, "d");
    T(sendto(client, "gram", 4, 0, (struct sockaddr *)&address, sizeof(address)));
    pt_bytes(t, "received", buffer, recv(server, buffer, sizeof(buffer), 0));
    pt_make(t, "f", "");
    strcpy(address.sun_path, "f");
    T(sendto(client, "gram", 4, 0, (struct sockaddr *)&address, sizeof(address)));
    T(bind(client, (struct sockaddr *)&address, sizeof(address)));
    strcpy(address.sun_path, "none/x");
    T(bind(client, (struct sockaddr *)&address, sizeof(address)));
    close(server), close(client);
}

static void socket_rights(struct pt *t) {
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "s"};
    int server = OK(socket(AF_UNIX, SOCK_STREAM, 0));
    T(bind(server, (struct sockaddr *)&address, sizeof(address)));
    T(listen(server, 5));
    static const mode_t modes[] = {0600, 0666, 0606, 0604};
    for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
        T(chmod("s", modes[i]));
        AS(PT_U1, PT_U1, 0) {
            int client = OK(socket(AF_UNIX, SOCK_STREAM, 0));
            T(connect(client, (struct sockaddr *)&address, sizeof(address)));
        }
    }
    close(server);
}

static void descriptors_travel(struct pt *t) {
    /* A descriptor of the tree sent over a socket. */
    int ends[2], fd;
    char control[CMSG_SPACE(sizeof(int))] = {0}, byte = 'x';
    struct iovec data = {&byte, 1};
    struct msghdr message = {.msg_iov = &data,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};
    pt_make(t, "f", "sent by socket");
    T(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
    pid_t pid = pt_spawn(t);
    if (pid == 0) {
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(sizeof(int));
        fd = open("f", O_RDWR);
        memcpy(CMSG_DATA(head), &fd, sizeof(fd));
        if (sendmsg(ends[0], &message, 0) < 0)
            pt_outcome(t, "sendmsg", -1);
        close(fd);
        pt_end();
    }
    pt_reap(t, pid);
    T(unlink("f"));
    T(recvmsg(ends[1], &message, 0));
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
    pt_lookfd(t, "received", fd);
    T(pwrite(fd, "SENT", 4, 0));
    pt_lookfd(t, "written", fd);
    close(fd);
}

static void polling(struct pt *t) {
    pt_make(t, "f", "content");
    pt_mkdir(t, "d", 0755);
    int fd = OK(open("f", O_RDWR)), dir = OK(open("d", O_RDONLY));
    struct pollfd polled[2] = {{fd, POLLIN | POLLOUT | POLLPRI, 0}, {dir, POLLIN | POLLOUT, 0}};
    T(poll(polled, 2, 0));
    T(polled[0].revents);
    T(polled[1].revents);
    fd_set set;
    FD_ZERO(&set);
    FD_SET(fd, &set);
    T(select(fd + 1, &set, NULL, NULL, &(struct timeval){0, 0}));
    close(fd), close(dir);
}

static void unknown_ioctls(struct pt *t) {
    static const unsigned long commands[] = {
        0x5401 /* TCGETS */,
        0x12345678,
        _IO('Z', 1),
        _IOR('Z', 2, int),
        _IOW('Z', 3, int),
        _IOWR('Z', 4, int),
        _IOR('s', 200, char[64]),
        0,
    };
    char buffer[4096] = {0};
    pt_make(t, "f", "content");
    pt_mkdir(t, "d", 0755);
    int fd = OK(open("f", O_RDWR)), dir = OK(open("d", O_RDONLY)), path = OK(open("f", O_PATH));
    for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++) {
        SAY("ioctl %lx", commands[i]);
        T(ioctl(fd, commands[i], buffer));
        T(ioctl(dir, commands[i], buffer));
    }
    T(ioctl(path, FIONREAD, buffer));
    T(ioctl(fd, FS_IOC_GETFLAGS, (void *)8));
    T(isatty(fd));
    close(fd), close(dir), close(path);
}

static void generic_ioctls(struct pt *t) {
    int value = -1;
    pt_make(t, "f", "0123456789");
    pt_mkdir(t, "d", 0755);
    int fd = OK(open("f", O_RDWR)), dir = OK(open("d", O_RDONLY));
    T(ioctl(fd, FIONREAD, &value));
    T(value);
    T(lseek(fd, 4, SEEK_SET));
    T(ioctl(fd, FIONREAD, &value));
    T(value);
    T(ioctl(fd, FIOCLEX));
    T(fcntl(fd, F_GETFD));
    T(ioctl(fd, FIONCLEX));
    value = 1;
    T(ioctl(fd, FIONBIO, &value));
    T((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
    T(ioctl(fd, FIGETBSZ, &value));
    T(value);
    T(ioctl(dir, FIGETBSZ, &value));
    close(fd), close(dir);
}

static void fcntls(struct pt *t) {
    pt_make(t, "f", "content");
    int fd = OK(open("f", O_RDWR));
    T(fcntl(fd, F_GETFD));
    T(fcntl(fd, F_SETFD, FD_CLOEXEC));
    T(fcntl(fd, F_GETFD));
    T(fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK | O_DIRECT));
    T(fcntl(fd, F_SETFL, O_APPEND | O_NONBLOCK));
    T(fcntl(fd, F_GETFL) & (O_ACCMODE | O_APPEND | O_NONBLOCK | O_DIRECT));
    int copy = OK(fcntl(fd, F_DUPFD_CLOEXEC, 50));
    T(copy);
    T(fcntl(copy, F_GETFD));
    T(write(copy, "+", 1));
    pt_lookfd(t, "f", fd);
    T(fcntl(fd, F_GETPIPE_SZ));
    T(fcntl(fd, F_ADD_SEALS, 1));
    T(fcntl(fd, F_GET_SEALS));
    close(fd), close(copy);
}

static void epoll_refused(struct pt *t) {
    struct epoll_event event = {.events = EPOLLIN};
    int epoll = OK(epoll_create1(EPOLL_CLOEXEC));
    int dir = OK(open(".", O_RDONLY));
    OK(epoll_ctl(epoll, EPOLL_CTL_ADD, dir, &event));
    close(dir), close(epoll);
}

const struct pt_case pt_special_cases[] = {
    {"mknod of every type", nodes, 0, 0},
    {"devices", devices, PT_ROOT, 0},
    {"data through a fifo", fifo_data, 0, 0},
    {"rules of fifos", fifo_rules, 0, 0},
    {"stream sockets", sockets, 0, 0},
    {"datagram sockets", datagrams, 0, 0},
    {"who may connect", socket_rights, PT_ROOT, 0},
    {"a descriptor sent to another process", descriptors_travel, 0, 0},
    {"poll and select", polling, 0, 0},
    {"unknown ioctls", unknown_ioctls, 0, 0},
    {"ioctls of every file", generic_ioctls, 0, 0},
    {"fcntl of descriptors", fcntls, 0, 0},
    {"epoll of directories", epoll_refused, 0, 0},
    {NULL, NULL, 0, NULL},
};
