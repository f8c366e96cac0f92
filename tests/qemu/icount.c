/* A QEMU plugin that counts what a guest executes between two marker
 * instructions (see ffi-examples/cortex-m/regions.h).  One line per region on
 * stderr:
 *
 *     insn=404892 ld=163532 st=2048 lowsp=0x2007ff18 stack=168
 *
 * insn   executed instructions, markers not included (not cycles: QEMU has no
 *        pipeline; an instruction skipped by an IT block counts too)
 * ld st  loads and stores as the bus sees them: an LDM of n registers is n
 * lowsp  lowest stack address written inside the region
 * stack  bytes from the stack pointer at the begin marker down to lowsp
 *
 * The numbers do not depend on the host or its load: equal runs print equal
 * lines.  One CPU only, regions do not nest.
 *
 * Build: cc -O2 -shared -fPIC -fvisibility=hidden -o libicount.so icount.c
 * Use:   qemu-system-arm ... -plugin ./libicount.so[,depth=BYTES]
 *        qemu-aarch64 -plugin ./libicount.so[,depth=BYTES] PROGRAM
 * depth (32768) is how far below the marker's stack pointer a store still
 * counts as a stack write; memory further down is data.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Distributions ship the plugin interface without its header, so the part in
 * use (interface version 1, as in QEMU 7.2) is declared here. */
#define EXPORT __attribute__((visibility("default")))

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef struct {
    const char *target_name;
    struct { int min, cur; } version;
    bool system_emulation;
    struct { int smp_vcpus, max_vcpus; } system;
} plugin_info;

enum { CB_NO_REGS = 0, INLINE_ADD_U64 = 0, MEM_RW = 3 };

void qemu_plugin_register_vcpu_tb_trans_cb(
    plugin_id id, void (*cb)(plugin_id, struct qemu_plugin_tb *));
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(
    const struct qemu_plugin_tb *tb, size_t index);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *insn);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);
void qemu_plugin_register_vcpu_insn_exec_cb(
    struct qemu_plugin_insn *insn, void (*cb)(unsigned, void *), int flags,
    void *data);
void qemu_plugin_register_vcpu_insn_exec_inline(
    struct qemu_plugin_insn *insn, int op, void *counter, uint64_t imm);
void qemu_plugin_register_vcpu_mem_cb(
    struct qemu_plugin_insn *insn,
    void (*cb)(unsigned, uint32_t, uint64_t, void *), int flags, int rw,
    void *data);
bool qemu_plugin_mem_is_store(uint32_t meminfo);

EXPORT int qemu_plugin_version = 1;

struct marker_set {
    const char *target;
    size_t size;
    uint32_t begin, end; /* opcodes of instructions that do nothing */
    uint64_t probe;      /* stack pointer minus address of the macro's store */
};

static const struct marker_set known[] = {
    { "arm", 2, 0x46d2, 0x46db, 4 },                /* mov r10,r10 / r11 */
    { "aarch64", 4, 0xaa0a014a, 0xaa0b016b, 16 },   /* orr x10,x10,x10 / x11 */
};

static const struct marker_set *markers;
static uint64_t depth = 32768;
static bool inside;
static uint64_t executed, executed_at_begin, loads, stores;
static uint64_t last_store, sp, low;

static void on_begin(unsigned cpu, void *data)
{
    (void)cpu, (void)data;
    /* The begin macro stores just under the stack pointer right before the
     * marker: this interface cannot read registers. */
    sp = low = last_store + markers->probe;
    executed_at_begin = executed;
    loads = stores = 0;
    inside = true;
}

static void on_end(unsigned cpu, void *data)
{
    (void)cpu, (void)data;
    if (!inside) {
        fprintf(stderr, "icount: end marker without a begin marker\n");
        return;
    }
    inside = false;
    fprintf(stderr,
            "insn=%" PRIu64 " ld=%" PRIu64 " st=%" PRIu64 " lowsp=0x%" PRIx64
            " stack=%" PRIu64 "\n",
            executed - executed_at_begin, loads, stores, low, sp - low);
}

static void on_access(unsigned cpu, uint32_t info, uint64_t addr, void *data)
{
    (void)cpu, (void)data;
    bool store = qemu_plugin_mem_is_store(info);
    if (store)
        last_store = addr;
    if (!inside)
        return;
    if (!store) {
        loads++;
        return;
    }
    stores++;
    if (addr < low && addr + depth >= sp)
        low = addr;
}

static void on_translate(plugin_id id, struct qemu_plugin_tb *tb)
{
    (void)id;
    size_t n = qemu_plugin_tb_n_insns(tb);
    for (size_t i = 0; i < n; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        uint32_t opcode = 0; /* guests and hosts here are little-endian */
        if (qemu_plugin_insn_size(insn) == markers->size)
            memcpy(&opcode, qemu_plugin_insn_data(insn), markers->size);
        if (opcode == markers->begin) {
            qemu_plugin_register_vcpu_insn_exec_cb(insn, on_begin, CB_NO_REGS, NULL);
        } else if (opcode == markers->end) {
            qemu_plugin_register_vcpu_insn_exec_cb(insn, on_end, CB_NO_REGS, NULL);
        } else {
            qemu_plugin_register_vcpu_insn_exec_inline(
                insn, INLINE_ADD_U64, &executed, 1);
            /* Not the inline form: it ignores the load/store filter. */
            qemu_plugin_register_vcpu_mem_cb(insn, on_access, CB_NO_REGS, MEM_RW, NULL);
        }
    }
}

EXPORT int qemu_plugin_install(plugin_id id, const plugin_info *info, int argc,
                               char **argv)
{
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(info->target_name, known[i].target) == 0)
            markers = &known[i];
    if (!markers) {
        fprintf(stderr, "icount: no markers for %s\n", info->target_name);
        return 1;
    }
    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], "depth=", 6) != 0) {
            fprintf(stderr, "icount: unknown argument %s\n", argv[i]);
            return 1;
        }
        depth = strtoull(argv[i] + 6, NULL, 0);
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
    return 0;
}
