/* SHA-256 (FIPS 180-4), as far as the journal's chain needs it. */

#ifndef CORDON_SHA256_H
#define CORDON_SHA256_H

#include <stddef.h>
#include <stdint.h>

enum { SHA256_BYTES = 32 };

/* chain = SHA-256(chain + body) */
void sha256_chain(uint8_t chain[SHA256_BYTES], const uint8_t *body, size_t size);

/* Before anything else: whether the processor's own instructions are used, where it has them and `plain` is not
 * set. Until then they are not. */
int sha256_choose(int plain);

#endif
