/* An open-loop HTTP/1.1 load generator: prepared requests go out at prepared times.
 *
 *     load PLAN RESULTS HOST PORT CONNECTIONS PATIENCE_S
 *
 * PLAN, little endian, in order of time:      u64 due ns | u32 length | bytes of the whole request
 * RESULTS, one per request, in the same order: u64 latency ns | u64 late ns | u32 status | u32 length | body
 *
 * A request goes out when it is due, on a connection that waits for nothing; if there is none, on the first that
 * becomes free. Latency counts from the moment it was due, whatever held it up. `late` is how long after that, or
 * after a connection became free if that was later, it was written: what this program itself adds. Status 0: no
 * answer (lost, not HTTP, or none while the patience lasted, in which nothing was due and nothing answered).
 *
 * One thread, epoll, no allocation while it runs. Standard output: one JSON object.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NONE UINT32_MAX
#define ANSWER_BYTES_MAX 65536
#define EVENTS 256

typedef struct {
    uint64_t due_ns;
    const char *bytes;
    uint32_t length;
} Request;

typedef struct {
    uint64_t latency_ns, late_ns;
    uint32_t status, length;
    char *body;
} Answer;

typedef struct {
    int socket;
    uint32_t request;   /* in flight, or NONE */
    uint32_t next_free; /* in the queue of free connections */
    uint32_t sent;
    uint32_t filled;
    uint64_t free_since_ns;
    char buffer[ANSWER_BYTES_MAX];
} Connection;

static struct sockaddr_in address;
static int poller;
static Request *requests;
static Answer *answers;
static Connection *connections;
static uint32_t request_count, connection_count, answered, lost;
static uint32_t first_free = NONE, last_free = NONE;
static uint64_t start_ns, heard_ns; /* heard_ns: of the last answer, from the start */

static void stop(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * 1000000000u + (uint64_t)at.tv_nsec;
}

static void watch(Connection *c, uint32_t events, int how) {
    struct epoll_event event = {.events = events, .data.u32 = (uint32_t)(c - connections)};
    if (epoll_ctl(poller, how, c->socket, &event) != 0) stop("epoll_ctl");
}

static void open_connection(Connection *c) {
    int one = 1;
    c->socket = socket(AF_INET, SOCK_STREAM, 0);
    if (c->socket < 0) stop("socket");
    if (connect(c->socket, (struct sockaddr *)&address, sizeof address) != 0) stop("connect");
    setsockopt(c->socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    watch(c, EPOLLIN, EPOLL_CTL_ADD);
}

/* First in, first out: every connection, and every worker behind them, has its turn. */
static void set_free(Connection *c, uint64_t at_ns) {
    uint32_t number = (uint32_t)(c - connections);
    c->request = c->next_free = NONE;
    c->filled = 0;
    c->free_since_ns = at_ns;
    if (last_free == NONE) first_free = number;
    else connections[last_free].next_free = number;
    last_free = number;
}

static Connection *take_free(void) {
    Connection *c = &connections[first_free];
    first_free = c->next_free;
    if (first_free == NONE) last_free = NONE;
    return c;
}

static void lose(Connection *c) {
    if (c->request != NONE) {
        answers[c->request].latency_ns = now_ns() - start_ns - requests[c->request].due_ns;
        lost++;
        c->request = NONE;
    }
    close(c->socket);
    open_connection(c);
    set_free(c, now_ns());
}

static void push(Connection *c) {
    const Request *r = &requests[c->request];
    while (c->sent < r->length) {
        ssize_t n = send(c->socket, r->bytes + c->sent, r->length - c->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EAGAIN) watch(c, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
            else lose(c);
            return;
        }
        c->sent += (uint32_t)n;
    }
}

/* Length of the whole answer in the buffer, 0 if it is not all there, -1 if it is no HTTP of ours. */
static long whole(Connection *c, uint32_t *status, char **body, uint32_t *length) {
    c->buffer[c->filled] = 0;
    char *end = strstr(c->buffer, "\r\n\r\n");
    if (end == NULL) return c->filled < ANSWER_BYTES_MAX - 1 ? 0 : -1;
    if (strncmp(c->buffer, "HTTP/1.1 ", 9) != 0) return -1;
    char *field = strcasestr(c->buffer, "\r\ncontent-length:");
    if (field == NULL || field > end) return -1;
    *status = (uint32_t)atoi(c->buffer + 9);
    *length = (uint32_t)atoi(field + 17);
    *body = end + 4;
    long size = (*body - c->buffer) + (long)*length;
    if (size >= ANSWER_BYTES_MAX) return -1;
    return size <= (long)c->filled ? size : 0;
}

static void pull(Connection *c) {
    ssize_t n = recv(c->socket, c->buffer + c->filled, ANSWER_BYTES_MAX - 1 - c->filled, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0 || c->request == NONE) {
        if (c->request == NONE) {
            close(c->socket); /* an idle connection that the server closed: reopened where it stands */
            open_connection(c);
        } else lose(c);
        return;
    }
    c->filled += (uint32_t)n;
    uint32_t status = 0, length = 0;
    char *body = NULL;
    long size = whole(c, &status, &body, &length);
    if (size == 0) return;
    if (size < 0) {
        lose(c);
        return;
    }
    uint64_t at_ns = now_ns();
    Answer *a = &answers[c->request];
    a->latency_ns = at_ns - start_ns - requests[c->request].due_ns;
    a->status = status;
    a->length = length;
    a->body = malloc(length ? length : 1);
    memcpy(a->body, body, length);
    heard_ns = at_ns - start_ns;
    answered++;
    set_free(c, at_ns);
}

static void read_plan(const char *path) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) stop(path);
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    rewind(file);
    char *data = malloc((size_t)size + 1);
    if (data == NULL || fread(data, 1, (size_t)size, file) != (size_t)size) stop(path);
    fclose(file);
    for (int pass = 0; pass < 2; pass++) {
        request_count = 0;
        for (long at = 0; at + 12 <= size; request_count++) {
            uint32_t length;
            memcpy(&length, data + at + 8, 4);
            if (pass == 1) {
                Request *r = &requests[request_count];
                memcpy(&r->due_ns, data + at, 8);
                r->length = length;
                r->bytes = data + at + 12;
            }
            at += 12 + (long)length;
        }
        if (pass == 0) requests = calloc(request_count + 1, sizeof *requests);
    }
    answers = calloc(request_count + 1, sizeof *answers);
    if (requests == NULL || answers == NULL) stop("memory");
}

