/* What a policy comes to on this kernel, before anything is applied. */
#ifndef PLAN_H
#define PLAN_H

#include "launcher.h"

/* Refuses when a mechanism that the policy needs is missing. */
void plan_layers(const struct policy *policy, const struct facts *facts, struct layers *layers);
/* The program's file, found in the PATH of its own environment; refuses with exit code 127. */
void plan_command(const char *name, char **environment, struct command *command);
/* Tasks that this uid has now, as RLIMIT_NPROC counts them. `inert`: the limit does not apply to this uid. */
uint64_t plan_processes_now(bool *inert);

#endif
