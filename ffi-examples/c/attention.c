/* One head of attention from C: asks for the scratch, runs, measures the speed, asks what rounding can have done, and holds
 * the answer to that, in double.
 *
 *     attention [keys [dim]]        (512 and 64; "attention 4096" is the speed of a long sequence)
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "subquad.h"

/* CPU time: on a shared machine the wall clock measures the neighbours. */
static double seconds(void)
{
    return (double)clock() / CLOCKS_PER_SEC;
}

/* Numbers between -1 and 1. */
static void fill(float *x, size_t n, uint32_t state)
{
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        x[i] = (float)(state >> 8) / 8388608.0f - 1.0f;
    }
}

/* Largest difference between row i of out and the same in double. */
static double error_of_row(size_t i, size_t n, size_t d, const float *q, const float *k, const float *v, const float *out)
{
    double sum = 0, worst = 0, *p = malloc(n * sizeof *p);
    if (p == NULL)
        return HUGE_VAL;
    for (size_t j = 0; j < n; j++) {
        double score = 0;
        for (size_t c = 0; c < d; c++)
            score += (double)q[i * d + c] * (double)k[j * d + c];
        sum += p[j] = exp(score / sqrt((double)d)); /* |score| <= d: no overflow for d <= 128 */
    }
    for (size_t c = 0; c < d; c++) {
        double mean = 0;
        for (size_t j = 0; j < n; j++)
            mean += p[j] / sum * (double)v[j * d + c];
        worst = fmax(worst, fabs(mean - (double)out[i * d + c]));
    }
    free(p);
    return worst;
}

int main(int argc, char **argv)
{
    const size_t n = argc > 1 ? strtoul(argv[1], NULL, 10) : 512, d = argc > 2 ? strtoul(argv[2], NULL, 10) : 64;
    const subquad_shape shape = {1, 1, 1, n, n, d, d};
    size_t size = 0;
    int32_t status = subquad_attention_forward_need(NULL, shape, 0, &size);
    float *x = malloc(4 * n * d * sizeof *x); /* q, k, v and out */
    void *work = malloc(size);
    subquad_report report;
    double best = HUGE_VAL, worst = 0;

    if (status != SUBQUAD_OK || x == NULL || work == NULL || subquad_abi_version() != SUBQUAD_ABI_VERSION)
        return 2;
    float *q = x, *k = q + n * d, *v = k + n * d, *out = v + n * d;
    fill(x, 3 * n * d, 1);
    const subquad_tensor tq = {q, 1, 1, n, d, 0, 0, d, 1}, tk = {k, 1, 1, n, d, 0, 0, d, 1};
    const subquad_tensor tv = {v, 1, 1, n, d, 0, 0, d, 1};
    subquad_outputs outputs = {0};
    outputs.out = (subquad_tensor_mut){out, 1, 1, n, d, 0, 0, d, 1};
    for (double start = seconds(); best == HUGE_VAL || seconds() - start < 0.5;) {
        const double before = seconds();
        status = subquad_attention_forward(NULL, tq, tk, tv, outputs, work, size, &report);
        best = fmin(best, seconds() - before);
        if (status != SUBQUAD_OK) {
            fprintf(stderr, "attention: %s\n", subquad_status_message(status));
            return 1;
        }
    }
    /* The same call, and what rounding can have done to it. */
    status = subquad_attention_forward_with_bound(NULL, tq, tk, tv, outputs, work, size, &report);
    if (status != SUBQUAD_OK)
        return 1;
    for (size_t i = 0; i < n; i += 1 + n / 8)
        worst = fmax(worst, error_of_row(i, n, d, q, k, v, out));
    printf("subquad %s, %s: n = %zu, d = %zu, scratch %zu bytes, error %.1e of at most %.1e, %.3f ms, %.1f GFLOP/s\n",
           subquad_version(), subquad_isa_name(report.isa), n, d, size, worst, (double)report.bound, 1e3 * best,
           4e-9 * (double)(n * n * d) / best);
    free(work);
    free(x);
    /* The bound is certain, and far above what double is off by. As |v| <= 1, a bound of 1 would say nothing. */
    return worst <= (double)report.bound && report.bound < 1 && report.bound_failure == 0 ? 0 : 1;
}
