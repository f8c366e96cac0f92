/*
 * subquad: attention and its kernels, without an allocator.
 *
 * Made from src/ffi by `SUBQUAD_BLESS=1 cargo test --features capi --test header`; do not edit.
 *
 * Everything here is a plain function over the caller's memory: no handle, no allocation, no thread, no global state.
 * Functions may be called from any number of threads, as long as no two calls write to the same memory. A call either
 * returns SUBQUAD_OK, or a negative SUBQUAD_E_... and has written nothing. Structs may be zero-initialised: a zero
 * means "nothing special" everywhere. Sizes and strides count elements, scratch counts bytes.
 *
 *     subquad_tensor q = { q_data, 1, 1, queries, dim, 0, 0, dim, 1 };
 *     subquad_tensor k = { k_data, 1, 1, keys, dim, 0, 0, dim, 1 };
 *     subquad_tensor v = { v_data, 1, 1, keys, value_dim, 0, 0, value_dim, 1 };
 *     subquad_shape shape = { 1, 1, 1, queries, keys, dim, value_dim };
 *     subquad_outputs outputs = { { out, 1, 1, queries, value_dim, 0, 0, value_dim, 1 } };
 *     size_t size;
 *     int32_t status = subquad_attention_forward_need(NULL, shape, 0, &size);
 *     if (status == SUBQUAD_OK && size <= sizeof work)
 *         status = subquad_attention_forward(NULL, q, k, v, outputs, work, sizeof work, NULL);
 */


#ifndef SUBQUAD_H
#define SUBQUAD_H

#include <stddef.h>
#include <stdint.h>

/*
 * Bytes of scratch that subquad_attention_head takes for these sizes and any number of queries: a constant expression,
 * for a static array. It equals subquad_attention_head_need wherever that fits a size_t.
 *
 * Define SUBQUAD_COMPACT for a library with feature `compact`. Without feature `simd` the library may need less.
 */
#define SUBQUAD_ATTENTION_HEAD_NEED(keys, dim, value_dim) \
    (((SUBQUAD_LANES * 4 * ((size_t)(dim) + (size_t)(value_dim) + 4 + \
    ((size_t)(keys) < SUBQUAD_KEY_RUN ? (size_t)(keys) : SUBQUAD_KEY_RUN)) + SUBQUAD_ALIGN - 1) / SUBQUAD_ALIGN + 1) \
    * SUBQUAD_ALIGN - 1)

/* What it is made of: queries in a block, keys in a run, alignment of the scratch. */
#if defined(SUBQUAD_COMPACT)
#define SUBQUAD_LANES 1
#elif defined(__x86_64__) || defined(_M_X64)
#define SUBQUAD_LANES 32
#elif defined(__aarch64__) || defined(_M_ARM64) || defined(__wasm__)
#define SUBQUAD_LANES 8
#else
#define SUBQUAD_LANES 4
#endif
#if UINTPTR_MAX > 0xffffffff
#define SUBQUAD_KEY_RUN 192
#else
#define SUBQUAD_KEY_RUN 32
#endif
#if defined(__x86_64__) || defined(_M_X64) || defined(__aarch64__) || defined(_M_ARM64)
#define SUBQUAD_ALIGN 64
#else
#define SUBQUAD_ALIGN 8
#endif

/**
 * Version of the library that this header belongs to.
 */
#define SUBQUAD_VERSION_MAJOR 0

/**
 * See SUBQUAD_VERSION_MAJOR.
 */
#define SUBQUAD_VERSION_MINOR 1

/**
 * See SUBQUAD_VERSION_MAJOR.
 */
#define SUBQUAD_VERSION_PATCH 0

/**
 * Number of the binary interface: structs, signatures, constants. Compare with subquad_abi_version().
 */
#define SUBQUAD_ABI_VERSION 1

/**
 * Success.
 */
#define SUBQUAD_OK 0

/**
 * A pointer is null where data is needed.
 */
#define SUBQUAD_E_NULL (-1)

/**
 * A typed pointer is not aligned for its element.
 */
#define SUBQUAD_E_MISALIGNED (-2)

/**
 * The scratch memory is shorter than the shape needs.
 */
#define SUBQUAD_E_SHORT (-3)

/**
 * Shapes do not fit each other, or a stride is not allowed.
 */
#define SUBQUAD_E_SHAPE (-4)

/**
 * A size product does not fit the address space.
 */
#define SUBQUAD_E_OVERFLOW (-5)

/**
 * An output overlaps itself, another output, an input or the scratch.
 */
#define SUBQUAD_E_OVERLAP (-6)

/**
 * A value is NaN or infinite where only finite values have a meaning.
 */
#define SUBQUAD_E_NON_FINITE (-7)

/**
 * A parameter has no meaning, for example a negative cap.
 */
#define SUBQUAD_E_PARAMETER (-8)

/**
 * An index or length lies outside its sequence.
 */
#define SUBQUAD_E_RANGE (-9)

/**
 * There is nothing to work on.
 */
#define SUBQUAD_E_EMPTY (-10)

/**
 * A fixed-size store has no room left.
 */
#define SUBQUAD_E_FULL (-11)

/**
 * A matrix is singular to working precision.
 */
#define SUBQUAD_E_SINGULAR (-12)

/**
 * An iteration used up its steps.
 */
#define SUBQUAD_E_NOT_CONVERGED (-13)

/**
 * The promised error bound is weaker than the tolerance that was asked for.
 */
#define SUBQUAD_E_BOUND_EXCEEDED (-14)

/**
 * Two states have different shapes, seeds or parameters and cannot be merged.
 */
#define SUBQUAD_E_MISMATCH (-15)

/**
 * Saved bytes are damaged or from another version.
 */
#define SUBQUAD_E_CORRUPT (-16)

/**
 * This build or machine does not offer what was asked for.
 */
#define SUBQUAD_E_UNSUPPORTED (-17)

/**
 * The best back end of this machine. Back ends that fuse multiply-add give one set of bits, those that do not
 * (SCALAR, WASM and every STRICT one) another, on every machine.
 */
#define SUBQUAD_ISA_BEST 0

/**
 * Portable lanes: everywhere.
 */
#define SUBQUAD_ISA_SCALAR 1

/**
 * x86-64, 256-bit vectors, fused.
 */
#define SUBQUAD_ISA_AVX2 2

/**
 * x86-64, 512-bit vectors, fused.
 */
#define SUBQUAD_ISA_AVX512 3

/**
 * x86-64, 256-bit vectors, not fused.
 */
#define SUBQUAD_ISA_AVX2_STRICT 4

/**
 * x86-64, 512-bit vectors, not fused.
 */
#define SUBQUAD_ISA_AVX512_STRICT 5

/**
 * AArch64, 128-bit vectors, fused.
 */
#define SUBQUAD_ISA_NEON 6

/**
 * AArch64, 128-bit vectors, not fused.
 */
