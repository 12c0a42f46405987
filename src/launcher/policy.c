/* Reads the policy: NUL-terminated records `key value`. Everything is bounded; whatever is not understood is refused. */
#include "launcher.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern char **environ;

struct reading {
  struct policy *policy;
  bool serve;
  char *problem;
  size_t problem_size;
};

static bool bad(struct reading *reading, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool bad(struct reading *reading, const char *format, ...) {
  va_list values;
  va_start(values, format);
  vsnprintf(reading->problem, reading->problem_size, format, values);
  va_end(values);
  return false;
}

static bool equal(const char *left, const char *right) { return strcmp(left, right) == 0; }

/* Digits only, no sign, no leading blank. */
static bool number(const char *text, uint64_t most, uint64_t *value) {
  size_t length = strlen(text);
  if (length == 0 || length > 20 || strspn(text, "0123456789") != length) return false;
  errno = 0;
  unsigned long long found = strtoull(text, NULL, 10);
  if (errno != 0 || found > most) return false;
  *value = found;
  return true;
}

/* Absolute, without `.`, `..`, empty parts: then a prefix of it is a directory above it. */
static bool normal_path(const char *path) {
  if (path[0] != '/' || strlen(path) >= 4096) return false;
  if (path[1] == '\0') return true;
  for (const char *part = path; part != NULL; part = strchr(part, '/')) {
    part++;
    size_t length = strcspn(part, "/");
    if (length == 0 || (length == 1 && part[0] == '.') || (length == 2 && part[0] == '.' && part[1] == '.')) return false;
  }
  return true;
}

static bool read_grant(struct reading *reading, const char *key, const char *value) {
  static const struct {
    const char *name;
    enum grant_kind kind;
  } kinds[] = {{"fs.rx", GRANT_RX}, {"fs.r", GRANT_R}, {"fs.rw", GRANT_RW}, {"fs.dev", GRANT_DEV}, {"fs.program", GRANT_PROGRAM}};
  struct policy *policy = reading->policy;
  size_t length = strlen(key);
  bool optional = key[length - 1] == '?';
  if (optional) length--;
  for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
    if (strlen(kinds[i].name) != length || strncmp(key, kinds[i].name, length) != 0) continue;
    if (!normal_path(value)) return bad(reading, "%s: not an absolute, normalised path: %s", key, value);
    if (policy->grant_count == MAX_GRANTS) return bad(reading, "%s: more than %d paths", key, MAX_GRANTS);
    policy->grants[policy->grant_count++] = (struct grant){kinds[i].kind, optional, value};
    return true;
  }
  return bad(reading, "unknown key: %s", key);
}

/* `ADDRESS:PORT`, an IPv6 address in brackets. */
static bool read_proxy(struct reading *reading, const char *value) {
  struct policy *policy = reading->policy;
  char text[64];
  uint64_t port = 0;
  const char *colon = strrchr(value, ':');
  size_t length = colon == NULL ? 0 : (size_t)(colon - value);
  if (length == 0 || length >= sizeof text || !number(colon + 1, 65535, &port) || port == 0)
    return bad(reading, "proxy: not ADDRESS:PORT");
  memcpy(text, value, length);
  text[length] = '\0';
  memset(&policy->proxy, 0, sizeof policy->proxy);
  struct sockaddr_in *four = (struct sockaddr_in *)&policy->proxy;
  struct sockaddr_in6 *six = (struct sockaddr_in6 *)&policy->proxy;
  if (text[0] == '[' && text[length - 1] == ']') {
    text[length - 1] = '\0';
    six->sin6_family = AF_INET6;
    six->sin6_port = htons((uint16_t)port);
    policy->proxy_length = sizeof *six;
    if (inet_pton(AF_INET6, text + 1, &six->sin6_addr) == 1) return true;
  } else {
    four->sin_family = AF_INET;
    four->sin_port = htons((uint16_t)port);
    policy->proxy_length = sizeof *four;
    if (inet_pton(AF_INET, text, &four->sin_addr) == 1) return true;
  }
  policy->proxy_length = 0;
  return bad(reading, "proxy: not ADDRESS:PORT");
}

