/* What is reported is measured: the child tries what it must not be able to do, after every layer was applied and before
 * the server's program runs. No attempt leaves the machine. */
#include "launcher.h"
#include "sys.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What could be opened before and must not be now: something that is not granted (NULL: nothing fit), and all that is hidden. */
static const char *denied_path;
static bool tested[MAX_PLACES];

static bool granted(const struct policy *policy, const char *path) {
  for (size_t i = 0; i < policy->grant_count; i++)
    if (path_contains(policy->grants[i].path, path)) return true;
  return policy->proc_all && path_contains("/proc", path);
}

static long opened(const char *path) {
  int descriptor = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (descriptor >= 0) close(descriptor);
  return descriptor;
}

/* A path that a file permission denies anyhow proves nothing, so it is opened once before. */
void selftest_prepare(const struct policy *policy, const struct layers *layers) {
  static const char *const usual[] = {"/", "/proc", "/sys", "/dev", "/etc", "/tmp"};
  if (!layers->fs) return;
  for (size_t i = 0; i < layers->hidden->count; i++) tested[i] = opened(layers->hidden->all[i].path) >= 0;
  for (size_t i = 0; policy->fs == FS_CONFINED && denied_path == NULL && i < sizeof usual / sizeof usual[0]; i++)
    if (!granted(policy, usual[i]) && opened(usual[i]) >= 0) denied_path = usual[i];
}

struct testing {
  const struct start *start;
  struct child_message *message;
};

/* `outcome`: 0 or more for success, -1 with errno. */
static bool expect(struct testing *testing, enum mechanism mechanism, const char *what, long outcome, int error) {
  int got = outcome < 0 ? errno : 0;
  unsigned char *result = &testing->message->results[mechanism];
#ifdef TEST_SEAMS
  const char *forced = testing->start->policy->test_fail;
  if (forced != NULL && strcmp(forced, mechanism_names[mechanism]) == 0) got = -1;
#endif
  if (got == error) {
    if (*result == SELF_TEST_NOT_RUN) *result = SELF_TEST_PASS;
    return true;
  }
  *result = SELF_TEST_FAIL;
  testing->message->mechanism = mechanism;
  testing->message->error = got;
  snprintf(testing->message->what, sizeof testing->message->what, "%s: expected %s, got %s", what,
           error == 0 ? "success" : strerror(error), got == 0 ? "success" : got < 0 ? "a made-up failure" : strerror(got));
  return false;
}

static long made(int family, int type, int protocol) {
  int descriptor = socket(family, type | SOCK_CLOEXEC, protocol);
  if (descriptor >= 0) close(descriptor);
  return descriptor;
}

static long paired(int type) {
  int pair[2];
  if (socketpair(AF_UNIX, type, 0, pair) != 0) return -1;
  close(pair[0]);
  close(pair[1]);
  return 0;
}

static bool test_privileges(struct testing *testing) {
  struct cap_header header = {CAP_VERSION_3, 0};
  struct cap_set sets[2] = {{1, 1, 1}, {1, 1, 1}};
  if (syscall(NR_capget, &header, sets) != 0) sets[0].permitted = 1;
  uint32_t left = sets[0].effective | sets[0].permitted | sets[0].inheritable | sets[1].effective | sets[1].permitted | sets[1].inheritable;
  errno = EPERM;
  if (!expect(testing, M_CAPS, "no capability left", left == 0 ? 0 : -1, 0)) return false;
  errno = EPERM;
  return expect(testing, M_NNP, "no_new_privs", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 ? 0 : -1, 0);
}

/* At most what was asked for: an outer limit may be lower. */
static bool test_limits(struct testing *testing) {
  const struct policy *policy = testing->start->policy;
  const struct {
    int resource;
    struct limit limit;
  } limits[] = {{RLIMIT_CORE, {true, 0}}, {RLIMIT_DATA, policy->data}, {RLIMIT_NOFILE, policy->nofile}, {RLIMIT_FSIZE, policy->fsize}, {RLIMIT_CPU, policy->cpu}};
  for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
    struct rlimit now = {RLIM_INFINITY, RLIM_INFINITY};
    if (!limits[i].limit.set) continue;
    bool read = getrlimit(limits[i].resource, &now) == 0;
    errno = EPERM;
    if (!expect(testing, M_RLIMITS, "a limit in place", read && now.rlim_cur <= limits[i].limit.value ? 0 : -1, 0)) return false;
  }
  return true;
}