#define SUBQUAD_ISA_NEON_STRICT 7

/**
 * WebAssembly, 128-bit vectors, not fused.
 */
#define SUBQUAD_ISA_WASM 8

/**
 * Numbers of a partial row before its value_dim output columns: max, sum, error of lse, error of the outputs.
 */
#define SUBQUAD_PARTIAL_HEAD 4

/**
 * scale * q.k, for every key.
 */
#define SUBQUAD_STAGE_RAW 0

/**
 * After the soft-cap, for every key.
 */
#define SUBQUAD_STAGE_CAPPED 1

/**
 * After bias and masks; minus infinity where hidden.
 */
#define SUBQUAD_STAGE_BIASED 2

/**
 * The probabilities; zeros where hidden.
 */
#define SUBQUAD_STAGE_SOFTMAX 3

/**
 * Column i is turned with column i + rotary_dim / 2.
 */
#define SUBQUAD_PAIRING_HALVES 0

/**
 * Column 2 i is turned with column 2 i + 1.
 */
#define SUBQUAD_PAIRING_NEIGHBOURS 1

/**
 * Numbers as they are.
 */
#define SUBQUAD_FORMAT_F32 0

/**
 * IEEE half precision, as uint16_t.
 */
#define SUBQUAD_FORMAT_F16 1

/**
 * The upper half of a float, as uint16_t.
 */
#define SUBQUAD_FORMAT_BF16 2

/**
 * int8_t times a float per row.
 */
#define SUBQUAD_FORMAT_I8 3

/**
 * A boolean mask: batch x heads x rows x cols bytes, laid out as subquad_tensor; 0 hides the key.
 */
typedef struct subquad_mask {
    /**
     * Element (0, 0, 0, 0).
     */
    const uint8_t *data;
    /**
     * Problems, or 1 for all.
     */
    size_t batch;
    /**
     * Query heads, or 1 for all.
     */
    size_t heads;
    /**
     * Queries, or 1 for all.
     */
    size_t rows;
    /**
     * Keys, or fewer: those that the mask does not have are hidden.
     */
    size_t cols;
    /**
     * Elements from one problem to the next.
     */
    size_t batch_stride;
    /**
     * Elements from one matrix to the next.
     */
    size_t head_stride;
    /**
     * Elements from one row to the next.
     */
    size_t row_stride;
    /**
     * Elements from one column to the next: 1.
     */
    size_t col_stride;
} subquad_mask;

/**
 * Matrices of floats to read: batch x heads x rows x cols.
 *
 * Element (b, h, r, c) is data[b * batch_stride + h * head_stride + r * row_stride + c]. Strides count elements, not
 * bytes; 0 repeats. `col_stride` must be 1. One matrix is { data, 1, 1, rows, cols, 0, 0, cols, 1 }; heads packed side
 * by side in rows of heads * cols are { data, batch, heads, rows, cols, rows * heads * cols, cols, heads * cols, 1 }.
 * `data` must be aligned for float and may be null where there are no elements (or where a field is optional).
 */
typedef struct subquad_tensor {
    /**
     * Element (0, 0, 0, 0).
     */
    const float *data;
    /**
     * Independent problems.
     */
    size_t batch;
    /**
     * Matrices per problem.
     */
    size_t heads;
    /**
     * Rows of each matrix.
     */
    size_t rows;
    /**
     * Columns of each matrix.
     */
    size_t cols;
    /**
     * Elements from one problem to the next.
     */
    size_t batch_stride;
    /**
     * Elements from one matrix to the next.
     */
    size_t head_stride;
    /**
     * Elements from one row to the next.
     */
    size_t row_stride;
    /**
     * Elements from one column to the next: 1.
     */
    size_t col_stride;
} subquad_tensor;

/**
 * How scores are formed and which keys a query sees. All zero: scale 1 / sqrt(dim), every query sees every key.
 *
 * score = scale * q.k, then the soft-cap, then bias and slopes, then every mask; a key takes part if all masks let it.
 * Query i stands at position offset + i among the keys.
 */
typedef struct subquad_attention {
    /**
     * Scores are scale * q.k; 0 means 1 / sqrt(dim). Finite and not negative, or SUBQUAD_E_PARAMETER.
     */
    float scale;
    /**
     * Scores become cap * tanh(score / cap); 0 means no cap. Finite and not negative, or SUBQUAD_E_PARAMETER.
     */
    float cap;
    /**
     * Not 0: a query sees no key beyond its position.
     */
    int32_t causal;
    /**
     * Not 0: the last query stands at the last valid key, and `offset` is not read.
     */
    int32_t offset_to_end;
    /**
     * Keys that lie before query 0; may be negative.
     */
    int64_t offset;
    /**
     * Not 0: a query sees at most `left` keys before its position. 0: `left` is not read, no limit.
     */
    int32_t has_left;
    /**
     * Not 0: a query sees at most `right` keys beyond its position. 0: `right` is not read, no limit.
     */
    int32_t has_right;
    /**
     * Window to the left, in keys.
     */
    size_t left;
    /**
     * Window to the right, in keys.
     */
    size_t right;
    /**
     * The first `sinks` keys are seen whatever the left window says.
     */
    size_t sinks;
    /**
     * One learned logit per query head that takes part in the softmax with value 0; finite. Of calls whose partials are
     * merged, only one must have it. Null: none.
     */
    const float *sink_logits;
    /**
     * ALiBi, one slope per query head: adds -slope * |position - key|; finite. Null: none.
     */
    const float *slopes;
    /**
     * Boolean mask; null data: none.
     */
    struct subquad_mask mask;
    /**
     * Added to the scores after the cap, minus infinity hides; sizes of 1 and short columns as for the mask. Null
     * data: none.
     */
    struct subquad_tensor bias;
    /**
     * Valid keys of each problem, at most keys (SUBQUAD_E_RANGE); those beyond are padding. Null: all.
     */
    const size_t *key_lengths;
    /**
     * Ragged sequences in one call: segment s is queries query_starts[s] to query_starts[s + 1] and keys key_starts[s]
     * to key_starts[s + 1]. Queries see the keys of their segment, and positions count from its start.
     * `segments` + 1 numbers, from 0 to queries, not decreasing (SUBQUAD_E_RANGE).
     */
    const size_t *query_starts;
    /**
     * `segments` + 1 numbers, from 0 to at most keys, not decreasing (SUBQUAD_E_RANGE).
     */
    const size_t *key_starts;
    /**
     * Segments; 0: one sequence, and both arrays must be null (SUBQUAD_E_SHAPE).
     */
    size_t segments;
    /**
     * Keys that are scored before their values are read; 0: the built-in choice. It changes speed and scratch, no bit
     * of the result.
     */
    size_t key_run;
    /**
     * Back end, SUBQUAD_ISA_...; 0: the best of this machine. One that is not there: SUBQUAD_E_UNSUPPORTED.
     */
    int32_t isa;
} subquad_attention;

