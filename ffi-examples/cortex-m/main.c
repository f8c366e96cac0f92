/* Exact attention on a Cortex-M4F: 32 queries against 32 keys of size 32, checked against an f64 computation. */
#include "../../include/subquad.h"
#include "regions.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { QUERIES = 32, KEYS = 32, DIM = 32 };

static float q[QUERIES * DIM], k[KEYS * DIM], v[KEYS * DIM], out[QUERIES * DIM];
static unsigned char work[24 * 1024];

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

int main(void)
{
    fill(q, QUERIES * DIM, 1);
    fill(k, KEYS * DIM, 2);
    fill(v, KEYS * DIM, 3);

    subquad_tensor tq = { q, 1, 1, QUERIES, DIM, 0, 0, DIM, 1 };
    subquad_tensor tk = { k, 1, 1, KEYS, DIM, 0, 0, DIM, 1 };
    subquad_tensor tv = { v, 1, 1, KEYS, DIM, 0, 0, DIM, 1 };
    subquad_shape shape = { 1, 1, 1, QUERIES, KEYS, DIM, DIM };
    subquad_outputs outputs;
    memset(&outputs, 0, sizeof outputs);
    outputs.out = (subquad_tensor_mut){ out, 1, 1, QUERIES, DIM, 0, 0, DIM, 1 };

    size_t need = 0;
    int32_t status = subquad_attention_forward_need(NULL, shape, 0, &need);
    if (status != SUBQUAD_OK || need > sizeof work)
        return 2;
    REGION_BEGIN();
    status = subquad_attention_forward(NULL, tq, tk, tv, outputs, work, need, NULL);
    REGION_END();
    if (status != SUBQUAD_OK)
        return 3;
    /* One byte less must be refused, and must leave the output alone. */
    if (subquad_attention_forward(NULL, tq, tk, tv, outputs, work, need - 1, NULL) != SUBQUAD_E_SHORT)
        return 4;
    double error = worst_error();
    printf("need %u bytes, largest error %.2e\n", (unsigned)need, error);
    /* |v| <= 1 and |score| <= 3: 33 roundings of a score and 32 of a sum, 2^-24 each, times 6 and 1. */
    return error < (33 * 6 + 32) * 5.97e-8 ? 0 : 5;
}
