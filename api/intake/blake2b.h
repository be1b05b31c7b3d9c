/* BLAKE2b (RFC 7693) with a key and a person, as Python's hashlib has them. */
#ifndef CORDON_BLAKE2B_H
#define CORDON_BLAKE2B_H

#include <stddef.h>
#include <stdint.h>

enum { BLAKE_BLOCK = 128, BLAKE_KEY_MAX = 64, BLAKE_PERSON = 16 };

/* A keyed hash before its first byte: of an empty message the key is the last block, of any other the first. */
typedef struct {
    uint64_t fresh[8];
    uint64_t keyed[8];
    uint8_t key[BLAKE_BLOCK];
    size_t size;
} blake_start;

typedef struct {
    uint64_t h[8];
    uint64_t length; /* bytes compressed so far, the key's block included; far below 2**64 */
    size_t held;
    uint8_t block[BLAKE_BLOCK];
    const blake_start *start;
} blake;

/* size: of the digest, at most 64; a key of 1 to 64 bytes; person: at most 16 bytes */
void blake_prepare(blake_start *start, size_t size, const uint8_t *key, size_t key_size, const char *person);
void blake_begin(blake *hash, const blake_start *start);
void blake_add(blake *hash, const void *data, size_t size);
/* the first 16 bytes of the digest, of which the hash's size counts */
void blake_end(blake *hash, uint8_t digest[16]);

#endif