/**
 * Matrices of floats to write; as subquad_tensor, but no two entries may share an element (SUBQUAD_E_OVERLAP).
 *
 * What lies between the rows is not touched, yet belongs to the call: two calls at the same time must not have outputs
 * whose address ranges interleave. Split the work by batch, or by rows with all heads together.
 */
typedef struct subquad_tensor_mut {
    /**
     * Element (0, 0, 0, 0).
     */
    float *data;
    /**
     * Independent problems.
     */
    size_t batch;
    /**
     * Matrices per problem.
     */
    size_t heads;
    /**
     * Rows of each matrix.
     */
    size_t rows;
    /**
     * Columns of each matrix.
     */
    size_t cols;
    /**
     * Elements from one problem to the next.
     */
    size_t batch_stride;
    /**
     * Elements from one matrix to the next.
     */
    size_t head_stride;
    /**
     * Elements from one row to the next.
     */
    size_t row_stride;
    /**
     * Elements from one column to the next: 1.
     */
    size_t col_stride;
} subquad_tensor_mut;

/**
 * Where results go. Null data: not wanted; at least one is, or SUBQUAD_E_NULL.
 *
 * The first three sizes of each are (batch, query_heads, queries). Address ranges of outputs must not overlap each
 * other, any input or the scratch: SUBQUAD_E_OVERLAP.
 */
typedef struct subquad_outputs {
    /**
     * The attention output, value_dim columns. A query that sees no key gives zeros.
     */
    struct subquad_tensor_mut out;
    /**
     * Natural log of the sum of the exponentiated scores, 1 column; minus infinity where no key is seen.
     */
    struct subquad_tensor_mut lse;
    /**
     * Unfinished rows for subquad_partial_merge, SUBQUAD_PARTIAL_HEAD + value_dim columns.
     */
    struct subquad_tensor_mut partials;
    /**
     * Scores of one stage, keys columns.
     */
    struct subquad_tensor_mut scores;
    /**
     * Which scores: SUBQUAD_STAGE_...; not read if none are wanted. Unknown: SUBQUAD_E_PARAMETER.
     */
    int32_t scores_stage;
} subquad_outputs;

/**
 * What happened in a call that succeeded. Not written by one that failed.
 */
typedef struct subquad_report {
    /**
     * The back end that ran, SUBQUAD_ISA_...
     */
    int32_t isa;
    /**
     * Rows that saw no key.
     */
    size_t masked_rows;
    /**
     * Rows with a non-finite score (before a soft-cap, too) or value among the keys they saw; they are NaN (one bit
     * pattern), other rows are not touched by it.
     */
    size_t non_finite_rows;
    /**
     * Rows of a gradient whose log-sum-exp is so far from 0 (beyond 2^14) that its rounding alone may move their
     * probabilities by more than 2^-8 of themselves. Save partials for the way back instead: see subquad_upstream.
     */
    size_t imprecise_rows;
    /**
     * Blocks of queries that were run a second time because their scores spread over more than 100 powers of two.
     */
    size_t repeated_blocks;
    /**
     * Largest absolute error of any output entry; infinity where no promise was asked for, as with every function but the
     * ..._with_bound ones.
     */
    float bound;
    /**
     * Probability that the bound does not hold; 0 for exact attention.
     */
    float bound_failure;
} subquad_report;

/**
 * Sizes of an attention call. Query head h reads key and value head h / (query_heads / kv_heads).
 */
typedef struct subquad_shape {
    /**
     * Independent problems.
     */
    size_t batch;
    /**
     * Heads of queries and outputs: a multiple of kv_heads.
     */
    size_t query_heads;
    /**
     * Heads of keys and values.
     */
    size_t kv_heads;
    /**
     * Rows of each query matrix.
     */
    size_t queries;
    /**
     * Rows of each key and value matrix.
     */
    size_t keys;
    /**
     * Columns of queries and keys.
     */
    size_t dim;
    /**
     * Columns of values and outputs.
     */
    size_t value_dim;
} subquad_shape;

/**
 * Where gradients go. Null: not wanted; at least one is, or SUBQUAD_E_NULL.
 *
 * Each has the shape of what it is the gradient of. Address ranges must not overlap each other, any input or the scratch:
 * SUBQUAD_E_OVERLAP.
 */
typedef struct subquad_gradients {
    /**
     * Of the queries.
     */
    struct subquad_tensor_mut q;
    /**
     * Of the keys, summed over the query heads that share them.
     */
    struct subquad_tensor_mut k;
    /**
     * Of the values, likewise.
     */
    struct subquad_tensor_mut v;
    /**
     * Of the rules' bias, summed along its axes of 1.
     */
    struct subquad_tensor_mut bias;
    /**
     * Of the rules' sink logits, one per query head.
     */
    float *sink_logits;
} subquad_gradients;

/**
 * What a forward call gave, and what comes back for it. The first three sizes of each are (batch, query_heads, queries).
 */
typedef struct subquad_upstream {
    /**
     * The attention output, value_dim columns.
     */
    struct subquad_tensor out;
    /**
     * Its gradient, value_dim columns.
     */
    struct subquad_tensor d_out;
    /**
     * Log-sum-exp, 1 column; not read where there are partials. Its rounding grows with its size and goes into every
     * probability: see imprecise_rows of the report.
     */
    struct subquad_tensor lse;
    /**
     * The gradient of the log-sum-exp, 1 column. Null data: nothing depends on it.
     */
    struct subquad_tensor d_lse;
    /**
     * Partials, SUBQUAD_PARTIAL_HEAD + value_dim columns, of which the first two are read: exact however far from 0 scores
     * are. Without sink logits their columns from SUBQUAD_PARTIAL_HEAD on are the output, so that `out` may lie in them.
     * Null data: lse is used.
     */
    struct subquad_tensor partials;
} subquad_upstream;

/**
 * How rows are turned: pair i of the first rotary_dim columns by position / position_scale * base^(-2 i / rotary_dim)
 * radians, (x, y) into (x cos - y sin, x sin + y cos). The columns behind stay as they are. All zero: not at all.
 *
 * A row has the same bits on every machine, and is off by at most 4.5 * 2^-24 + position * rotary_dim * 2^-60 of the
 * Euclidean norm of its first rotary_dim columns.
 */
typedef struct subquad_rotary {
    /**
     * Columns that are turned: even, at most those of a row; 0: all of them. Otherwise SUBQUAD_E_SHAPE.
     */
    size_t rotary_dim;
    /**
     * Finite and above 1, or SUBQUAD_E_PARAMETER; 10000 as a rule. 0: rows are not turned.
     */
    float base;
    /**
     * Positions are divided by it. Finite and not below 1, or SUBQUAD_E_PARAMETER; 0 means 1.
     */
    float position_scale;
    /**
     * SUBQUAD_PAIRING_...; unknown: SUBQUAD_E_PARAMETER.
     */
    int32_t pairing;
    /**
     * Back end, SUBQUAD_ISA_...; 0: the best of this machine. One that is not there: SUBQUAD_E_UNSUPPORTED.
     */
    int32_t isa;
} subquad_rotary;

