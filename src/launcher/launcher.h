/* What the parts of the launcher share: the policy, what is known of the kernel, what is applied, and how one gives up. */
#ifndef LAUNCHER_H
#define LAUNCHER_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>

#define LAUNCHER_VERSION "1"
#define EXIT_BAD_INPUT 125
#define EXIT_REFUSED 126
#define EXIT_NOT_FOUND 127

#define POLICY_BYTES (64 * 1024)
#define MAX_GRANTS 1024
#define MAX_OWN 4 /* beside those, what the launcher itself keeps from being changed */
#define MAX_WORDS 4096
#define MAX_PASSED 256
#define MAX_TOKEN 256

/* ---- policy.c ---- */

enum fs_scope { FS_CONFINED, FS_ALL, FS_OPEN };
enum net_mode { NET_NONE, NET_BROKER, NET_PORT_ONLY, NET_OPEN };
enum grant_kind { GRANT_RX, GRANT_R, GRANT_RW, GRANT_DEV, GRANT_PROGRAM };

struct grant {
  enum grant_kind kind;
  bool optional;
  const char *path;
};

struct limit {
  bool set;
  uint64_t value;
};

/* Texts point into the buffer that was read. */
struct policy {
  const char *name;
  const char *sha256;
  enum fs_scope fs;
  bool fs_given;
  struct grant grants[MAX_GRANTS];
  size_t grant_count;
  const char *hidden[MAX_GRANTS];
  size_t hidden_count;
  const char *readonly[MAX_GRANTS + MAX_OWN];
  size_t readonly_count;
  bool command_directory;
  bool no_links; /* granted paths hold no symlinks: whoever wrote them has followed these already */
  bool proc_self;
  bool proc_all;
  enum net_mode net;
  bool net_given;
  struct sockaddr_storage proxy;
  socklen_t proxy_length;
  char token[MAX_TOKEN + 1];
  struct limit data, nproc, nofile, fsize, cpu, watch_rss, watch_processes;
  unsigned grace_ms;
  bool filter;
  bool filter_given;
  bool require_container_seccomp;
  bool self_test;
  bool learn; /* nothing of files and connections is refused, everything is told */
  bool check; /* everything but the program itself */
  /* serve only */
  const char *passed[MAX_PASSED]; /* names, or `PREFIX*`, of variables of the launcher itself */
  size_t passed_count;
  char *environment[MAX_WORDS + 1];
  size_t environment_count;
  char *arguments[MAX_WORDS + 1];
  size_t argument_count;
  const char *directory;
  /* TEST_SEAMS only; test_abi < 0: as the kernel says */
  int test_abi;
  bool test_no_notify;
  const char *test_fail;
};

/* Reads `text`, which it changes and keeps pointing into. False with a line in `problem`. `serve`: env, arg and cwd are allowed. */
bool policy_read(struct policy *policy, char *text, size_t length, bool serve, char *problem, size_t problem_size);

/* ---- what is applied, and how it is told ---- */

enum mechanism { M_CAPS, M_NNP, M_RLIMITS, M_FS, M_NET, M_SCOPE, M_SECCOMP, M_BROKER, M_WATCHDOG, M_COUNT };
extern const char *const mechanism_names[M_COUNT];

enum self_test { SELF_TEST_NOT_RUN, SELF_TEST_PASS, SELF_TEST_FAIL };

struct facts {
  char release[65];
  int abi;          /* of Landlock; 0: none */
  int abi_error;    /* why there is none: ENOSYS not built in, EOPNOTSUPP switched off at boot */
  bool user_notify;
  int yama;         /* -1: no Yama */
  int container_seccomp;
  unsigned uid;
  bool nproc_inert; /* only known when limit.nproc was asked for */
};

struct places;

/* What the policy comes to on this kernel. */
struct layers {
  bool fs;            /* file rules */
  bool net;           /* TCP bind and connect handled */
  bool scope;         /* signals, abstract unix sockets */
  bool domain;        /* any Landlock domain at all: also for its ptrace scope */
  bool filter;
  bool metadata_rule; /* no write path: metadata calls are refused */
  bool truncate_rule; /* ABI < 3 */
  bool signal_rule;   /* ABI < 6 */
  bool connects;      /* served by the broker */
  bool binds;
  bool signals;
  bool learn;         /* file calls are told to the supervisor, and go on */
  int ruleset;        /* -1: none; built before the fork, the child adds its /proc and applies it */
  const struct places *hidden; /* what the ruleset leaves out; NULL: there are no file rules */
};

#define MAX_NOTES 256
struct notes {
  const char *skipped[MAX_NOTES];
  size_t skipped_count;
  const char *link_path[MAX_NOTES];
  char *link_target[MAX_NOTES];
  size_t link_count;
  bool exec_writable;
  bool truncated;
};

/* The file that is going to be run. */
struct command {
  char path[4096];
  char target[4096]; /* behind symlinks */
};

/* ---- facts.c ---- */
void facts_read(struct facts *facts, const struct policy *policy);
int probe_mode(void);

/* ---- landlock.c ---- */
int landlock_abi(int *error);
/* Builds the ruleset into layers->ruleset; refuses when a path cannot be opened. */
void landlock_build(const struct policy *policy, const struct facts *facts, struct layers *layers,
                    const struct command *command, struct notes *notes);
/* In the child. 0, or errno. */
int landlock_apply(const struct policy *policy, struct layers *layers);

