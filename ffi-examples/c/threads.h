/* What the two examples of threads share: a problem with its memory, and the comparison of two results. */
#ifndef THREADS_H
#define THREADS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "subquad.h"

enum { QUERIES = 200, HEADS = 8, KV_HEADS = 2, DIM = 32 };

/* Causal attention of 8 heads that share 2 heads of keys. Queries and output are packed, as a projection leaves them. */
typedef struct {
    float *q, *k, *v, *out, *alone;
    subquad_attention rules;
    subquad_tensor tq, tk, tv;
    size_t need;
} problem;

static subquad_outputs outputs_to(float *out)
{
    subquad_outputs outputs;
    memset(&outputs, 0, sizeof outputs);
    outputs.out = (subquad_tensor_mut){out, 1, HEADS, QUERIES, DIM, 0, DIM, (size_t)HEADS * DIM, 1};
    return outputs;
}

/* One call of one thread: what the tasks must agree with. */
static int32_t run_alone(problem *p)
{
    void *work = malloc(p->need);
    if (work == NULL)
        return SUBQUAD_E_SHORT;
    const int32_t status =
        subquad_attention_forward(&p->rules, p->tq, p->tk, p->tv, outputs_to(p->alone), work, p->need, NULL);
    free(work);
    return status;
}

/* How many tasks there are for so many threads: several each, as the last rows of causal attention take longest. */
static int32_t prepare(problem *p, size_t threads, size_t *count)
{
    const subquad_shape shape = {1, HEADS, KV_HEADS, QUERIES, QUERIES, DIM, DIM};
    const size_t n = (size_t)QUERIES * HEADS * DIM, kv = (size_t)QUERIES * KV_HEADS * DIM;
    uint32_t state = 1;
    p->q = malloc((3 * n + 2 * kv) * sizeof *p->q);
    if (p->q == NULL)
        return SUBQUAD_E_SHORT;
    p->k = p->q + n, p->v = p->k + kv, p->out = p->v + kv, p->alone = p->out + n;
    for (size_t i = 0; i < n + 2 * kv; i++) {
        state = state * 1664525u + 1013904223u;
        p->q[i] = (float)(state >> 8) / 8388608.0f - 1.0f;
    }
    memset(p->out, 0xff, n * sizeof *p->out); /* NaN */
    memset(&p->rules, 0, sizeof p->rules);
    p->rules.causal = 1;
    p->tq = (subquad_tensor){p->q, 1, HEADS, QUERIES, DIM, 0, DIM, (size_t)HEADS * DIM, 1};
    p->tk = (subquad_tensor){p->k, 1, KV_HEADS, QUERIES, DIM, 0, (size_t)QUERIES * DIM, DIM, 1};
    p->tv = (subquad_tensor){p->v, 1, KV_HEADS, QUERIES, DIM, 0, (size_t)QUERIES * DIM, DIM, 1};
    int32_t status = subquad_attention_forward_need(&p->rules, shape, 0, &p->need);
    if (status == SUBQUAD_OK)
        status = subquad_attention_tasks(&p->rules, shape, outputs_to(p->out), 4 * threads, count);
    return status == SUBQUAD_OK ? run_alone(p) : status;
}

static int same_bits(const problem *p)
{
    return memcmp(p->out, p->alone, (size_t)QUERIES * HEADS * DIM * sizeof *p->out) == 0;
}

#endif