/**
 * A sequence's keys and values in the caller's memory, appended one after the other: sizes, memory, and how far it has
 * come. Plain data: begin with zeros and set the first two parts; copy it where you like; nothing has to be freed.
 *
 * Memory is a ring of `capacity` rows per head, of which the first `kept` keys never go. Without a table the rows of a head
 * lie next to each other, heads one after the other. With one, row r of head h lies in page table[r / block], row
 * (page * heads + h) * block + r % block of all rows, so that many caches share one pool of pages.
 *
 * No two calls may use a cache, or its memory, at the same time.
 */
typedef struct subquad_cache {
    /**
     * Heads of keys and values; not 0.
     */
    size_t heads;
    /**
     * Columns of keys.
     */
    size_t dim;
    /**
     * Columns of values; not 0 if `dim` is.
     */
    size_t value_dim;
    /**
     * Keys of each head that there is room for.
     */
    size_t capacity;
    /**
     * The first keys that stay; at most `capacity`.
     */
    size_t kept;
    /**
     * SUBQUAD_FORMAT_... of the keys.
     */
    int32_t key_format;
    /**
     * SUBQUAD_FORMAT_... of the values.
     */
    int32_t value_format;
    /**
     * Not 0: when there is no room the oldest key goes, but for the kept ones.
     */
    int32_t sliding;
    /**
     * heads * capacity rows of `dim` numbers, or as many as `pages` pages have.
     */
    void *keys;
    /**
     * A scale per row if the keys are integers; otherwise not read.
     */
    float *key_scales;
    /**
     * As many rows of `value_dim` numbers.
     */
    void *values;
    /**
     * A scale per row if the values are integers; otherwise not read.
     */
    float *value_scales;
    /**
     * Pages of the ring: capacity / block numbers, rounded up, below `pages`, each different. Null: one piece.
     */
    const uint32_t *table;
    /**
     * Rows of a head in a page; not 0 if there is a table.
     */
    size_t block;
    /**
     * Pages in memory.
     */
    size_t pages;
    /**
     * Turns each key by its position when it is appended. Queries are compared with it as they are: turn them first, with
     * subquad_rotary_apply; the position of the key that was appended last is next - 1. All zero: keys stay as they are.
     */
    struct subquad_rotary rotary;
    /**
     * Room for a turned key and its angles, dim + rotary_dim floats that mean nothing between calls; not read if the base is
     * 0.
     */
    float *rotary_room;
    /**
     * Written by the library: keys appended since the beginning, the position of the next.
     */
    uint64_t next;
    /**
     * Written by the library: position of the oldest key that may go.
     */
    uint64_t first;
    /**
     * Written by the library: the capacity so far. Until a row is written for a second time `capacity` may be another, with a
     * table of another length; without a table only of one head, or before anything is appended. SUBQUAD_E_MISMATCH
     * otherwise.
     */
    size_t turned;
    /**
     * Written by the library: the largest Euclidean distance of a stored key from what was appended, turned in
     * real numbers.
     */
    float key_loss;
    /**
     * Written by the library: the largest difference of a number of a stored value from what was appended.
     */
    float value_loss;
} subquad_cache;

/**
 * A matrix of floats to read: element (r, c) is data[r * stride + c].
 *
 * The stride counts elements; 0 repeats one row. `data` must be aligned for float and may be null where there are no
 * elements.
 */
typedef struct subquad_matrix {
    /**
     * Element (0, 0).
     */
    const float *data;
    /**
     * Number of rows.
     */
    size_t rows;
    /**
     * Number of columns.
     */
    size_t cols;
    /**
     * Elements from one row to the next.
     */
    size_t stride;
} subquad_matrix;

/**
 * A matrix of floats to write; as subquad_matrix, but rows may not overlap (SUBQUAD_E_OVERLAP).
 */
typedef struct subquad_matrix_mut {
    /**
     * Element (0, 0).
     */
    float *data;
    /**
     * Number of rows.
     */
    size_t rows;
    /**
     * Number of columns.
     */
    size_t cols;
    /**
     * Elements from one row to the next.
     */
    size_t stride;
} subquad_matrix_mut;

/**
 * One head: out = softmax(scale q k^T) v. May lie in flash.
 *
 * q is queries x dim, k is keys x dim, v is keys x value_dim, out is queries x value_dim.
 */
typedef struct subquad_head {
    /**
     * Queries.
     */
    struct subquad_matrix q;
    /**
     * Keys.
     */
    struct subquad_matrix k;
    /**
     * Values.
     */
    struct subquad_matrix v;
    /**
     * Where the result goes.
     */
    struct subquad_matrix_mut out;
    /**
     * Query i sees no key beyond number `offset` + i; may be negative. Not read unless `causal` is set.
     */
    int64_t offset;
    /**
     * Not 0: `offset` limits what a query sees.
     */
    int32_t causal;
    /**
     * Scores are scale * q.k; 0 means 1 / sqrt(dim). Finite and not negative, or SUBQUAD_E_PARAMETER.
     */
    float scale;
    /**
     * Back end, SUBQUAD_ISA_...; 0: the best of this machine. One that is not there: SUBQUAD_E_UNSUPPORTED.
     */
    int32_t isa;
} subquad_head;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * One line of English for a status, without a newline; "unknown status" for a number that is none. Never null; the
 * memory is the library's and stays.
 */
const char *subquad_status_message(int32_t status);

/**
 * Version of the library that is linked, as "major.minor.patch".
 */
const char *subquad_version(void);

/**
 * Number of the binary interface that is linked: must equal SUBQUAD_ABI_VERSION of the header.
 */
int32_t subquad_abi_version(void);

/**
 * The back end that runs where a call names none, SUBQUAD_ISA_...
 */
int32_t subquad_isa_best(void);

/**
 * Name of a back end, whether this machine has it or not; "unknown" for a number that is none. Never null.
 */
const char *subquad_isa_name(int32_t isa);

