/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A line of TCP that is as long as one wants: what comes on the listening port goes to another port
 * of this machine, and back, each byte after a delay. Bandwidth is not limited, so many requests
 * under way cost one delay.
 *
 *   delayproxy LISTEN TARGET MICROSECONDS
 *
 * Owns connections as pairs of sockets with a queue for each direction; one thread, ended by a
 * signal.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PAIRS_MAX 64
#define CHUNK_BYTES 65536
#define QUEUE_MAX 512 /* chunks of one direction */

struct chunk {
    struct chunk *next;
    int64_t due_ns;
    size_t bytes;
    size_t sent;
    char data[];
};

struct direction {
    int from, to;
    struct chunk *first;
    struct chunk **last;
    unsigned count;
    bool ended; /* nothing more comes */
    bool shut;  /* and the other side was told */
};

struct pair {
    bool used;
    struct direction ways[2];
};

static struct pair pairs[PAIRS_MAX];
static int64_t delay_ns;

static int64_t now_ns(void) {
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now); /* it has this clock */
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static struct sockaddr_in local(int port) {
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static void prepare(int fd) {
    int one = 1;

    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)); /* slower without */
    if (fcntl(fd, F_SETFL, O_NONBLOCK))
        die("delayproxy: fcntl");
}

static void free_pair(struct pair *pair) {
    for (int i = 0; i < 2; i++) {
        struct chunk *chunk;

        while ((chunk = pair->ways[i].first)) {
            pair->ways[i].first = chunk->next;
            free(chunk);
        }
        (void)close(pair->ways[i].from);
    }
    pair->used = false;
}

static void accept_one(int listener, int target) {
    struct sockaddr_in address = local(target);
    int client = accept(listener, NULL, NULL);
    int server = client < 0 ? -1 : socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int at = 0;

    if (client < 0)
        return;
    while (at < PAIRS_MAX && pairs[at].used)
        at++;
    if (at == PAIRS_MAX || server < 0 ||
        connect(server, (struct sockaddr *)&address, sizeof(address))) {
        (void)close(client);
        if (server >= 0)
            (void)close(server);
        return;
    }
    prepare(client);
    prepare(server);
    pairs[at] = (struct pair){
        .used = true, .ways = {{.from = client, .to = server}, {.from = server, .to = client}}};
    pairs[at].ways[0].last = &pairs[at].ways[0].first;
    pairs[at].ways[1].last = &pairs[at].ways[1].first;
}

/* False where the connection is broken. */
static bool receive(struct direction *way) {
    int one = 1;
    static char buffer[CHUNK_BYTES];
    ssize_t got = recv(way->from, buffer, sizeof(buffer), 0);
    struct chunk *chunk;

    /* Else a sender without TCP_NODELAY waits 40 ms for the acknowledgement, not the delay. */
    (void)setsockopt(way->from, IPPROTO_TCP, TCP_QUICKACK, &one, sizeof(one));
    if (got < 0)
        return errno == EAGAIN || errno == EINTR;
    if (!got) {
        way->ended = true;
        return true;
    }
    chunk = malloc(sizeof(*chunk) + (size_t)got);
    if (!chunk)
        return false;
    *chunk = (struct chunk){.due_ns = now_ns() + delay_ns, .bytes = (size_t)got};
    for (ssize_t i = 0; i < got; i++)
        chunk->data[i] = buffer[i];
    *way->last = chunk;
    way->last = &chunk->next;
    way->count++;
    return true;
}

/* Sends what is due. False where the connection is broken. */
static bool send_due(struct direction *way) {
    while (way->first && way->first->due_ns <= now_ns()) {
        struct chunk *chunk = way->first;
        ssize_t sent =
            send(way->to, chunk->data + chunk->sent, chunk->bytes - chunk->sent, MSG_NOSIGNAL);

        if (sent < 0)
            return errno == EAGAIN || errno == EINTR;
        chunk->sent += (size_t)sent;
        if (chunk->sent < chunk->bytes)
            return true;
        way->first = chunk->next;
        if (!way->first)
            way->last = &way->first;
        way->count--;
        free(chunk);
    }
    if (way->ended && !way->first && !way->shut) {
        way->shut = true;
        (void)shutdown(way->to, SHUT_WR); /* it may have gone by itself */
    }
    return true;
}

/* Fills in what to wait for; returns until when, or INT64_MAX. */
static int64_t wishes(const struct direction *way, struct pollfd *from, struct pollfd *to) {
    from->fd = way->from;
    to->fd = way->to;
    if (!way->ended && way->count < QUEUE_MAX)
        from->events |= POLLIN;
    if (!way->first)
        return INT64_MAX;
    if (way->first->due_ns > now_ns())
        return way->first->due_ns;
    to->events |= POLLOUT;
    return INT64_MAX;
}

static void turn(int listener, int target) {
    struct pollfd fds[1 + PAIRS_MAX * 2] = {{.fd = listener, .events = POLLIN}};
    struct timespec patience;
    int64_t until = INT64_MAX;
    int64_t left;
    nfds_t count = 1;

    for (int i = 0; i < PAIRS_MAX; i++) {
        struct pollfd *mine = &fds[count];

        if (!pairs[i].used)
            continue;
        mine[0] = mine[1] = (struct pollfd){.fd = -1};
        for (int way = 0; way < 2; way++) {
            int64_t due = wishes(&pairs[i].ways[way], &mine[way], &mine[1 - way]);

            until = due < until ? due : until;
        }
        count += 2;
    }
    left = until == INT64_MAX ? 0 : until - now_ns();
    left = left < 0 ? 0 : left;
    patience = (struct timespec){.tv_sec = left / 1000000000, .tv_nsec = left % 1000000000};
    if (ppoll(fds, count, until == INT64_MAX ? NULL : &patience, NULL) < 0 && errno != EINTR)
        die("delayproxy: ppoll");
    for (int i = 0; i < PAIRS_MAX; i++) {
        struct direction *ways = pairs[i].ways;
        bool whole = true;

        if (!pairs[i].used)
            continue;
        for (int way = 0; way < 2; way++) {
            whole =
                whole && (ways[way].ended || ways[way].count >= QUEUE_MAX || receive(&ways[way]));
            whole = whole && send_due(&ways[way]);
        }
        if (!whole || (ways[0].shut && ways[1].shut))
            free_pair(&pairs[i]);
    }
    if (fds[0].revents)
        accept_one(listener, target);
}

int main(int argc, char **argv) {
    struct sockaddr_in address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1;

    if (argc != 4) {
        fprintf(stderr, "usage: delayproxy LISTEN TARGET MICROSECONDS\n");
        return 2;
    }
    (void)signal(SIGPIPE, SIG_IGN);
    delay_ns = strtol(argv[3], NULL, 10) * 1000;
    address = local((int)strtol(argv[1], NULL, 10));
    if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) ||
        bind(listener, (struct sockaddr *)&address, sizeof(address)) || listen(listener, PAIRS_MAX))
        die("delayproxy: listen");
    for (;;)
        turn(listener, (int)strtol(argv[2], NULL, 10));
}
