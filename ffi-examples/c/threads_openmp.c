/* Attention and its gradient on the threads of OpenMP: loops over tasks. The bits are those of one thread.
 *
 *     OMP_NUM_THREADS=4 threads_openmp
 */
#include <omp.h>

#include "threads.h"

int main(void)
{
    const size_t threads = (size_t)omp_get_max_threads();
    problem p;
    size_t masked = 0;
    int32_t status = prepare(&p, threads);

    if (status != SUBQUAD_OK) {
        fprintf(stderr, "threads_openmp: %s\n", subquad_status_message(status));
        return 1;
    }
#pragma omp parallel reduction(+ : masked)
    {
        void *work = malloc(p.need); /* scratch of this thread */
        int32_t mine = work == NULL ? SUBQUAD_E_SHORT : SUBQUAD_OK;
        subquad_report report = {0};
        for (int pass = 0; pass < PASSES; pass++) {
            /* All wait for each other at the end of the loop. */
#pragma omp for schedule(dynamic)
            for (size_t i = 0; i < p.count[pass]; i++) {
                if (mine != SUBQUAD_OK)
                    continue;
                /* The last task first: it takes longest. */
                mine = run_task(&p, pass, p.count[pass] - 1 - i, work, &report);
                masked += report.masked_rows;
            }
        }
        free(work);
        if (mine != SUBQUAD_OK) {
#pragma omp critical
            status = mine;
        }
    }
    const int same = status == SUBQUAD_OK && masked == 0 && same_bits(&p);
    printf("%zu threads, %zu tasks forward and %zu back: %s\n", threads, p.count[FORWARD], p.count[BACK],
           same ? "the bits of one thread" : "OTHER BITS");
    free(p.memory);
    return same ? 0 : 1;
}
