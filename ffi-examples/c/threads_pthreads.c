/* Attention and its gradient on threads of the host: each takes the next task until there is none. The bits are those of
 * one thread.
 *
 *     threads_pthreads [threads]        (4)
 */
#include <pthread.h>

#include "threads.h"

enum { MOST = 64 };

/* What the threads share. */
typedef struct {
    problem problem;
    pthread_mutex_t lock;
    int pass;
    size_t left;
    int32_t status;
} crew;

/* The number of a task that nobody has taken; the last first, as it takes longest. */
static int next(crew *c, size_t *index)
{
    pthread_mutex_lock(&c->lock);
    const int found = c->left > 0;
    if (found)
        *index = --c->left;
    pthread_mutex_unlock(&c->lock);
    return found;
}

static void *work_on(void *argument)
{
    crew *c = argument;
    void *work = malloc(c->problem.need); /* scratch of this thread */
    int32_t status = work == NULL ? SUBQUAD_E_SHORT : SUBQUAD_OK;
    for (size_t index; status == SUBQUAD_OK && next(c, &index);)
        status = run_task(&c->problem, c->pass, index, work, NULL);
    free(work);
    if (status != SUBQUAD_OK) {
        pthread_mutex_lock(&c->lock);
        c->status = status;
        pthread_mutex_unlock(&c->lock);
    }
    return NULL;
}

/* All tasks of a pass, by so many threads or those that can be had; how many there were. */
static size_t run_pass(crew *c, int pass, size_t wanted)
{
    pthread_t threads[MOST];
    size_t started = 0;

    c->pass = pass;
    c->left = c->problem.count[pass];
    while (started < wanted && pthread_create(&threads[started], NULL, work_on, c) == 0)
        started++;
    if (started < wanted)
        work_on(c); /* fewer threads than wished for do the same */
    for (size_t i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    return started;
}

int main(int argc, char **argv)
{
    const size_t wanted = argc > 1 ? strtoul(argv[1], NULL, 10) : 4;
    crew c = {.lock = PTHREAD_MUTEX_INITIALIZER};
    const problem *p = &c.problem;
    size_t started = 0;

    if (wanted == 0 || wanted > MOST)
        return 2;
    c.status = prepare(&c.problem, wanted);
    for (int pass = 0; pass < PASSES && c.status == SUBQUAD_OK; pass++)
        started = run_pass(&c, pass, wanted);
    if (c.status != SUBQUAD_OK) {
        fprintf(stderr, "threads_pthreads: %s\n", subquad_status_message(c.status));
        return 1;
    }
    const int same = same_bits(p);
    printf("%zu threads, %zu tasks forward and %zu back: %s\n", started, p->count[FORWARD], p->count[BACK],
           same ? "the bits of one thread" : "OTHER BITS");
    free(p->memory);
    return same ? 0 : 1;
}
