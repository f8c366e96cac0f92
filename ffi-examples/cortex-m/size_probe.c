/* An otherwise empty image into which the linker pulls library functions by name
 * (-Wl,-u,NAME), to see what they bring along: no C library, no start-up code.
 * The memory functions are here so that they do not count as the library's;
 * the attention code may call these and nothing else. */
#include <stddef.h>

void *memcpy(void *restrict to, const void *restrict from, size_t n);
void *memmove(void *to, const void *from, size_t n);
void *memset(void *to, int byte, size_t n);
int memcmp(const void *a, const void *b, size_t n);

void *memcpy(void *restrict to, const void *restrict from, size_t n)
{
    char *t = to;
    const char *f = from;
    while (n--)
        *t++ = *f++;
    return to;
}

void *memmove(void *to, const void *from, size_t n)
{
    char *t = to;
    const char *f = from;
    if (t <= f)
        return memcpy(to, from, n);
    while (n--)
        t[n] = f[n];
    return to;
}

void *memset(void *to, int byte, size_t n)
{
    char *t = to;
    while (n--)
        *t++ = (char)byte;
    return to;
}

int memcmp(const void *a, const void *b, size_t n)
{
    const unsigned char *x = a, *y = b;
    for (; n--; x++, y++)
        if (*x != *y)
            return *x - *y;
    return 0;
}

/* The same under the names of the Arm run-time ABI, which the compiler prefers:
 * plain, for 4-byte and for 8-byte alignment. */
#define THREE(result, name, parameters, body)                   \
    result name parameters;                                     \
    result name##4 parameters;                                  \
    result name##8 parameters;                                  \
    result name parameters { body; }                            \
    result name##4 parameters { body; }                         \
    result name##8 parameters { body; }

THREE(void, __aeabi_memcpy, (void *to, const void *from, size_t n), memcpy(to, from, n))
THREE(void, __aeabi_memmove, (void *to, const void *from, size_t n), memmove(to, from, n))
THREE(void, __aeabi_memset, (void *to, size_t n, int byte), memset(to, byte, n))
THREE(void, __aeabi_memclr, (void *to, size_t n), memset(to, 0, n))

void probe_start(void);
void probe_start(void)
{
    for (;;) {
    }
}
