/* HTTP/1.1 load over keep-alive connections.
 *
 *   httpload PORT PLAN
 *
 * PLAN has one request a line: `request  NAME  TEXT`, tab-separated; \x03 in TEXT is CR LF, \x02 the content (with the time of
 * sending), \x01 the last sequence that this connection's answers told. A request is sent whole and the next one when its answer
 * is complete. Commands on standard input, each answered by one line of JSON:
 *   closed name= conns= seconds= size=          every connection asks again as soon as it is answered
 *   paced name= conns= rate= seconds= size=     open loop over idle connections; latency from the planned moment
 *   wake name= post= conns= rounds= size= gap_ms=  `conns` connections wait in request `name` (a long poll); one more posts `post`,
 *                                               then all waiting are answered; latency from the post to each answer
 * An answer other than 2xx, or without Content-Length, counts as failed. One thread, epoll. */
#include "common.h"

struct conn {
    int fd, busy;
    char *kept; size_t kept_len;
    uint64_t asked, sequence;
    char *out; size_t out_len, out_done;
};

struct request { char *name, *text; };

#define CONNS 4096
static struct request requests[64];
static struct conn conns[CONNS];
static int n_requests, n_conns, ep, port, idle_n;
static char in[1 << 22], out[1 << 17], content[1 << 16], first_error[400];
static uint64_t answered, failed, bytes;
static struct hist latency;
static struct conn *idle_list[CONNS];
static int from_mark;                              /* wake: latency counts from the time in the body, not from the request */
static int keep_asking;
static struct request *asking;
static size_t size;

static struct request *request_named(const char *line, const char *key) {
    char name[64];
    if (!word_of(line, key, name, sizeof name)) die("a request must be named");
    for (int i = 0; i < n_requests; i++) if (!strcmp(requests[i].name, name)) return &requests[i];
    die(name);
    return NULL;
}

static void complain(const char *p, size_t n) {
    if (first_error[0]) return;
    snprintf(first_error, sizeof first_error, "%.*s", (int)(n < 300 ? n : 300), p);
    for (char *q = first_error; *q; q++) if (*q == '"' || *q == '\\' || (unsigned char)*q < 32) *q = '\'';
}

static void lost(struct conn *c, const char *why) {
    complain(why, strlen(why));
    if (c->busy) failed++;
    close(c->fd);
    c->fd = dial(port, 0);                         /* the next request gets a new one */
    if (c->fd < 0) die("connect");
    free(c->kept);
    c->kept = NULL;
    c->kept_len = 0;
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &e);
    if (c->busy) { c->busy = 0; idle_list[idle_n++] = c; }
}

static void need(int count) {
    if (count > CONNS) die("too many connections");
    while (n_conns < count) {
        struct conn *c = &conns[n_conns++];
        c->fd = dial(port, 0);
        if (c->fd < 0) die("connect");
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &e);
    }
}

static void ask(struct conn *c, struct request *r, uint64_t at) {
    content_make(content, size, at);
    size_t n = fill(out, sizeof out, r->text, c->sequence, content, size);
    c->asked = at;
    c->busy = 1;
    if (send(c->fd, out, n, MSG_NOSIGNAL) != (ssize_t)n) lost(c, "send failed");   /* requests are small: never partial in practice */
}

/* The highest `"sequence":N` of an answer: where the next long poll goes on. */
static uint64_t sequence_in(const char *p, size_t n) {
    static const char key[] = "\"sequence\":";
    uint64_t best = 0;
    for (const char *end = p + n, *s; (s = memmem(p, (size_t)(end - p), key, sizeof key - 1)); p = s) {
        uint64_t v = 0;
        for (s += sizeof key - 1; s < end && *s >= '0' && *s <= '9'; s++) v = v * 10 + (uint64_t)(*s - '0');
        if (v > best) best = v;
    }
    return best;
}

static void on_answer(struct conn *c, const char *p, size_t head, size_t n, uint64_t now) {
    bytes += n;
    c->busy = 0;
    if (p[9] != '2') { failed++; complain(p, n); }
    else {
        uint64_t from = c->asked;
        if (from_mark) {
            const char *m = memchr(p + head, '~', n - head);
            uint64_t at = m ? mark_at(m, n - (size_t)(m - p)) : 0;
            if (at) from = at;
            uint64_t s = sequence_in(p + head, n - head);
            if (s) c->sequence = s;
        }
        answered++;
        hist_add(&latency, (int64_t)(now - from));
    }
    if (keep_asking) ask(c, asking, now);
    else idle_list[idle_n++] = c;
}

/* Length of a whole answer at `p`, 0 when it is not whole yet; `head` gets the length of its head. */
static size_t whole(struct conn *c, const char *p, size_t n, size_t *head) {
    const char *end = memmem(p, n, "\r\n\r\n", 4);
    if (!end) return 0;
    *head = (size_t)(end - p) + 4;
    for (const char *l = p; l < end; l = (const char *)memchr(l, '\n', (size_t)(end + 2 - l)) + 1)
        if (!strncasecmp(l, "content-length:", 15)) {
            size_t whole_len = *head + (size_t)atoll(l + 15);
            return n >= whole_len ? whole_len : 0;
        }
    if (p[9] == '2' && p[11] == '4') return *head;
    lost(c, "an answer without Content-Length");
    return 0;
}

static void readable(struct conn *c) {
    if (c->kept_len) memcpy(in, c->kept, c->kept_len);
    ssize_t k = read(c->fd, in + c->kept_len, sizeof in - c->kept_len);
    if (k < 0 && errno == EAGAIN) return;
    if (k <= 0) { lost(c, "connection ended"); return; }
    size_t n = c->kept_len + (size_t)k, head;
    uint64_t now = now_ns();
    int fd = c->fd;
    size_t len = whole(c, in, n, &head);
    if (c->fd != fd) return;
    if (len) on_answer(c, in, head, len, now);
    size_t rest = c->fd == fd ? n - len : 0;
    if (!rest) { free(c->kept); c->kept = NULL; c->kept_len = 0; return; }
    c->kept = realloc(c->kept, rest);
    memcpy(c->kept, in + len, rest);
    c->kept_len = rest;
}

