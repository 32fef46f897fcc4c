/* An OpenAI-like server of streamed completions that keeps a known schedule, and a journal of when it wrote what.
 *
 *     schedule_server MODE TTFT_US GAP_US
 *
 * MODE steady: an answer's first chunk is due TTFT_US after its request came, its other chunks GAP_US apart.
 * MODE burst:  as an engine does: chunks are due only at steps, GAP_US apart on one clock, to all answers at once; the
 *              first at the first step that is at least TTFT_US after the request came.
 *
 * One thread, one epoll. It prints its port, and ends with its standard input. A chunk is one token of about 290 bytes,
 * as vLLM's are with token ids; an answer has as many as the request's max_tokens, then usage and [DONE]. GET /journal
 * is answered with what was written since it was last read, and forgets it:
 *
 *     u64 requests, u64 chunks, then for each request u64 crc32(body) << 32 | adler32(body), u64 came_ns, u64 first,
 *     u64 count, then for each chunk u64 sent_ns, then for each chunk u64 due_ns
 *
 * where `first` and `count` say which chunks are a request's. Times are CLOCK_MONOTONIC's, taken before the write.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTIONS = 16384, EVENTS = 512, INPUT_BYTES = 1 << 16, SOCKET_BYTES = 1 << 20 };

typedef struct {
    int fd;
    char *in;                 /* a request as far as it has come */
    size_t in_bytes, in_room;
    char *out;                /* what the socket would not take yet */
    size_t out_bytes, out_room;
    int left;                 /* chunks still to be sent; 0: idle */
    int said, wanted, is_chat;
    uint64_t due_ns;
    size_t request;           /* row in the journal */
    int heap_at;              /* place in the heap; -1: not in it */
} Connection;

typedef struct { uint64_t key, came_ns, first, count; } Entry;
typedef struct { uint32_t request; uint64_t sent_ns, due_ns; } Chunk;

static Connection *connections[CONNECTIONS];
static Connection *heap[CONNECTIONS];
static int heap_size;
static Entry *entries;
static size_t entries_size, entries_room;
static Chunk *chunks;
static size_t chunks_size, chunks_room;
static int epoll_fd, timer_fd, is_burst;
static uint64_t ttft_ns, gap_ns;
static uint32_t crc_table[256];

static void die(const char *what) { perror(what); exit(1); }

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void *grown(void *old, size_t *room, size_t needed, size_t size) {
    if (needed <= *room) return old;
    while (*room < needed) *room = *room ? 2 * *room : 4096;
    void *grown = realloc(old, *room * size);
    if (!grown) die("realloc");
    return grown;
}

/* --- which request it was ------------------------------------------------------------------------------------- */

static void make_crc_table(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++) c = c & 1 ? 0xEDB88320u ^ (c >> 1) : c >> 1;
        crc_table[i] = c;
    }
}

static uint64_t key_of(const unsigned char *body, size_t bytes) {
    uint32_t crc = 0xFFFFFFFFu, a = 1, b = 0;
    for (size_t i = 0; i < bytes; i++) {
        crc = crc_table[(crc ^ body[i]) & 0xFF] ^ (crc >> 8);
        a = (a + body[i]) % 65521;
        b = (b + a) % 65521;
    }
    return (uint64_t)(crc ^ 0xFFFFFFFFu) << 32 | (b << 16 | a);
}

/* --- the schedule: a heap of connections by when their next chunk is due --------------------------------------- */

static void place(int at, Connection *c) { heap[at] = c; c->heap_at = at; }

static void rise(int at) {
    Connection *c = heap[at];
    while (at && heap[(at - 1) / 2]->due_ns > c->due_ns) { place(at, heap[(at - 1) / 2]); at = (at - 1) / 2; }
    place(at, c);
}

static void sink(int at) {
    Connection *c = heap[at];
    for (int child; (child = 2 * at + 1) < heap_size; at = child) {
        if (child + 1 < heap_size && heap[child + 1]->due_ns < heap[child]->due_ns) child++;
        if (heap[child]->due_ns >= c->due_ns) break;
        place(at, heap[child]);
    }
    place(at, c);
}

