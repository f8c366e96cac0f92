/* A fixed set of attention problems and kernel rows, hashed on every back end that the machine has: one line per
 * arithmetic class. Equal lines on two machines mean equal bits. `same_bits.mjs` is the same program for a module. */
#include "../../include/subquad.h"
#include <stdio.h>
#include <string.h>

enum { PROBLEMS = 300, MOST = 48 * 40 };

static float q[MOST], k[MOST], v[MOST], out[MOST], lse[64];
static unsigned char work[96 * 1024];
static uint32_t seed;
static uint32_t hash;

static uint32_t draw(uint32_t below)
{
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % below;
}

static void fill(float *x, size_t n, float scale)
{
    for (size_t i = 0; i < n; i++)
        x[i] = ((float)draw(1u << 16) * (1.0f / 32768.0f) - 1.0f) * scale;
}

static void take(const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], 4);
        hash = (hash ^ bits) * 16777619u;
    }
}

static subquad_tensor matrix(const float *data, size_t rows, size_t cols)
{
    return (subquad_tensor){ data, 1, 1, rows, cols, 0, 0, cols, 1 };
}

static subquad_tensor_mut target(float *data, size_t rows, size_t cols)
{
    return (subquad_tensor_mut){ data, 1, 1, rows, cols, 0, 0, cols, 1 };
}

/* One problem, by both plans; the scale of the queries makes some score spreads exceed 2^126. */
static int problem(int32_t isa)
{
    size_t queries = 1 + draw(24), keys = draw(48), dim = draw(40), value_dim = 1 + draw(40);
    subquad_attention rules;
    subquad_outputs outputs;
    memset(&rules, 0, sizeof rules);
    memset(&outputs, 0, sizeof outputs);
    rules.isa = isa;
    rules.causal = draw(2) != 0;
    rules.offset = (int64_t)draw(30) - 10;
    rules.has_left = draw(4) == 0;
    rules.left = draw(20);
    rules.cap = draw(4) == 0 ? 5.0f : 0.0f;
    rules.key_run = draw(3) == 0 ? 1 + draw(40) : 0;
    fill(q, queries * dim, draw(5) == 0 ? 100.0f : 1.0f);
    fill(k, keys * dim, 2.0f);
    fill(v, keys * value_dim, 3.0f);
    outputs.out = target(out, queries, value_dim);
    outputs.lse = target(lse, queries, 1);
    subquad_tensor tq = matrix(q, queries, dim), tk = matrix(k, keys, dim), tv = matrix(v, keys, value_dim);
    int32_t status = subquad_attention_forward(&rules, tq, tk, tv, outputs, work, sizeof work, NULL);
    if (status != SUBQUAD_OK)
        return status;
    take(out, queries * value_dim);
    take(lse, queries);
    status = subquad_attention_decode(&rules, tq, tk, tv, outputs, work, sizeof work, NULL);
    take(out, queries * value_dim);
    take(lse, queries);
    return status;
}

/* exp and tanh of every 257th bit pattern, with the specials among them. */
static void rows(int32_t isa)
{
    static const uint32_t specials[16] = { 0,          0x80000000, 0x7f800000, 0xff800000, 0x7fc00000, 0xffc12345,
                                           1,          0x80000001, 0x3f800000, 0xbf800000, 0x42b17218, 0x42b17217,
                                           0xc2cff1b5, 0xc2cff1b4, 0x7f7fffff, 0xff7fffff };
    float x[256], y[256];
    uint64_t at = 0;
    memcpy(x, specials, sizeof specials);
    for (size_t n = 16; n > 0;) {
        subquad_exp(isa, x, y, n);
        take(y, n);
        subquad_tanh(isa, x, y, n);
        take(y, n);
        for (n = 0; n < 256 && at <= 0xffffffffu; n++, at += 257) {
            uint32_t bits = (uint32_t)at;
            memcpy(&x[n], &bits, 4);
        }
    }
}

int main(void)
{
    uint32_t classes[2] = { 0, 0 };
    for (int32_t isa = SUBQUAD_ISA_SCALAR; isa <= SUBQUAD_ISA_WASM; isa++) {
        int fused = isa == SUBQUAD_ISA_AVX2 || isa == SUBQUAD_ISA_AVX512 || isa == SUBQUAD_ISA_NEON;
        subquad_shape nothing = { 0, 0, 0, 0, 0, 0, 0 };
        subquad_attention probe;
        size_t bytes;
        memset(&probe, 0, sizeof probe);
        probe.isa = isa;
        if (subquad_attention_forward_need(&probe, nothing, 0, &bytes) == SUBQUAD_E_UNSUPPORTED)
            continue;
        seed = 1;
        hash = 2166136261u;
        for (int i = 0; i < PROBLEMS; i++) {
            int32_t status = problem(isa);
            if (status != SUBQUAD_OK) {
                printf("%s: problem %d: %s\n", subquad_isa_name(isa), i, subquad_status_message(status));
                return 1;
            }
        }
        rows(isa);
        if (classes[fused] != 0 && classes[fused] != hash) {
            printf("%s differs from its class\n", subquad_isa_name(isa));
            return 1;
        }
        classes[fused] = hash;
    }
    if (classes[1] != 0)
        printf("fused %08lx\n", (unsigned long)classes[1]);
    printf("strict %08lx\n", (unsigned long)classes[0]);
    return 0;
}
