"""The kernel's structures as far as they are read, in the shape of Linux 6.12, and KVM's in its module."""

LISTS = {
    "list_head": "next:ptr prev:ptr",
    "hlist_head": "first:ptr",
    "hlist_node": "next:ptr pprev:ptr",
    "rb_node": "colour:u64 right:ptr left:ptr",
    "rb_root": "rb_node:ptr",
    "xarray": "lock:u32 flags:u32 xa_head:ptr",
    "xa_node": "shift:u8 offset:u8 count:u8 values:u8 parent:ptr array:ptr slots:ptr[64]",
}
MODULES = {
    "latch_tree_node": "node:rb_node[2]",
    "latch_tree_root": "seq:u64 tree:rb_root[2]",
    "mod_tree_node": "mod:ptr node:latch_tree_node",
    "mod_tree_root": "root:latch_tree_root addr_min:u64 addr_max:u64",
    "module_memory": "base:ptr size:u32 mtn:mod_tree_node",
    "mod_kallsyms": "symtab:ptr num_symtab:u32 strtab:ptr typetab:ptr",
    "attribute": "name:ptr mode:u16",
    "bin_attribute": "attr:attribute size:u64 private:ptr",
    "module_sect_attr": "battr:bin_attribute address:u64",
    "module_sect_attrs": "nsections:u32 attrs:module_sect_attr[4]",
    "kobject": "name:ptr entry:list_head parent:ptr",
    "kset": "list:list_head lock:u64",
    "module_kobject": "kobj:kobject mod:ptr",
    "module": "state:u32 list:list_head name:char[56] mem:module_memory[7] kallsyms:*mod_kallsyms "
    "sect_attrs:*module_sect_attrs bug_list:list_head num_bugs:u32 its_num_pages:i32 its_page_array:ptr",
    "alt_instr": "instr_offset:i32 repl_offset:i32 cpuid:u16 instrlen:u8 replacementlen:u8",
    "btf": "data:ptr data_size:u32 name:char[56]",
    "btf_module": "list:list_head module:ptr btf:ptr",
    "kernel_symbol": "value_offset:i32 name_offset:i32 namespace_offset:i32",
}
TASKS = {
    "new_utsname": "sysname:char[65] nodename:char[65] release:char[65]",
    "uts_namespace": "name:new_utsname user:ptr",
    "sched_entity": "load:u64 group_node:list_head",
    "task_struct": "flags:u64 se:sched_entity tasks:list_head mm:ptr exit_state:i32 pid:i32 tgid:i32 "
    "children:list_head sibling:list_head group_leader:ptr pid_links:hlist_node[4] thread_node:list_head "
    "comm:char[16] files:ptr signal:ptr",
    "signal_struct": "count:u64 thread_head:list_head",
    "idr": "idr_rt:xarray idr_base:u32",
    "pid_namespace": "idr:idr level:u32",
    "pid": "count:u32 level:u32 tasks:hlist_head[4]",
    "rq": "lock:u64 curr:ptr idle:ptr cfs_tasks:list_head",
    "mm_struct": "count:u64 pgd:ptr notifier_subscriptions:ptr",
    "mmu_notifier_subscriptions": "list:hlist_head has_itree:u64",
    "files_struct": "count:u32 fdt:ptr",
    "fdtable": "max_fds:u32 fd:ptr",
    "file": "mode:u64 f_op:ptr private_data:ptr",
}
EXECUTABLE = {
    "vm_struct": "next:ptr addr:ptr size:u64 flags:u64 pages:ptr",
    "vmap_area": "va_start:u64 va_end:u64 rb:rb_node list:list_head vm:ptr",
    "rb_list": "root:rb_root head:list_head",
    "vmap_node": "lock:u64 busy:rb_list",
    "bpf_ksym": "start:u64 end:u64 name:char[64] lnode:list_head",
    "bpf_prog": "pages:u16 jited_len:u32 bpf_func:fn aux:ptr",
    "bpf_prog_aux": "refcnt:u64 prog:ptr",
    "bpf_binary_header": "size:u32 image:u8[4]",
    "kprobe_insn_cache": "mutex:u64 pages:list_head",
    "kprobe_insn_page": "list:list_head insns:ptr",
    "ftrace_ops": "func:fn next:ptr flags:u64 trampoline:u64 trampoline_size:u64 list:list_head",
    "real_mode_header": "text_start:u32 ro_end:u32",
}
SHARED = {
    "file_operations": "owner:ptr llseek:fn read:fn unlocked_ioctl:fn release:fn",
    "mmu_notifier": "hlist:hlist_node ops:ptr mm:ptr",
    "mmu_notifier_ops": "release:fn invalidate_range_start:fn",
    "preempt_ops": "sched_in:fn sched_out:fn",
    "preempt_notifier": "link:hlist_node ops:*preempt_ops",
    "perf_guest_info_callbacks": "state:fn get_ip:fn",
    "vm_operations_struct": "open:fn fault:fn",
    "wait_queue_entry": "flags:u32 private:ptr func:fn entry:list_head",
    "poll_table_struct": "_qproc:fn key:u32",
    "work_struct": "data:u64 entry:list_head func:fn",
    "forward": "device:*kvm_io_device machine:*kvm",
}
KERNEL = {**LISTS, **MODULES, **TASKS, **EXECUTABLE, **SHARED}
"""The types of vmlinux; of KVM it has forward declarations only."""

KVM = {
    "kvm_io_device_ops": "read:fn write:fn destructor:fn",
    "kvm_io_device": "ops:*kvm_io_device_ops",
    "kvm_io_range": "addr:u64 len:i32 dev:*kvm_io_device",
    "kvm_io_bus": "dev_count:i32 ioeventfd_count:i32 range:kvm_io_range[4]",
    "kvm_irqfds": "lock:u64 items:list_head",
    "kvm": "lock:u64 buses:*kvm_io_bus[5] vcpu_array:xarray vm_list:list_head irqfds:kvm_irqfds "
    "mmu_notifier:mmu_notifier devices:list_head userspace_pid:i32",
    "kvm_vcpu": "kvm:ptr preempt_notifier:preempt_notifier cpu:i32",
    "kvm_device_ops": "name:ptr create:fn destroy:fn",
    "kvm_device": "ops:*kvm_device_ops kvm:ptr private:ptr vm_node:list_head",
    "kvm_kernel_irqfd": "kvm:ptr wait:wait_queue_entry pt:poll_table_struct list:list_head shutdown:work_struct",
    "kvm_x86_nested_ops": "leave_nested:fn check_events:fn",
    "kvm_x86_ops": "name:ptr check_processor:fn vcpu_run:fn handle_exit:fn nested_ops:*kvm_x86_nested_ops "
    "pmu_ops:*kvm_pmu_ops",
    "kvm_pmu_ops": "refresh:fn reset:fn",
    "opcode": "flags:u64 u:ptr check_perm:fn",
    "x86_emulate_ops": "read_gpr:fn write_gpr:fn",
}
"""The types of the module kvm."""