/**
 * Exact attention: out = softmax(scores) v, for all problems and heads.
 *
 * q is batch x query_heads x queries x dim, k is batch x kv_heads x keys x dim, v is batch x kv_heads x keys x value_dim.
 * Rows are independent: the same bits however the queries are split among calls or threads, and on every machine of an
 * arithmetic class. Values are never refused: see non_finite_rows of the report. No queries, heads or problems: success,
 * nothing written. No keys: every row is one that sees no key.
 *
 * `rules` may be null (no rules), `report` too (not wanted). `work` is `work_size` bytes of scratch at any address, as
 * many as subquad_attention_forward_need says; its contents do not matter, before or after.
 *
 * Cost: 2 (dim + value_dim) flops and one exponential per query and key. No allocation, no thread, no lock.
 *
 * Returns SUBQUAD_OK, or, with nothing written:
 *
 * - SUBQUAD_E_NULL: q, k or v is null where there is something to read, every output is null where there is something
 *   to write, work is null and work_size is not 0, or there are segments without their arrays;
 * - SUBQUAD_E_MISALIGNED: a pointer is not aligned for its type;
 * - SUBQUAD_E_SHORT: work_size is less than the need;
 * - SUBQUAD_E_SHAPE: sizes do not fit each other, query_heads is no multiple of kv_heads, a mask or bias has sizes
 *   other than 1 and those of the call or more columns than keys, a col_stride is not 1, starts without segments;
 * - SUBQUAD_E_OVERFLOW: a size does not fit the address space;
 * - SUBQUAD_E_OVERLAP: an output, the report or the scratch shares addresses with itself, another of them or an input;
 * - SUBQUAD_E_PARAMETER: scale or cap is negative, NaN or infinite, a slope or sink logit is not finite, a stage is
 *   unknown;
 * - SUBQUAD_E_RANGE: key_lengths, query_starts or key_starts leave their sequence;
 * - SUBQUAD_E_UNSUPPORTED: this machine has no such isa.
 *
 * Where several apply it is one of them.
 *
 * # Safety
 * Every pointer reaches as far as the sizes beside it say, and nobody else writes there during the call.
 */
int32_t subquad_attention_forward(const struct subquad_attention *rules,
                                  struct subquad_tensor q,
                                  struct subquad_tensor k,
                                  struct subquad_tensor v,
                                  struct subquad_outputs outputs,
                                  void *work,
                                  size_t work_size,
                                  struct subquad_report *report);

/**
 * Bytes of scratch that subquad_attention_forward takes for these rules and this shape, written to `bytes`.
 *
 * With `want_scores` not 0: for a call that writes scores. The number is exact for the back end that `rules` force, or
 * the best one of this machine, and stops growing beyond some hundred queries or keys. Rules and their arrays are checked
 * as in the call, with its errors; a size beyond the address space is SUBQUAD_E_OVERFLOW, a null `bytes`
 * SUBQUAD_E_NULL.
 *
 * # Safety
 * Every pointer in the rules reaches as far as the shape says, and `bytes` points to a size_t.
 */
int32_t subquad_attention_forward_need(const struct subquad_attention *rules,
                                       struct subquad_shape shape,
                                       int32_t want_scores,
                                       size_t *bytes);

/**
 * Exact attention for few queries against many keys: as subquad_attention_forward, with the same arguments, outputs and
 * errors, and an order of operations, hence last bits, of its own.
 *
 * It pays while queries times query_heads / kv_heads are at most 8 or so; its cost is reading the keys and values once.
 * `key_run` is not used. `work` is scratch as subquad_attention_decode_need says.
 *
 * # Safety
 * As for subquad_attention_forward.
 */
int32_t subquad_attention_decode(const struct subquad_attention *rules,
                                 struct subquad_tensor q,
                                 struct subquad_tensor k,
                                 struct subquad_tensor v,
                                 struct subquad_outputs outputs,
                                 void *work,
                                 size_t work_size,
                                 struct subquad_report *report);

/**
 * Bytes of scratch that subquad_attention_decode takes for these rules and this shape, written to `bytes`.
 *
 * Errors as for subquad_attention_forward_need.
 *
 * # Safety
 * Every pointer in the rules reaches as far as the shape says, and `bytes` points to a size_t.
 */
int32_t subquad_attention_decode_need(const struct subquad_attention *rules,
                                      struct subquad_shape shape,
                                      size_t *bytes);

/**
 * Takes the partial row `from` into the partial row `into`: the result of both sets of keys, which must be disjoint.
 *
 * A partial is SUBQUAD_PARTIAL_HEAD + value_dim floats, as subquad_attention_forward writes them. `range` bounds, per
 * column, how far any two values of all those keys are apart; infinity if unknown. It is used for the error bounds only.
 *
 * Returns SUBQUAD_OK, or with nothing written SUBQUAD_E_NULL, SUBQUAD_E_MISALIGNED, SUBQUAD_E_OVERFLOW,
 * SUBQUAD_E_OVERLAP (of the two rows), SUBQUAD_E_PARAMETER (range is negative or NaN).
 *
 * # Safety
 * Both pointers reach over a partial, and nobody else uses that of `into`.
 */
int32_t subquad_partial_merge(float *into,
                              const float *from,
                              size_t value_dim,
                              float range);

/**
 * Natural log of the sum of the exponentiated scores of a partial row; minus infinity where no key was seen.
 *
 * Returns SUBQUAD_OK, or with nothing written SUBQUAD_E_NULL, SUBQUAD_E_MISALIGNED, SUBQUAD_E_OVERLAP.
 *
 * # Safety
 * `partial` points to at least SUBQUAD_PARTIAL_HEAD floats, `lse` to one.
 */
int32_t subquad_partial_lse(const float *partial, float *lse);

/**
 * As subquad_attention_forward, with the same arguments, outputs, scratch, errors and bits, and with a promise about
 * rounding.
 *
 * No entry of `out` is off from real arithmetic by more than the report's `bound`, for every input that is finite; its
 * bound_failure is 0. Partials carry their own: numbers 2 and 3 bound the errors of the log of sum * 2^max and of the
 * outputs, and subquad_partial_merge keeps them true. The bound is infinity where a number that is not hidden by
 * key_lengths is not finite, or where scores or sums may overflow. Nothing is assumed about how roundings fall, so
 * typical errors are hundreds of times smaller.
 *
 * Cost: one more pass over q, k and v, and over all pairs where a bias or slopes are added. No scratch.
 *
 * # Safety
 * As for subquad_attention_forward.
 */
int32_t subquad_attention_forward_with_bound(const struct subquad_attention *rules,
                                             struct subquad_tensor q,
                                             struct subquad_tensor k,
                                             struct subquad_tensor v,
                                             struct subquad_outputs outputs,
                                             void *work,
                                             size_t work_size,
                                             struct subquad_report *report);

/**
 * As subquad_attention_run_task, with the promise of subquad_attention_forward_with_bound: that of the whole call, for
 * which every task looks at all of the input.
 *
 * # Safety
 * As for subquad_attention_run_task.
 */
int32_t subquad_attention_run_task_with_bound(size_t index,
                                              size_t count,
                                              const struct subquad_attention *rules,
                                              struct subquad_tensor q,
                                              struct subquad_tensor k,
                                              struct subquad_tensor v,
                                              struct subquad_outputs outputs,
                                              void *work,
                                              size_t work_size,
                                              struct subquad_report *report);

/**
 * As subquad_attention_decode, with the promise of subquad_attention_forward_with_bound. Scores and sums of weights meet
 * a sixteenth of the roundings, so the bound is another one.
 *
 * # Safety
 * As for subquad_attention_forward.
 */
