/* Attention over machines: every rank holds a shard of the keys and values, and nobody all of them. Ranks compute
 * unfinished rows over their shards, MPI merges them, and rank 0 has the result.
 *
 *     mpirun -n 4 attention
 *
 * Merging is associative up to rounding, hence the order of merging decides the last bits. MPI knows that order for an
 * operation that is not commutative, but not its brackets: MPI_Reduce may compute (a b) (c d) or ((a b) c) d, and only
 * advises implementations to do the same each time. So there are two ways here, and both are checked:
 *
 *   - MPI_Reduce with an operation of our own: any brackets, hence within the error bounds that the partials carry;
 *   - a chain: rank r merges its rows into those of ranks 0 to r - 1 and hands them on. The order is ours, and the bits
 *     are those of one machine that merges the same shards in the same order, on any number of machines.
 */
#include <math.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "subquad.h"

enum { HEADS = 2, QUERIES = 33, KEYS = 301, DIM = 16, ROWS = HEADS * QUERIES, WIDTH = SUBQUAD_PARTIAL_HEAD + DIM };

/* How far two values of a column are apart at most: they are between -1 and 1. */
static const float RANGE = 2;

static float q[HEADS][QUERIES][DIM], k[HEADS][KEYS][DIM], v[HEADS][KEYS][DIM];

static void die(const char *what, int32_t status)
{
    fprintf(stderr, "attention: %s: %s\n", what, subquad_status_message(status));
    MPI_Abort(MPI_COMM_WORLD, 1);
}

static void fill(float *x, size_t n, uint32_t state)
{
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        x[i] = (float)(state >> 8) / 8388608.0f - 1.0f;
    }
}

/* First key of a shard. Shards differ in length, and of more than two the second has none: that too must merge. */
static size_t first_key(int rank, int ranks)
{
    const size_t n = (size_t)ranks, r = rank == 2 && ranks > 2 ? 1 : (size_t)rank;
    return KEYS * r * r / (n * n);
}

/* Unfinished rows over the keys of a shard, with bounds. */
static void partials_of(int rank, int ranks, float *rows)
{
    const size_t from = first_key(rank, ranks), keys = first_key(rank + 1, ranks) - from;
    const subquad_shape shape = {1, HEADS, HEADS, QUERIES, keys, DIM, DIM};
    const subquad_tensor tq = {&q[0][0][0], 1, HEADS, QUERIES, DIM, 0, QUERIES * DIM, DIM, 1};
    const subquad_tensor tk = {&k[0][from % KEYS][0], 1, HEADS, keys, DIM, 0, KEYS * DIM, DIM, 1};
    const subquad_tensor tv = {&v[0][from % KEYS][0], 1, HEADS, keys, DIM, 0, KEYS * DIM, DIM, 1};
    subquad_outputs outputs = {0};
    size_t need = 0;

    outputs.partials = (subquad_tensor_mut){rows, 1, HEADS, QUERIES, WIDTH, 0, QUERIES * WIDTH, WIDTH, 1};
    int32_t status = subquad_attention_forward_need(NULL, shape, 0, &need);
    void *work = malloc(need);
    if (work == NULL)
        status = SUBQUAD_E_SHORT;
    if (status == SUBQUAD_OK)
        status = subquad_attention_forward_with_bound(NULL, tq, tk, tv, outputs, work, need, NULL);
    if (status != SUBQUAD_OK)
        die("a shard", status);
    free(work);
}

/* into = before merged with into, row by row: `before` comes from lower ranks. */
static void merge_before(const float *before, float *into, int rows)
{
    for (int i = 0; i < rows; i++) {
        float row[WIDTH];
        memcpy(row, before + (size_t)i * WIDTH, sizeof row);
        const int32_t status = subquad_partial_merge(row, into + (size_t)i * WIDTH, DIM, RANGE);
        if (status != SUBQUAD_OK)
            die("merging", status);
        memcpy(into + (size_t)i * WIDTH, row, sizeof row);
    }
}

/* The operation of MPI_Reduce: inout = in op inout, in from lower ranks. */
static void merge_operation(void *in, void *inout, int *rows, MPI_Datatype *type)
{
    (void)type;
    merge_before(in, inout, *rows);
}

