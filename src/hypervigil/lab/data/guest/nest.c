/* A small virtual machine that never stops: it keeps KVM's own paths busy and counts that they work.
 *
 * The guest loops over CPUID, port I/O (to this process, to the in-kernel PIT, to an ioeventfd), a store to
 * memory that is not there (so that KVM's instruction emulator runs), and a hypercall. This process triggers an irqfd.
 *
 *   nest NAME [VCPUS]         counts into /run/nest/NAME
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { CODE = 0x1000, RAM = 0x40000, FILLED = 0x20000, DOORBELL = 0x510, ALIVE = 0x10, GSI = 10, REST_EVERY = 64, REST_MICROSECONDS = 3000 };

asm(".pushsection .rodata\n"
    ".code16\n"
    "guest_start:\n"
    "	mov $0xd000, %ax\n"
    "	mov %ax, %ds\n"
    "	mov $0x2000, %ax\n"
    "	mov %ax, %es\n"
    "1:	mov %es:0, %al\n"
    "	xor %eax, %eax\n"
    "	cpuid\n"
    "	mov $0x10, %dx\n"
    "	in %dx, %al\n"
    "	mov $0x510, %dx\n"
    "	out %al, %dx\n"
    "	xor %al, %al\n"
    "	out %al, $0x43\n"
    "	in $0x40, %al\n"
    "	mov %al, 0\n"
    "	mov $0x7fffffff, %eax\n"
    "	.byte 0x0f, 0x01, 0xd9\n" /* vmmcall */
    "	jmp 1b\n"
    "guest_end:\n"
    ".code64\n"
    ".popsection\n");
extern const char guest_start[], guest_end[];

struct machine {
	const char *name;
	int vm, doorbell, interrupt, device, mmap_size;
	unsigned long io, mmio, other, bells;
};

static void die(const char *what)
{
	fprintf(stderr, "nest: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void wish(const char *what, int result)
{
	if (result < 0)
		fprintf(stderr, "nest: without %s: %s\n", what, strerror(errno));
}

/* The parts that make KVM create its own devices: PIC, IOAPIC, PIT, an irqfd, an ioeventfd, a KVM device. */
static void add_devices(struct machine *m)
{
	struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
	struct kvm_irqfd irqfd = {.gsi = GSI};
	struct kvm_ioeventfd bell = {.addr = DOORBELL, .len = 1, .flags = KVM_IOEVENTFD_FLAG_PIO};
	struct kvm_create_device device = {.type = KVM_DEV_TYPE_VFIO};
	int chip = ioctl(m->vm, KVM_CREATE_IRQCHIP, 0);

	wish("interrupt controllers", chip);
	if (chip == 0)
		wish("a timer", ioctl(m->vm, KVM_CREATE_PIT2, &pit));
	m->interrupt = irqfd.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	wish("an irqfd", ioctl(m->vm, KVM_IRQFD, &irqfd));
	m->doorbell = bell.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	wish("an ioeventfd", ioctl(m->vm, KVM_IOEVENTFD, &bell));
	wish("a vfio device", ioctl(m->vm, KVM_CREATE_DEVICE, &device));
}

static void add_memory(struct machine *m)
{
	struct kvm_userspace_memory_region region = {.slot = 0, .guest_phys_addr = 0, .memory_size = RAM};
	char *memory = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		die("memory");
	madvise(memory, RAM, MADV_MERGEABLE);
	for (int at = FILLED; at < RAM; at++)
		memory[at] = at / 4096 + at % 251;
	memcpy(memory + CODE, guest_start, guest_end - guest_start);
	region.userspace_addr = (uintptr_t)memory;
	if (ioctl(m->vm, KVM_SET_USER_MEMORY_REGION, &region))
		die("memory region");
}

static void report(struct machine *m)
{
	char path[128], old[128], text[256];
	int length, fd;

	snprintf(path, sizeof(path), "/run/nest/%s", m->name);
	snprintf(old, sizeof(old), "/run/nest/.%s", m->name);
	length = snprintf(text, sizeof(text), "io %lu mmio %lu bells %lu other %lu\n", m->io, m->mmio, m->bells, m->other);
	fd = open(old, O_CREAT | O_WRONLY | O_TRUNC, 0644);
	if (fd < 0 || write(fd, text, length) != length || close(fd) || rename(old, path))
		die(old);
}

static void rest(struct machine *m)
{
	uint64_t count;

	if (read(m->doorbell, &count, sizeof(count)) == sizeof(count))
		m->bells += count;
	count = 1;
	if (write(m->interrupt, &count, sizeof(count)) < 0 && errno != EAGAIN)
		die("irqfd");
	report(m);
	if (m->io % (REST_EVERY * 256) == 0)
		printf("L2 %s alive %lu\n", m->name, m->io);
	fflush(stdout);
	usleep(REST_MICROSECONDS);
}

static void start(int cpu)
{
	struct kvm_sregs segments;
	struct kvm_regs registers = {.rip = CODE, .rflags = 2};
	struct kvm_mp_state state = {.mp_state = KVM_MP_STATE_RUNNABLE};

	if (ioctl(cpu, KVM_GET_SREGS, &segments))
		die("sregs");
	segments.cs.base = segments.cs.selector = 0;
	if (ioctl(cpu, KVM_SET_SREGS, &segments) || ioctl(cpu, KVM_SET_REGS, &registers))
		die("registers");
	wish("a started processor", ioctl(cpu, KVM_SET_MP_STATE, &state));
}

struct processor {
	struct machine *machine;
	int fd, first;
};

static void *turn(void *argument)
{
	struct processor *p = argument;
	struct machine *m = p->machine;
	struct kvm_run *run = mmap(NULL, m->mmap_size, PROT_READ | PROT_WRITE, MAP_SHARED, p->fd, 0);

	if (run == MAP_FAILED)
		die("kvm_run");
	start(p->fd);
	for (;;) {
		if (ioctl(p->fd, KVM_RUN, 0) < 0 && errno != EINTR && errno != EAGAIN)
			die("run");
		if (run->exit_reason == KVM_EXIT_MMIO)
			m->mmio++;
		else if (run->exit_reason != KVM_EXIT_IO)
			m->other++;
		else if (!p->first)
			usleep(REST_MICROSECONDS);
		else if (run->io.port == ALIVE && ++m->io % REST_EVERY == 0)
			rest(m);
		if (m->other > 1000) {
			fprintf(stderr, "nest: stopped by exit %u\n", run->exit_reason);
			exit(1);
		}
	}
}

int main(int argc, char **argv)
{
	struct machine m = {.name = argc > 1 ? argv[1] : "a"};
	int cpus = argc > 2 ? atoi(argv[2]) : 1, kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	struct processor *list = calloc(cpus, sizeof(*list));
	pthread_t thread;

	if (kvm < 0 || !list)
		die("/dev/kvm");
	m.vm = ioctl(kvm, KVM_CREATE_VM, 0);
	m.mmap_size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (m.vm < 0 || m.mmap_size < 0)
		die("machine");
	add_memory(&m);
	add_devices(&m);
	for (int i = 0; i < cpus; i++) {
		list[i] = (struct processor){.machine = &m, .fd = ioctl(m.vm, KVM_CREATE_VCPU, i), .first = i == 0};
		if (list[i].fd < 0)
			die("processor");
		if (i && pthread_create(&thread, NULL, turn, &list[i]))
			die("thread");
	}
	turn(&list[0]);
	return 1;
}