static bool read_limit(struct reading *reading, const char *key, const char *value) {
  struct policy *policy = reading->policy;
  const struct {
    const char *name;
    struct limit *limit;
    uint64_t most;
  } limits[] = {
      {"limit.data", &policy->data, 1ULL << 60},      {"limit.nproc", &policy->nproc, 1ULL << 22},
      {"limit.nofile", &policy->nofile, 1ULL << 30},  {"limit.fsize", &policy->fsize, 1ULL << 60},
      {"limit.cpu", &policy->cpu, 1ULL << 40},        {"watch.rss", &policy->watch_rss, 1ULL << 60},
      {"watch.processes", &policy->watch_processes, 1ULL << 22},
  };
  for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
    if (!equal(key, limits[i].name)) continue;
    if (!number(value, limits[i].most, &limits[i].limit->value)) return bad(reading, "%s: not a number in its range: %s", key, value);
    limits[i].limit->set = true;
    return true;
  }
  return bad(reading, "unknown key: %s", key);
}

/* `on` or `off`. */
static bool read_switch(struct reading *reading, const char *key, const char *value, bool *into) {
  *into = equal(value, "on");
  return *into || equal(value, "off") || bad(reading, "%s: not on or off: %s", key, value);
}

static bool read_fs(struct reading *reading, const char *value) {
  struct policy *policy = reading->policy;
  policy->fs_given = true;
  if (equal(value, "confined")) policy->fs = FS_CONFINED;
  else if (equal(value, "all")) policy->fs = FS_ALL;
  else if (equal(value, "open")) policy->fs = FS_OPEN;
  else return bad(reading, "fs: not confined, all or open: %s", value);
  return true;
}

static bool read_net(struct reading *reading, const char *value) {
  struct policy *policy = reading->policy;
  policy->net_given = true;
  if (equal(value, "none")) policy->net = NET_NONE;
  else if (equal(value, "broker")) policy->net = NET_BROKER;
  else if (equal(value, "port-only")) policy->net = NET_PORT_ONLY;
  else if (equal(value, "open")) policy->net = NET_OPEN;
  else return bad(reading, "net: not none, broker, port-only or open: %s", value);
  return true;
}

/* The token leaves the buffer: it is kept in one place, which the child wipes. */
static bool read_token(struct reading *reading, char *value) {
  size_t length = strlen(value);
  bool fits = length > 0 && length <= MAX_TOKEN;
  for (size_t i = 0; fits && i < length; i++) fits = value[i] > ' ' && value[i] < 127;
  if (fits) memcpy(reading->policy->token, value, length + 1);
  explicit_bzero(value, length);
  return fits || bad(reading, "token: not 1 to %d visible ASCII characters", MAX_TOKEN);
}

static bool read_word(struct reading *reading, const char *key, char *value) {
  struct policy *policy = reading->policy;
  if (!reading->serve) return bad(reading, "%s: only a policy that comes over a socket has it", key);
  if (equal(key, "cwd")) {
    if (!normal_path(value)) return bad(reading, "cwd: not an absolute, normalised path: %s", value);
    policy->directory = value;
    return true;
  }
  if (equal(key, "env.pass")) {
    if (policy->passed_count == MAX_PASSED) return bad(reading, "%s: more than %d", key, MAX_PASSED);
    policy->passed[policy->passed_count++] = value;
    return true;
  }
  bool environment = equal(key, "env");
  if (environment && (value[0] == '=' || strchr(value, '=') == NULL)) return bad(reading, "env: not NAME=VALUE");
  size_t *count = environment ? &policy->environment_count : &policy->argument_count;
  if (*count == MAX_WORDS) return bad(reading, "%s: more than %d", key, MAX_WORDS);
  (environment ? policy->environment : policy->arguments)[(*count)++] = value;
  return true;
}