/* Rank r merges in its rows and hands them on; the last gives them to rank 0. */
static void chain(int rank, int ranks, float *rows, float *scratch)
{
    if (rank > 0) {
        MPI_Recv(scratch, ROWS * WIDTH, MPI_FLOAT, rank - 1, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        merge_before(scratch, rows, ROWS);
    }
    if (ranks > 1)
        MPI_Send(rows, ROWS * WIDTH, MPI_FLOAT, (rank + 1) % ranks, 0, MPI_COMM_WORLD);
    if (ranks > 1 && rank == 0)
        MPI_Recv(rows, ROWS * WIDTH, MPI_FLOAT, ranks - 1, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
}

/* The same shards on one machine, merged in the order of the chain. */
static void alone(int ranks, float *rows, float *scratch)
{
    partials_of(0, ranks, rows);
    for (int rank = 1; rank < ranks; rank++) {
        partials_of(rank, ranks, scratch);
        merge_before(rows, scratch, ROWS);
        memcpy(rows, scratch, ROWS * WIDTH * sizeof *rows);
    }
}

/* Whether every row is as close to double as it says. Reports the largest error and the largest bound. */
static int close_to_double(const float *rows, double *error, double *bound)
{
    int close = 1;
    *error = *bound = 0;
    for (size_t row = 0; row < ROWS; row++) {
        const size_t h = row / QUERIES;
        const float *partial = rows + row * WIDTH;
        double mean[DIM] = {0}, sum = 0, worst = 0;
        for (size_t j = 0; j < KEYS; j++) {
            double score = 0;
            for (size_t c = 0; c < DIM; c++)
                score += (double)q[h][row % QUERIES][c] * (double)k[h][j][c];
            const double weight = exp(score / 4); /* 1 / sqrt(DIM) */
            sum += weight;
            for (size_t c = 0; c < DIM; c++)
                mean[c] += weight * (double)v[h][j][c];
        }
        for (size_t c = 0; c < DIM; c++)
            worst = fmax(worst, fabs(mean[c] / sum - (double)partial[SUBQUAD_PARTIAL_HEAD + c]));
        *error = fmax(*error, worst);
        *bound = fmax(*bound, (double)partial[3]);
        close &= worst <= (double)partial[3] && partial[3] < 1e-3f;
    }
    return close;
}

int main(int argc, char **argv)
{
    static float mine[ROWS * WIDTH], reduced[ROWS * WIDTH], expected[ROWS * WIDTH], scratch[ROWS * WIDTH];
    int rank, ranks, passed = 1;
    double error[2], bound[2];
    MPI_Datatype row;
    MPI_Op merge;

    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    /* In earnest every rank would have its shard only. */
    fill(&q[0][0][0], sizeof q / sizeof(float), 1);
    fill(&k[0][0][0], sizeof k / sizeof(float), 2);
    fill(&v[0][0][0], sizeof v / sizeof(float), 3);

    partials_of(rank, ranks, mine);
    MPI_Type_contiguous(WIDTH, MPI_FLOAT, &row);
    MPI_Type_commit(&row);
    MPI_Op_create(merge_operation, 0, &merge); /* 0: the order of the ranks is kept */
    MPI_Reduce(mine, reduced, ROWS, row, merge, 0, MPI_COMM_WORLD);
    chain(rank, ranks, mine, scratch);
    if (rank == 0) {
        alone(ranks, expected, scratch);
        const int same = memcmp(mine, expected, sizeof mine) == 0;
        passed = close_to_double(mine, &error[0], &bound[0]) & close_to_double(reduced, &error[1], &bound[1]) & same;
        printf("%d ranks: chain error %.1e of at most %.1e, %s; MPI_Reduce error %.1e of at most %.1e, %s\n", ranks,
               error[0], bound[0], same ? "the bits of one machine" : "OTHER BITS", error[1], bound[1],
               memcmp(reduced, expected, sizeof mine) == 0 ? "the same bits here" : "brackets of its own");
    }
    MPI_Bcast(&passed, 1, MPI_INT, 0, MPI_COMM_WORLD);
    MPI_Op_free(&merge);
    MPI_Type_free(&row);
    MPI_Finalize();
    return passed ? 0 : 1;
}