int32_t subquad_attention_decode_with_bound(const struct subquad_attention *rules,
                                            struct subquad_tensor q,
                                            struct subquad_tensor k,
                                            struct subquad_tensor v,
                                            struct subquad_outputs outputs,
                                            void *work,
                                            size_t work_size,
                                            struct subquad_report *report);

/**
 * Into how many tasks subquad_attention_forward can be split where `wanted` are, written to `count`: at least one, at
 * most `wanted`.
 *
 * Tasks write to memory of their own, one behind the other: heads and then row blocks of a head in the 4-D layout, row
 * blocks of all heads in packed layouts. There are fewer where the layouts of the outputs have no such cuts in common,
 * and where there are fewer rows. Of `outputs` only sizes, strides and which are null are looked at. Several tasks per
 * thread make up for those that take longer, as the last rows of causal attention do.
 *
 * Errors as for subquad_attention_forward_need, and with nothing written: SUBQUAD_E_NULL (`count`, or every output where
 * there is something to write), SUBQUAD_E_SHAPE and SUBQUAD_E_OVERLAP (of an output, with the shape and with itself),
 * SUBQUAD_E_PARAMETER (`wanted` is 0).
 *
 * # Safety
 * Every pointer in the rules reaches as far as the shape says, and `count` points to a size_t.
 */
int32_t subquad_attention_tasks(const struct subquad_attention *rules,
                                struct subquad_shape shape,
                                struct subquad_outputs outputs,
                                size_t wanted,
                                size_t *count);

/**
 * Task `index` of `count` of subquad_attention_forward with these arguments: when all have run, in any order and on any
 * threads, the outputs hold the bits that one call gives.
 *
 * `count` is any number but 0, the same for all tasks; beyond what subquad_attention_tasks says, tasks have nothing to
 * do. Each task takes scratch of its own, of subquad_attention_forward_need bytes, and may be given a report of its own.
 * masked_rows and non_finite_rows of the reports add up to those of the call; repeated_blocks too, unless heads of one
 * group are in different tasks.
 *
 * Every task checks all arguments as subquad_attention_forward does, with its errors; they are the same for all tasks,
 * as long as the scratch is. In addition SUBQUAD_E_PARAMETER if `count` is 0, and SUBQUAD_E_RANGE if `index` is not less.
 *
 * # Safety
 * Every pointer reaches as far as the sizes beside it say, and nobody else writes there during the call, but for other
 * tasks of the same split, to the outputs.
 */
int32_t subquad_attention_run_task(size_t index,
                                   size_t count,
                                   const struct subquad_attention *rules,
                                   struct subquad_tensor q,
                                   struct subquad_tensor k,
                                   struct subquad_tensor v,
                                   struct subquad_outputs outputs,
                                   void *work,
                                   size_t work_size,
                                   struct subquad_report *report);

/**
 * As subquad_attention_tasks, for subquad_attention_decode: into how many tasks it can be split.
 *
 * Keys are not split, nor the query heads that share them, so that each is read once: tasks are problems, key heads and
 * blocks of queries.
 *
 * # Safety
 * As for subquad_attention_tasks.
 */
int32_t subquad_attention_decode_tasks(const struct subquad_attention *rules,
                                       struct subquad_shape shape,
                                       struct subquad_outputs outputs,
                                       size_t wanted,
                                       size_t *count);

/**
 * As subquad_attention_run_task, for subquad_attention_decode: task `index` of `count`, with scratch of
 * subquad_attention_decode_need bytes.
 *
 * # Safety
 * As for subquad_attention_run_task.
 */
int32_t subquad_attention_decode_run_task(size_t index,
                                          size_t count,
                                          const struct subquad_attention *rules,
                                          struct subquad_tensor q,
                                          struct subquad_tensor k,
                                          struct subquad_tensor v,
                                          struct subquad_outputs outputs,
                                          void *work,
                                          size_t work_size,
                                          struct subquad_report *report);

/**
 * Into how many tasks subquad_attention_gradient can be split where `wanted` are, written to `count`: at least one, at
 * most `wanted`.
 *
 * A task is some problems, or some key heads of one, with all their queries and keys. Those that add to the same number
 * of the bias's gradient are never in different tasks: a bias of one problem for all leaves problems together, one of one
 * head leaves heads together. (Gradients of sink logits are all in the first task.) Nor is anything cut that does not lie
 * apart in memory: heads that are packed side by side in rows stay together, and where problems do, so do heads inside of
 * them. Of `gradients` only sizes, strides and which are null are looked at.
 *
 * Errors as for subquad_attention_gradient_need, and with nothing written: SUBQUAD_E_NULL (`count`, or every gradient where
 * there is something to write), SUBQUAD_E_SHAPE and SUBQUAD_E_OVERLAP (of a gradient, with the shape and with itself),
 * SUBQUAD_E_PARAMETER (`wanted` is 0).
 *
 * # Safety
 * Every pointer in the rules reaches as far as the shape says, and `count` points to a size_t.
 */
int32_t subquad_attention_gradient_tasks(const struct subquad_attention *rules,
                                         struct subquad_shape shape,
                                         struct subquad_gradients gradients,
                                         size_t wanted,
                                         size_t *count);

/**
 * Task `index` of `count` of subquad_attention_gradient with these arguments: when all have run, in any order and on any
 * threads, the gradients hold the bits that one call gives.
 *
 * `count`, scratch (of subquad_attention_gradient_need bytes for each task), reports and errors are as for
 * subquad_attention_run_task.
 *
 * # Safety
 * Every pointer reaches as far as the sizes beside it say, and nobody else writes there during the call, but for other
 * tasks of the same split, to the gradients.
 */
int32_t subquad_attention_gradient_run_task(size_t index,
                                            size_t count,
                                            const struct subquad_attention *rules,
                                            struct subquad_tensor q,
                                            struct subquad_tensor k,
                                            struct subquad_tensor v,
                                            struct subquad_upstream upstream,
                                            struct subquad_gradients gradients,
                                            void *work,
                                            size_t work_size,
                                            struct subquad_report *report);

/**
 * The gradient of subquad_attention_forward, of the same rules, from that of its outputs.
 *
 * Scores are computed again; `upstream` has the output and the log-sum-exp (or partials) of the forward call, and what
 * comes back for them. Gradients go to whatever of `gradients` is not null, and are overwritten; that of the bias has the bias's shape,
 * where an axis of 1 is a sum. A key that is hidden gets nothing; a row that sees no key gives zeros; a row with anything
 * that is not finite makes NaN of the gradients of all it sees. Every sum has one order, so bits depend on the arithmetic
 * class only. Problems and key heads (with their query heads) are independent but for a bias that they share:
 * subquad_attention_gradient_tasks splits the work.
 *
 * `rules`, `work` and `report` are those of subquad_attention_forward, `work` as many bytes as
 * subquad_attention_gradient_need says. `key_run` is not used.
 *
 * Cost: 6 dim + 4 value_dim flops and one exponential per query and key. No allocation, no thread, no lock.
 *
 * Returns SUBQUAD_OK, or, with nothing written, the errors of subquad_attention_forward, where `upstream` are inputs
 * (d_lse may be null, and lse or partials) and `gradients` outputs; SUBQUAD_E_SHAPE also for a gradient of a bias or of sink logits that the
 * rules do not have.
 *
 * # Safety
 * Every pointer reaches as far as the sizes beside it say, sink_logits over query_heads floats, and nobody else writes
 * there during the call.
 */