static void schedule(Connection *c, uint64_t due_ns) {
    c->due_ns = due_ns;
    if (c->heap_at < 0) { place(heap_size, c); heap_size++; rise(c->heap_at); }
    else { sink(c->heap_at); rise(c->heap_at); }
}

static void unschedule(Connection *c) {
    if (c->heap_at < 0) return;
    int at = c->heap_at;
    Connection *last = heap[--heap_size];
    c->heap_at = -1;
    if (last != c) { place(at, last); sink(at); rise(last->heap_at); }
}

static void set_timer(void) {
    uint64_t at = heap_size ? heap[0]->due_ns : 0;
    struct itimerspec when = {.it_value = {(time_t)(at / 1000000000u), (long)(at % 1000000000u)}};
    timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

/* --- sockets --------------------------------------------------------------------------------------------------- */

static void close_connection(Connection *c) {
    unschedule(c);
    connections[c->fd] = NULL;
    close(c->fd);
    free(c->in);
    free(c->out);
    free(c);
}

static void watch(Connection *c, uint32_t events) {
    struct epoll_event event = {.events = events, .data.fd = c->fd};
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &event);
}

/* Write now what the socket takes, keep the rest. */
static void say(Connection *c, const char *bytes, size_t count) {
    ssize_t done = c->out_bytes ? 0 : send(c->fd, bytes, count, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (done < 0) done = 0;
    if ((size_t)done == count) return;
    c->out = grown(c->out, &c->out_room, c->out_bytes + count - (size_t)done, 1);
    memcpy(c->out + c->out_bytes, bytes + done, count - (size_t)done);
    c->out_bytes += count - (size_t)done;
    watch(c, EPOLLIN | EPOLLOUT);
}

static void say_rest(Connection *c) {
    ssize_t done = send(c->fd, c->out, c->out_bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (done <= 0) return;
    memmove(c->out, c->out + done, c->out_bytes - (size_t)done);
    c->out_bytes -= (size_t)done;
    if (!c->out_bytes) watch(c, EPOLLIN);
}

static void say_plain(Connection *c, int status, const char *body) {
    char text[512];
    int bytes = snprintf(text, sizeof text, "HTTP/1.1 %d X\r\ncontent-type: application/json\r\n"
                         "content-length: %zu\r\n\r\n%s", status, strlen(body), body);
    say(c, text, (size_t)bytes);
}

/* --- answers --------------------------------------------------------------------------------------------------- */

static const char HEAD[] = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                           "transfer-encoding: chunked\r\n\r\n";

/* One event as one chunk of a chunked body, appended to `text` at `at`. */
static int event(char *text, int at, const char *format, ...) {
    char payload[1024];
    va_list values;
    va_start(values, format);
    int bytes = vsnprintf(payload, sizeof payload, format, values);
    va_end(values);
    return at + sprintf(text + at, "%x\r\ndata: %s\n\n\r\n", bytes + 8, payload);
}

static int token_event(const Connection *c, char *text, int at) {
    const char *finish = c->left == 1 ? "\"length\"" : "null";
    unsigned id = (unsigned)c->request & 0xFFFFFF;
    if (c->is_chat)
        return event(text, at, "{\"id\":\"chatcmpl-9b1f0c6de74a4f0f8f3f2d%06x\",\"object\":\"chat.completion.chunk\","
                     "\"created\":1763700000,\"model\":\"bench\",\"choices\":[{\"index\":0,\"delta\":{\"content\":"
                     "\" the\"},\"logprobs\":null,\"finish_reason\":%s,\"token_ids\":[%d]}],\"usage\":null}",
                     id, finish, 1000 + c->said);
    return event(text, at, "{\"id\":\"cmpl-9b1f0c6de74a4f0f8f3f2d%06x\",\"object\":\"text_completion\",\"created\":"
                 "1763700000,\"model\":\"bench\",\"choices\":[{\"index\":0,\"text\":\" the\",\"logprobs\":null,"
                 "\"finish_reason\":%s,\"stop_reason\":null,\"token_ids\":[%d],\"prompt_logprobs\":null,"
                 "\"prompt_token_ids\":null}],\"usage\":null}", id, finish, 1000 + c->said);
}

static void say_token(Connection *c) {
    char text[4096];
    int bytes = 0;
    if (!c->said) bytes = sprintf(text, "%s", HEAD);
    bytes = token_event(c, text, bytes);
    if (c->left == 1) {
        bytes = event(text, bytes, "{\"id\":\"cmpl-0\",\"object\":\"%s\",\"created\":1763700000,\"model\":\"bench\","
                      "\"choices\":[],\"usage\":{\"prompt_tokens\":1,\"total_tokens\":%d,\"completion_tokens\":%d}}",
                      c->is_chat ? "chat.completion.chunk" : "text_completion", c->wanted + 1, c->wanted);
        bytes = event(text, bytes, "[DONE]");
        bytes += sprintf(text + bytes, "0\r\n\r\n");
    }
    chunks = grown(chunks, &chunks_room, chunks_size + 1, sizeof *chunks);
    chunks[chunks_size++] = (Chunk){(uint32_t)c->request, now_ns(), c->due_ns};
    say(c, text, (size_t)bytes);
    c->said++;
    c->left--;
}

static void say_due_tokens(void) {
    while (heap_size && heap[0]->due_ns <= now_ns()) {
        Connection *c = heap[0];
        say_token(c);
        if (c->left) schedule(c, c->due_ns + gap_ns);
        else unschedule(c);
    }
}

/* --- requests -------------------------------------------------------------------------------------------------- */

static int number_after(const char *body, const char *name) {
    const char *at = strstr(body, name);
    return at ? atoi(at + strlen(name)) : 0;
}

static void begin(Connection *c, const char *path, const char *body, size_t bytes, uint64_t came_ns) {
    c->is_chat = strstr(path, "chat") != NULL;
    c->wanted = number_after(body, "\"max_tokens\":");
    if (c->wanted < 1) c->wanted = number_after(body, "\"max_completion_tokens\":");
    if (c->wanted < 1) c->wanted = 16;
    c->left = c->wanted;
    c->said = 0;
    c->request = entries_size;
    entries = grown(entries, &entries_room, entries_size + 1, sizeof *entries);
    entries[entries_size++] = (Entry){key_of((const unsigned char *)body, bytes), came_ns, 0, 0};
    uint64_t due = came_ns + ttft_ns;
    if (is_burst) due = (due + gap_ns - 1) / gap_ns * gap_ns;
    schedule(c, due);
}

static void say_journal(Connection *c) {
    size_t bytes = 16 + entries_size * sizeof *entries + chunks_size * 16;
    char *body = malloc(bytes + 256);
    if (!body) die("malloc");
    int head = sprintf(body, "HTTP/1.1 200 OK\r\ncontent-length: %zu\r\n\r\n", bytes);
    uint64_t *words = malloc(bytes);
    if (!words) die("malloc");
    uint64_t *sent = words + 2 + 4 * entries_size, *due = sent + chunks_size, next = 0;
    words[0] = entries_size;
    words[1] = chunks_size;
    for (size_t i = 0; i < chunks_size; i++) entries[chunks[i].request].count++;
    for (size_t i = 0; i < entries_size; i++) { entries[i].first = next; next += entries[i].count; entries[i].count = 0; }
    for (size_t i = 0; i < chunks_size; i++) {
        Entry *own = &entries[chunks[i].request];
        uint64_t at = own->first + own->count++;
        sent[at] = chunks[i].sent_ns;
        due[at] = chunks[i].due_ns;
    }
    memcpy(words + 2, entries, entries_size * sizeof *entries);
    memcpy(body + head, words, bytes);
    say(c, body, (size_t)head + bytes);
    free(words);
    free(body);
    entries_size = chunks_size = 0;
}

/* The first request in the buffer, if it is whole; returns its length. */
static size_t take_request(Connection *c, uint64_t came_ns) {
    c->in[c->in_bytes] = 0;
    char *end = strstr(c->in, "\r\n\r\n");
    if (!end) return 0;
    size_t head = (size_t)(end + 4 - c->in), body = 0;
    for (char *line = c->in; line < end; line = strstr(line, "\r\n") + 2)
        if (!strncasecmp(line, "content-length:", 15)) body = (size_t)atol(line + 15);
    if (c->in_bytes < head + body) return 0;
    char kept = c->in[head + body];
    c->in[head + body] = 0;
    char path[64] = "";
    sscanf(c->in, "%*s %63s", path);
    if (!strncmp(c->in, "POST", 4) && strstr(path, "/completions")) begin(c, path, end + 4, body, came_ns);
    else if (!strcmp(path, "/journal")) say_journal(c);
    else if (!strcmp(path, "/health") || !strcmp(path, "/ping")) say_plain(c, 200, "");
    else if (!strcmp(path, "/v1/models"))
        say_plain(c, 200, "{\"object\":\"list\",\"data\":[{\"id\":\"bench\",\"object\":\"model\","
                          "\"created\":1763700000,\"owned_by\":\"bench\",\"max_model_len\":32768}]}");
    else say_plain(c, 404, "{\"error\":{\"message\":\"no such path\"}}");
    c->in[head + body] = kept;
    return head + body;
}

static void hear(Connection *c) {
    for (;;) {
        c->in = grown(c->in, &c->in_room, c->in_bytes + INPUT_BYTES + 1, 1);
        ssize_t got = recv(c->fd, c->in + c->in_bytes, INPUT_BYTES, MSG_DONTWAIT);
        if (got == 0 || (got < 0 && errno != EAGAIN)) { close_connection(c); return; }
        if (got < 0) break;
        c->in_bytes += (size_t)got;
        if (got < INPUT_BYTES) break;
    }
    uint64_t came_ns = now_ns();
    for (size_t taken; c->in_bytes && (taken = take_request(c, came_ns));) {
        memmove(c->in, c->in + taken, c->in_bytes - taken);
        c->in_bytes -= taken;
    }
}

static void welcome(int listener) {
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
        if (fd >= CONNECTIONS) { close(fd); continue; }
        int on = 1, room = SOCKET_BYTES;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
        Connection *c = calloc(1, sizeof *c);
        if (!c) die("calloc");
        c->fd = fd;
        c->heap_at = -1;
        connections[fd] = c;
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
    }
}

static int listening(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof address;
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, bytes) || listen(fd, 4096)) die("listen");
    getsockname(fd, (struct sockaddr *)&address, &bytes);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static void add(int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event)) die("epoll_ctl");
}

