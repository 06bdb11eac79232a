/* SPDX-License-Identifier: GPL-2.0-only */
/* What every unit test includes: cmocka with the headers that it wants before its own. */
#ifndef STG_TESTS_UNIT_H
#define STG_TESTS_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define STG_COUNT(array) (sizeof(array) / sizeof((array)[0]))

#endif
