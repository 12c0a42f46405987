/* One connection of mode `serve`. */
#ifndef RELAY_H
#define RELAY_H

#include "launcher.h"

/* What holds whatever the sidecar says. */
struct floor {
  /* What a policy must at least ask for. */
  bool landlock;
  bool seccomp;
  bool broker;
  /* What no server may change: this program and its socket. */
  const char *own[MAX_OWN];
  size_t own_count;
};

_Noreturn void relay_run(int connection, const struct floor *floor);

#endif
