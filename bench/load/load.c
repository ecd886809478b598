/* WebSocket load: opens the connections of a plan, then sends what the commands on standard input say and counts what arrives.
 *
 *   load PORT PLAN [parallel=64] [order=1]
 *
 * PLAN has one line per thing, fields separated by tabs; \x01 and \x02 are holes for a running number and the content:
 *   target  TEMPLATE             what a publisher sends to reach this target (numbered from 0 in order)
 *   conn    KIND  PATH  STEP …   KIND r reads, m never reads after its setup, p publishes, b both; PATH may begin with a port of
 *                                its own (`20001/v1/ws`), for a second node
 * Steps, in order, before a connection counts as open: `>text` send it, `<text` wait for a frame that contains it,
 * `#0,3` the targets it receives, `@3` the target it publishes to (without: all in turn).
 *
 * Commands (each answered by one line of JSON; the first line comes when all connections are open):
 *   saturate seconds= window= size=   as fast as `window` messages on the way allow
 *   burst count= repeat= size= gap_ms=  `count` messages at once, the next burst when all of it has arrived
 *   paced rate= seconds= size=        open loop; latency counts from the planned moment, so a stall is not hidden
 *   closed seconds= size=             every publisher sends its next when the acknowledgement of its last has come
 *   quiet seconds=                    only listens
 *
 * One thread, epoll, one read(2) per readable socket. Deliveries are marks (common.h), so frames that carry several count right.
 * Frames are masked with the key 0: legal, as dear for the server, free for us. */
#include "common.h"

enum state { HANDSHAKE, SETUP, READY, CLOSED };

struct place { uint64_t channel, last; };          /* dense order: the last sequence seen of one channel */

struct conn {
    int fd, steps, step, own_target, reads, places;
    char kind;
    enum state state;
    char **step_of, *path;
    int *targets;
    char *kept; size_t kept_len;                   /* the part of a frame that has come so far */
    char *out; size_t out_len, out_done;           /* what the socket would not take */
    struct place *place;
    uint64_t got;                                  /* deliveries since the command began */
    uint64_t owed_at;                              /* closed mode: its send waits for an acknowledgement */
};

struct target { char *template; uint64_t members, sent; };

static struct conn *conns, **pubs;
static struct target *targets;
static int n_conns, n_targets, n_pubs, ep, port, open_now, parallel = 64, check_order, next_conn, next_pub, next_target, failed, ready;
static char first_error[400];
static char in[1 << 20], frame[1 << 17], content[1 << 16];
static uint64_t sent, expected, got, frames, bytes, acks, refused, gaps, closed, next_id;
static uint64_t id_at[1 << 16];                    /* when the message of this number was (to be) sent */
static struct hist delivered, acked;
static int closed_mode;
static size_t closed_size;
static uint64_t deadline;

static void lost(struct conn *c, const char *why) {
    if (c->state == CLOSED) return;
    if (c->state != READY) { failed++; open_now--; }
    else closed++;
    if (!first_error[0]) snprintf(first_error, sizeof first_error, "connection %ld: %s", (long)(c - conns), why);
    for (char *p = first_error; *p; p++) if (*p == '"' || *p == '\\' || (unsigned char)*p < 32) *p = '\'';
    c->state = CLOSED;
    close(c->fd);
}

static void watch(struct conn *c, int op, uint32_t events) {
    struct epoll_event e = {.events = events, .data.ptr = c};
    epoll_ctl(ep, op, c->fd, &e);
}

