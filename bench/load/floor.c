/* The floor: what the same work costs a C program with one thread and epoll.
 *
 *   floor PORT single|join
 *
 * A WebSocket server for the plain protocol of the peers (peers/rooms.py): `s0,3` subscribes to rooms and is answered `ok`,
 * `p3:text` sends `text` to room 3. `single` makes one send(2) of the ready frame for each socket and message; `join` gathers
 * what one turn of the loop brings and makes one write per socket. No limits, no timers, no backlog: a socket that takes no
 * more is waited for. A floor, not a server. */
#include "common.h"
#include <poll.h>
#include <sys/uio.h>

#define ROOMS 65536
#define IOV 1024

struct conn { int fd, open, due, n_iov, kept_len; char *kept; struct iovec *iov; };
struct room { struct conn **member; int n, cap; char *joined; size_t joined_len, joined_cap; };

static struct room rooms[ROOMS];
static int ep, join_mode;
static struct conn **dirty;
static int n_dirty, cap_dirty;
static int dirty_rooms[ROOMS], n_dirty_rooms;

/* --- SHA-1 and base64 of the handshake --- */
static void sha1_block(uint32_t h[5], const unsigned char *p) {
    uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
    for (int i = 0; i < 16; i++) w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 | (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
    for (int i = 16; i < 80; i++) { uint32_t x = w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16]; w[i] = x << 1 | x >> 31; }
    for (int i = 0; i < 80; i++) {
        uint32_t f = i < 20 ? (b & c) | (~b & d) : i < 40 ? b ^ c ^ d : i < 60 ? (b & c) | (b & d) | (c & d) : b ^ c ^ d;
        uint32_t k = i < 20 ? 0x5a827999 : i < 40 ? 0x6ed9eba1 : i < 60 ? 0x8f1bbcdc : 0xca62c1d6;
        uint32_t t = (a << 5 | a >> 27) + f + e + k + w[i];
        e = d; d = c; c = b << 30 | b >> 2; b = a; a = t;
    }
    h[0] += a; h[1] += b; h[2] += c; h[3] += d; h[4] += e;
}

