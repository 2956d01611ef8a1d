/* sluice/abi/rng.h - randomness as a function of (seed, position, stream, index); nobody keeps a state.
 *
 * Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011) with key = seed and counter = (position, stream, index, 0):
 *   seed      of the answer, from sluice_seq_start
 *   position  absolute index of the token that is being chosen, prompt included
 *   stream    the purpose, SLUICE_RNG_*
 *   index     which block of four numbers
 * A seeded answer therefore depends neither on its company in the batch, nor on preemption, device or speculation, as
 * long as the logits are the same.
 *
 * THE DRAW  token = argmax over kept v of (logit_v + gumbel_v), ties to the lowest id. logit_v is taken after all
 * stages, temperature included; gumbel_v = -log(-log(unit)), where word v % 4 of block v / 4 of stream DRAW gives the
 * unit. At temperature 0 the noise is left out. Order and number of the candidates do not matter, so a device, a
 * candidate list and a host row give the same token. Drafts drawn with this very noise agree with the target as often
 * as is possible.
 */
#ifndef SLUICE_ABI_RNG_H
#define SLUICE_ABI_RNG_H
#include <sluice/abi/base.h>
SLUICE_C_BEGIN

#define SLUICE_RNG_DRAW 0u     /* noise of THE DRAW */
#define SLUICE_RNG_DRAFT 1u    /* draws of a draft model that is not coupled */
#define SLUICE_RNG_ACCEPT 2u   /* uniforms of rejection sampling: try t uses index t / 4, lane t % 4 */
#define SLUICE_RNG_RESIDUAL 3u /* noise of the draw from the residual */
#define SLUICE_RNG_STAGE(stage) (16u + (uint32_t)(stage)) /* what a stage decides by itself */

/* [any] Four words. Kernels reproduce these bits exactly. */
static inline void sluice_rng(uint64_t seed, uint32_t position, uint32_t stream, uint32_t index, uint32_t out[4]) {
  uint32_t x0 = position, x1 = stream, x2 = index, x3 = 0;
  uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
  int round;
  for (round = 0; round < 10; ++round) {
    const uint64_t p = (uint64_t)x0 * 0xD2511F53u, q = (uint64_t)x2 * 0xCD9E8D57u;
    x0 = (uint32_t)(q >> 32) ^ x1 ^ k0;
    x2 = (uint32_t)(p >> 32) ^ x3 ^ k1;
    x1 = (uint32_t)q;
    x3 = (uint32_t)p;
    k0 += 0x9E3779B9u; /* golden ratio */
    k1 += 0xBB67AE85u; /* sqrt(3) - 1 */
  }
  out[0] = x0;
  out[1] = x1;
  out[2] = x2;
  out[3] = x3;
}

/* [any] In (0, 1) with both ends excluded, exact in f32. */
static inline float sluice_rng_unit(uint32_t x) { return ((float)(x >> 9) + 0.5f) * (1.0f / 8388608.0f); }

SLUICE_C_END
#endif
