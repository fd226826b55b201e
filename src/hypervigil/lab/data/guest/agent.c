/* The lab's hand inside the emulated host: answers one line at a time on a serial port.
 *
 *   ping                      -> ok 0 0
 *   peek HEXADDR LENGTH       -> bytes of kernel memory as /proc/kcore shows them
 *   sh COMMAND                -> exit status and output of a shell command
 *
 * An answer is "ok STATUS LENGTH", then chunks: "hex BYTES" for short ones, or "pages LENGTH PFN,PFN,..."
 * naming the page frames that hold the chunk; the other side reads them from guest memory and says "next".
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

enum { PAGE = 4096, PAGES = 64, INLINE = 1024, LINE = 8192 };

static FILE *port;

static int fail(const char *what)
{
	fprintf(port, "error %s: %s\n", what, strerror(errno));
	fflush(port);
	return -1;
}

static void send_hex(const unsigned char *bytes, size_t length)
{
	fputs("hex ", port);
	for (size_t i = 0; i < length; i++)
		fprintf(port, "%02x", bytes[i]);
	fputc('\n', port);
	fflush(port);
}

static int send_pages(const unsigned char *box, size_t length)
{
	char line[64];
	uint64_t entry;
	int map = open("/proc/self/pagemap", O_RDONLY);

	if (map < 0)
		return fail("pagemap");
	fprintf(port, "pages %zu ", length);
	for (size_t at = 0; at < length; at += PAGE) {
		off_t where = ((uintptr_t)box + at) / PAGE * sizeof(entry);
		if (pread(map, &entry, sizeof(entry), where) != sizeof(entry))
			entry = 0;
		fprintf(port, "%llx,", (unsigned long long)(entry & ((1ULL << 55) - 1)));
	}
	close(map);
	fputc('\n', port);
	fflush(port);
	return fgets(line, sizeof(line), port) ? 0 : -1;
}

/* Sends LENGTH bytes of a file, page frames at a time. */
static int send_file(int fd, int status, size_t length)
{
	static unsigned char *box;
	ssize_t got;

	if (!box)
		box = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED | MAP_POPULATE, -1, 0);
	if (box == MAP_FAILED)
		return fail("mmap");
	fprintf(port, "ok %d %zu\n", status, length);
	while (length && (got = read(fd, box, PAGES * PAGE < length ? PAGES * PAGE : length)) > 0) {
		if ((size_t)got <= INLINE)
			send_hex(box, got);
		else if (send_pages(box, got))
			return -1;
		memset(box, 0, got);
		length -= got;
	}
	fflush(port);
	return 0;
}

/* The offset in /proc/kcore of a kernel virtual address, or -1. */
static off_t kcore_offset(int fd, uint64_t address, uint64_t length)
{
	Elf64_Ehdr head;
	Elf64_Phdr part;

	if (pread(fd, &head, sizeof(head), 0) != sizeof(head))
		return -1;
	for (int i = 0; i < head.e_phnum; i++) {
		if (pread(fd, &part, sizeof(part), head.e_phoff + i * sizeof(part)) != sizeof(part))
			return -1;
		if (part.p_type == PT_LOAD && address >= part.p_vaddr && address + length <= part.p_vaddr + part.p_memsz)
			return part.p_offset + (address - part.p_vaddr);
	}
	errno = EFAULT;
	return -1;
}

static void peek(uint64_t address, size_t length)
{
	unsigned char bytes[INLINE];
	int fd = open("/proc/kcore", O_RDONLY);
	off_t where;

	if (length > sizeof(bytes))
		length = sizeof(bytes);
	if (fd < 0) {
		fail("kcore");
		return;
	}
	where = kcore_offset(fd, address, length);
	if (where < 0 || pread(fd, bytes, length, where) != (ssize_t)length) {
		fail("peek");
	} else {
		fprintf(port, "ok 0 %zu\n", length);
		send_hex(bytes, length);
	}
	close(fd);
}

static void shell(const char *command)
{
	static const char output[] = "/run/agent.out";
	struct stat info;
	int fd, status = 0;
	pid_t child = fork();

	if (child == 0) {
		fd = open(output, O_CREAT | O_TRUNC | O_WRONLY, 0600);
		dup2(open("/dev/null", O_RDONLY), 0);
		dup2(fd, 1);
		dup2(fd, 2);
		for (int other = 3; other < 64; other++)
			close(other);
		execl("/bin/busybox", "sh", "-c", command, (char *)NULL);
		_exit(127);
	}
	if (child < 0 || waitpid(child, &status, 0) < 0 || (fd = open(output, O_RDONLY)) < 0) {
		fail("sh");
		return;
	}
	fstat(fd, &info);
	send_file(fd, WIFEXITED(status) ? WEXITSTATUS(status) : 128, info.st_size);
	close(fd);
	unlink(output);
}

static void answer(char *line)
{
	unsigned long long address, length;

	line[strcspn(line, "\r\n")] = 0;
	if (!strcmp(line, "ping"))
		fputs("ok 0 0\n", port);
	else if (sscanf(line, "peek %llx %llu", &address, &length) == 2)
		peek(address, length);
	else if (!strncmp(line, "sh ", 3))
		shell(line + 3);
	else if (*line)
		fputs("error unknown request\n", port);
	fflush(port);
}

int main(int argc, char **argv)
{
	static char line[LINE];
	struct termios raw;
	int fd = open(argc > 1 ? argv[1] : "/dev/ttyS1", O_RDWR | O_NOCTTY);

	if (fd < 0 || tcgetattr(fd, &raw)) {
		perror("agent");
		return 1;
	}
	cfmakeraw(&raw);
	tcsetattr(fd, TCSANOW, &raw);
	port = fdopen(fd, "r+");
	setvbuf(port, NULL, _IOFBF, 65536);
	fputs("agent ready\n", port);
	fflush(port);
	while (fgets(line, sizeof(line), port))
		answer(line);
	return 1;
}