#ifdef TEST_SEAMS
static bool read_seam(struct reading *reading, const char *key, const char *value) {
  uint64_t found = 0;
  if (equal(key, "test.abi") && number(value, 100, &found)) reading->policy->test_abi = (int)found;
  else if (equal(key, "test.no-notify")) reading->policy->test_no_notify = true;
  else if (equal(key, "test.fail-self-test")) reading->policy->test_fail = value;
  else return bad(reading, "unknown key: %s", key);
  return true;
}
#endif

static bool read_record(struct reading *reading, const char *key, char *value) {
  struct policy *policy = reading->policy;
  uint64_t found = 0;
  if (equal(key, "name")) policy->name = value;
  else if (equal(key, "sha256")) policy->sha256 = value;
  else if (equal(key, "fs")) return read_fs(reading, value);
  else if (equal(key, "fs.hide")) {
    if (!normal_path(value)) return bad(reading, "%s: not an absolute, normalised path: %s", key, value);
    if (policy->hidden_count == MAX_GRANTS) return bad(reading, "%s: more than %d paths", key, MAX_GRANTS);
    policy->hidden[policy->hidden_count++] = value;
  } else if (equal(key, "fs.readonly")) {
    if (!normal_path(value)) return bad(reading, "%s: not an absolute, normalised path: %s", key, value);
    if (policy->readonly_count == MAX_GRANTS) return bad(reading, "%s: more than %d paths", key, MAX_GRANTS);
    policy->readonly[policy->readonly_count++] = value;
  } else if (equal(key, "fs.nolinks")) {
    if (!equal(value, "1")) return bad(reading, "fs.nolinks: not 1: %s", value);
    policy->no_links = true;
  } else if (equal(key, "fs.command")) {
    if (!equal(value, "1")) return bad(reading, "fs.command: not 1: %s", value);
    policy->command_directory = true;
  } else if (strncmp(key, "fs.", 3) == 0) return read_grant(reading, key, value);
  else if (equal(key, "proc")) {
    policy->proc_self = equal(value, "self");
    policy->proc_all = equal(value, "all");
    if (!policy->proc_self && !policy->proc_all) return bad(reading, "proc: not self or all: %s", value);
  } else if (equal(key, "net")) return read_net(reading, value);
  else if (equal(key, "proxy")) return read_proxy(reading, value);
  else if (equal(key, "token")) return read_token(reading, value);
  else if (strncmp(key, "limit.", 6) == 0 || strncmp(key, "watch.", 6) == 0) return read_limit(reading, key, value);
  else if (equal(key, "grace")) {
    if (!number(value, 3600 * 1000, &found)) return bad(reading, "grace: not milliseconds up to an hour: %s", value);
    policy->grace_ms = (unsigned)found;
  } else if (equal(key, "filter")) {
    policy->filter_given = true;
    return read_switch(reading, key, value, &policy->filter);
  } else if (equal(key, "require-container-seccomp")) {
    if (!equal(value, "1")) return bad(reading, "%s: not 1: %s", key, value);
    policy->require_container_seccomp = true;
  } else if (equal(key, "learn")) {
    if (!equal(value, "1")) return bad(reading, "%s: not 1: %s", key, value);
    if (reading->serve) return bad(reading, "%s: not over a socket: what is told would be files of another container", key);
    policy->learn = true;
  } else if (equal(key, "self-test")) return read_switch(reading, key, value, &policy->self_test);
  else if (equal(key, "env") || equal(key, "env.pass") || equal(key, "arg") || equal(key, "cwd")) return read_word(reading, key, value);
#ifdef TEST_SEAMS
  else if (strncmp(key, "test.", 5) == 0) return read_seam(reading, key, value);
#endif
  else if (equal(key, "check")) {
    if (!equal(value, "1")) return bad(reading, "%s: not 1: %s", key, value);
    policy->check = true;
  } else if (equal(key, "v")) return bad(reading, "v: a second one");
  else return bad(reading, "unknown key: %s", key);
  return true;
}