int32_t subquad_attention_gradient(const struct subquad_attention *rules,
                                   struct subquad_tensor q,
                                   struct subquad_tensor k,
                                   struct subquad_tensor v,
                                   struct subquad_upstream upstream,
                                   struct subquad_gradients gradients,
                                   void *work,
                                   size_t work_size,
                                   struct subquad_report *report);

/**
 * Bytes of scratch that subquad_attention_gradient takes for these rules and this shape, written to `bytes`.
 *
 * Errors as for subquad_attention_forward_need.
 *
 * # Safety
 * Every pointer in the rules reaches as far as the shape says, and `bytes` points to a size_t.
 */
int32_t subquad_attention_gradient_need(const struct subquad_attention *rules,
                                        struct subquad_shape shape,
                                        size_t *bytes);

/**
 * Turns rows in place: row r of batch entry b, in all heads, by positions[b * rows + r], or by first + r if `positions` is
 * null. What is not finite spoils its pair, and NaN is canonical.
 *
 * Returns SUBQUAD_OK, or, with nothing written, SUBQUAD_E_NULL, SUBQUAD_E_MISALIGNED, SUBQUAD_E_SHAPE,
 * SUBQUAD_E_OVERFLOW (of a size, or of first + rows), SUBQUAD_E_OVERLAP, SUBQUAD_E_PARAMETER (a base of 0 too: there is
 * nothing to do), SUBQUAD_E_UNSUPPORTED.
 *
 * # Safety
 * `rows` is as subquad_tensor_mut says, `positions` null or batch * rows long, and nobody else uses the rows.
 */
int32_t subquad_rotary_apply(struct subquad_rotary rotary,
                             struct subquad_tensor_mut rows,
                             const uint64_t *positions,
                             uint64_t first);

/**
 * Appends keys (1 x heads x n x dim) and values (1 x heads x n x value_dim) behind those that are there, rounded to the
 * formats of the cache; what that loses goes into the bound of subquad_cache_attend.
 *
 * Returns SUBQUAD_OK, or, with nothing written, SUBQUAD_E_NULL, SUBQUAD_E_MISALIGNED, SUBQUAD_E_SHAPE, SUBQUAD_E_OVERFLOW,
 * SUBQUAD_E_OVERLAP (of the cache, its memory, and k or v), SUBQUAD_E_PARAMETER (an unknown format, more keys kept than
 * there is room for, no room to slide in, a block of 0, a loss below 0, or as subquad_rotary says), SUBQUAD_E_RANGE (the
 * table names a page that is not there, or a number is too large for the format, turned or not), SUBQUAD_E_MISMATCH (no
 * cache of this shape comes to these positions), SUBQUAD_E_FULL, SUBQUAD_E_NON_FINITE, SUBQUAD_E_UNSUPPORTED. Where several
 * apply it is one of them.
 *
 * # Safety
 * Every pointer reaches as far as the sizes beside it say, and nobody else uses the cache during the call.
 */
int32_t subquad_cache_append(struct subquad_cache *cache,
                             struct subquad_tensor k,
                             struct subquad_tensor v);

/**
 * Lets the `n` oldest keys go, but none of the kept ones: SUBQUAD_E_RANGE if there are fewer. Other errors as for
 * subquad_cache_append.
 *
 * # Safety
 * As for subquad_cache_append.
 */
int32_t subquad_cache_evict(struct subquad_cache *cache,
                            size_t n);

/**
 * Writes the number of keys that are there to `keys`. Errors as for subquad_cache_append.
 *
 * # Safety
 * As for subquad_cache_append; `keys` points to a size_t.
 */
int32_t subquad_cache_length(const struct subquad_cache *cache, size_t *keys);

/**
 * Writes the cache to `to`, as many bytes as subquad_cache_save_need says (SUBQUAD_E_SHORT if `size` is less): keys in the
 * order of their positions, neither ring nor pages, little endian, with a checksum. Errors as for subquad_cache_append.
 *
 * # Safety
 * As for subquad_cache_append; `to` reaches over `size` bytes.
 */
int32_t subquad_cache_save(const struct subquad_cache *cache,
                           void *to,
                           size_t size);

/**
 * Bytes that subquad_cache_save writes now, written to `bytes`. Errors as for subquad_cache_append.
 *
 * # Safety
 * As for subquad_cache_append; `bytes` points to a size_t.
 */
int32_t subquad_cache_save_need(const struct subquad_cache *cache, size_t *bytes);

/**
 * Replaces the contents of a cache by what was saved from one of the same shape and formats; capacity and pages may be
 * others. All `size` bytes are one saved cache.
 *
 * Returns SUBQUAD_OK, or, with nothing written, SUBQUAD_E_CORRUPT if a byte is wrong, missing or too many,
 * SUBQUAD_E_MISMATCH for another shape, other formats or another rotary, SUBQUAD_E_FULL for more keys than there is room for,
 * SUBQUAD_E_NON_FINITE for numbers that no cache takes, and the errors of subquad_cache_append.
 *
 * # Safety
 * As for subquad_cache_append; `from` reaches over `size` bytes.
 */
int32_t subquad_cache_load(struct subquad_cache *cache,
                           const void *from,
                           size_t size);

/**
 * Attention of a few new queries (1 x query_heads x queries x dim) over the keys that are there, read where they lie, in
 * the order of their positions: the bits of subquad_attention_decode over the same keys in plain memory.
 *
 * `rules` count the keys that are there, the kept ones first; null: the last query stands at the last key, and every query
 * sees every key. `rules` for a call of one problem, without segments or key_lengths (SUBQUAD_E_SHAPE). With `want_bound`
 * not 0 the report's bound, at the cost of one more pass, is about the keys and values as they were appended.
 *
 * `work` is scratch as subquad_cache_attend_need says, `report` may be null. Errors as for subquad_attention_decode and
 * subquad_cache_append.
 *
 * # Safety
 * As for subquad_attention_decode and subquad_cache_append.
 */
int32_t subquad_cache_attend(const struct subquad_cache *cache,
                             const struct subquad_attention *rules,
                             struct subquad_tensor q,
                             struct subquad_outputs outputs,
                             int32_t want_bound,
                             void *work,
                             size_t work_size,
                             struct subquad_report *report);

