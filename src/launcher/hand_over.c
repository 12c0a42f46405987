/* Puts a socket of ours in the place of the caller's. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/time.h>

#include "broker_parts.h"

/* Microseconds to wait for a caller's thread to run. */
#define PUT_US 10000

static void wake_up(int number) {
  (void)number;
}

/* The kernel puts a descriptor into a table when its owner next runs, and lets us wait for that. A program that gave its
 * thread the lowest priority, and the processors to others, would keep the supervisor in that wait for seconds: a timer
 * ends it, and then the kernel has either put it in place or never will. */
static int put(const struct broker *broker, struct notify_addfd *add) {
  const struct itimerval often = {.it_interval.tv_usec = PUT_US, .it_value.tv_usec = PUT_US}, never = {0};
  sigset_t timer, before;
  sigemptyset(&timer);
  sigaddset(&timer, SIGALRM);
  pthread_sigmask(SIG_UNBLOCK, &timer, &before);
  setitimer(ITIMER_REAL, &often, NULL);
  const int result = ioctl(broker->options.listener, NOTIFY_ADDFD, add);
  const int error = errno;
  setitimer(ITIMER_REAL, &never, NULL);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (result >= 0) return 0;
  switch (error) {
    case EINTR:
      return CALLER_LATE;
    case ENOENT:
    case ESRCH:
    case EINPROGRESS:
      return CALLER_GONE;
    default:
      return EBADF;
  }
}

int hand_over(const struct broker *broker, const struct call *call, int descriptor,
              const struct caller_socket *place) {
  const int number = (int)(uint32_t)call->args[0];
  /* Another thread has closed or replaced it: what stands there now is not ours to take away. */
  const int same = target_same(broker, call, number, place);
  if (same != 0) return same;

  if (fcntl(descriptor, F_SETFL, place->flags & O_NONBLOCK) != 0) return EAGAIN;
  /* The mark by which target_socket knows it again. A program that marks a socket of its own so fools itself only. */
  if (fchmod(descriptor, S_IRUSR | S_IWUSR) != 0) return EAGAIN;

  struct notify_addfd add = {
      .id = call->id,
      .flags = NOTIFY_ADDFD_SETFD,
      .source = (uint32_t)descriptor,
      .target = (uint32_t)number,
      .target_flags = (uint32_t)(place->flags & O_CLOEXEC),
  };
  return put(broker, &add);
}

bool hand_over_prepare(void) {
  const struct sigaction action = {.sa_handler = wake_up};
  return sigaction(SIGALRM, &action, NULL) == 0;
}
