/* Loads three harmless BPF programs and keeps them: a socket filter, one on a tracepoint, one at a function's entry.
 *
 *   bpf FUNCTION     prints what was attached, goes to the background; FUNCTION is one of the kernel's own
 */
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { TYPE_FUNC = 12, TRACING = 26, FENTRY = 24, RAW_TRACEPOINT_OPEN = 17 };

static const struct bpf_insn answer[] = {
	{.code = 0xb7, .dst_reg = 0, .imm = 0}, /* r0 = 0 */
	{.code = 0x95},				/* exit */
};

static long bpf(int command, union bpf_attr *attr)
{
	return syscall(SYS_bpf, command, attr, sizeof(*attr));
}

static int load(int type, int attach_type, int btf_id)
{
	union bpf_attr attr = {0};

	attr.prog_type = type;
	attr.insns = (uintptr_t)answer;
	attr.insn_cnt = 2;
	attr.license = (uintptr_t)"Dual MIT/GPL";
	attr.expected_attach_type = attach_type;
	attr.attach_btf_id = btf_id;
	return bpf(BPF_PROG_LOAD, &attr);
}

static void socket_filter(void)
{
	int pair[2], program = load(BPF_PROG_TYPE_SOCKET_FILTER, 0, 0);

	if (program >= 0 && !socketpair(AF_UNIX, SOCK_DGRAM, 0, pair) &&
	    !setsockopt(pair[0], SOL_SOCKET, SO_ATTACH_BPF, &program, sizeof(program)))
		puts("socket filter");
}

static void tracepoint(const char *path)
{
	struct perf_event_attr attr = {.type = PERF_TYPE_TRACEPOINT, .size = sizeof(attr)};
	char number[32] = "";
	int event, fd = open(path, O_RDONLY), program = load(BPF_PROG_TYPE_TRACEPOINT, 0, 0);

	if (fd < 0 || program < 0 || read(fd, number, sizeof(number) - 1) <= 0)
		return;
	attr.config = strtoul(number, NULL, 10);
	event = syscall(SYS_perf_event_open, &attr, -1, 0, -1, 0);
	if (event >= 0 && !ioctl(event, PERF_EVENT_IOC_SET_BPF, program) && !ioctl(event, PERF_EVENT_IOC_ENABLE, 0))
		puts("tracepoint");
}

/* The BTF id of one of the kernel's functions, or 0 (Documentation/bpf/btf.rst). */
static int function_id(const char *name)
{
	static const int trailer[32] = {[1] = 4, [3] = 12, [14] = 4, [17] = 4};
	static const int item[32] = {[4] = 12, [5] = 12, [6] = 8, [13] = 8, [15] = 12, [19] = 12};
	static uint32_t data[8 << 18];
	int fd = open("/sys/kernel/btf/vmlinux", O_RDONLY);
	ssize_t got, size = 0;

	while (fd >= 0 && (got = read(fd, (char *)data + size, sizeof(data) - size)) > 0)
		size += got;
	if (size < 24)
		return 0;
	const char *types = (char *)data + data[1] + data[2], *end = types + data[3], *text = (char *)data + data[1] + data[4];
	for (int id = 1; types < end; id++) {
		const uint32_t *type = (const uint32_t *)types;
		int kind = type[1] >> 24 & 31, count = type[1] & 0xffff;
		if (kind == TYPE_FUNC && !strcmp(text + type[0], name))
			return id;
		types += 12 + trailer[kind] + (size_t)item[kind] * count;
	}
	return 0;
}

static void entry(const char *function)
{
	int id = function_id(function), program = id ? load(TRACING, FENTRY, id) : -1;
	union bpf_attr attr = {0};

	if (program < 0)
		return;
	attr.raw_tracepoint.prog_fd = program;
	if (bpf(RAW_TRACEPOINT_OPEN, &attr) >= 0)
		printf("entry of %s\n", function);
}

int main(int argc, char **argv)
{
	socket_filter();
	tracepoint("/sys/kernel/tracing/events/kvm/kvm_exit/id");
	entry(argc > 1 ? argv[1] : "vfs_read");
	fflush(stdout);
	if (fork())
		return 0;
	setsid();
	for (int fd = 0; fd < 3; fd++)
		close(fd);
	for (;;)
		pause();
}