static bool test_files(struct testing *testing) {
  const struct layers *layers = testing->start->layers;
  if (!layers->fs) return true;
  if (denied_path != NULL && !expect(testing, M_FS, "opening a path that is not granted", opened(denied_path), EACCES)) return false;
  for (size_t i = 0; i < layers->hidden->count; i++) {
    char what[300];
    if (!tested[i]) continue;
    snprintf(what, sizeof what, "opening the protected path %s", layers->hidden->all[i].path);
    if (!expect(testing, M_FS, what, opened(layers->hidden->all[i].path), EACCES)) return false;
  }
  return true;
}

/* The supervisor is outside: with Landlock's scope the kernel refuses, without it the filter or the broker. */
static bool test_signals(struct testing *testing) {
  const struct layers *layers = testing->start->layers;
  if (!layers->scope && !layers->signal_rule) return true;
  return expect(testing, M_SCOPE, "a signal to the supervisor", kill(testing->start->supervisor, 0), EPERM);
}

static bool test_filter(struct testing *testing) {
  if (!testing->start->layers->filter) return true;
  bool open_net = testing->start->policy->net == NET_OPEN;
  if (!expect(testing, M_SECCOMP, "a pair of unix datagram sockets", paired(SOCK_DGRAM), EACCES)) return false;
  if (!expect(testing, M_SECCOMP, "a unix socket", made(AF_UNIX, SOCK_STREAM, 0), EACCES)) return false;
  /* The filter answers before the kernel looks at the descriptor. */
  if (!expect(testing, M_SECCOMP, "listen()", listen(-1, 1), EACCES)) return false;
  if (!expect(testing, M_SECCOMP, "unshare()", syscall(NR_unshare, 0), EPERM)) return false;
  if (!expect(testing, M_SECCOMP, "ptrace()", syscall(NR_ptrace, 0x4200, 0, 0, 0), EPERM)) return false;
  if (!open_net && !expect(testing, M_SECCOMP, "a UDP socket", made(AF_INET, SOCK_DGRAM, 0), EACCES)) return false;
  return testing->start->policy->net != NET_NONE ||
         expect(testing, M_SECCOMP, "a TCP socket", made(AF_INET, SOCK_STREAM, 0), EACCES);
}

static bool test_ports(struct testing *testing, int stream) {
  if (!testing->start->layers->net) return true;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  if (!expect(testing, M_NET, "bind() of a TCP socket", bind(stream, (struct sockaddr *)&address, sizeof address), EACCES)) return false;
  if (testing->start->policy->net != NET_PORT_ONLY) return true;
  /* A documentation address, and a port that is not the proxy's. */
  const struct sockaddr_in *proxy = (const struct sockaddr_in *)&testing->start->policy->proxy;
  address.sin_addr.s_addr = htonl(0xC0000201);
  address.sin_port = htons((uint16_t)(ntohs(proxy->sin_port) == 9 ? 7 : 9));
  return expect(testing, M_NET, "connect() to 192.0.2.1", connect(stream, (struct sockaddr *)&address, sizeof address), EACCES);
}

/* A disconnect, which the kernel alone would grant, shows that the broker answers; a connection to the proxy with the
 * keepalive that the broker sets shows that its socket took the place of ours. */
static bool test_broker(struct testing *testing, int stream) {
  if (!testing->start->layers->connects) return true;
  const struct policy *policy = testing->start->policy;
  struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
  if (!expect(testing, M_BROKER, "connect() to no address", connect(stream, &nowhere, sizeof nowhere), EACCES)) return false;
  if (!expect(testing, M_BROKER, "connect() to the proxy", connect(stream, (const struct sockaddr *)&policy->proxy, policy->proxy_length), 0))
    return false;
  int keepalive = 0;
  socklen_t length = sizeof keepalive;
  getsockopt(stream, SOL_SOCKET, SO_KEEPALIVE, &keepalive, &length);
  errno = ENOTCONN;
  return expect(testing, M_BROKER, "the broker's socket in place", keepalive == 0 ? -1 : 0, 0);
}

static bool test_streams(struct testing *testing) {
  const struct start *start = testing->start;
  if (!start->layers->filter || start->policy->net == NET_NONE || start->policy->net == NET_OPEN) return true;
  int stream = socket(start->policy->proxy.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (!expect(testing, M_SECCOMP, "a TCP socket", stream, 0)) return false;
  bool good = test_ports(testing, stream) && test_broker(testing, stream);
  close(stream);
  return good;
}

bool selftest_run(const struct start *start, struct child_message *message) {
  struct testing testing = {start, message};
  return test_privileges(&testing) && test_limits(&testing) && test_files(&testing) && test_signals(&testing) && test_filter(&testing) && test_streams(&testing);
}
