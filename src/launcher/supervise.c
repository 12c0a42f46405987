/* The supervisor: starts the child, serves its broker, forwards signals, watches its size, and ends everything it left. */
#include "launcher.h"
#include "broker.h"
#include "plan.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define WATCH_MS 1000
#define TREE_KILL_MS 10000
#define NONE UINT64_MAX

static struct supervisor {
  struct policy *policy;
  struct facts facts;
  struct layers layers;
  struct notes notes;
  struct command command;
  pid_t child;
  int child_proc;    /* holds the inode of /proc/<child>, which a Landlock rule is bound to: the kernel would make a new one */
  int control;       /* to the child until it became the server; -1 then */
  int signals;
  struct broker *broker;
  bool reported;
  bool terminating;
  uint64_t grace_end;
  uint64_t watch_next;
  const char *reason; /* why the tree was killed; NULL: it was not */
  bool ended;
  bool child_reaped;
  int child_status;
  bool unclean;
} self;

static void drop_privileges(void) {
  for (int capability = 0; capability < 64; capability++)
    if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0) break;
  struct cap_header header = {CAP_VERSION_3, 0};
  struct cap_set none[2];
  memset(none, 0, sizeof none);
  prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  if (syscall(NR_capset, &header, none) != 0) refuse(EXIT_REFUSED, "caps", "", "capset: %s", strerror(errno));
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) refuse(EXIT_REFUSED, "nnp", "", "no_new_privs: %s", strerror(errno));
  /* Giving capabilities up does not, but a change of ids before would have made it dumpable again. */
  prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

static int take_signals(void) {
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, NULL);
  int descriptor = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
  if (descriptor < 0) refuse(EXIT_REFUSED, "launcher", "", "signalfd: %s", strerror(errno));
  return descriptor;
}

/* Its stdio is the server's: held open here, neither side would see the other's end. */
static void leave_descriptors(int first, int last) {
  int nothing = open("/", O_PATH | O_CLOEXEC);
  for (int descriptor = first; descriptor <= last; descriptor++) {
    if (nothing >= 0) dup2(nothing, descriptor);
    else close(descriptor);
  }
  if (nothing > last) close(nothing);
}

static void end_tree(const char *reason) {
  if (self.ended) return;
  if (self.reason == NULL) self.reason = reason;
  self.unclean = !tree_kill(TREE_KILL_MS, self.child, &self.child_status);
  self.ended = true;
}

static void open_broker(int listener) {
  struct broker_options options = {
      .listener = listener,
      .proxy = self.policy->proxy,
      .proxy_length = self.policy->proxy_length,
      .token = self.policy->token,
      .connects = self.layers.connects,
      .binds = self.layers.binds,
      .signals = self.layers.signals,
      .observe = self.layers.learn ? learn_observe : NULL,
      .child = self.child,
  };
  self.broker = broker_open(&options);
  if (self.broker == NULL) refuse(EXIT_REFUSED, "broker", "", "the broker cannot be started: %s", strerror(errno));
  explicit_bzero(self.policy->token, sizeof self.policy->token);
}

static const char *advice(const struct child_message *message) {
  if (message->mechanism == M_BROKER && message->error == EBUSY)
    return "start the container without a seccomp listener of its own, or accept allowDegraded: [net-port-only]";
  if (message->mechanism == M_BROKER && self.facts.yama >= 2) return "set kernel.yama.ptrace_scope to 0 or 1, or accept allowDegraded: [net-port-only]";
  if (message->mechanism == M_BROKER) return "look whether the egress proxy runs";
  return "";
}

static void failed(const struct child_message *message) {
  if (message->exec) {
    bool missing = message->error == ENOENT;
    refuse(missing ? EXIT_NOT_FOUND : EXIT_REFUSED, "exec", message->error == EACCES ? "grant the program, its interpreter and its libraries for reading and executing" : "",
           "%s: %s: %s", self.command.path, message->what, strerror(message->error));
  }
  if (strchr(message->what, ':') != NULL) refuse(EXIT_REFUSED, mechanism_names[message->mechanism], advice(message), "self-test: %s", message->what);
  refuse(EXIT_REFUSED, mechanism_names[message->mechanism], advice(message), "%s: %s", message->what, strerror(message->error));
}

