/* A thread's whole work: the batch that it is told, it frames, chains, writes and makes durable, and says so.
 *
 * Both sides speak through eventfds. To `kick` comes 2: there is an order, or 1: stop. To `done` goes 1, or 1 plus
 * the error's number. What a batch looks like says segment.py, whose `encode_batch` is the reference. */

#define _POSIX_C_SOURCE 200809L
#define _FILE_OFFSET_BITS 64

#include "sha256.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { HEADER_BYTES = 40, LENGTH_BYTES = 4, KEPT_BYTES_MAX = 4 << 20 };

/* `hash`: of the record before the batch; when it is done, of its last one. */
typedef struct {
    int64_t file;
    int64_t offset;
    uint64_t sequence;
    uint32_t epoch;
    uint32_t records;
    const uint8_t *const *bodies;
    const uint64_t *lengths;
    uint8_t hash[SHA256_BYTES];
} order;

typedef struct {
    uint8_t *bytes;
    size_t size;
} buffer;

static uint8_t *put(uint8_t *to, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        *to++ = (uint8_t)(value >> 8 * i);
    return to;
}

static uint32_t crc32(const uint8_t *from, size_t size)
{
    uint32_t found = ~0u;
    while (size-- > 0) {
        found ^= *from++;
        for (int bit = 0; bit < 8; bit++)
            found = found >> 1 ^ (0xedb88320u & -(found & 1));
    }
    return ~found;
}

static int make_room(buffer *room, size_t size)
{
    if (room->size < size || (room->size > KEPT_BYTES_MAX && size <= KEPT_BYTES_MAX)) {
        free(room->bytes);
        room->bytes = malloc(size);
        room->size = room->bytes == NULL ? 0 : size;
    }
    return room->bytes != NULL;
}

static size_t encode(order *given, uint8_t *to, size_t length)
{
    uint8_t *at = to;
    memcpy(at, "CJB1", 4);
    at = put(at + 8, given->epoch, 4);
    at = put(at, given->records, 4);
    at = put(at, given->sequence, 8);
    at = put(at, (uint64_t)given->offset, 8);
    at = put(at, length, 4);
    at = put(at, 0, 4);
    put(to + 4, crc32(to + 8, HEADER_BYTES - 8), 4);
    for (uint32_t i = 0; i < given->records; i++) {
        size_t size = (size_t)given->lengths[i];
        at = put(at, size, LENGTH_BYTES);
        memcpy(at, given->bodies[i], size);
        sha256_chain(given->hash, at, size, given->hash);
        at += size;
        memcpy(at, given->hash, SHA256_BYTES);
        at += SHA256_BYTES;
    }
    return (size_t)(at - to);
}

/* An error's number, or 0 */
static int fulfil(order *given, buffer *room)
{
    size_t length = 0, size, written = 0;
    for (uint32_t i = 0; i < given->records; i++)
        length += LENGTH_BYTES + (size_t)given->lengths[i] + SHA256_BYTES;
    if (!make_room(room, HEADER_BYTES + length))
        return ENOMEM;
    size = encode(given, room->bytes, length);
    while (written < size) {
        ssize_t more = pwrite((int)given->file, room->bytes + written, size - written,
                              (off_t)given->offset + (off_t)written);
        if (more < 0 && errno != EINTR)
            return errno;
        if (more > 0)
            written += (size_t)more;
    }
    while (fdatasync((int)given->file) != 0)
        if (errno != EINTR)
            return errno;
    return 0;
}

int cordon_sync(int kick, int done, order *given)
{
    buffer room = {NULL, 0};
    int failure = 0;
    while (failure == 0) {
        uint64_t told, said;
        ssize_t size = read(kick, &told, sizeof told);
        if (size < 0 && errno == EINTR)
            continue;
        if (size != (ssize_t)sizeof told || told == 1)
            break;
        said = 1 + (uint64_t)fulfil(given, &room);
        while (write(done, &said, sizeof said) < 0)
            if (errno != EINTR) {
                failure = errno;
                break;
            }
    }
    free(room.bytes);
    return failure;
}
