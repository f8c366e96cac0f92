/* Attention on threads of the host: each takes the next task until there is none. The bits are those of one thread.
 *
 *     threads_pthreads [threads]        (4)
 */
#include <pthread.h>

#include "threads.h"

/* What the threads share. */
typedef struct {
    problem problem;
    pthread_mutex_t lock;
    size_t left, count;
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
    problem *p = &c->problem;
    void *work = malloc(p->need); /* scratch of this thread */
    int32_t status = work == NULL ? SUBQUAD_E_SHORT : SUBQUAD_OK;
    for (size_t index; status == SUBQUAD_OK && next(c, &index);)
        status = subquad_attention_run_task(index, c->count, &p->rules, p->tq, p->tk, p->tv, outputs_to(p->out), work,
                                            p->need, NULL);
    free(work);
    if (status != SUBQUAD_OK) {
        pthread_mutex_lock(&c->lock);
        c->status = status;
        pthread_mutex_unlock(&c->lock);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    enum { MOST = 64 };
    const size_t wanted = argc > 1 ? strtoul(argv[1], NULL, 10) : 4;
    pthread_t threads[MOST];
    crew c = {.lock = PTHREAD_MUTEX_INITIALIZER};
    size_t started = 0;

    if (wanted == 0 || wanted > MOST)
        return 2;
    c.status = prepare(&c.problem, wanted, &c.count);
    c.left = c.status == SUBQUAD_OK ? c.count : 0;
    while (started < wanted && pthread_create(&threads[started], NULL, work_on, &c) == 0)
        started++;
    if (started < wanted)
        work_on(&c); /* fewer threads than wished for do the same */
    for (size_t i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    if (c.status != SUBQUAD_OK) {
        fprintf(stderr, "threads_pthreads: %s\n", subquad_status_message(c.status));
        return 1;
    }
    const int same = same_bits(&c.problem);
    printf("%zu threads, %zu tasks: %s\n", started, c.count, same ? "the bits of one thread" : "OTHER BITS");
    free(c.problem.q);
    return same ? 0 : 1;
}