/* A watched server is measured more often: its peaks are what it is watched for. */
static uint64_t watch_ms(void) { return self.layers.learn ? WATCH_MS / 4 : WATCH_MS; }

static void close_control(void) {
  close(self.control);
  self.control = -1;
  if (!self.reported) refuse(EXIT_REFUSED, "launcher", "", "the child ended before its layers were applied");
  leave_descriptors(2, 2);
  if (self.policy->watch_rss.set || self.policy->watch_processes.set || self.layers.learn) self.watch_next = now_ms() + watch_ms();
}

static void read_control(void) {
  struct child_message message;
  union {
    char space[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
  } ancillary;
  struct iovec bytes = {&message, sizeof message};
  struct msghdr header = {.msg_iov = &bytes, .msg_iovlen = 1, .msg_control = ancillary.space, .msg_controllen = sizeof ancillary.space};
  ssize_t length = recvmsg(self.control, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (length < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (length != (ssize_t)sizeof message) {
    close_control();
    return;
  }
  message.what[sizeof message.what - 1] = '\0';
  if (message.word == CHILD_FAILED) failed(&message);
  if (message.word == CHILD_LISTENER) {
    const struct cmsghdr *descriptor = CMSG_FIRSTHDR(&header);
    int listener = -1;
    if (descriptor != NULL && descriptor->cmsg_type == SCM_RIGHTS) memcpy(&listener, CMSG_DATA(descriptor), sizeof listener);
    if (listener < 0 || self.broker != NULL) refuse(EXIT_REFUSED, "broker", "", "the listener did not arrive");
    open_broker(listener);
  }
  if (message.word == CHILD_TESTED) {
    report_started(self.policy, &self.facts, &self.layers, &self.notes, self.child, message.results);
    self.reported = true;
    if (self.layers.learn) learn_begin(self.child, self.layers.truncate_rule);
    if (send(self.control, "g", 1, MSG_NOSIGNAL) < 0) return;
  }
}

static void on_child_end(void) {
  int status = 0;
  for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG | __WALL)) > 0;) {
    if (pid != self.child) continue;
    self.child_status = status;
    self.child_reaped = true;
  }
  if (!self.child_reaped || self.ended) return;
  /* What it said last comes before that it ended. */
  while (self.control >= 0) {
    struct pollfd ready = {self.control, POLLIN, 0};
    if (poll(&ready, 1, 1000) != 1) break;
    read_control();
  }
  self.unclean = !tree_kill(TREE_KILL_MS, 0, &status);
  self.ended = true;
}

static void on_signal(int number) {
  if (number == SIGCHLD) on_child_end();
  else if (number == SIGPWR) end_tree("sidecar-gone");
  else if (number == SIGQUIT) end_tree("killed");
  else if (number == SIGTERM && self.terminating) end_tree("terminated-again");
  else if (number == SIGTERM || number == SIGINT || number == SIGHUP || number == SIGUSR1 || number == SIGUSR2) {
    if (number == SIGTERM) {
      self.terminating = true;
      self.grace_end = now_ms() + self.policy->grace_ms;
    }
    /* Not reaped yet, so the pid is still the child's. Before exec the child dies of it, as it would after. */
    if (!self.child_reaped) kill(self.child, number);
  }
}

static void read_signals(void) {
  struct signalfd_siginfo found[8];
  ssize_t length = read(self.signals, found, sizeof found);
  for (size_t i = 0; length > 0 && i < (size_t)length / sizeof found[0] && !self.ended; i++) on_signal((int)found[i].ssi_signo);
}

