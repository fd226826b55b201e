/* Leaves a block of kernel heap that nobody else uses: the text of a System V message that is never received.
 *
 *   hold SIZE        prints 16 random bytes as hex, with which the block is filled; SIZE to 4000
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/msg.h>
#include <sys/random.h>

struct message {
	long type;
	char text[4000];
};

int main(int argc, char **argv)
{
	static struct message message = {.type = 1};
	size_t size = argc > 1 ? strtoul(argv[1], NULL, 0) : 0;
	unsigned char mark[16];
	int queue = msgget(IPC_PRIVATE, 0600);

	if (queue < 0 || size < sizeof(mark) || size > sizeof(message.text) || getrandom(mark, sizeof(mark), 0) != sizeof(mark))
		return 1;
	for (size_t at = 0; at + sizeof(mark) <= size; at += sizeof(mark))
		memcpy(message.text + at, mark, sizeof(mark));
	if (msgsnd(queue, &message, size, 0))
		return 1;
	explicit_bzero(message.text, sizeof(message.text));
	for (size_t at = 0; at < sizeof(mark); at++)
		printf("%02x", mark[at]);
	putchar('\n');
	return 0;
}
