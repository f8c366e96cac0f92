/* Marks a region of code for the counting plugin in tests/qemu/icount.c:
 *
 *     REGION_BEGIN();
 *     status = subquad_attention_forward(...);
 *     REGION_END();
 *
 * The marker is an instruction that does nothing and that no compiler emits, so
 * the same program also runs on hardware and without the plugin.  Before the
 * begin marker one word is stored just under the stack pointer: the plugin cannot
 * read registers and learns the stack pointer from that address.  Everything
 * between the markers counts, the passing of arguments included; keep printf out.
 */
#ifndef REGIONS_H
#define REGIONS_H

#if defined(__thumb__)
#define REGION_BEGIN()                                  \
    __asm__ volatile("push {r0}\n\t"                    \
                     "add sp, #4\n\t"                   \
                     "mov r10, r10" ::: "memory")
#define REGION_END() __asm__ volatile("mov r11, r11" ::: "memory")
#elif defined(__aarch64__)
#define REGION_BEGIN()                                  \
    __asm__ volatile("str x0, [sp, #-16]!\n\t"          \
                     "add sp, sp, #16\n\t"              \
                     "orr x10, x10, x10" ::: "memory")
#define REGION_END() __asm__ volatile("orr x11, x11, x11" ::: "memory")
#else /* no markers: the regions are simply not counted */
#define REGION_BEGIN() ((void)0)
#define REGION_END() ((void)0)
#endif

#endif
