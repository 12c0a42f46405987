/* What is said: JSON lines on the status descriptor, one line on stderr when the server is not started. */
#include "launcher.h"
#include "sys.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* One line, so that it fits into one frame of `serve` as well. */
#define MOST_BYTES (60 * 1024)

int status_descriptor = -1;

const char *const mechanism_names[M_COUNT] = {"caps", "nnp", "rlimits", "landlock.fs", "landlock.net", "landlock.scope",
                                              "seccomp", "broker", "watchdog"};

struct line {
  char bytes[MOST_BYTES + 1024];
  size_t length;
  bool full;
};

static void text(struct line *line, const char *bytes) {
  size_t length = strlen(bytes);
  if (line->length + length > sizeof line->bytes) {
    line->full = true;
    return;
  }
  memcpy(line->bytes + line->length, bytes, length);
  line->length += length;
}

static void textf(struct line *line, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void textf(struct line *line, const char *format, ...) {
  char piece[512];
  va_list values;
  va_start(values, format);
  vsnprintf(piece, sizeof piece, format, values);
  va_end(values);
  text(line, piece);
}

static void quoted(struct line *line, const char *value) {
  text(line, "\"");
  for (const char *at = value; *at != '\0'; at++) {
    unsigned char byte = (unsigned char)*at;
    if (byte == '"' || byte == '\\') textf(line, "\\%c", byte);
    else if (byte < 0x20 || byte == 0x7F) textf(line, "\\u%04x", byte);
    else textf(line, "%c", byte);
  }
  text(line, "\"");
}

static void send_line(struct line *line) {
  text(line, "\n");
  if (status_descriptor >= 0) write_all(status_descriptor, line->bytes, line->length);
}

void complain(const char *format, ...) {
  char reason[1024], whole[1100];
  va_list values;
  va_start(values, format);
  vsnprintf(reason, sizeof reason, format, values);
  va_end(values);
  for (char *at = reason; *at != '\0'; at++)
    if ((unsigned char)*at < 0x20 || *at == 0x7F) *at = '?';
  int length = snprintf(whole, sizeof whole, "mcp-sidecar-launcher: %s\n", reason);
  if (length > 0) write_all(STDERR_FILENO, whole, (size_t)length);
}

void refuse(int exit_code, const char *mechanism, const char *way_out, const char *format, ...) {
  static struct line line;
  char reason[1024];
  va_list values;
  va_start(values, format);
  vsnprintf(reason, sizeof reason, format, values);
  va_end(values);
  line.length = 0;
  text(&line, "{\"event\":\"refused\",\"mechanism\":");
  quoted(&line, mechanism);
  text(&line, ",\"reason\":");
  quoted(&line, reason);
  text(&line, ",\"wayOut\":");
  quoted(&line, way_out);
  text(&line, "}");
  send_line(&line);
  complain("%s", reason);
  int ignored = 0;
  tree_kill(2000, 0, &ignored);
  _exit(exit_code);
}

/* ---- the report ---- */

struct entry {
  bool requested;
  bool active;
  const char *reason;
  const char *covers[10];
  size_t covered;
  const char *gaps[10];
  size_t gap_count;
};

static void covers(struct entry *entry, const char *word) { entry->covers[entry->covered++] = word; }
static void gap(struct entry *entry, const char *code) { entry->gaps[entry->gap_count++] = code; }

static void describe_process(struct entry *entries, const struct policy *policy, const struct facts *facts) {
  struct entry *caps = &entries[M_CAPS], *limits = &entries[M_RLIMITS], *watchdog = &entries[M_WATCHDOG];
  caps->requested = caps->active = true;
  covers(caps, "capabilities");
  if (facts->uid == 0) gap(caps, "uid-0");
  entries[M_NNP].requested = entries[M_NNP].active = true;
  covers(&entries[M_NNP], "setuid");
  covers(&entries[M_NNP], "file-capabilities");
  limits->requested = limits->active = true;
  covers(limits, "core");
  if (policy->data.set) covers(limits, "data");
  if (policy->nproc.set && !facts->nproc_inert) covers(limits, "nproc");
  if (policy->nofile.set) covers(limits, "nofile");
  if (policy->fsize.set) covers(limits, "fsize");
  if (policy->cpu.set) covers(limits, "cpu");
  if (policy->nproc.set && facts->nproc_inert) gap(limits, "nproc-inert");
  if (policy->data.set) gap(limits, "memory-per-process");
  watchdog->requested = watchdog->active = policy->watch_rss.set || policy->watch_processes.set;
  if (policy->watch_rss.set) covers(watchdog, "memory");
  if (policy->watch_processes.set) covers(watchdog, "processes");
}

static void describe_files(struct entry *entry, const struct policy *policy, const struct facts *facts,
                           const struct layers *layers, const struct notes *notes) {
  entry->requested = policy->fs != FS_OPEN;
  entry->active = layers->fs;
  if (policy->fs != FS_CONFINED && policy->filter) gap(entry, "fs-open");
  if (policy->filter && !layers->fs && layers->domain && facts->abi == 1) gap(entry, "abi1-reparent");
  if (!layers->fs) return;
  covers(entry, "read");
  covers(entry, "write");
  covers(entry, "execute");
  covers(entry, "truncate");
  if (facts->abi >= 2) covers(entry, "refer");
  if (facts->abi >= 5) covers(entry, "ioctl-dev");
  gap(entry, "metadata");
  if (facts->abi < 2) gap(entry, "abi1-reparent");
  if (facts->abi < 3) gap(entry, "truncate-seccomp");
  if (facts->abi < 5) gap(entry, "ioctl-dev");
  if (policy->proc_all) gap(entry, "proc-all");
  if (notes->exec_writable) gap(entry, "exec-writable");
}

static void describe_network(struct entry *entries, const struct policy *policy,
                             const struct layers *layers) {
  struct entry *net = &entries[M_NET], *broker = &entries[M_BROKER];
  net->requested = policy->filter && policy->net != NET_OPEN;
  net->active = layers->net;
  if (layers->net) {
    covers(net, "tcp-bind");
    covers(net, "tcp-connect");
  } else if (net->requested) {
    net->reason = "abi<4";
    gap(net, "net-second-lock");
  }
  if (policy->net == NET_PORT_ONLY) gap(net, "port-only");
  broker->requested = policy->net == NET_BROKER;
  broker->active = layers->connects || layers->binds || layers->signals;
  if (layers->connects) covers(broker, "tcp-connect");
  if (layers->binds) covers(broker, "bind");
  if (layers->signals) covers(broker, "signals");
}

static void describe_filter(struct entry *entries, const struct policy *policy, const struct facts *facts,
                            const struct layers *layers) {
  struct entry *scope = &entries[M_SCOPE], *filter = &entries[M_SECCOMP];
  scope->requested = policy->filter;
  scope->active = layers->scope;
  if (layers->scope) {
    covers(scope, "signals");
    covers(scope, "abstract-unix");
  } else if (policy->filter) {
    scope->reason = "abi<6";
    gap(scope, "signal-scope");
  }
  filter->requested = filter->active = policy->filter;
  if (!policy->filter) return;
  static const char *const groups[] = {"processes", "kernel-surface", "namespaces", "file-handles", "ipc", "sockets", "listen"};
  for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++) covers(filter, groups[i]);
  if (layers->metadata_rule) covers(filter, "metadata");
  if (layers->signal_rule) covers(filter, "signals");
  if (policy->net == NET_OPEN) gap(filter, "network-open");
  if (facts->container_seccomp == 0) gap(filter, "container-seccomp-off");
}

