/* What the two examples of threads share: attention and its gradient in tasks, and the comparison with one call each. */
#ifndef THREADS_H
#define THREADS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "subquad.h"

enum { BATCH = 2, QUERIES = 200, HEADS = 8, KV_HEADS = 2, DIM = 32 };

/* The gradient begins when all tasks of the attention are done. */
enum { FORWARD, BACK, PASSES };

/* All that the two passes write. */
typedef struct {
    float *out, *lse, *dq, *dk, *dv;
} results;

/* Causal attention of 8 heads that share 2 heads of keys, for 2 sequences. */
typedef struct {
    float *memory;
    results tasks, alone;
    subquad_attention rules;
    subquad_tensor q, k, v, d_out;
    size_t need;
    /* Tasks of each pass. */
    size_t count[PASSES];
} problem;

static const size_t rows = (size_t)BATCH * HEADS * QUERIES, kv_rows = (size_t)BATCH * KV_HEADS * QUERIES;

/* Floats of the results, which lie one behind the other. */
static size_t results_size(void)
{
    return rows * (2 * DIM + 1) + 2 * kv_rows * DIM;
}

static results results_at(float *x)
{
    const results r = {x, x + rows * DIM, x + rows * (DIM + 1), x + rows * (2 * DIM + 1),
                       x + rows * (2 * DIM + 1) + kv_rows * DIM};
    return r;
}

/* Heads side by side in rows, as a projection leaves them. */
static subquad_tensor packed(const float *x)
{
    const size_t row = (size_t)HEADS * DIM;
    return (subquad_tensor){x, BATCH, HEADS, QUERIES, DIM, row * QUERIES, DIM, row, 1};
}

/* Heads one after the other. */
static subquad_tensor in_heads(const float *x, size_t heads, size_t cols)
{
    return (subquad_tensor){x, BATCH, heads, QUERIES, cols, heads * QUERIES * cols, QUERIES * cols, cols, 1};
}

/* The same, to write. */
static subquad_tensor_mut mutable(float *x, subquad_tensor t)
{
    return (subquad_tensor_mut){x,        t.batch,        t.heads,       t.rows,       t.cols,
                                t.batch_stride, t.head_stride, t.row_stride, t.col_stride};
}

static subquad_outputs outputs_to(const results *r)
{
    subquad_outputs outputs;
    memset(&outputs, 0, sizeof outputs);
    outputs.out = mutable(r->out, packed(r->out));
    outputs.lse = mutable(r->lse, (subquad_tensor){r->lse, BATCH, HEADS, QUERIES, 1, (size_t)HEADS * QUERIES, 1, HEADS, 1});
    return outputs;
}

/* Gradients of heads one after the other: only what lies apart in memory can be in different tasks. */
static subquad_gradients gradients_to(const results *r)
{
    subquad_gradients gradients;
    memset(&gradients, 0, sizeof gradients);
    gradients.q = mutable(r->dq, in_heads(r->dq, HEADS, DIM));
    gradients.k = mutable(r->dk, in_heads(r->dk, KV_HEADS, DIM));
    gradients.v = mutable(r->dv, in_heads(r->dv, KV_HEADS, DIM));
    return gradients;
}

static subquad_upstream upstream_of(const problem *p, const results *r)
{
    subquad_upstream upstream;
    memset(&upstream, 0, sizeof upstream);
    upstream.out = packed(r->out);
    upstream.d_out = p->d_out;
    upstream.lse = (subquad_tensor){r->lse, BATCH, HEADS, QUERIES, 1, (size_t)HEADS * QUERIES, 1, HEADS, 1};
    return upstream;
}

/* Task `index` of a pass, with scratch of the thread's own. */
static int32_t run_task(const problem *p, int pass, size_t index, void *work, subquad_report *report)
{
    if (pass == FORWARD)
        return subquad_attention_run_task(index, p->count[FORWARD], &p->rules, p->q, p->k, p->v, outputs_to(&p->tasks),
                                          work, p->need, report);
    return subquad_attention_gradient_run_task(index, p->count[BACK], &p->rules, p->q, p->k, p->v,
                                               upstream_of(p, &p->tasks), gradients_to(&p->tasks), work, p->need, report);
}

/* One call of one thread for each pass: what the tasks must agree with. */
static int32_t run_alone(const problem *p)
{
    void *work = malloc(p->need);
    if (work == NULL)
        return SUBQUAD_E_SHORT;
    int32_t status =
        subquad_attention_forward(&p->rules, p->q, p->k, p->v, outputs_to(&p->alone), work, p->need, NULL);
    if (status == SUBQUAD_OK)
        status = subquad_attention_gradient(&p->rules, p->q, p->k, p->v, upstream_of(p, &p->alone),
                                            gradients_to(&p->alone), work, p->need, NULL);
    free(work);
    return status;
}

/* Inputs, scratch and the number of tasks for so many threads: several each, as the last rows of causal attention take
 * longest. */
static int32_t prepare(problem *p, size_t threads)
{
    const subquad_shape shape = {BATCH, HEADS, KV_HEADS, QUERIES, QUERIES, DIM, DIM};
    const size_t n = rows * DIM, kv = kv_rows * DIM, inputs = 2 * n + 2 * kv;
    uint32_t state = 1;
    float *x = malloc((inputs + 2 * results_size()) * sizeof *x);
    if (x == NULL)
        return SUBQUAD_E_SHORT;
    p->memory = x;
    for (size_t i = 0; i < inputs; i++) {
        state = state * 1664525u + 1013904223u;
        x[i] = (float)(state >> 8) / 8388608.0f - 1.0f;
    }
    p->tasks = results_at(x + inputs);
    p->alone = results_at(x + inputs + results_size());
    memset(p->tasks.out, 0xff, results_size() * sizeof *x); /* NaN */
    memset(&p->rules, 0, sizeof p->rules);
    p->rules.causal = 1;
    p->q = packed(x);
    p->d_out = packed(x + n);
    p->k = in_heads(x + 2 * n, KV_HEADS, DIM);
    p->v = in_heads(x + 2 * n + kv, KV_HEADS, DIM);
    size_t forward = 0, back = 0;
    int32_t status = subquad_attention_forward_need(&p->rules, shape, 0, &forward);
    if (status == SUBQUAD_OK)
        status = subquad_attention_gradient_need(&p->rules, shape, &back);
    p->need = forward > back ? forward : back;
    if (status == SUBQUAD_OK)
        status = subquad_attention_tasks(&p->rules, shape, outputs_to(&p->tasks), 4 * threads, &p->count[FORWARD]);
    if (status == SUBQUAD_OK)
        status = subquad_attention_gradient_tasks(&p->rules, shape, gradients_to(&p->tasks), 4 * threads, &p->count[BACK]);
    return status == SUBQUAD_OK ? run_alone(p) : status;
}

static int same_bits(const problem *p)
{
    return memcmp(p->tasks.out, p->alone.out, results_size() * sizeof *p->memory) == 0;
}

#endif
