/* SHA-256 as the journal's chain needs it: of the hash before and a record's body. */

#ifndef CORDON_SHA256_H
#define CORDON_SHA256_H

#include <stddef.h>
#include <stdint.h>

enum { SHA256_BYTES = 32 };

/* Before anything else: whether the processor's own instructions are used, where it has them and `plain` is not
 * set. Until then they are not. */
int sha256_choose(int plain);

/* SHA-256(before | body) to `hash`, which may be where `before` is. */
void sha256_chain(const uint8_t *before, const uint8_t *body, size_t size, uint8_t *hash);

/* Two at once, neither of which needs the other's hash. */
void sha256_chain_two(const uint8_t *before_a, const uint8_t *a, size_t size_a, uint8_t *hash_a,
                      const uint8_t *before_b, const uint8_t *b, size_t size_b, uint8_t *hash_b);

#endif