/* ---- hidden.c ---- */
bool path_contains(const char *outer, const char *inner);
/* Paths as they really are, without symlinks. */
struct place {
  char *path;
  const char *of; /* the place that this is another mount of; NULL: it is none */
  bool directory;
  bool listed; /* that there is something of this name may show */
};
#define MAX_PLACES (2 * (MAX_GRANTS + MAX_OWN))
struct places {
  struct place all[MAX_PLACES];
  size_t count;
};
/* What a policy hides, and what it keeps from being changed, by all its names. Refuses when one cannot be told. */
void places_of(const struct policy *policy, struct places *hidden, struct places *readonly);
/* Where the kernel shows itself as files, /proc aside: who writes these freezes or ends whom it likes, the sidecar too. */
void places_add_kernel(struct places *readonly);
/* False: there are too many, or there is no memory. */
bool places_add(struct places *places, const char *path);
/* /proc and wherever else it is mounted. */
void places_add_proc(struct places *hidden);
/* Whether `path` lies in the place, or, of a hidden file, begins with its name. */
bool place_covers(const struct place *place, const char *path, bool hidden);
/* The first hidden place that `path` lies in, or, of a file, whose name `path` begins with; NULL: none. */
const struct place *places_covering(const struct places *hidden, const char *path);
/* The first that lies in `path`, that `path` lies in; both are true of equal ones. NULL: none. */
const struct place *places_below(const struct places *places, const char *path);
const struct place *places_around(const struct places *places, const char *path);
struct expansion {
  int ruleset;
  uint64_t allowed;
  bool listing; /* directories around hidden files may be listed */
  struct places hidden, readonly;
  size_t rules;
};
/* Grants `allowed` to everything below `from`, a path without symlinks, but to what is hidden nothing, and to what is
 * readonly no more than reading and executing. */
void expand(struct expansion *expansion, const char *from);
int landlock_allow(int ruleset, int descriptor, uint64_t allowed);
/* Opens `path`, close-on-exec, if no part of it is a symlink: what it was when its links were followed, or nothing. */
int open_real(const char *path, int flags);

/* ---- mounts.c ---- */
/* Adds to `places`, for those from `from` on, the names that they have through other mounts. False: these cannot be told, or
 * there are too many. `hidden`: what begins with the name of a file belongs to it. */
bool mounts_add_names(struct places *places, size_t from, bool hidden);
/* Adds to `places` where file systems are mounted by which the kernel is controlled. False likewise. */
bool mounts_add_kernel(struct places *places);

/* ---- seccomp.c ---- */
/* In the child: installs the filter. The listener's descriptor, -1 without one, -2 with errno. */
int seccomp_apply(const struct policy *policy, const struct layers *layers);
void seccomp_list(void);

/* ---- child.c ---- */
/* What the child tells the supervisor over their socket pair. */
enum child_word { CHILD_LISTENER, CHILD_TESTED, CHILD_FAILED };
struct child_message {
  enum child_word word;
  int error;
  enum mechanism mechanism;
  bool exec; /* it is the program that could not be run */
  unsigned char results[M_COUNT];
  char what[512];
};
struct start {
  struct policy *policy;
  const struct facts *facts;
  struct layers *layers;
  const struct command *command;
  char **arguments;
  char **environment;
  uint64_t nproc_now;
  pid_t supervisor;
};
_Noreturn void child_run(const struct start *start, int control);

/* ---- selftest.c ---- */
/* Directories and files that can be opened now and must not be afterwards; call before landlock_apply. */
void selftest_prepare(const struct policy *policy, const struct layers *layers);
/* In the child, after everything was applied. False: one failed, `what` says which. */
bool selftest_run(const struct start *start, struct child_message *message);

/* ---- tree.c ---- */
/* Processes below the supervisor. */
struct tree_size {
  uint64_t processes;
  uint64_t threads; /* of all of them: one at least for each */
  uint64_t memory;  /* bytes */
};
/* Stops and kills whatever is below this process until nothing is. False: after `ms`, some are left that were killed and that
 * the kernel holds in a wait; never while one can still run. The wait status of `child`, a child that is not reaped yet, or
 * 0, goes to `status` when it is reaped here. */
bool tree_kill(unsigned ms, pid_t child, int *status);
struct tree_size tree_measure(void);

/* ---- report.c ---- */
void report_started(const struct policy *policy, const struct facts *facts, const struct layers *layers,
                    const struct notes *notes, pid_t child, const unsigned char *results);
void report_exit(bool signalled, int number, const char *reason, bool unclean);
/* Where status lines go; -1: nowhere yet. */
extern int status_descriptor;

/* Gives up: a `refused` status line, a line on stderr, the tree killed. */
_Noreturn void refuse(int exit_code, const char *mechanism, const char *way_out, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
/* One line on stderr. */
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* What a watched server did: `access` to a file, something that is refused to everybody, its size so far. */
void report_file(const char *access, const char *path);
void report_tried(const char *what, int port);
void report_size(uint64_t rss, uint64_t processes);
/* From here on not everything is told: there is too much. */
void report_lost(void);

/* ---- learn.c ---- */
struct broker;
struct call;
/* Calls that a watched server makes with the supervisor's knowledge. */
extern const uint32_t *const learn_calls;
extern const size_t learn_call_count;
/* From now on, what the tree of `child` does is told. `truncations`: Landlock does not see them, so they are refused. */
void learn_begin(pid_t child, bool truncations);
/* For broker_options.observe. */
int learn_observe(struct broker *broker, const struct call *call);

/* ---- io.c ---- */
/* All of it, through EINTR, EAGAIN and partial writes. False: the other side is gone. */
bool write_all(int descriptor, const void *bytes, size_t length);
uint64_t now_ms(void);
/* A small file of /proc into `buffer`, ended with NUL. Its length, or -1. */
ssize_t read_small(int directory, const char *path, char *buffer, size_t size);

/* ---- supervise.c ---- */
/* Runs the command under the policy until it ends; the exit code of the launcher. */
int supervise(struct policy *policy, char **arguments, char **environment);

/* ---- serve.c ---- */
int serve_mode(int count, char **words);

#endif
