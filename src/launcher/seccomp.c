/* The system call filter: a deny list on top of the container's own, with argument rules, made at run time for this policy
 * and kernel. A block per call, which ends in an answer; the blocks become the leaves of a search tree, as the kernel walks
 * the filter once for each call that exists when it is installed. */
#include "launcher.h"
#include "sys.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MOST_INSTRUCTIONS 2048
#define MOST_BLOCKS 256
#define LOAD 0x20        /* BPF_LD | BPF_W | BPF_ABS */
#define AND 0x54         /* BPF_ALU | BPF_AND | BPF_K */
#define JUMP_EQUAL 0x15  /* BPF_JMP | BPF_JEQ | BPF_K */
#define JUMP_ABOVE 0x25  /* BPF_JMP | BPF_JGT | BPF_K */
#define JUMP_FROM 0x35   /* BPF_JMP | BPF_JGE | BPF_K */
#define JUMP_SET 0x45    /* BPF_JMP | BPF_JSET | BPF_K */
#define JUMP 0x05        /* BPF_JMP | BPF_JA */
#define RETURN 0x06      /* BPF_RET | BPF_K */
#define NUMBER_OFFSET 0
#define ARCH_OFFSET 4
/* The low word: what the kernel uses of an int or unsigned argument. */
#define ARGUMENT_OFFSET(n) (16U + 8U * (n))

#define DENY(number) (SC_ERRNO | (number))

struct program {
  struct sc_instruction code[MOST_INSTRUCTIONS];
  uint16_t length;
};

/* What is answered to one call: a piece of the program `parts`. */
struct block {
  uint32_t call;
  uint16_t start;
  uint16_t end;
};

static struct program parts;
static struct block blocks[MOST_BLOCKS];
static size_t block_count;

static uint16_t emit(struct program *program, uint16_t code, uint32_t k, uint8_t jump_true, uint8_t jump_false) {
  if (program->length == MOST_INSTRUCTIONS) abort();
  program->code[program->length] = (struct sc_instruction){code, jump_true, jump_false, k};
  return program->length++;
}

static void load(struct program *program, uint32_t offset) { emit(program, LOAD, offset, 0, 0); }
static void answer(struct program *program, uint32_t action) { emit(program, RETURN, action, 0, 0); }

/* A test whose failing jumps to the place that `landing` names later. */
static uint16_t only_if(struct program *program, uint16_t test, uint32_t k) { return emit(program, test, k, 0, 0); }

static void landing(struct program *program, uint16_t from) {
  unsigned distance = (unsigned)program->length - from - 1U;
  if (distance > 255) abort();
  program->code[from].jump_false = (uint8_t)distance;
}

static void answer_if(struct program *program, uint16_t test, uint32_t k, uint32_t action) {
  uint16_t from = only_if(program, test, k);
  answer(program, action);
  landing(program, from);
}

static struct block *begin(struct program *program, uint32_t call) {
  if (block_count == MOST_BLOCKS) abort();
  blocks[block_count] = (struct block){call, program->length, 0};
  return &blocks[block_count++];
}

static void end(const struct program *program, struct block *block) { block->end = program->length; }

/* The whole rule of a call without arguments to look at. */
static void rule(struct program *program, uint32_t call, uint32_t action) {
  struct block *block = begin(program, call);
  answer(program, action);
  end(program, block);
}

/* A call whose argument is refused when it has any of `bits`. */
static void refuse_bits(struct program *program, uint32_t call, unsigned argument, uint32_t bits, uint32_t action) {
  struct block *block = begin(program, call);
  load(program, ARGUMENT_OFFSET(argument));
  answer_if(program, JUMP_SET, bits, action);
  answer(program, SC_ALLOW);
  end(program, block);
}

/* A call that is only allowed with this argument. */
static void require_value(struct program *program, uint32_t call, unsigned argument, uint32_t value, uint32_t action) {
  struct block *block = begin(program, call);
  load(program, ARGUMENT_OFFSET(argument));
  answer_if(program, JUMP_EQUAL, value, SC_ALLOW);
  answer(program, action);
  end(program, block);
}

/* Two arguments at once: setpriority(PRIO_PROCESS, 0) is the caller itself. */
static void own_priority(struct program *program) {
  struct block *block = begin(program, NR_setpriority);
  load(program, ARGUMENT_OFFSET(0));
  uint16_t other = only_if(program, JUMP_EQUAL, 0);
  load(program, ARGUMENT_OFFSET(1));
  answer_if(program, JUMP_EQUAL, 0, SC_ALLOW);
  landing(program, other);
  answer(program, DENY(EPERM));
  end(program, block);
}