static void watch(uint64_t now) {
  self.watch_next = now + watch_ms();
  struct tree_size size = tree_measure();
  if (self.layers.learn) report_size(size.memory, size.processes);
  if (self.policy->watch_rss.set && size.memory > self.policy->watch_rss.value) end_tree("memory");
  /* As RLIMIT_NPROC counts, which does not hold for root. */
  else if (self.policy->watch_processes.set && size.threads > self.policy->watch_processes.value) end_tree("processes");
}

static int wait_ms(uint64_t now) {
  uint64_t next = self.grace_end < self.watch_next ? self.grace_end : self.watch_next;
  int most = self.broker == NULL ? -1 : broker_timeout(self.broker);
  if (next == NONE) return most;
  uint64_t left = next > now ? next - now : 0;
  return most >= 0 && (uint64_t)most < left ? most : (int)(left > 3600000 ? 3600000 : left);
}

static void run(void) {
  while (!self.ended) {
    struct pollfd ready[4] = {
        {self.signals, POLLIN, 0},
        {self.control, POLLIN, 0},
        {self.broker == NULL ? -1 : broker_descriptor(self.broker), POLLIN, 0},
        /* Nothing is read from it; that the sidecar is gone shows as an error or a hang-up. */
        {status_descriptor, 0, 0},
    };
    if (poll(ready, 4, wait_ms(now_ms())) < 0 && errno != EINTR) refuse(EXIT_REFUSED, "launcher", "", "poll: %s", strerror(errno));
    if (self.broker != NULL) broker_run(self.broker);
    if (ready[1].revents != 0) read_control();
    if (ready[0].revents != 0) read_signals();
    if ((ready[3].revents & (POLLERR | POLLHUP | POLLNVAL)) != 0) end_tree("sidecar-gone");
    uint64_t now = now_ms();
    if (now >= self.grace_end) end_tree("grace");
    if (!self.ended && now >= self.watch_next) watch(now);
  }
}

static void start_child(char **arguments, char **environment) {
  struct start start = {.policy = self.policy, .facts = &self.facts, .layers = &self.layers, .command = &self.command,
                        .arguments = arguments, .environment = environment, .supervisor = getpid()};
  if (self.policy->nproc.set) start.nproc_now = plan_processes_now(&self.facts.nproc_inert);
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0) refuse(EXIT_REFUSED, "launcher", "", "socketpair: %s", strerror(errno));
  pid_t child = fork();
  if (child < 0) refuse(EXIT_REFUSED, "launcher", "raise the limit of processes", "fork: %s", strerror(errno));
  if (child == 0) {
    close(pair[0]);
    child_run(&start, pair[1]);
  }
  close(pair[1]);
  self.child = child;
  self.control = pair[0];
  if (self.layers.ruleset >= 0) close(self.layers.ruleset);
  char path[40];
  snprintf(path, sizeof path, "/proc/%d", child);
  self.child_proc = open(path, O_PATH | O_CLOEXEC);
}

int supervise(struct policy *policy, char **arguments, char **environment) {
  self.policy = policy;
  self.grace_end = self.watch_next = NONE;
  self.control = -1;
  self.signals = take_signals();
  prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  facts_read(&self.facts, policy);
  plan_layers(policy, &self.facts, &self.layers);
  plan_command(arguments[0], environment, &self.command);
  landlock_build(policy, &self.facts, &self.layers, &self.command, &self.notes);
  drop_privileges();
  start_child(arguments, environment);
  leave_descriptors(0, 1);
  if (chdir("/") != 0) refuse(EXIT_REFUSED, "launcher", "", "chdir: %s", strerror(errno));
  run();
  if (self.broker != NULL) broker_close(self.broker);
  bool signalled = WIFSIGNALED(self.child_status);
  int number = signalled ? WTERMSIG(self.child_status) : WEXITSTATUS(self.child_status);
  report_exit(signalled, number, self.reason, self.unclean);
  return signalled ? 128 + number : number;
}
