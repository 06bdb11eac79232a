/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the handlers of SIGBUS and SIGSEGV. */
#include "cache/guard.h"

#include <setjmp.h>
#include <signal.h>
#include <stddef.h>

static _Thread_local sigjmp_buf *volatile way_out;
static struct sigaction before_bus;
static struct sigaction before_segv;

void stg_guard_leave(void) {
    if (way_out)
        siglongjmp(*way_out, 1);
}

/* Not ours: whoever was there before, or the default, which ends the process at the next try. */
static void pass_on(int number, siginfo_t *info, void *context) {
    const struct sigaction *before = number == SIGBUS ? &before_bus : &before_segv;

    if (before->sa_flags & SA_SIGINFO)
        before->sa_sigaction(number, info, context);
    else if (before->sa_handler != SIG_DFL && before->sa_handler != SIG_IGN)
        before->sa_handler(number);
    else
        (void)signal(number, SIG_DFL);
}

static void handle(int number, siginfo_t *info, void *context) {
    sigset_t both;

    (void)sigemptyset(&both); /* these cannot fail with valid arguments */
    (void)sigaddset(&both, SIGBUS);
    (void)sigaddset(&both, SIGSEGV);
    /* SA_NODEFER leaves them unblocked; but whoever stands between us and the kernel may not. */
    (void)pthread_sigmask(SIG_UNBLOCK, &both, NULL);
    stg_guard_leave();
    pass_on(number, info, context);
}

static void install(int number, struct sigaction *before) {
    struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_NODEFER};
    struct sigaction now;

    (void)sigemptyset(&action.sa_mask); /* these cannot fail with valid arguments */
    (void)sigaction(number, NULL, &now);
    if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == handle)
        return;
    *before = now;
    (void)sigaction(number, &action, NULL);
}

void stg_guard_install(void) {
    install(SIGBUS, &before_bus);
    install(SIGSEGV, &before_segv);
}

bool stg_guard_run(void (*run)(void *argument), void *argument) {
    sigjmp_buf here;

    if (sigsetjmp(here, 0)) { /* the handler has unblocked the signals */
        way_out = NULL;
        return false;
    }
    way_out = &here;
    run(argument);
    way_out = NULL;
    return true;
}