#define TYPE_MASK 0xFU
#define ANSWER_TYPE(program, type, action) answer_if(program, JUMP_EQUAL, type, action)

/* A watched server's attempts are told; the supervisor then refuses them. */
static uint32_t socket_refusal = DENY(EACCES);

/* Protocol 0 or the one named. */
static void protocols(struct program *program, uint32_t protocol) {
  load(program, ARGUMENT_OFFSET(2));
  answer_if(program, JUMP_EQUAL, 0, SC_ALLOW);
  answer_if(program, JUMP_EQUAL, protocol, SC_ALLOW);
  answer(program, socket_refusal);
}

static void internet_sockets(struct program *program, uint32_t family, bool datagrams) {
  uint16_t other = only_if(program, JUMP_EQUAL, family);
  load(program, ARGUMENT_OFFSET(1));
  emit(program, AND, TYPE_MASK, 0, 0);
  uint16_t not_stream = only_if(program, JUMP_EQUAL, SOCK_STREAM);
  protocols(program, IPPROTO_TCP);
  landing(program, not_stream);
  if (datagrams) {
    uint16_t not_datagram = only_if(program, JUMP_EQUAL, SOCK_DGRAM);
    protocols(program, IPPROTO_UDP);
    landing(program, not_datagram);
  }
  answer(program, socket_refusal);
  landing(program, other);
}

/* Families are an allowlist: TCP, and the netlink family by which libc lists interfaces. */
static void sockets(struct program *program, enum net_mode net) {
  struct block *block = begin(program, NR_socket);
  load(program, ARGUMENT_OFFSET(0));
  uint16_t other = only_if(program, JUMP_EQUAL, AF_NETLINK);
  load(program, ARGUMENT_OFFSET(2));
  answer_if(program, JUMP_EQUAL, 0, SC_ALLOW);
  answer(program, socket_refusal);
  landing(program, other);
  if (net != NET_NONE) {
    internet_sockets(program, AF_INET, net == NET_OPEN);
    internet_sockets(program, AF_INET6, net == NET_OPEN);
  }
  answer(program, socket_refusal);
  end(program, block);

  /* No datagram pair: it can sendto() any unix socket that has a path. */
  block = begin(program, NR_socketpair);
  load(program, ARGUMENT_OFFSET(0));
  other = only_if(program, JUMP_EQUAL, AF_UNIX);
  load(program, ARGUMENT_OFFSET(1));
  emit(program, AND, TYPE_MASK, 0, 0);
  ANSWER_TYPE(program, SOCK_STREAM, SC_ALLOW);
  ANSWER_TYPE(program, SOCK_SEQPACKET, SC_ALLOW);
  landing(program, other);
  answer(program, DENY(EACCES));
  end(program, block);
}

static void network(struct program *program, const struct policy *policy, const struct layers *layers) {
  enum net_mode net = policy->net;
  sockets(program, net);
  rule(program, NR_listen, socket_refusal);
  if (layers->connects) rule(program, NR_connect, SC_USER_NOTIF);
  if (net == NET_NONE) rule(program, NR_connect, DENY(EACCES));
  if (layers->binds || layers->learn) rule(program, NR_bind, SC_USER_NOTIF);
  if (net == NET_OPEN) return;
  const uint32_t fast_open = 0x20000000U; /* MSG_FASTOPEN: connects without connect() */
  refuse_bits(program, NR_sendto, 3, fast_open, DENY(EPERM));
  refuse_bits(program, NR_sendmsg, 2, fast_open, DENY(EPERM));
  refuse_bits(program, NR_sendmmsg, 3, fast_open, DENY(EPERM));
}

/* A lease makes others wait: whoever opens the file is held for fs.lease-break-time, 45 seconds, and its owner may take one of
 * a file that it can only read. That is the program of the next session, and for root the system's libraries. */
static void file_controls(struct program *program, const struct layers *layers) {
  struct block *block = begin(program, NR_fcntl);
  load(program, ARGUMENT_OFFSET(1));
  answer_if(program, JUMP_EQUAL, 1024, DENY(EPERM)); /* F_SETLEASE */
  answer_if(program, JUMP_EQUAL, 1040, DENY(EPERM)); /* F_SETDELEG */
  if (layers->signal_rule) {
    answer_if(program, JUMP_EQUAL, 8, DENY(EPERM));  /* F_SETOWN */
    answer_if(program, JUMP_EQUAL, 15, DENY(EPERM)); /* F_SETOWN_EX */
  }
  answer(program, SC_ALLOW);
  end(program, block);
}