static void write_results(const char *path) {
    FILE *file = fopen(path, "wb");
    if (file == NULL) stop(path);
    for (uint32_t i = 0; i < request_count; i++) {
        Answer *a = &answers[i];
        fwrite(&a->latency_ns, 8, 1, file);
        fwrite(&a->late_ns, 8, 1, file);
        fwrite(&a->status, 4, 1, file);
        fwrite(&a->length, 4, 1, file);
        if (a->length) fwrite(a->body, 1, a->length, file);
    }
    if (fclose(file) != 0) stop(path);
}

int main(int argc, char **argv) {
    if (argc != 7) {
        fprintf(stderr, "load PLAN RESULTS HOST PORT CONNECTIONS PATIENCE_S\n");
        return 2;
    }
    read_plan(argv[1]);
    address.sin_family = AF_INET;
    address.sin_port = htons((uint16_t)atoi(argv[4]));
    if (inet_pton(AF_INET, argv[3], &address.sin_addr) != 1) stop(argv[3]);
    connection_count = (uint32_t)atoi(argv[5]);
    uint64_t patience_ns = (uint64_t)(atof(argv[6]) * 1e9);
    connections = calloc(connection_count, sizeof *connections);
    poller = epoll_create1(0);
    if (connections == NULL || poller < 0) stop("epoll_create1");
    prctl(PR_SET_TIMERSLACK, 1);
    for (uint32_t i = 0; i < connection_count; i++) {
        open_connection(&connections[i]);
        set_free(&connections[i], 0);
    }
    struct rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    start_ns = now_ns();
    uint64_t last_due_ns = request_count ? requests[request_count - 1].due_ns : 0;
    uint32_t next = 0, waited = 0;
    uint64_t last_sent_ns = 0;
    struct epoll_event events[EVENTS];
    while (answered + lost < request_count) {
        uint64_t at_ns = now_ns() - start_ns;
        uint64_t end_ns = (heard_ns > last_due_ns ? heard_ns : last_due_ns) + patience_ns;
        if (at_ns > end_ns) break;
        while (next < request_count && requests[next].due_ns <= at_ns && first_free != NONE) {
            Connection *c = take_free();
            uint64_t ready_ns = requests[next].due_ns;
            if (c->free_since_ns > start_ns + ready_ns) {
                ready_ns = c->free_since_ns - start_ns;
                waited++;
            }
            c->request = next;
            c->sent = 0;
            at_ns = now_ns() - start_ns;
            answers[next].late_ns = at_ns - ready_ns;
            last_sent_ns = at_ns;
            next++;
            push(c);
        }
        uint64_t until_ns = end_ns;
        if (next < request_count && first_free != NONE) until_ns = requests[next].due_ns;
        struct timespec rest = {0, 0};
        at_ns = now_ns() - start_ns;
        if (until_ns > at_ns) {
            rest.tv_sec = (time_t)((until_ns - at_ns) / 1000000000u);
            rest.tv_nsec = (long)((until_ns - at_ns) % 1000000000u);
        }
        int n = epoll_pwait2(poller, events, EVENTS, &rest, NULL);
        if (n < 0 && errno != EINTR) stop("epoll_pwait2");
        for (int i = 0; i < n; i++) {
            Connection *c = &connections[events[i].data.u32];
            if ((events[i].events & EPOLLOUT) && c->request != NONE) {
                watch(c, EPOLLIN, EPOLL_CTL_MOD);
                push(c);
            }
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) pull(c);
        }
    }
    uint64_t elapsed_ns = now_ns() - start_ns;
    getrusage(RUSAGE_SELF, &after);
    double cpu_s = (double)(after.ru_utime.tv_sec - before.ru_utime.tv_sec) +
                   (double)(after.ru_stime.tv_sec - before.ru_stime.tv_sec) +
                   1e-6 * (double)(after.ru_utime.tv_usec - before.ru_utime.tv_usec) +
                   1e-6 * (double)(after.ru_stime.tv_usec - before.ru_stime.tv_usec);
    write_results(argv[2]);
    printf("{\"sent\": %u, \"answered\": %u, \"lost\": %u, \"waited\": %u, \"elapsed_s\": %.6f, \"sending_s\": %.6f, "
           "\"started_s\": %.6f, \"cpu_s\": %.6f}\n",
           next, answered, request_count - answered, waited, (double)elapsed_ns * 1e-9, (double)last_sent_ns * 1e-9,
           (double)start_ns * 1e-9, cpu_s);
    return 0;
}
