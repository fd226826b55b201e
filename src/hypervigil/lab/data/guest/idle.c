/* A process that only counts: it names itself, goes to the background, and writes how often it woke.
 *
 *   idle NAME        prints the new process's id; the count is in /run/idle/NAME
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "idle";
	char path[64], text[32];
	pid_t child = fork();

	if (child) {
		printf("%d\n", child);
		return child < 0;
	}
	setsid();
	for (int fd = 0; fd < 64; fd++)
		close(fd);
	prctl(PR_SET_NAME, name);
	mkdir("/run/idle", 0755);
	snprintf(path, sizeof(path), "/run/idle/%s", name);
	for (unsigned long n = 0;; n++) {
		int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0644);
		int length = snprintf(text, sizeof(text), "%lu\n", n);
		if (fd < 0 || write(fd, text, length) != length)
			return 1;
		close(fd);
		usleep(50000);
	}
}
