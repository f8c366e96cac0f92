/* The gradient of one causal head with a bias per key: forwards, back, and every input held to finite differences in double.
 *
 *     gradient [keys [dim]]        (40 and 16)
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "subquad.h"

/* Sizes and inputs; the bias is one row for all queries. */
typedef struct {
    size_t n, d;
    float *q, *k, *v, *bias, *d_out;
} problem;

/* Numbers between -1 and 1, multiples of 2^-15, so that small steps are exact. */
static void fill(float *x, size_t n, uint32_t state)
{
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        x[i] = (float)(state >> 16) / 32768.0f - 1.0f;
    }
}

/* Sum of out * d_out in double: what the gradients are the gradient of. */
static double objective(const problem *p)
{
    double total = 0;
    for (size_t i = 0; i < p->n; i++) {
        double sum = 0, product = 0;
        for (size_t j = 0; j <= i; j++) {
            double score = 0, out = 0;
            for (size_t c = 0; c < p->d; c++) {
                score += (double)p->q[i * p->d + c] * (double)p->k[j * p->d + c];
                out += (double)p->d_out[i * p->d + c] * (double)p->v[j * p->d + c];
            }
            score = exp(score / sqrt((double)p->d) + (double)p->bias[j]);
            sum += score;
            product += score * out;
        }
        total += product / sum;
    }
    return total;
}

/* Largest difference between a gradient and quotients of differences, over some of the numbers of `x`. */
static double error_of(const problem *p, float *x, size_t n, const float *gradient)
{
    const float step = 1.0f / 128;
    double worst = 0;
    for (size_t i = 0; i < n; i += 1 + n / 50) {
        const float at = x[i], steps[] = {-2 * step, -step, step, 2 * step};
        double f[4];
        for (int s = 0; s < 4; s++) {
            x[i] = at + steps[s];
            f[s] = objective(p);
        }
        x[i] = at;
        /* Off by the fourth power of the step. */
        const double slope = (8 * (f[2] - f[1]) - (f[3] - f[0])) / (12 * (double)step);
        worst = fmax(worst, fabs(slope - (double)gradient[i]));
    }
    return worst;
}

int main(int argc, char **argv)
{
    const size_t n = argc > 1 ? strtoul(argv[1], NULL, 10) : 40, d = argc > 2 ? strtoul(argv[2], NULL, 10) : 16;
    float *x = calloc(8 * n * d + 3 * n, sizeof *x);
    if (x == NULL)
        return 2;
    problem p = {n, d, x, x + n * d, x + 2 * n * d, x + 7 * n * d, x + 3 * n * d};
    float *out = x + 4 * n * d, *dq = x + 5 * n * d, *dk = x + 6 * n * d, *lse = p.bias + n, *dbias = lse + n;
    float *dv = calloc(n * d, sizeof *dv);
    fill(x, 4 * n * d, 1);
    fill(p.bias, n, 2);

    subquad_attention rules = {0};
    rules.causal = 1;
    rules.bias = (subquad_tensor){p.bias, 1, 1, 1, n, 0, 0, 0, 1};
    const subquad_shape shape = {1, 1, 1, n, n, d, d};
    const subquad_tensor tq = {p.q, 1, 1, n, d, 0, 0, d, 1}, tk = {p.k, 1, 1, n, d, 0, 0, d, 1};
    const subquad_tensor tv = {p.v, 1, 1, n, d, 0, 0, d, 1};
    subquad_outputs outputs = {0};
    outputs.out = (subquad_tensor_mut){out, 1, 1, n, d, 0, 0, d, 1};
    outputs.lse = (subquad_tensor_mut){lse, 1, 1, n, 1, 0, 0, 1, 1};
    subquad_upstream upstream = {0};
    upstream.out = (subquad_tensor){out, 1, 1, n, d, 0, 0, d, 1};
    upstream.d_out = (subquad_tensor){p.d_out, 1, 1, n, d, 0, 0, d, 1};
    upstream.lse = (subquad_tensor){lse, 1, 1, n, 1, 0, 0, 1, 1};
    subquad_gradients gradients = {0};
    gradients.q = (subquad_tensor_mut){dq, 1, 1, n, d, 0, 0, d, 1};
    gradients.k = (subquad_tensor_mut){dk, 1, 1, n, d, 0, 0, d, 1};
    gradients.v = (subquad_tensor_mut){dv, 1, 1, n, d, 0, 0, d, 1};
    gradients.bias = (subquad_tensor_mut){dbias, 1, 1, 1, n, 0, 0, n, 1};

    size_t forward = 0, back = 0;
    int32_t status = subquad_attention_forward_need(&rules, shape, 0, &forward);
    if (status == SUBQUAD_OK)
        status = subquad_attention_gradient_need(&rules, shape, &back);
    const size_t size = forward > back ? forward : back;
    void *work = malloc(size);
    if (status != SUBQUAD_OK || dv == NULL || work == NULL)
        return 2;
    subquad_report report = {0};
    status = subquad_attention_forward(&rules, tq, tk, tv, outputs, work, size, NULL);
    if (status == SUBQUAD_OK)
        status = subquad_attention_gradient(&rules, tq, tk, tv, upstream, gradients, work, size, &report);
    if (status != SUBQUAD_OK) {
        fprintf(stderr, "gradient: %s\n", subquad_status_message(status));
        return 1;
    }
    const double worst = fmax(fmax(error_of(&p, p.q, n * d, dq), error_of(&p, p.k, n * d, dk)),
                              fmax(error_of(&p, p.v, n * d, dv), error_of(&p, p.bias, n, dbias)));
    printf("subquad %s, %s: gradient, n = %zu, d = %zu, scratch %zu bytes, error %.1e\n", subquad_version(),
           subquad_isa_name(report.isa), n, d, back, worst);
    free(work);
    free(dv);
    free(x);
    return worst < 1e-5 && report.non_finite_rows == 0 ? 0 : 1;
}