/**
 * As subquad_cache_attend, for many queries, as of a prompt: the bits of subquad_attention_forward over the same keys as
 * f32 in plain memory. Keys and values are turned into f32 a run at a time, once for a block of queries.
 *
 * `work` is scratch as subquad_cache_forward_need says.
 *
 * # Safety
 * As for subquad_cache_attend.
 */
int32_t subquad_cache_forward(const struct subquad_cache *cache,
                              const struct subquad_attention *rules,
                              struct subquad_tensor q,
                              struct subquad_outputs outputs,
                              int32_t want_bound,
                              void *work,
                              size_t work_size,
                              struct subquad_report *report);

/**
 * Bytes of scratch that subquad_cache_attend takes now for so many query heads and queries, written to `bytes`. Errors as
 * for subquad_cache_append.
 *
 * # Safety
 * As for subquad_cache_append; `bytes` points to a size_t.
 */
int32_t subquad_cache_attend_need(const struct subquad_cache *cache,
                                  size_t query_heads,
                                  size_t queries,
                                  size_t *bytes);

/**
 * Bytes of scratch that subquad_cache_forward takes now for these rules and so many query heads and queries, written to
 * `bytes`; with `want_scores` not 0, for a call that writes scores. Exact for the back end that `rules` force, or the best
 * one of this machine. Errors as for subquad_cache_forward.
 *
 * # Safety
 * As for subquad_cache_append; every pointer in the rules reaches as far as subquad_cache_forward reads, and `bytes`
 * points to a size_t.
 */
int32_t subquad_cache_forward_need(const struct subquad_cache *cache,
                                   const struct subquad_attention *rules,
                                   size_t query_heads,
                                   size_t queries,
                                   int32_t want_scores,
                                   size_t *bytes);

/**
 * Exact attention for one head: what firmware links instead of subquad_attention_forward, at a fifth of its code and
 * stack. The bits are those of subquad_attention_forward with the same scale, causal rule and isa.
 *
 * `work` is `work_size` bytes of scratch at any address, as many as SUBQUAD_ATTENTION_HEAD_NEED or
 * subquad_attention_head_need say; its contents do not matter. `report` may be null (not wanted).
 *
 * A query that sees no key gives zeros; one that sees a score or value that is not finite gives NaN, one bit pattern.
 * No queries or no value_dim: success, nothing written.
 *
 * Returns SUBQUAD_OK, or, with nothing written, SUBQUAD_E_NULL, SUBQUAD_E_MISALIGNED, SUBQUAD_E_SHORT (scratch),
 * SUBQUAD_E_SHAPE (sizes do not fit each other), SUBQUAD_E_OVERFLOW, SUBQUAD_E_OVERLAP (out, the report or the scratch
 * shares addresses with itself, another of them or an input), SUBQUAD_E_PARAMETER, SUBQUAD_E_UNSUPPORTED. Where several
 * apply it is one of them.
 *
 * # Safety
 * Every pointer reaches as far as the sizes beside it say, and nobody else writes there during the call.
 */
int32_t subquad_attention_head(const struct subquad_head *head,
                               void *work,
                               size_t work_size,
                               struct subquad_report *report);

/**
 * Bytes of scratch that subquad_attention_head takes, for any number of queries and every isa of this library; the
 * largest size_t, which no scratch has, where they do not fit the address space.
 *
 * SUBQUAD_ATTENTION_HEAD_NEED is the same as a constant expression, for a static array.
 */
size_t subquad_attention_head_need(size_t keys,
                                   size_t dim,
                                   size_t value_dim);

/**
 * y[i] = exp(x[i]) for i < n: at most 0.79 ULP, gradual underflow included; NaN gives the canonical NaN.
 *
 * `isa` is SUBQUAD_ISA_..., 0 for the best of this machine. n = 0: success, nothing written.
 *
 * Returns SUBQUAD_OK, or with nothing written SUBQUAD_E_NULL, SUBQUAD_E_MISALIGNED, SUBQUAD_E_OVERFLOW,
 * SUBQUAD_E_OVERLAP (x and y share an address, also where they are the same), SUBQUAD_E_UNSUPPORTED (no such isa here).
 *
 * # Safety
 * `x` and `y` reach over n floats, and nobody else uses those of `y`.
 */
int32_t subquad_exp(int32_t isa,
                    const float *x,
                    float *y,
                    size_t n);

/**
 * y[i] = tanh(x[i]) for i < n: at most 2 ULP, odd bit for bit; NaN gives the canonical NaN.
 *
 * Arguments and errors as for subquad_exp.
 *
 * # Safety
 * `x` and `y` reach over n floats, and nobody else uses those of `y`.
 */
int32_t subquad_tanh(int32_t isa, const float *x, float *y, size_t n);

/**
 * Softmax of a row of n floats, in place: row[i] = exp(row[i]) / sum of exp(row[j]).
 *
 * A row with a NaN or plus infinity becomes canonical NaN, one that is minus infinity throughout becomes zeros. Relative
 * error of an entry: (|x - max| + ln n + ceil(n / 16) + 10) 2^-24 to first order, and 2^-149 absolutely.
 * `isa` is SUBQUAD_ISA_..., 0 for the best of this machine. n = 0: success, nothing written.
 *
 * Returns SUBQUAD_OK, or with nothing written SUBQUAD_E_NULL, SUBQUAD_E_MISALIGNED, SUBQUAD_E_OVERFLOW,
 * SUBQUAD_E_UNSUPPORTED (no such isa here).
 *
 * # Safety
 * `row` reaches over n floats that nobody else uses.
 */
int32_t subquad_softmax(int32_t isa,
                        float *row,
                        size_t n);

/**
 * Sum of x[i] * y[i] for i < n, in the fixed order of sixteen running sums, written to `result`; 0 for n = 0.
 *
 * Error: at most gamma(ceil(n / 16) + 5) * sum |x[i] y[i]|, gamma(m) = m 2^-24 / (1 - m 2^-24). x and y may be the same.
 * `isa` is SUBQUAD_ISA_..., 0 for the best of this machine.
 *
 * Returns SUBQUAD_OK, or with nothing written SUBQUAD_E_NULL, SUBQUAD_E_MISALIGNED, SUBQUAD_E_OVERFLOW,
 * SUBQUAD_E_OVERLAP (result lies in x or y), SUBQUAD_E_UNSUPPORTED (no such isa here).
 *
 * # Safety
 * `x` and `y` reach over n floats, `result` points to one that nobody else uses.
 */
int32_t subquad_dot(int32_t isa,
                    const float *x,
                    const float *y,
                    size_t n,
                    float *result);

/**
 * As subquad_dot in double, with 2^-53 in place of 2^-24.
 *
 * # Safety
 * `x` and `y` reach over n doubles, `result` points to one that nobody else uses.
 */
int32_t subquad_dot_f64(int32_t isa, const double *x, const double *y, size_t n, double *result);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SUBQUAD_H */
