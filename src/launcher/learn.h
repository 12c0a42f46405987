/* What the parts that watch a server share: learn.c (its calls), seen.c (its paths, and telling them). */
#ifndef LEARN_H
#define LEARN_H

#include <limits.h>
#include <sys/stat.h>

#include "broker_parts.h"
#include "launcher.h"

/* A path, with what is put in front of it to mean the same here. */
#define PATH_ROOM (PATH_MAX + 64)

void seen_begin(pid_t child);
/* A text out of the caller's memory; false when it cannot be read, is too long, or empty. */
bool seen_text(const struct broker *broker, const struct call *call, uint64_t from, char *into, size_t size);
/* What stands at a path and is used through it: a descriptor of it, its real path (PATH_ROOM) and facts; -1 with errno. */
int seen_target(const struct call *call, int directory, const char *path, char *real, struct stat *found);
/* An entry of a directory, which need not exist. False when there is none such, or its directory cannot be changed. */
bool seen_entry(const struct call *call, int directory, const char *path, char *real, bool *exists);
/* Whether the file permissions let this user. */
bool seen_may(int descriptor, int mode);
/* What the kernel opens itself to run a file: the interpreter of a script, the loader of a program. */
bool seen_interpreter(const char *real, char *into);
/* Tells it, once. */
void seen_file(const struct call *call, const char *access, const char *real);
void seen_attempt(const char *what, int port);

#endif
