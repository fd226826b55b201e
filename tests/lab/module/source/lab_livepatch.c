// SPDX-License-Identifier: (GPL-2.0-only OR MIT)
/*
 * A live patch that changes nothing: /proc/cmdline is shown by a function of this module, which shows the same.
 * It refuses to load unless the kernel was started with hypervigil.lab=1.
 */
#include <linux/fs.h>
#include <linux/kernel.h>
#include <linux/livepatch.h>
#include <linux/module.h>
#include <linux/seq_file.h>
#include <linux/string.h>

static char cmdline[1024];

static int shows_the_same(struct seq_file *file, void *unused)
{
	seq_puts(file, cmdline);
	return 0;
}

static struct klp_func functions[] = {
	{
		.old_name = "cmdline_proc_show",
		.new_func = shows_the_same,
	},
	{}
};

static struct klp_object objects[] = {
	{
		.funcs = functions,
	},
	{}
};

static struct klp_patch patch = {
	.mod = THIS_MODULE,
	.objs = objects,
};

static int __init lab_livepatch_init(void)
{
	struct file *file = filp_open("/proc/cmdline", O_RDONLY, 0);
	loff_t at = 0;
	ssize_t length;

	if (IS_ERR(file))
		return PTR_ERR(file);
	length = kernel_read(file, cmdline, sizeof(cmdline) - 1, &at);
	filp_close(file, NULL);
	if (length < 0)
		return length;
	if (!strstr(cmdline, "hypervigil.lab=1"))
		return -EPERM;
	return klp_enable_patch(&patch);
}

static void __exit lab_livepatch_exit(void)
{
}

module_init(lab_livepatch_init);
module_exit(lab_livepatch_exit);
MODULE_DESCRIPTION("a live patch that changes nothing");
MODULE_LICENSE("Dual MIT/GPL");
MODULE_INFO(livepatch, "Y");
