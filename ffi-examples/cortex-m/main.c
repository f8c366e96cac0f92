/* Exact attention on a Cortex-M4F: 32 queries against 32 keys of size 32, checked against an f64 computation. */
#include "../../include/subquad.h"
#include "regions.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { QUERIES = 32, KEYS = 32, DIM = 32 };

static float q[QUERIES * DIM], k[KEYS * DIM], v[KEYS * DIM], out[QUERIES * DIM];
static unsigned char work[SUBQUAD_ATTENTION_HEAD_NEED(KEYS, DIM, DIM)];

/* Uniform in [-1, 1), the same on every machine. */
static void fill(float *x, size_t n, uint32_t seed)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(int32_t)(seed >> 8) * (1.0f / 8388608.0f) - 1.0f;
    }
}

/* Largest error of the output against the formula in double. */
static double worst_error(void)
{
    double worst = 0.0;
    for (int i = 0; i < QUERIES; i++) {
        double p[KEYS], max = -INFINITY, sum = 0.0;
        for (int j = 0; j < KEYS; j++) {
            p[j] = 0.0;
            for (int c = 0; c < DIM; c++)
                p[j] += (double)q[i * DIM + c] * (double)k[j * DIM + c];
            p[j] /= sqrt((double)DIM);
            max = p[j] > max ? p[j] : max;
        }
        for (int j = 0; j < KEYS; j++)
            sum += p[j] = exp(p[j] - max);
        for (int c = 0; c < DIM; c++) {
            double o = 0.0;
            for (int j = 0; j < KEYS; j++)
                o += p[j] / sum * (double)v[j * DIM + c];
            double error = fabs(o - (double)out[i * DIM + c]);
            worst = error > worst ? error : worst;
        }
    }
    return worst;
}

/* The whole operator, for comparison: its rules are not needed here, its bits are the same. */
static int same_bits_from_the_operator(void)
{
    static float again[QUERIES * DIM];
    static unsigned char room[24 * 1024];
    subquad_tensor tq = { q, 1, 1, QUERIES, DIM, 0, 0, DIM, 1 };
    subquad_tensor tk = { k, 1, 1, KEYS, DIM, 0, 0, DIM, 1 };
    subquad_tensor tv = { v, 1, 1, KEYS, DIM, 0, 0, DIM, 1 };
    subquad_outputs outputs = { .out = { again, 1, 1, QUERIES, DIM, 0, 0, DIM, 1 } };
    REGION_BEGIN();
    int32_t status = subquad_attention_forward(NULL, tq, tk, tv, outputs, room, sizeof room, NULL);
    REGION_END();
    return status == SUBQUAD_OK && memcmp(again, out, sizeof out) == 0;
}

int main(void)
{
    fill(q, QUERIES * DIM, 1);
    fill(k, KEYS * DIM, 2);
    fill(v, KEYS * DIM, 3);

    /* Zero means "nothing special": scale 1 / sqrt(DIM), every query sees every key. */
    const subquad_head head = {
        .q = { q, QUERIES, DIM, DIM },
        .k = { k, KEYS, DIM, DIM },
        .v = { v, KEYS, DIM, DIM },
        .out = { out, QUERIES, DIM, DIM },
    };
    if (subquad_attention_head_need(KEYS, DIM, DIM) != sizeof work)
        return 2;
    /* One byte less must be refused, and must leave the output alone. */
    if (subquad_attention_head(&head, work, sizeof work - 1, NULL) != SUBQUAD_E_SHORT)
        return 3;
    for (size_t i = 0; i < QUERIES * DIM; i++)
        if (out[i] != 0.0f)
            return 4;
    REGION_BEGIN();
    int32_t status = subquad_attention_head(&head, work, sizeof work, NULL);
    REGION_END();
    if (status != SUBQUAD_OK)
        return 5;
    if (!same_bits_from_the_operator())
        return 6;
    double error = worst_error();
    printf("need %u bytes, largest error %.2e\n", (unsigned)sizeof work, error);
    /* |v| <= 1 and |score| <= 3: 33 roundings of a score and 32 of a sum, 2^-24 each, times 6 and 1. */
    return error < (33 * 6 + 32) * 5.97e-8 ? 0 : 7;
}
