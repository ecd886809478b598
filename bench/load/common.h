/* What the load programs share: a clock, a latency histogram, key=value commands, ready-made text with holes. */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

/* Every message carries where it was sent: this mark and 16 hex digits of CLOCK_MONOTONIC nanoseconds. No JSON encoder escapes it. */
#define MARK "~T"
#define MARK_BYTES 18

/* Holes of a template: a running number, and the message's content. */
#define HOLE_ID '\x01'
#define HOLE_CONTENT '\x02'

static inline uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline double cpu_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static inline void die(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static inline void raise_fd_limit(void) {
    struct rlimit r;
    getrlimit(RLIMIT_NOFILE, &r);
    r.rlim_cur = r.rlim_max;
    setrlimit(RLIMIT_NOFILE, &r);
}

/* The mark at `p`, or 0 when what stands there is no mark. `left` bytes may be read. */
static inline uint64_t mark_at(const char *p, size_t left) {
    if (left < MARK_BYTES || p[1] != 'T') return 0;
    uint64_t v = 0;
    for (int i = 2; i < MARK_BYTES; i++) {
        unsigned c = (unsigned char)p[i];
        unsigned d = c - '0' < 10 ? c - '0' : c - 'a' < 6 ? c - 'a' + 10 : 16;
        if (d > 15) return 0;
        v = v << 4 | d;
    }
    return v;
}

/* --- histogram: microseconds, 32 steps per doubling (3 %), exact below 64 --- */
#define HIST_STEPS 32
#define HIST_SLOTS (HIST_STEPS * 34)
struct hist { uint64_t n, max, sum, slot[HIST_SLOTS]; };

static inline int hist_slot(uint64_t us) {
    if (us < 2 * HIST_STEPS) return (int)us;
    int shift = 63 - __builtin_clzll(us) - 5;
    int s = shift * HIST_STEPS + (int)(us >> shift);
    return s < HIST_SLOTS ? s : HIST_SLOTS - 1;
}

static inline uint64_t hist_value(int s) {
    if (s < 2 * HIST_STEPS) return (uint64_t)s;
    int shift = s / HIST_STEPS - 1;
    return ((uint64_t)(s - shift * HIST_STEPS) << shift) + (1ull << shift) / 2;
}

static inline void hist_add(struct hist *h, int64_t ns) {
    uint64_t us = ns > 0 ? (uint64_t)ns / 1000 : 0;
    h->slot[hist_slot(us)]++;
    h->n++;
    h->sum += us;
    if (us > h->max) h->max = us;
}

static inline uint64_t hist_at(const struct hist *h, double share) {
    uint64_t want = (uint64_t)((double)h->n * share), seen = 0;
    for (int s = 0; s < HIST_SLOTS; s++) {
        seen += h->slot[s];
        if (seen > want) return hist_value(s) < h->max ? hist_value(s) : h->max;
    }
    return h->max;
}

static inline void hist_print(const char *name, const struct hist *h) {
    printf(",\"%s\":{\"count\":%lu,\"mean\":%.1f,\"p50\":%lu,\"p90\":%lu,\"p99\":%lu,\"p999\":%lu,\"max\":%lu}", name, h->n,
           h->n ? (double)h->sum / (double)h->n : 0.0, hist_at(h, .5), hist_at(h, .9), hist_at(h, .99), hist_at(h, .999), h->max);
}

/* --- commands: `verb key=value key=value` --- */
static inline double number_of(const char *line, const char *key, double otherwise) {
    char want[64];
    snprintf(want, sizeof want, " %s=", key);
    const char *p = strstr(line, want);
    return p ? atof(p + strlen(want)) : otherwise;
}

static inline int word_of(const char *line, const char *key, char *out, size_t room) {
    char want[64];
    snprintf(want, sizeof want, " %s=", key);
    const char *p = strstr(line, want);
    if (!p) return 0;
    p += strlen(want);
    size_t n = strcspn(p, " \n");
    if (n >= room) n = room - 1;
    memcpy(out, p, n);
    out[n] = 0;
    return 1;
}

/* One line of standard input, read by read(2) so that epoll and we agree on what is left. */
static inline int next_command(char *line, size_t room) {
    static char kept[8192];
    static size_t have;
    for (;;) {
        char *nl = memchr(kept, '\n', have);
        if (nl) {
            size_t n = (size_t)(nl - kept) + 1;
            if (n >= room) die("command too long");
            memcpy(line, kept, n);
            line[n] = 0;
            memmove(kept, kept + n, have - n);
            have -= n;
            return 1;
        }
        ssize_t n = read(0, kept + have, sizeof kept - have);
        if (n <= 0) return 0;
        have += (size_t)n;
    }
}

/* --- message content of a given size, with the mark first --- */
static inline void content_make(char *to, size_t size, uint64_t at_ns) {
    static const char hex[] = "0123456789abcdef";
    memcpy(to, MARK, 2);
    for (int i = 0; i < 16; i++) to[2 + i] = hex[at_ns >> (60 - 4 * i) & 15];
    memset(to + MARK_BYTES, 'x', size - MARK_BYTES);
}

/* Fills a template's holes. Returns the length written; `room` must be enough (checked). */
static inline size_t fill(char *to, size_t room, const char *template, uint64_t id, const char *content, size_t content_bytes) {
    size_t n = 0;
    for (const char *p = template; *p; p++) {
        if (n + content_bytes + 24 > room) die("message too big");
        if (*p == HOLE_ID) n += (size_t)sprintf(to + n, "%lu", id);
        else if (*p == HOLE_CONTENT) { memcpy(to + n, content, content_bytes); n += content_bytes; }
        else to[n++] = *p;
    }
    return n;
}

static inline int dial(int port, int receive_bytes) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) die("socket");
    if (receive_bytes) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof receive_bytes);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(fd, (struct sockaddr *)&a, sizeof a)) { close(fd); return -1; }
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

#endif
