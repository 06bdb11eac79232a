/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Makes copies current that programs have open while the source has changed: by threads of its own,
 * since whoever looks at a file, or tells of a change, is not to hang when its source does not send
 * the content.
 */
#ifndef STG_FS_FOLLOW_H
#define STG_FS_FOLLOW_H

struct stg_object;

/*
 * Has a stale copy fetched anew, and waits for that; for a second at most, after which it goes on
 * without. Where another does that already, where writers have the copy, or where too many are to
 * be fetched, nothing is done. The caller has a reference to the object, and holds no locks.
 */
void stg_follow(struct stg_object *object);

/* Ends the threads: what is being fetched is waited for. Before the engine stops. */
void stg_follow_stop(void);

#endif
