/* Decoding from a cache: keys turned by their positions and kept as int8, values as halves, in pages of a pool that a second
 * sequence shares; a window of the last tokens besides the first four. Saved, loaded into one piece of memory, and the same
 * bits again. The answer is held to its bound, which is about the numbers before they were rounded, in double.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "subquad.h"

enum { HEADS = 2, DIM = 24, VALUE_DIM = 17, CAPACITY = 96, KEPT = 4, TOKENS = 250, BLOCK = 16, PAGES = 12 };

/* The pool: every page has BLOCK rows of every head. */
static int8_t keys[PAGES * HEADS * BLOCK * DIM];
static float key_scales[PAGES * HEADS * BLOCK];
static uint16_t values[PAGES * HEADS * BLOCK * VALUE_DIM];
/* For one key while it is turned, whichever cache it goes to. */
static float room[2 * DIM];

static int8_t keys_again[HEADS * CAPACITY * DIM];
static float key_scales_again[HEADS * CAPACITY];
static uint16_t values_again[HEADS * CAPACITY * VALUE_DIM];

/* What is appended, token by token. */
static float k[TOKENS][HEADS][DIM], v[TOKENS][HEADS][VALUE_DIM], q[HEADS][DIM], turned[HEADS][DIM];
static unsigned char work[1 << 16], saved[1 << 16];

/* Uniform in [-1, 1), the same on every machine. */
static void fill(float *x, size_t n, uint32_t seed)
{
    size_t i;
    for (i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(seed >> 8) * (1.0f / 8388608.0f) - 1.0f;
    }
}

static int32_t append(subquad_cache *cache, size_t token)
{
    const subquad_tensor tk = { k[token][0], 1, HEADS, 1, DIM, 0, DIM, DIM, 1 };
    const subquad_tensor tv = { v[token][0], 1, HEADS, 1, VALUE_DIM, 0, VALUE_DIM, VALUE_DIM, 1 };
    return subquad_cache_append(cache, tk, tv);
}

static int32_t attend(const subquad_cache *cache, float (*out)[VALUE_DIM], subquad_report *report)
{
    const subquad_tensor tq = { turned[0], 1, HEADS, 1, DIM, 0, DIM, DIM, 1 };
    subquad_outputs outputs = { 0 };
    size_t need = 0;
    int32_t status = subquad_cache_attend_need(cache, HEADS, 1, &need);
    if (status == SUBQUAD_OK && need > sizeof work)
        status = SUBQUAD_E_SHORT;
    if (status != SUBQUAD_OK)
        return status;
    outputs.out = (subquad_tensor_mut){ out[0], 1, HEADS, 1, VALUE_DIM, 0, VALUE_DIM, VALUE_DIM, 1 };
    return subquad_cache_attend(cache, NULL, tq, outputs, 1, work, need, report);
}

/* Whether the cache holds the token: the first ones, and the last. */
static int there(size_t token)
{
    return token < KEPT || token >= TOKENS - (CAPACITY - KEPT);
}

/* The product of a query and a key, both turned: it depends on how far they are apart. */
static double product(const float *x, const float *y, double distance)
{
    double sum = 0;
    size_t i;
    for (i = 0; i < DIM / 2; i++) {
        const double angle = distance * pow(10000, -2.0 * (double)i / (double)DIM);
        const double a = x[i], b = x[i + DIM / 2], c = y[i], d = y[i + DIM / 2];
        sum += (a * c + b * d) * cos(angle) + (a * d - b * c) * sin(angle);
    }
    return sum;
}

static double worst_error(float (*out)[VALUE_DIM])
{
    double worst = 0;
    size_t h, t, c;
    for (h = 0; h < HEADS; h++) {
        double sum = 0, mean[VALUE_DIM] = { 0 };
        for (t = 0; t < TOKENS; t++) {
            const double score = product(q[h], k[t][h], (double)(TOKENS - 1 - t));
            const double weight = there(t) ? exp(score / sqrt((double)DIM)) : 0;
            sum += weight;
            for (c = 0; c < VALUE_DIM; c++)
                mean[c] += weight * (double)v[t][h][c];
        }
        for (c = 0; c < VALUE_DIM; c++)
            worst = fmax(worst, fabs(mean[c] / sum - (double)out[h][c]));
    }
    return worst;
}

int main(void)
{
    /* Six pages each; the two sequences interleave in the pool. */
    static const uint32_t table[] = { 8, 0, 4, 2, 10, 6 }, other_table[] = { 1, 3, 5, 7, 9, 11 };
    static float out[HEADS][VALUE_DIM], again[HEADS][VALUE_DIM];
    const subquad_tensor_mut rows = { turned[0], 1, HEADS, 1, DIM, 0, DIM, DIM, 1 };
    subquad_cache cache = { 0 }, other, loaded;
    subquad_report report;
    size_t t, size = 0, length = 0;
    int32_t status = SUBQUAD_OK;
    double error;

    fill(k[0][0], TOKENS * HEADS * DIM, 1);
    fill(v[0][0], TOKENS * HEADS * VALUE_DIM, 2);
    fill(q[0], HEADS * DIM, 3);
    memcpy(turned, q, sizeof q);

    cache.heads = HEADS, cache.dim = DIM, cache.value_dim = VALUE_DIM, cache.capacity = CAPACITY, cache.kept = KEPT;
    cache.key_format = SUBQUAD_FORMAT_I8, cache.value_format = SUBQUAD_FORMAT_F16, cache.sliding = 1;
    cache.keys = keys, cache.key_scales = key_scales, cache.values = values;
    cache.rotary.base = 10000, cache.rotary_room = room;
    loaded = cache;
    cache.table = table, cache.block = BLOCK, cache.pages = PAGES;
    other = cache;
    other.table = other_table;
    for (t = 0; t < TOKENS && status == SUBQUAD_OK; t++) {
        status = append(&cache, t);
        if (status == SUBQUAD_OK)
            status = append(&other, TOKENS - 1 - t);
    }
    /* The query stands where the last key does. */
    if (status == SUBQUAD_OK)
        status = subquad_rotary_apply(cache.rotary, rows, NULL, cache.next - 1);
    if (status == SUBQUAD_OK)
        status = attend(&cache, out, &report);
    if (status == SUBQUAD_OK)
        status = subquad_cache_length(&cache, &length);
    if (status == SUBQUAD_OK)
        status = subquad_cache_save_need(&cache, &size);
    if (status == SUBQUAD_OK)
        status = subquad_cache_save(&cache, saved, size);
    loaded.keys = keys_again, loaded.key_scales = key_scales_again, loaded.values = values_again;
    if (status == SUBQUAD_OK)
        status = subquad_cache_load(&loaded, saved, size);
    if (status == SUBQUAD_OK)
        status = attend(&loaded, again, NULL);
    if (status != SUBQUAD_OK) {
        fprintf(stderr, "cache: %s\n", subquad_status_message(status));
        return 1;
    }
    saved[size / 2] ^= 1;
    if (subquad_cache_load(&loaded, saved, size) != SUBQUAD_E_CORRUPT || memcmp(out, again, sizeof out) != 0)
        return 1;
    error = worst_error(out);
    printf("%zu of %d tokens, %zu bytes saved, error %.1e of at most %.1e\n", length, TOKENS, size, error,
           (double)report.bound);
    return length == CAPACITY && error <= (double)report.bound && report.bound < 1 ? 0 : 1;
}