/* Codes that make it `weakened`; the others are told without changing the verdict. */
static bool weakens(const char *code) {
  static const char *const codes[] = {"uid-0", "nproc-inert", "proc-all", "port-only", "network-open", "fs-open", "container-seccomp-off"};
  for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
    if (strcmp(codes[i], code) == 0) return true;
  return false;
}

static const char *verdict_of(const struct policy *policy, const struct entry *entries) {
  if (!policy->filter) return "weakened";
  for (size_t i = 0; i < M_COUNT; i++)
    for (size_t j = 0; j < entries[i].gap_count; j++)
      if (weakens(entries[i].gaps[j])) return "weakened";
  return "enforced";
}

static void words(struct line *line, const char *const *list, size_t count) {
  text(line, "[");
  for (size_t i = 0; i < count; i++) {
    if (i > 0) text(line, ",");
    quoted(line, list[i]);
  }
  text(line, "]");
}

static void mechanism(struct line *line, enum mechanism which, const struct entry *entry, const struct facts *facts, unsigned char result) {
  static const char *const results[] = {"not-run", "pass", "fail"};
  textf(line, "{\"mechanism\":\"%s\",\"requested\":%s,\"active\":%s", mechanism_names[which], entry->requested ? "true" : "false",
        entry->active ? "true" : "false");
  if (which == M_FS || which == M_NET || which == M_SCOPE) textf(line, ",\"abi\":%d", facts->abi);
  textf(line, ",\"selfTest\":\"%s\"", results[result]);
  if (entry->reason != NULL) textf(line, ",\"reason\":\"%s\"", entry->reason);
  text(line, ",\"covers\":");
  words(line, entry->covers, entry->covered);
  text(line, ",\"gaps\":");
  words(line, entry->gaps, entry->gap_count);
  text(line, "}");
}

static void kernel(struct line *line, const struct facts *facts) {
  text(line, "\"kernel\":{\"release\":");
  quoted(line, facts->release);
  textf(line, ",\"arch\":\"" ARCH_NAME "\",\"landlockAbi\":%d,\"userNotify\":%s", facts->abi, facts->user_notify ? "true" : "false");
  if (facts->yama >= 0) textf(line, ",\"yama\":%d", facts->yama);
  textf(line, ",\"containerSeccomp\":%d,\"uid\":%u}", facts->container_seccomp, facts->uid);
}

