/* Zeros ahead of a journal's batches, by a thread of their own: it never asks for the interpreter's lock. */

#define _POSIX_C_SOURCE 200809L
#define _FILE_OFFSET_BITS 64

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <unistd.h>

enum { PIECE_BYTES = 256 * 1024, ENDED = -1 };

static const uint8_t zeros[PIECE_BYTES];

/* From `start` to `end`, piece by piece: each is synced, and `rest_ms` follow. `closing` ends it once the other
 * end of that pipe is closed. 0: all is done; -1: it was ended; otherwise an error's number. */
int cordon_prewrite(int file, int64_t start, int64_t end, int closing, int rest_ms)
{
    while (start < end) {
        size_t piece = end - start < PIECE_BYTES ? (size_t)(end - start) : PIECE_BYTES;
        ssize_t written = pwrite(file, zeros, piece, (off_t)start);
        if (written < 0 && errno != EINTR)
            return errno;
        if (written <= 0)
            continue;
        start += written;
        if (fdatasync(file) != 0 && errno != EINTR)
            return errno;
        struct pollfd end_of_pipe = {closing, POLLIN, 0};
        if (poll(&end_of_pipe, 1, rest_ms) > 0)
            return ENDED;
    }
    return 0;
}
