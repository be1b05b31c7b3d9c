/* A thread's whole work: what it is told to make durable, it makes durable, and says so.
 *
 * Both sides speak through eventfds. To `kick` comes a file descriptor plus 2, or 1: stop. To `done` goes 1,
 * or 1 plus the error's number. */

#include <errno.h>
#include <stdint.h>
#include <unistd.h>

int cordon_sync(int kick, int done)
{
    for (;;) {
        uint64_t told, said = 1;
        ssize_t size = read(kick, &told, sizeof told);
        if (size < 0 && errno == EINTR)
            continue;
        if (size != (ssize_t)sizeof told || told == 1)
            return 0;
        while (fdatasync((int)(told - 2)) != 0) {
            if (errno == EINTR)
                continue;
            said += (uint64_t)errno;
            break;
        }
        while (write(done, &said, sizeof said) < 0)
            if (errno != EINTR)
                return errno;
    }
}