/* Paths of the policy: as many as the line has room for. */
static void paths(struct line *line, const struct notes *notes) {
  bool cut = notes->truncated;
  text(line, ",\"skipped\":[");
  for (size_t i = 0; i < notes->skipped_count; i++) {
    if (line->length + strlen(notes->skipped[i]) * 6 > MOST_BYTES) {
      cut = true;
      break;
    }
    if (i > 0) text(line, ",");
    quoted(line, notes->skipped[i]);
  }
  text(line, "],\"links\":[");
  for (size_t i = 0; i < notes->link_count; i++) {
    if (notes->link_target[i] == NULL || line->length + (strlen(notes->link_path[i]) + strlen(notes->link_target[i])) * 6 > MOST_BYTES) {
      cut = true;
      break;
    }
    text(line, i > 0 ? ",{\"path\":" : "{\"path\":");
    quoted(line, notes->link_path[i]);
    text(line, ",\"target\":");
    quoted(line, notes->link_target[i]);
    text(line, "}");
  }
  text(line, cut ? "],\"truncated\":true" : "]");
}

void report_started(const struct policy *policy, const struct facts *facts, const struct layers *layers,
                    const struct notes *notes, pid_t child, const unsigned char *results) {
  static struct line line;
  struct entry entries[M_COUNT];
  memset(entries, 0, sizeof entries);
  describe_process(entries, policy, facts);
  describe_files(&entries[M_FS], policy, facts, layers, notes);
  describe_network(entries, policy, layers);
  describe_filter(entries, policy, facts, layers);
  textf(&line, "{\"event\":\"report\",\"pid\":%d,\"verdict\":\"%s\",", child, verdict_of(policy, entries));
  kernel(&line, facts);
  text(&line, ",\"profile\":{\"name\":");
  quoted(&line, strlen(policy->name) > 512 ? "" : policy->name);
  text(&line, ",\"sha256\":");
  quoted(&line, strlen(policy->sha256) > 128 ? "" : policy->sha256);
  text(&line, "},\"mechanisms\":[");
  for (size_t i = 0; i < M_COUNT; i++) {
    if (i > 0) text(&line, ",");
    mechanism(&line, (enum mechanism)i, &entries[i], facts, results[i]);
  }
  text(&line, "]");
  paths(&line, notes);
  text(&line, "}");
  send_line(&line);
}

/* The same numbers on x86_64 and arm64. */
static const char *const signal_names[32] = {
    "",     "HUP",  "INT",  "QUIT", "ILL",    "TRAP", "ABRT", "BUS",  "FPE",  "KILL", "USR1",   "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",  "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",  "PWR",  "SYS"};

void report_exit(bool signalled, int number, const char *reason, bool unclean) {
  static struct line line;
  text(&line, "{\"event\":\"exit\"");
  if (!signalled) {
    textf(&line, ",\"code\":%d", number);
  } else {
    if (number > 0 && number < 32) textf(&line, ",\"signal\":\"SIG%s\"", signal_names[number]);
    else textf(&line, ",\"signal\":\"%d\"", number);
  }
  if (reason != NULL) {
    text(&line, ",\"reason\":");
    quoted(&line, reason);
  }
  textf(&line, ",\"unclean\":%s}", unclean ? "true" : "false");
  send_line(&line);
}

/* ---- what a watched server did ---- */

void report_file(const char *access, const char *path) {
  static struct line line;
  line.length = 0;
  textf(&line, "{\"event\":\"file\",\"access\":\"%s\",\"path\":", access);
  quoted(&line, path);
  text(&line, "}");
  send_line(&line);
}

void report_tried(const char *what, int port) {
  static struct line line;
  line.length = 0;
  textf(&line, "{\"event\":\"tried\",\"what\":\"%s\"", what);
  if (port > 0) textf(&line, ",\"port\":%d", port);
  text(&line, "}");
  send_line(&line);
}

void report_size(uint64_t rss, uint64_t processes) {
  static struct line line;
  static uint64_t most_rss, most_processes;
  /* Small growth is not worth a line. */
  if (rss <= most_rss + most_rss / 50 && processes <= most_processes) return;
  if (rss > most_rss) most_rss = rss;
  if (processes > most_processes) most_processes = processes;
  line.length = 0;
  textf(&line, "{\"event\":\"size\",\"rss\":%llu,\"processes\":%llu}", (unsigned long long)most_rss, (unsigned long long)most_processes);
  send_line(&line);
}

void report_lost(void) {
  static struct line line;
  line.length = 0;
  text(&line, "{\"event\":\"lost\"}");
  send_line(&line);
}