int main(int count, char **words) {
    if (count != 4) { fprintf(stderr, "schedule_server steady|burst TTFT_US GAP_US\n"); return 2; }
    is_burst = !strcmp(words[1], "burst");
    ttft_ns = (uint64_t)atoll(words[2]) * 1000u;
    gap_ns = (uint64_t)atoll(words[3]) * 1000u;
    struct rlimit files = {CONNECTIONS, CONNECTIONS};
    setrlimit(RLIMIT_NOFILE, &files);
    prctl(PR_SET_TIMERSLACK, 1);
    make_crc_table();
    epoll_fd = epoll_create1(0);
    timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    int listener = listening();
    add(listener);
    add(timer_fd);
    add(STDIN_FILENO);
    for (struct epoll_event events[EVENTS];;) {
        set_timer();
        int ready = epoll_wait(epoll_fd, events, EVENTS, -1);
        say_due_tokens();
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            uint64_t expired;
            if (fd == listener) welcome(listener);
            else if (fd == timer_fd) { if (read(timer_fd, &expired, sizeof expired) < 0 && errno != EAGAIN) die("timer"); }
            else if (fd == STDIN_FILENO) return 0;
            else if (connections[fd]) {
                if (events[i].events & EPOLLOUT && connections[fd]->out_bytes) say_rest(connections[fd]);
                if (events[i].events & ~(uint32_t)EPOLLOUT) hear(connections[fd]);
                say_due_tokens();
            }
        }
    }
}
