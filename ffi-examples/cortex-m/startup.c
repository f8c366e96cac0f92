/* Start-up code for a Cortex-M image that runs under QEMU with semihosting:
 * printf reaches the terminal and the value main returns becomes QEMU's exit
 * code.  A fault ends the run with code 99 instead of hanging it.
 *
 * For a board without a debugger drop initialise_monitor_handles and _exit.
 */
#include <stdint.h>
#include <stdlib.h>

enum { FAULT_EXIT_CODE = 99 };

/* From mps2.ld; only the addresses mean anything. */
extern uint32_t __data_load, __data_start, __data_end;
extern uint32_t __bss_start, __bss_end, __stack;

extern int main(void);
extern void initialise_monitor_handles(void);
void reset(void);
void fault(void);
void _exit(int code) __attribute__((noreturn));

/* Takes the place of newlib's _exit, which cannot pass a code here. */
void _exit(int code)
{
    const uint32_t block[2] = { 0x20026 /* ADP_Stopped_ApplicationExit */,
                                (uint32_t)code };
    register uint32_t op __asm__("r0") = 0x20; /* SYS_EXIT_EXTENDED */
    register const uint32_t *arg __asm__("r1") = block;
    __asm__ volatile("bkpt 0xab" : "+r"(op) : "r"(arg) : "memory");
    for (;;) {
    }
}

/* Straight to _exit: after a fault the C library cannot be trusted. */
void fault(void)
{
    _exit(FAULT_EXIT_CODE);
}

static void enable_fpu(void)
{
#if defined(__ARM_FP) || defined(__ARM_FEATURE_MVE)
    /* CPACR: full access to CP10 and CP11.  Until then the first
     * floating-point or MVE instruction faults. */
    volatile uint32_t *cpacr = (volatile uint32_t *)0xE000ED88u;
    *cpacr |= 0xFu << 20;
    __asm__ volatile("dsb\n\tisb" ::: "memory");
#endif
}

void reset(void)
{
    enable_fpu();
    const uint32_t *from = &__data_load;
    for (uint32_t *to = &__data_start; to < &__data_end; to++)
        *to = *from++;
    for (uint32_t *to = &__bss_start; to < &__bss_end; to++)
        *to = 0;
    initialise_monitor_handles();
    exit(main()); /* not _exit: stdout has to be flushed */
}

/* The core's own vectors; no device interrupt is ever enabled. */
__attribute__((section(".vectors"), used))
static const uintptr_t vectors[16] = {
    (uintptr_t)&__stack,
    (uintptr_t)reset,
    (uintptr_t)fault, /* NMI */
    (uintptr_t)fault, /* HardFault */
    (uintptr_t)fault, /* MemManage */
    (uintptr_t)fault, /* BusFault */
    (uintptr_t)fault, /* UsageFault */
    (uintptr_t)fault, /* SecureFault, or reserved */
    0, 0, 0,
    (uintptr_t)fault, /* SVCall */
    (uintptr_t)fault, /* DebugMonitor */
    0,
    (uintptr_t)fault, /* PendSV */
    (uintptr_t)fault, /* SysTick */
};