static void turn(int wait_ms) {
    static struct epoll_event e[1024];
    int n = epoll_wait(ep, e, 1024, wait_ms);
    for (int i = 0; i < n; i++) if (e[i].data.ptr != (void *)-1) readable(e[i].data.ptr);
}

/* Until all connections that have asked are answered, or 35 s (a long poll's 25 s and some). */
static void settle(int count) {
    uint64_t until = now_ns() + 35000000000u;
    while (idle_n < count && now_ns() < until) turn(50);
}

static void all_idle(int count) {
    idle_n = 0;
    for (int i = 0; i < count; i++) idle_list[idle_n++] = &conns[i];
}

static void closed_loop(const char *line) {
    int count = (int)number_of(line, "conns", 16);
    need(count);
    keep_asking = 1;
    asking = request_named(line, "name");
    idle_n = 0;
    for (int i = 0; i < count; i++) ask(&conns[i], asking, now_ns());
    uint64_t until = now_ns() + (uint64_t)(number_of(line, "seconds", 2) * 1e9);
    while (now_ns() < until) {
        turn(10);
        while (idle_n) ask(idle_list[--idle_n], asking, now_ns());     /* those whose connection had to be renewed */
    }
    keep_asking = 0;
    settle(count);
}

static void paced(const char *line) {
    int count = (int)number_of(line, "conns", 64);
    double rate = number_of(line, "rate", 100);
    uint64_t total = (uint64_t)(rate * number_of(line, "seconds", 2));
    struct request *r = request_named(line, "name");
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = (void *)-1};
    epoll_ctl(ep, EPOLL_CTL_ADD, timer, &e);
    need(count);
    all_idle(count);
    uint64_t from = now_ns();
    for (uint64_t k = 0; k < total;) {
        uint64_t due = from + (uint64_t)((double)k * 1e9 / rate), ticks;
        if (due <= now_ns() && idle_n) { ask(idle_list[--idle_n], r, due); k++; continue; }
        struct itimerspec t = {.it_value = {(time_t)(due / 1000000000u), (long)(due % 1000000000u)}};
        timerfd_settime(timer, TFD_TIMER_ABSTIME, &t, NULL);
        turn(due <= now_ns() ? 10 : 1000);
        if (read(timer, &ticks, sizeof ticks) < 0 && errno != EAGAIN) die("timer");
    }
    settle(count);
    close(timer);
}

static void wake(const char *line) {
    int count = (int)number_of(line, "conns", 100), rounds = (int)number_of(line, "rounds", 20);
    uint64_t gap = (uint64_t)number_of(line, "gap_ms", 30) * 1000000u;
    struct request *poll = request_named(line, "name"), *post = request_named(line, "post");
    need(count + 1);
    struct conn *poster = &conns[count];
    from_mark = 1;
    for (int round = -3; round < rounds; round++) {                    /* the first three find the present sequence: no latency */
        idle_n = 0;
        for (int i = 0; i < count; i++) ask(&conns[i], poll, now_ns());
        for (uint64_t until = now_ns() + gap; now_ns() < until;) turn(1);
        ask(poster, post, now_ns());
        settle(count + 1);
        if (round < 0) memset(&latency, 0, sizeof latency);
    }
    from_mark = 0;
}

static void run(const char *line) {
    size = (size_t)number_of(line, "size", 128);
    answered = failed = bytes = 0;
    memset(&latency, 0, sizeof latency);
    first_error[0] = 0;
    double cpu = cpu_s();
    uint64_t from = now_ns();
    if (!strncmp(line, "closed", 6)) closed_loop(line);
    else if (!strncmp(line, "paced", 5)) paced(line);
    else if (!strncmp(line, "wake", 4)) wake(line);
    else die("unknown command");
    printf("{\"requests\":%lu,\"failed\":%lu,\"bytes\":%lu,\"seconds\":%.6f,\"load_cpu_s\":%.6f,\"error\":\"%s\"", answered, failed, bytes,
           (double)(now_ns() - from) * 1e-9, cpu_s() - cpu, first_error);
    hist_print("latency_us", &latency);
    puts("}");
    fflush(stdout);
}

static void plan_read(const char *path) {
    FILE *f = fopen(path, "r");
    if (!f) die(path);
    char *line = NULL;
    for (size_t cap = 0; getline(&line, &cap, f) > 0 && n_requests < 64;) {
        line[strcspn(line, "\n")] = 0;
        char *rest = line, *what = strsep(&rest, "\t"), *name = strsep(&rest, "\t");
        if (strcmp(what, "request") || !rest) continue;
        char *text = malloc(2 * strlen(rest) + 1), *to = text;
        for (char *p = rest; *p; p++) {
            if (*p == '\x03') { *to++ = '\r'; *to++ = '\n'; }
            else *to++ = *p;
        }
        *to = 0;
        requests[n_requests++] = (struct request){strdup(name), text};
    }
    fclose(f);
}

int main(int argc, char **argv) {
    if (argc < 3) { fprintf(stderr, "httpload PORT PLAN\n"); return 2; }
    raise_fd_limit();
    port = atoi(argv[1]);
    ep = epoll_create1(EPOLL_CLOEXEC);
    plan_read(argv[2]);
    puts("{}");
    fflush(stdout);
    for (char line[4096]; next_command(line, sizeof line) && strncmp(line, "quit", 4);) run(line);
    return 0;
}
