/* SPDX-License-Identifier: GPL-2.0-only */
/* Recorded profiles are followed: see predict_profile.c, and util/profile.h for what they are. */
#ifndef STG_FS_PREDICT_PROFILE_H
#define STG_FS_PREDICT_PROFILE_H

#include "util/profile.h"

/*
 * Reads the profile that the mount begins with, before it is mounted. Returns 0; or -errno after
 * saying what is wrong.
 */
int stg_profiles_load(const char *path);

/* Follows it, once it is settled with the kernel how files are served. */
void stg_profiles_start(void);

/*
 * Has the folders followed that copies on disk are of, where the process that primes the kernel
 * leaves that to do (primer.h); once that has begun.
 */
void stg_profiles_follow_kept(void);

/*
 * Follows the entries, which are consumed, after those that are still to be followed, or (`again`)
 * instead of them. Returns how many there are now. Thread-safe.
 */
uint64_t stg_profiles_follow(struct stg_profile *profile, bool again);

#endif