static bool is_passed(const struct policy *policy, const char *entry, size_t name) {
  for (size_t i = 0; i < policy->passed_count; i++) {
    size_t length = strlen(policy->passed[i]);
    bool prefix = length > 0 && policy->passed[i][length - 1] == '*';
    if (prefix ? name + 1 >= length : name == length)
      if (strncmp(policy->passed[i], entry, prefix ? length - 1 : length) == 0) return true;
  }
  return false;
}

/* Variables of this container that belong to the server; what the sidecar sets comes first. */
static bool pass_environment(struct reading *reading) {
  struct policy *policy = reading->policy;
  size_t given = policy->environment_count;
  for (char **entry = environ; *entry != NULL; entry++) {
    size_t name = strcspn(*entry, "=");
    bool wanted = (*entry)[name] == '=' && is_passed(policy, *entry, name);
    for (size_t i = 0; wanted && i < given; i++) wanted = strncmp(policy->environment[i], *entry, name + 1) != 0;
    if (!wanted) continue;
    if (policy->environment_count == MAX_WORDS) return bad(reading, "env.pass: more than %d variables", MAX_WORDS);
    policy->environment[policy->environment_count++] = *entry;
  }
  return true;
}

/* What no single record shows. */
static bool complete(struct reading *reading) {
  struct policy *policy = reading->policy;
  if (!policy->fs_given) return bad(reading, "missing: fs");
  if (!policy->net_given) return bad(reading, "missing: net");
  if (!policy->filter_given) return bad(reading, "missing: filter");
  /* A launcher that serves keeps itself from being changed, whatever the policy says. */
  if (policy->fs == FS_ALL && !reading->serve && policy->hidden_count == 0 && policy->readonly_count == 0) policy->fs = FS_OPEN;
  if (policy->net == NET_BROKER && (policy->proxy_length == 0 || policy->token[0] == '\0'))
    return bad(reading, "net broker: needs proxy and token");
  if (policy->net == NET_PORT_ONLY && policy->proxy_length == 0) return bad(reading, "net port-only: needs proxy");
  if (!policy->filter && (policy->fs != FS_OPEN || policy->net != NET_OPEN))
    return bad(reading, "filter off: only with fs open and net open");
  if (policy->learn && (!policy->filter || policy->fs == FS_CONFINED || policy->net != NET_BROKER))
    return bad(reading, "learn: only with fs all or open, net broker and filter on");
  if (reading->serve && policy->argument_count == 0) return bad(reading, "missing: arg");
  return pass_environment(reading);
}

bool policy_read(struct policy *policy, char *text, size_t length, bool serve, char *problem, size_t problem_size) {
  struct reading reading = {policy, serve, problem, problem_size};
  memset(policy, 0, sizeof *policy);
  policy->name = "";
  policy->sha256 = "";
  policy->grace_ms = 3000;
  policy->self_test = true;
  policy->test_abi = -1;
  if (length == 0) return bad(&reading, "empty policy");
  if (length > POLICY_BYTES) return bad(&reading, "policy above %d bytes", POLICY_BYTES);
  if (text[length - 1] != '\0') return bad(&reading, "the last record has no NUL at its end");
  int count = 0;
  for (size_t at = 0; at < length; count++) {
    char *key = text + at;
    at += strlen(key) + 1;
    char *value = strchr(key, ' ');
    /* Only its number: what is not a record might be a piece of a secret. */
    if (value == NULL || value == key) return bad(&reading, "record %d is not `key value`", count + 1);
    *value++ = '\0';
    if (count == 0) {
      if (!equal(key, "v") || !equal(value, "1")) return bad(&reading, "the first record is not `v 1`");
    } else if (!read_record(&reading, key, value)) {
      return false;
    }
  }
  return complete(&reading);
}