static void put(struct conn *c, const char *data, size_t n) {
    if (c->state == CLOSED) return;
    size_t done = 0;
    if (!c->out_len) {
        ssize_t k = send(c->fd, data, n, MSG_NOSIGNAL);
        if (k < 0 && errno != EAGAIN) { lost(c, "send failed"); return; }
        done = k > 0 ? (size_t)k : 0;
        if (done == n) return;
        watch(c, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
    }
    c->out = realloc(c->out, c->out_len + n - done);
    memcpy(c->out + c->out_len, data + done, n - done);
    c->out_len += n - done;
}

static void put_rest(struct conn *c) {
    ssize_t k = send(c->fd, c->out + c->out_done, c->out_len - c->out_done, MSG_NOSIGNAL);
    if (k < 0) { if (errno != EAGAIN) lost(c, "send failed"); return; }
    c->out_done += (size_t)k;
    if (c->out_done < c->out_len) return;
    free(c->out);
    c->out = NULL;
    c->out_len = c->out_done = 0;
    watch(c, EPOLL_CTL_MOD, EPOLLIN);
}

/* Writes the header of a client frame (mask key 0) to `to`; returns its length. */
static size_t head(char *to, int opcode, size_t n) {
    size_t h = 2;
    to[0] = (char)(0x80 | opcode);
    if (n < 126) to[1] = (char)(0x80 | n);
    else { to[1] = (char)(0x80 | 126); to[2] = (char)(n >> 8); to[3] = (char)n; h = 4; }
    memset(to + h, 0, 4);
    return h + 4;
}

static void put_text(struct conn *c, const char *text, size_t n) {
    size_t h = head(frame, 1, n);
    memcpy(frame + h, text, n);
    put(c, frame, h + n);
}

/* One message as a frame into `to`; counts it as sent. */
static size_t message(char *to, size_t room, struct conn *c, size_t size, uint64_t at) {
    static char text[1 << 16];
    int t = c->own_target;
    if (t < 0) { t = next_target; next_target = (next_target + 1) % n_targets; }
    uint64_t id = ++next_id;
    id_at[id & 0xffff] = at;
    content_make(content, size, at);
    size_t n = fill(text, sizeof text, targets[t].template, id, content, size);
    if (n + 14 > room) die("message too big");
    size_t h = head(to, 1, n);
    memcpy(to + h, text, n);
    targets[t].sent++;
    sent++;
    expected += targets[t].members;
    return h + n;
}

static void publish(struct conn *c, size_t size, uint64_t at) {
    size_t n = message(frame, sizeof frame, c, size, at);
    put(c, frame, n);
}

static struct conn *publisher(void) {
    struct conn *c = pubs[next_pub];
    next_pub = (next_pub + 1) % n_pubs;
    return c;
}

/* --- opening --- */
static void begin(struct conn *c) {
    char request[4096];
    int at = *c->path == '/' ? port : atoi(c->path);
    c->fd = dial(at, c->kind == 'm' ? 4096 : 0);
    open_now++;
    c->state = HANDSHAKE;
    if (c->fd < 0) { c->fd = -1; lost(c, "connect failed"); return; }
    watch(c, EPOLL_CTL_ADD, EPOLLIN);
    int n = snprintf(request, sizeof request,
                     "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n", strchr(c->path, '/'), at);
    if (n >= (int)sizeof request) die("path too long");
    put(c, request, (size_t)n);
}

static void advance(struct conn *c) {
    for (; c->step < c->steps && c->state == SETUP; c->step++) {
        char *s = c->step_of[c->step];
        if (*s == '<') return;
        if (*s == '>') put_text(c, s + 1, strlen(s + 1));
    }
    if (c->state != SETUP) return;
    c->state = READY;
    ready++;
    open_now--;
    if (c->kind == 'm') epoll_ctl(ep, EPOLL_CTL_DEL, c->fd, NULL);
}

static size_t handshake(struct conn *c, const char *p, size_t n) {
    const char *end = memmem(p, n, "\r\n\r\n", 4);
    if (!end) return 0;
    if (n < 12 || memcmp(p + 9, "101", 3)) {
        char why[240];
        const char *body = end + 4;
        snprintf(why, sizeof why, "refused: %.3s %.*s", p + 9, (int)(n - (size_t)(body - p) < 150 ? n - (size_t)(body - p) : 150), body);
        lost(c, why);
        return n;
    }
    if (!memmem(p, (size_t)(end - p), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", 28)) { lost(c, "wrong accept key"); return n; }
    c->state = SETUP;
    advance(c);
    return (size_t)(end - p) + 4;
}

/* --- what arrives --- */
static void check_sequence(struct conn *c, const char *p, size_t n) {
    static const char ch[] = "\"channel\":\"", sq[] = "\"sequence\":";
    const char *a = memmem(p, n, ch, sizeof ch - 1), *s = memmem(p, n, sq, sizeof sq - 1);
    if (!a || !s) return;
    uint64_t h = 1469598103934665603u, v = 0;
    for (a += sizeof ch - 1; a < p + n && *a != '"'; a++) h = (h ^ (unsigned char)*a) * 1099511628211u;
    for (s += sizeof sq - 1; s < p + n && *s >= '0' && *s <= '9'; s++) v = v * 10 + (uint64_t)(*s - '0');
    if (!v) return;
    for (int i = 0; i < c->places; i++)
        if (c->place[i].channel == h) {
            if (v != c->place[i].last + 1) gaps++;
            c->place[i].last = v;
            return;
        }
    c->place = realloc(c->place, sizeof *c->place * (size_t)(c->places + 1));
    c->place[c->places++] = (struct place){h, v};
}

static void on_ack(struct conn *c, const char *p, size_t n, uint64_t now) {
    static const char error[] = "\"error\"";
    uint64_t id = 0;
    for (const char *d = p + 5; d < p + n && *d != ','; d++) if (*d >= '0' && *d <= '9') id = id * 10 + (uint64_t)(*d - '0');
    acks++;
    hist_add(&acked, (int64_t)(now - id_at[id & 0xffff]));
    if (memmem(p, n < 200 ? n : 200, error, sizeof error - 1)) {
        refused++;
        if (!first_error[0]) {
            snprintf(first_error, sizeof first_error, "%.*s", (int)(n < 300 ? n : 300), p);
            for (char *q = first_error; *q; q++) if (*q == '"' || *q == '\\' || (unsigned char)*q < 32) *q = '\'';
        }
        expected -= targets[c->own_target >= 0 ? c->own_target : 0].members;
    }
    if (closed_mode && now < deadline) publish(c, closed_size, now);
}

static void on_text(struct conn *c, const char *p, size_t n, uint64_t now) {
    if (c->state == SETUP) {
        char *want = c->step < c->steps ? c->step_of[c->step] + 1 : "";
        if (!*want || memmem(p, n, want, strlen(want))) { c->step++; advance(c); }
        return;
    }
    if (c->kind != 'r' && n > 5 && !memcmp(p, "{\"id\"", 5)) {       /* one answer, or several, one a line (Centrifugo) */
        for (const char *end = p + n, *nl; p < end; p = nl + 1) {
            nl = memchr(p, '\n', (size_t)(end - p));
            if (!nl) nl = end;
            if (nl - p > 5 && !memcmp(p, "{\"id\"", 5)) on_ack(c, p, (size_t)(nl - p), now);
        }
        return;
    }
    uint64_t here = 0;
    for (const char *q = p, *end = p + n; (q = memchr(q, '~', (size_t)(end - q))); q++) {
        uint64_t at = mark_at(q, (size_t)(end - q));
        if (!at) continue;
        here++;
        hist_add(&delivered, (int64_t)(now - at));
    }
    if (!here) return;
    c->got += here;
    got += here;
    if (check_order) check_sequence(c, p, n);
}

/* Takes whole frames from `p`; returns how many bytes they were. */
static size_t take(struct conn *c, char *p, size_t n, uint64_t now) {
    size_t i = 0;
    if (c->state == HANDSHAKE) {
        i = handshake(c, p, n);
        if (!i) return 0;
    }
    while (n - i >= 2 && c->state != CLOSED) {
        unsigned char b0 = (unsigned char)p[i], b1 = (unsigned char)p[i + 1];
        size_t h = 2, len = b1 & 127;
        if (len == 126) { if (n - i < 4) break; len = (size_t)((unsigned char)p[i + 2] << 8 | (unsigned char)p[i + 3]); h = 4; }
        else if (len == 127) {
            if (n - i < 10) break;
            len = 0;
            for (int k = 2; k < 10; k++) len = len << 8 | (unsigned char)p[i + (size_t)k];
            h = 10;
        }
        if (len > sizeof in / 2) { lost(c, "frame too big"); break; }
        if (n - i < h + len) break;
        int opcode = b0 & 15;
        if (opcode <= 2) { frames++; on_text(c, p + i + h, len, now); }
        else if (opcode == 9) { size_t k = head(frame, 10, len); memcpy(frame + k, p + i + h, len); put(c, frame, k + len); }
        else if (opcode == 8) {
            char why[160];
            int code = len >= 2 ? (unsigned char)p[i + h] << 8 | (unsigned char)p[i + h + 1] : 0;
            snprintf(why, sizeof why, "closed %d %.*s", code, len > 2 ? (int)len - 2 : 0, p + i + h + 2);
            lost(c, why);
        }
        i += h + len;
    }
    return i;
}

static void readable(struct conn *c) {
    if (c->kept_len) memcpy(in, c->kept, c->kept_len);
    ssize_t k = read(c->fd, in + c->kept_len, sizeof in - c->kept_len);
    if (k < 0 && errno == EAGAIN) return;
    if (k <= 0) { lost(c, k ? "reset" : "end of stream"); return; }
    bytes += (uint64_t)k;
    size_t n = c->kept_len + (size_t)k, used = take(c, in, n, now_ns());
    size_t rest = n - used;
    if (c->state == CLOSED || !rest) { free(c->kept); c->kept = NULL; c->kept_len = 0; return; }
    c->kept = realloc(c->kept, rest);
    memcpy(c->kept, in + used, rest);
    c->kept_len = rest;
}

/* One turn of the loop. Returns 1 when the timer is due, 2 when standard input has a line. */
static int turn(int wait_ms) {
    static struct epoll_event e[1024];
    int what = 0, n = epoll_wait(ep, e, 1024, wait_ms);
    for (int i = 0; i < n; i++) {
        struct conn *c = e[i].data.ptr;
        if (!c) { what |= 2; continue; }
        if (c == (struct conn *)-1) { what |= 1; continue; }
        if (c->state != CLOSED && (e[i].events & EPOLLOUT) && c->out_len) put_rest(c);
        if (c->state != CLOSED && (e[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))) readable(c);
    }
    return what;
}

/* --- the commands --- */
static void drain(uint64_t limit_ns) {
    uint64_t until = now_ns() + limit_ns;
    while ((got < expected || (acks && acks < sent)) && now_ns() < until) turn(10);
}

static void saturate(double seconds, int window, size_t size) {
    uint64_t members = targets[0].members, until = now_ns() + (uint64_t)(seconds * 1e9);
    while (now_ns() < until) {
        while (expected - got + members <= (uint64_t)window * members) publish(publisher(), size, now_ns());
        turn(10);
    }
}

static void burst(int count, int repeat, size_t size, int gap_ms) {
    static char all[1 << 20];
    for (int r = 0; r < repeat; r++) {
        uint64_t at = now_ns();
        for (int left = count, share = (count + n_pubs - 1) / n_pubs; left > 0;) {
            struct conn *c = publisher();
            size_t n = 0;
            for (int k = 0; k < share && left > 0; k++, left--) n += message(all + n, sizeof all - n, c, size, at);
            put(c, all, n);
        }
        drain(5000000000u);
        if (gap_ms) { uint64_t until = now_ns() + (uint64_t)gap_ms * 1000000u; while (now_ns() < until) turn(1); }
    }
}

static void paced(double rate, double seconds, size_t size) {
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = (void *)-1};
    epoll_ctl(ep, EPOLL_CTL_ADD, timer, &e);
    uint64_t from = now_ns(), total = (uint64_t)(rate * seconds);
    for (uint64_t k = 0; k < total;) {
        uint64_t due = from + (uint64_t)((double)k * 1e9 / rate), now = now_ns();
        if (due <= now) { publish(publisher(), size, due); k++; continue; }
        struct itimerspec t = {.it_value = {(time_t)(due / 1000000000u), (long)(due % 1000000000u)}};
        timerfd_settime(timer, TFD_TIMER_ABSTIME, &t, NULL);
        turn(1000);
        uint64_t ticks;
        if (read(timer, &ticks, sizeof ticks) < 0 && errno != EAGAIN) die("timer");
    }
    close(timer);
}

static void closed_loop(double seconds, size_t size) {
    deadline = now_ns() + (uint64_t)(seconds * 1e9);
    closed_mode = 1;
    closed_size = size;
    for (int i = 0; i < n_pubs; i++) publish(pubs[i], size, now_ns());
    while (now_ns() < deadline) turn(10);
}

static void quiet(double seconds) {
    uint64_t until = now_ns() + (uint64_t)(seconds * 1e9);
    while (now_ns() < until) turn(100);
}

/* Readers whose count is not what their targets were sent. */
static int short_of(void) {
    int n = 0;
    for (int i = 0; i < n_conns; i++) {
        uint64_t want = 0;
        for (int k = 0; k < conns[i].reads; k++) want += targets[conns[i].targets[k]].sent;
        n += conns[i].kind != 'm' && conns[i].got != want;
    }
    return n;
}

static void reset(void) {
    sent = expected = got = frames = bytes = acks = refused = gaps = closed = 0;
    memset(&delivered, 0, sizeof delivered);
    memset(&acked, 0, sizeof acked);
    for (int i = 0; i < n_conns; i++) conns[i].got = 0;
    for (int i = 0; i < n_targets; i++) targets[i].sent = 0;
    first_error[0] = 0;
    closed_mode = 0;
}

static void run(const char *line) {
    size_t size = (size_t)number_of(line, "size", 128);
    if (size < MARK_BYTES || size > sizeof content) die("size");
    reset();
    uint64_t from = now_ns();
    double cpu = cpu_s(), seconds = number_of(line, "seconds", 2);
    if (!strncmp(line, "saturate", 8)) saturate(seconds, (int)number_of(line, "window", 4), size);
    else if (!strncmp(line, "burst", 5))
        burst((int)number_of(line, "count", 100), (int)number_of(line, "repeat", 5), size, (int)number_of(line, "gap_ms", 0));
    else if (!strncmp(line, "paced", 5)) paced(number_of(line, "rate", 5), seconds, size);
    else if (!strncmp(line, "closed", 6)) closed_loop(seconds, size);
    else if (!strncmp(line, "quiet", 5)) quiet(seconds);
    else die("unknown command");
    drain(5000000000u);
    uint64_t wall = now_ns() - from;
    printf("{\"sent\":%lu,\"expected\":%lu,\"deliveries\":%lu,\"frames\":%lu,\"bytes\":%lu,\"acks\":%lu,\"refused\":%lu,\"gaps\":%lu,"
           "\"closed\":%lu,\"short\":%d,\"seconds\":%.6f,\"load_cpu_s\":%.6f,\"error\":\"%s\"", sent, expected, got, frames, bytes, acks,
           refused, gaps, closed, short_of(), (double)wall * 1e-9, cpu_s() - cpu, first_error);
    hist_print("delivered_us", &delivered);
    hist_print("acked_us", &acked);
    puts("}");
    fflush(stdout);
}

/* --- the plan --- */
static void plan_conn(char *line) {
    struct conn *c = &conns[n_conns++];
    memset(c, 0, sizeof *c);
    c->own_target = -1;
    c->fd = -1;
    c->kind = *strsep(&line, "\t");
    c->path = strsep(&line, "\t");
    for (char *s; line && (s = strsep(&line, "\t"));) {
        if (*s == '@') c->own_target = atoi(s + 1);
        else if (*s == '#')
            for (char *t, *rest = s + 1; (t = strsep(&rest, ","));) {
                c->targets = realloc(c->targets, sizeof(int) * (size_t)(c->reads + 1));
                c->targets[c->reads++] = atoi(t);
            }
        else {
            c->step_of = realloc(c->step_of, sizeof(char *) * (size_t)(c->steps + 1));
            c->step_of[c->steps++] = s;
        }
    }
    for (int k = 0; k < c->reads && c->kind != 'm'; k++) targets[c->targets[k]].members++;
    if (c->kind == 'p' || c->kind == 'b') pubs[n_pubs++] = c;
}

static void plan_read(const char *path) {
    FILE *f = fopen(path, "r");
    if (!f) die(path);
    size_t lines = 0, cap = 0;
    char *line = NULL;
    while (getline(&line, &cap, f) > 0) lines++;
    rewind(f);
    conns = calloc(lines, sizeof *conns);
    pubs = calloc(lines, sizeof *pubs);
    targets = calloc(lines, sizeof *targets);
    while (getline(&line, &cap, f) > 0) {
        char *rest = strdup(line);
        rest[strcspn(rest, "\n")] = 0;
        char *what = strsep(&rest, "\t");
        if (!strcmp(what, "target")) targets[n_targets++].template = rest;
        else if (!strcmp(what, "conn")) plan_conn(rest);
    }
    fclose(f);
}

static void open_all(void) {
    uint64_t from = now_ns(), moved = from;        /* gives up after 10 s in which nothing became ready */
    double cpu = cpu_s();
    for (int before = 0; ready + failed < n_conns && now_ns() - moved < 10000000000u;) {
        if (ready + failed > before) { before = ready + failed; moved = now_ns(); }
        while (open_now < parallel && next_conn < n_conns) begin(&conns[next_conn++]);
        turn(50);
    }
    printf("{\"ready\":%d,\"failed\":%d,\"connections\":%d,\"seconds\":%.6f,\"load_cpu_s\":%.6f,\"error\":\"%s\"}\n", ready, failed, n_conns,
           (double)(now_ns() - from) * 1e-9, cpu_s() - cpu, first_error);
    fflush(stdout);
}

int main(int argc, char **argv) {
    if (argc < 3) { fprintf(stderr, "load PORT PLAN [parallel=N] [order=1]\n"); return 2; }
    for (int i = 3; i < argc; i++) {
        if (!strncmp(argv[i], "parallel=", 9)) parallel = atoi(argv[i] + 9);
        if (!strncmp(argv[i], "order=", 6)) check_order = atoi(argv[i] + 6);
    }
    raise_fd_limit();
    port = atoi(argv[1]);
    ep = epoll_create1(EPOLL_CLOEXEC);
    plan_read(argv[2]);
    open_all();
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(ep, EPOLL_CTL_ADD, 0, &e);
    char line[4096];
    for (;;) {                                   /* between commands pings are still answered */
        if (!(turn(-1) & 2)) continue;
        epoll_ctl(ep, EPOLL_CTL_DEL, 0, NULL);
        if (!next_command(line, sizeof line) || !strncmp(line, "quit", 4)) return 0;
        run(line);
        epoll_ctl(ep, EPOLL_CTL_ADD, 0, &e);
    }
}
