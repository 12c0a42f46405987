/* One connection of mode `serve`. */
#ifndef RELAY_H
#define RELAY_H

#include "launcher.h"

/* What a policy must at least ask for, whatever the sidecar says. */
struct floor {
  bool landlock;
  bool seccomp;
  bool broker;
};

_Noreturn void relay_run(int connection, const struct floor *floor);

#endif