/* Whoever closes a lingering socket waits until all of it is sent, and that can be the sidecar: a socket that the server
 * passes over its standard output is closed by whoever reads there. It counts as set, as some programs give up without, and
 * what is said to the proxy is no more than said to the proxy. */
static void lingering(struct program *program) {
  struct block *block = begin(program, NR_setsockopt);
  load(program, ARGUMENT_OFFSET(1));
  uint16_t other = only_if(program, JUMP_EQUAL, SOL_SOCKET);
  load(program, ARGUMENT_OFFSET(2));
  answer_if(program, JUMP_EQUAL, SO_LINGER, DENY(0));
  landing(program, other);
  answer(program, SC_ALLOW);
  end(program, block);
}

/* Device controls: of terminals, of page faults, of owners of signals where Landlock has no signal scope, of inode flags. */
static void controls(struct program *program, const struct layers *layers) {
  struct block *block = begin(program, NR_ioctl);
  load(program, ARGUMENT_OFFSET(1));
  answer_if(program, JUMP_EQUAL, 0x5412, DENY(EPERM)); /* TIOCSTI */
  answer_if(program, JUMP_EQUAL, 0x541C, DENY(EPERM)); /* TIOCLINUX */
  answer_if(program, JUMP_EQUAL, 0xAA00, DENY(EPERM)); /* USERFAULTFD_IOC_NEW: the call of that name, by a device */
  if (layers->signal_rule) {
    answer_if(program, JUMP_EQUAL, 0x8901, DENY(EPERM)); /* FIOSETOWN */
    answer_if(program, JUMP_EQUAL, 0x8902, DENY(EPERM)); /* SIOCSPGRP */
  }
  if (layers->metadata_rule) {
    answer_if(program, JUMP_EQUAL, 0x40086602, DENY(EPERM)); /* FS_IOC_SETFLAGS */
    answer_if(program, JUMP_EQUAL, 0x40046602, DENY(EPERM)); /* FS_IOC32_SETFLAGS */
    answer_if(program, JUMP_EQUAL, 0x401C5820, DENY(EPERM)); /* FS_IOC_FSSETXATTR */
  }
  answer(program, SC_ALLOW);
  end(program, block);
}

/* Only KILL may become the signal of a dead parent: any other could be caught, and none would outlive the supervisor. */
static void death_signal(struct program *program) {
  struct block *block = begin(program, NR_prctl);
  load(program, ARGUMENT_OFFSET(0));
  uint16_t other = only_if(program, JUMP_EQUAL, 1); /* PR_SET_PDEATHSIG */
  load(program, ARGUMENT_OFFSET(1));
  answer_if(program, JUMP_EQUAL, 9, SC_ALLOW);
  answer(program, DENY(EPERM));
  landing(program, other);
  answer(program, SC_ALLOW);
  end(program, block);
}

/* A filter of the server's own is welcome, a listener is not: the latest one would answer instead of the broker. */
static void own_filters(struct program *program) { refuse_bits(program, NR_seccomp, 1, ~SC_HARMLESS_FLAGS, DENY(EPERM)); }

/* Without Landlock's signal scope: to oneself freely, to others through the supervisor, to groups never. */
static void signals(struct program *program, const struct layers *layers) {
  static const uint32_t calls[] = {NR_kill, NR_tkill, NR_tgkill, NR_rt_sigqueueinfo, NR_rt_tgsigqueueinfo};
  uint32_t others = layers->signals ? SC_USER_NOTIF : DENY(EPERM);
  for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
    struct block *block = begin(program, calls[i]);
    load(program, ARGUMENT_OFFSET(0));
    answer_if(program, JUMP_EQUAL, (uint32_t)getpid(), SC_ALLOW);
    answer_if(program, JUMP_EQUAL, 0, DENY(EPERM));
    answer_if(program, JUMP_ABOVE, 0x7FFFFFFF, DENY(EPERM));
    answer(program, others);
    end(program, block);
  }
  rule(program, NR_pidfd_send_signal, others);
}

/* Landlock before ABI 3 sees no truncation: it is left to descriptors that were opened for writing. */
static void truncation_of(struct program *program, uint32_t call, unsigned argument) {
  struct block *block = begin(program, call);
  load(program, ARGUMENT_OFFSET(argument));
  emit(program, AND, 01003, 0, 0); /* O_TRUNC | O_ACCMODE */
  answer_if(program, JUMP_EQUAL, 01000, DENY(EACCES));
  answer_if(program, JUMP_EQUAL, 01003, DENY(EACCES));
  answer(program, SC_ALLOW);
  end(program, block);
}

