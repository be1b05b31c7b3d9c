/* What is needed of CPython's stable ABI (3.11), declared here so that no header of Python has to be installed;
 * the running interpreter provides the symbols. */
#include <stddef.h>

typedef struct object object_t;

typedef struct {
    void *buf;
    void *obj;
    ptrdiff_t len;
    ptrdiff_t itemsize;
    int readonly;
    int ndim;
    char *format;
    ptrdiff_t *shape;
    ptrdiff_t *strides;
    ptrdiff_t *suboffsets;
    void *internal;
} buffer_t;

enum { WRITABLE = 0x0001, FORMAT = 0x0004, CONTIGUOUS = 0x0020 | 0x0010 | 0x0008 };

int PyObject_GetBuffer(object_t *object, buffer_t *view, int flags);
void PyBuffer_Release(buffer_t *view);
