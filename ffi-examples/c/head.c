/* One head in static memory, as firmware would have it: scratch sized when it is compiled, a causal mask over a cache,
 * and the same bits as from the whole operator. */
#include <stdio.h>
#include <string.h>

#include "subquad.h"

enum { QUERIES = 5, KEYS = 300, DIM = 24, VALUE_DIM = 17 };

static float q[QUERIES * DIM], k[KEYS * DIM], v[KEYS * VALUE_DIM];
static float out[QUERIES * VALUE_DIM], again[QUERIES * VALUE_DIM];
static unsigned char work[SUBQUAD_ATTENTION_HEAD_NEED(KEYS, DIM, VALUE_DIM)];
static unsigned char room[1 << 20];

/* Uniform in [-1, 1), the same on every machine. */
static void fill(float *x, size_t n, uint32_t seed)
{
    size_t i;
    for (i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(seed >> 8) * (1.0f / 8388608.0f) - 1.0f;
    }
}

/* The macro says what the library says. */
static int needs_differ(void)
{
    size_t keys, dim, value_dim;
    for (keys = 0; keys < 700; keys += keys < 300 ? 1 : 97)
        for (dim = 0; dim < 200; dim += 1 + dim / 2)
            for (value_dim = 0; value_dim < 200; value_dim += 1 + value_dim / 3)
                if (SUBQUAD_ATTENTION_HEAD_NEED(keys, dim, value_dim) !=
                    subquad_attention_head_need(keys, dim, value_dim))
                    return 1;
    return 0;
}

int main(void)
{
    /* The queries are the last of the sequence. What is not named is zero: nothing special. */
    const subquad_head head = {
        .q = { q, QUERIES, DIM, DIM },
        .k = { k, KEYS, DIM, DIM },
        .v = { v, KEYS, VALUE_DIM, VALUE_DIM },
        .out = { out, QUERIES, VALUE_DIM, VALUE_DIM },
        .offset = KEYS - QUERIES,
        .causal = 1,
    };
    const subquad_tensor tq = { q, 1, 1, QUERIES, DIM, 0, 0, DIM, 1 };
    const subquad_tensor tk = { k, 1, 1, KEYS, DIM, 0, 0, DIM, 1 };
    const subquad_tensor tv = { v, 1, 1, KEYS, VALUE_DIM, 0, 0, VALUE_DIM, 1 };
    const subquad_outputs outputs = { .out = { again, 1, 1, QUERIES, VALUE_DIM, 0, 0, VALUE_DIM, 1 } };
    const subquad_attention rules = { .causal = 1, .offset = KEYS - QUERIES };
    subquad_report report;
    int32_t status;

    fill(q, QUERIES * DIM, 1);
    fill(k, KEYS * DIM, 2);
    fill(v, KEYS * VALUE_DIM, 3);
    if (needs_differ()) {
        puts("SUBQUAD_ATTENTION_HEAD_NEED differs from subquad_attention_head_need");
        return 1;
    }
    status = subquad_attention_head(&head, work, sizeof work, &report);
    if (status == SUBQUAD_OK)
        status = subquad_attention_forward(&rules, tq, tk, tv, outputs, room, sizeof room, NULL);
    if (status != SUBQUAD_OK) {
        printf("subquad: %s\n", subquad_status_message(status));
        return 1;
    }
    if (memcmp(out, again, sizeof out) != 0 || report.masked_rows + report.non_finite_rows != 0) {
        puts("the head differs from the operator");
        return 1;
    }
    printf("%u bytes of scratch, first number %.6f on %s\n", (unsigned)sizeof work, (double)out[0],
           subquad_isa_name(report.isa));
    return 0;
}