static void accept_key(const char *key, char out[29]) {
    unsigned char m[128] = {0};
    uint32_t h[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    memcpy(m, key, 24);
    memcpy(m + 24, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11", 36);
    m[60] = 0x80;
    m[126] = 60 * 8 >> 8;
    m[127] = (60 * 8) & 255;
    sha1_block(h, m);
    sha1_block(h, m + 64);
    unsigned char d[21] = {0};
    for (int i = 0; i < 20; i++) d[i] = (unsigned char)(h[i / 4] >> (24 - 8 * (i % 4)));
    static const char t[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (int i = 0, o = 0; i < 21; i += 3, o += 4) {
        uint32_t v = (uint32_t)d[i] << 16 | (uint32_t)d[i + 1] << 8 | d[i + 2];
        for (int k = 0; k < 4; k++) out[o + k] = t[v >> (18 - 6 * k) & 63];
    }
    out[27] = '=';
    out[28] = 0;
}

/* --- writing --- */
static void send_whole(int fd, const char *p, size_t n) {
    while (n) {
        ssize_t k = send(fd, p, n, MSG_NOSIGNAL);
        if (k < 0) {
            if (errno != EAGAIN) return;
            struct pollfd w = {.fd = fd, .events = POLLOUT};
            poll(&w, 1, 1000);
            continue;
        }
        p += k;
        n -= (size_t)k;
    }
}

static void write_vector(struct conn *c) {
    size_t want = 0;
    for (int i = 0; i < c->n_iov; i++) want += c->iov[i].iov_len;
    ssize_t k = writev(c->fd, c->iov, c->n_iov);
    size_t done = k > 0 ? (size_t)k : 0;
    for (int i = 0; i < c->n_iov && done < want; i++) {                /* rare: the socket took less */
        size_t len = c->iov[i].iov_len;
        if (done >= len) { done -= len; want -= len; continue; }
        send_whole(c->fd, (char *)c->iov[i].iov_base + done, len - done);
        done = 0;
    }
    c->n_iov = 0;
}

static void flush_turn(void) {
    if (n_dirty_rooms == 1) {                                          /* one room: the same bytes for each */
        struct room *r = &rooms[dirty_rooms[0]];
        for (int i = 0; i < r->n; i++) if (r->member[i]->open) send_whole(r->member[i]->fd, r->joined, r->joined_len);
    } else if (n_dirty_rooms) {
        for (int k = 0; k < n_dirty_rooms; k++) {
            struct room *r = &rooms[dirty_rooms[k]];
            for (int i = 0; i < r->n; i++) {
                struct conn *c = r->member[i];
                if (!c->open) continue;
                if (!c->iov) c->iov = malloc(sizeof(struct iovec) * IOV);
                if (c->n_iov == IOV) write_vector(c);
                if (!c->due) {
                    if (n_dirty == cap_dirty) dirty = realloc(dirty, sizeof *dirty * (size_t)(cap_dirty = cap_dirty * 2 + 64));
                    c->due = 1;
                    dirty[n_dirty++] = c;
                }
                c->iov[c->n_iov++] = (struct iovec){r->joined, r->joined_len};
            }
        }
        for (int i = 0; i < n_dirty; i++) { dirty[i]->due = 0; write_vector(dirty[i]); }
        n_dirty = 0;
    }
    for (int k = 0; k < n_dirty_rooms; k++) rooms[dirty_rooms[k]].joined_len = 0;
    n_dirty_rooms = 0;
}

static size_t server_frame(char *to, const char *text, size_t n) {
    size_t h = 2;
    to[0] = (char)0x81;
    if (n < 126) to[1] = (char)n;
    else { to[1] = 126; to[2] = (char)(n >> 8); to[3] = (char)n; h = 4; }
    memcpy(to + h, text, n);
    return h + n;
}

static void broadcast(int room, const char *text, size_t n) {
    struct room *r = &rooms[room];
    static char one[1 << 16];
    if (!join_mode) {
        size_t k = server_frame(one, text, n);
        for (int i = 0; i < r->n; i++) if (r->member[i]->open) send_whole(r->member[i]->fd, one, k);
        return;
    }
    if (r->joined_len + n + 4 > r->joined_cap) r->joined = realloc(r->joined, r->joined_cap = r->joined_cap * 2 + n + 4096);
    if (!r->joined_len) dirty_rooms[n_dirty_rooms++] = room;
    r->joined_len += server_frame(r->joined + r->joined_len, text, n);
}

/* --- reading --- */
static void on_text(struct conn *c, char *p, size_t n) {
    p[n] = 0;
    if (*p == 'p') {
        char *colon = memchr(p, ':', n);
        if (colon) broadcast(atoi(p + 1) & (ROOMS - 1), colon + 1, n - (size_t)(colon + 1 - p));
        return;
    }
    for (char *t, *rest = p + 1; (t = strsep(&rest, ","));) {
        struct room *r = &rooms[atoi(t) & (ROOMS - 1)];
        if (r->n == r->cap) r->member = realloc(r->member, sizeof *r->member * (size_t)(r->cap = r->cap * 2 + 8));
        r->member[r->n++] = c;
    }
    send_whole(c->fd, "\x81\x02ok", 4);
}

static int on_bytes(struct conn *c, char *p, int n) {
    int i = 0;
    if (!c->open) {
        char *end = memmem(p, (size_t)n, "\r\n\r\n", 4), *key = memmem(p, (size_t)n, "Sec-WebSocket-Key: ", 19), answer[200], sum[29];
        if (!end || !key) return 0;
        accept_key(key + 19, sum);
        int k = sprintf(answer, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", sum);
        send_whole(c->fd, answer, (size_t)k);
        c->open = 1;
        i = (int)(end - p) + 4;
    }
    while (n - i >= 6) {
        size_t len = (unsigned char)p[i + 1] & 127, h = 6;
        if (len == 126) { if (n - i < 8) break; len = (size_t)((unsigned char)p[i + 2] << 8 | (unsigned char)p[i + 3]); h = 8; }
        if (len == 127 || (size_t)(n - i) < h + len) break;
        char *mask = p + i + h - 4, text[1 << 16];
        for (size_t k = 0; k < len; k++) text[k] = (char)(p[(size_t)i + h + k] ^ mask[k & 3]);
        if ((p[i] & 15) == 8) return -1;
        if ((p[i] & 15) == 1) on_text(c, text, len);
        i += (int)(h + len);
    }
    return i;
}

static void gone(struct conn *c) {
    c->open = 0;
    close(c->fd);                                                      /* stays in its rooms, skipped: a bench closes all at the end */
}

static void readable(struct conn *c) {
    static char in[1 << 18];
    if (c->kept_len) memcpy(in, c->kept, (size_t)c->kept_len);
    ssize_t k = read(c->fd, in + c->kept_len, sizeof in - (size_t)c->kept_len);
    if (k < 0 && errno == EAGAIN) return;
    if (k <= 0) { gone(c); return; }
    int n = c->kept_len + (int)k, used = on_bytes(c, in, n);
    if (used < 0) { gone(c); return; }
    free(c->kept);
    c->kept = NULL;
    c->kept_len = n - used;
    if (c->kept_len) { c->kept = malloc((size_t)c->kept_len); memcpy(c->kept, in + used, (size_t)c->kept_len); }
}

int main(int argc, char **argv) {
    if (argc < 3) { fprintf(stderr, "floor PORT single|join\n"); return 2; }
    join_mode = !strcmp(argv[2], "join");
    raise_fd_limit();
    int one = 1, l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(l, (struct sockaddr *)&a, sizeof a) || listen(l, 4096)) die("bind");
    ep = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = NULL}, es[1024];
    epoll_ctl(ep, EPOLL_CTL_ADD, l, &e);
    for (;;) {
        int n = epoll_wait(ep, es, 1024, -1);
        for (int i = 0; i < n; i++) {
            if (es[i].data.ptr) { readable(es[i].data.ptr); continue; }
            for (int fd; (fd = accept4(l, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0;) {
                struct conn *c = calloc(1, sizeof *c);
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                c->fd = fd;
                e.data.ptr = c;
                epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
            }
        }
        flush_turn();
    }
}