static void truncation(struct program *program) {
  rule(program, NR_truncate, DENY(EACCES));
  rule(program, NR_openat2, DENY(ENOSYS));
  truncation_of(program, NR_openat, 2);
#ifdef NR_open
  truncation_of(program, NR_open, 1);
#endif
}

struct named {
  uint32_t number;
  const char *name;
};
#define CALL(name) {NR_##name, #name}

/* Refused with EPERM whatever their arguments. */
static const struct named refused[] = {
    /* other processes */
    CALL(ptrace), CALL(process_vm_readv), CALL(process_vm_writev), CALL(pidfd_getfd), CALL(process_madvise),
    CALL(process_mrelease), CALL(kcmp), CALL(move_pages), CALL(migrate_pages),
    /* kernel surface */
    CALL(io_uring_setup), CALL(io_uring_enter), CALL(io_uring_register), CALL(bpf), CALL(perf_event_open), CALL(userfaultfd),
    CALL(add_key), CALL(request_key), CALL(keyctl), CALL(fanotify_init), CALL(lookup_dcookie), CALL(lsm_set_self_attr),
    /* memory that no process is charged for once it is unmapped, and that is never swapped */
    CALL(memfd_secret),
#ifdef NR_iopl
    CALL(iopl), CALL(ioperm), CALL(modify_ldt), CALL(uselib), CALL(ustat), CALL(sysfs),
#endif
    /* namespaces, mounts */
    CALL(unshare), CALL(setns), CALL(mount), CALL(umount2), CALL(pivot_root), CALL(chroot), CALL(fsopen), CALL(fsmount),
    CALL(fsconfig), CALL(fspick), CALL(move_mount), CALL(open_tree), CALL(open_tree_attr), CALL(mount_setattr),
    /* file handles, administration */
    CALL(open_by_handle_at), CALL(name_to_handle_at), CALL(init_module), CALL(finit_module), CALL(delete_module),
    CALL(kexec_load), CALL(kexec_file_load), CALL(swapon), CALL(swapoff), CALL(reboot), CALL(acct), CALL(quotactl),
    CALL(quotactl_fd), CALL(syslog), CALL(settimeofday), CALL(clock_settime), CALL(clock_adjtime), CALL(adjtimex),
    CALL(sethostname), CALL(setdomainname), CALL(vhangup),
    /* SysV IPC, POSIX message queues: identifiers can be guessed, so the use is refused as well as the making */
    CALL(shmget), CALL(shmat), CALL(shmctl), CALL(msgget), CALL(msgsnd), CALL(msgrcv), CALL(msgctl), CALL(semget), CALL(semop),
    CALL(semtimedop), CALL(semctl), CALL(mq_open), CALL(mq_unlink),
    /* limits of other processes */
    CALL(ioprio_set),
};

/* Refused with EPERM where the profile has no path to write to. */
static const struct named metadata[] = {
    CALL(fchmod), CALL(fchmodat), CALL(fchmodat2), CALL(fchown), CALL(fchownat), CALL(utimensat), CALL(setxattr),
    CALL(lsetxattr), CALL(fsetxattr), CALL(setxattrat), CALL(removexattr), CALL(lremovexattr), CALL(fremovexattr),
    CALL(removexattrat), CALL(file_setattr),
#ifdef NR_chmod
    CALL(chmod), CALL(chown), CALL(lchown), CALL(utime), CALL(utimes), CALL(futimesat),
#endif
};

/* Allowed for the caller itself only, written as pid 0. */
static const struct named own_only[] = {CALL(prlimit64), CALL(sched_setparam), CALL(sched_setscheduler), CALL(sched_setaffinity),
                                        CALL(sched_setattr)};

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static void rules(struct program *program, const struct policy *policy, const struct layers *layers) {
  socket_refusal = layers->learn ? SC_USER_NOTIF : DENY(EACCES);
  if (layers->learn)
    for (size_t i = 0; i < learn_call_count; i++) rule(program, learn_calls[i], SC_USER_NOTIF);
  else if (layers->truncate_rule) truncation(program);
  controls(program, layers);
  file_controls(program, layers);
  lingering(program);
  network(program, policy, layers);
  /* Namespaces; and CLONE_PARENT (0x8000): children stay below those who made them, where they are looked for. */
  refuse_bits(program, NR_clone, 0, 0x7E028000U, DENY(EPERM));
  rule(program, NR_clone3, DENY(ENOSYS));
  death_signal(program);
  own_filters(program);
  own_priority(program);
  if (layers->signal_rule) signals(program, layers);
  for (size_t i = 0; i < COUNT(own_only); i++) require_value(program, own_only[i].number, 0, 0, DENY(EPERM));
  for (size_t i = 0; i < COUNT(refused); i++) rule(program, refused[i].number, DENY(EPERM));
  if (layers->metadata_rule)
    for (size_t i = 0; i < COUNT(metadata); i++) rule(program, metadata[i].number, DENY(EPERM));
}

