/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Reading through a mapping whose file may fail.
 *
 * A page of a mapped file that cannot be read is no error to whoever reads it but a signal, which
 * ends the process: SIGBUS where the disk fails or the file was cut short, and SIGSEGV where what
 * was read led a library astray. What runs guarded is left then as if it had never run on.
 */
#ifndef STG_CACHE_GUARD_H
#define STG_CACHE_GUARD_H

#include <stdbool.h>

/* Installs the handlers, where they are not in place. Not by several threads at once. */
void stg_guard_install(void);

/*
 * Runs `run`, which must hold nothing that its end would have to give back: no lock of ours, no
 * memory but what `argument` shows. Returns false where it was left by such a signal; what it used
 * is not to be used any more then. Signals of other code go where they went before.
 *
 * Thread-safe; not to be nested.
 */
bool stg_guard_run(void (*run)(void *argument), void *argument);

/* Leaves what runs guarded, from within. Does not return; without effect outside. */
void stg_guard_leave(void);

#endif