static int by_call(const void *left, const void *right) {
  uint32_t one = ((const struct block *)left)->call, other = ((const struct block *)right)->call;
  /* Two rules for one call: only one of them would be asked. */
  if (one == other && left != right) abort();
  return one < other ? -1 : one > other;
}

/* Neighbours with one and the same answer are one leaf: half of the filter would be leaves of a single call. */
#define MOST_IN_GROUP 6
struct group {
  size_t first;
  size_t count;
};
static struct group groups[MOST_BLOCKS];

static size_t make_groups(void) {
  size_t count = 0;
  for (size_t i = 0; i < block_count; i++) {
    struct group *last = count > 0 ? &groups[count - 1] : NULL;
    const struct block *block = &blocks[i], *before = last != NULL ? &blocks[last->first] : NULL;
    bool same = last != NULL && last->count < MOST_IN_GROUP && block->end - block->start == 1 && before->end - before->start == 1 &&
                parts.code[block->start].k == parts.code[before->start].k;
    if (same) last->count++;
    else groups[count++] = (struct group){i, 1};
  }
  return count;
}

static void leaf(struct program *program, const struct group *group) {
  const struct block *block = &blocks[group->first];
  if (group->count > 1) {
    for (size_t i = 0; i < group->count; i++) emit(program, JUMP_EQUAL, block[i].call, (uint8_t)(group->count - i), 0);
    answer(program, SC_ALLOW);
    answer(program, parts.code[block->start].k);
    return;
  }
  uint16_t from = only_if(program, JUMP_EQUAL, block->call);
  for (uint16_t at = block->start; at < block->end; at++) {
    const struct sc_instruction *each = &parts.code[at];
    emit(program, each->code, each->k, each->jump_true, each->jump_false);
  }
  landing(program, from);
  answer(program, SC_ALLOW);
}

static void tree(struct program *program, size_t first, size_t count) {
  if (count == 1) {
    leaf(program, &groups[first]);
    return;
  }
  size_t half = count / 2;
  /* Left lies right behind; to the right it may be further than a conditional jump reaches. */
  emit(program, JUMP_FROM, blocks[groups[first + half].first].call, 0, 1);
  uint16_t jump = emit(program, JUMP, 0, 0, 0);
  tree(program, first, half);
  program->code[jump].k = (uint32_t)program->length - jump - 1U;
  tree(program, first + half, count - half);
}

static void build(struct program *program, const struct policy *policy, const struct layers *layers) {
  parts.length = program->length = 0;
  block_count = 0;
  rules(&parts, policy, layers);
  qsort(blocks, block_count, sizeof blocks[0], by_call);
  load(program, ARCH_OFFSET);
  emit(program, JUMP_EQUAL, ARCH_AUDIT, 1, 0);
  answer(program, SC_KILL_PROCESS);
  load(program, NUMBER_OFFSET);
#ifdef X32_BIT
  answer_if(program, JUMP_SET, X32_BIT, DENY(ENOSYS));
#endif
  answer_if(program, JUMP_ABOVE, NEWEST_SYSCALL, DENY(ENOSYS));
  tree(program, 0, make_groups());
}

int seccomp_apply(const struct policy *policy, const struct layers *layers) {
  static struct program program;
  build(&program, policy, layers);
  struct sc_program filter = {program.length, program.code};
  if (!layers->connects && !layers->binds && !layers->signals)
    return syscall(NR_seccomp, SC_SET_MODE_FILTER, 0UL, &filter) == 0 ? -1 : -2;
  long listener = syscall(NR_seccomp, SC_SET_MODE_FILTER, SC_FLAG_NEW_LISTENER | SC_FLAG_WAIT_KILLABLE, &filter);
  if (listener < 0 && errno == EINVAL) listener = syscall(NR_seccomp, SC_SET_MODE_FILTER, SC_FLAG_NEW_LISTENER, &filter);
  return listener < 0 ? -2 : (int)listener;
}

static void list(const char *title, const struct named *calls, size_t count) {
  printf("%s:", title);
  for (size_t i = 0; i < count; i++) printf(" %s", calls[i].name);
  printf("\n");
}

void seccomp_list(void) {
  list("EPERM", refused, COUNT(refused));
  list("EPERM unless for the caller itself (pid 0)", own_only, COUNT(own_only));
  list("EPERM without a write path", metadata, COUNT(metadata));
}
