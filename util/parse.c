/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the syntax of option values; knows no option. */
#include "util/parse.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

int stg_parse_uint(const char *text, uint64_t min, uint64_t max, uint64_t *ret_value) {
    uint64_t value = 0;

    if (!*text)
        return -EINVAL;
    for (; *text; text++) {
        if (!isdigit((unsigned char)*text))
            return -EINVAL;
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*text - '0'), &value))
            return -ERANGE;
    }
    if (value < min || value > max)
        return -ERANGE;
    *ret_value = value;
    return 0;
}

int stg_parse_bytes(const char *text, uint64_t max, uint64_t *ret_bytes) {
    static const char units[] = "KMGT";
    size_t digits = strspn(text, "0123456789");
    const char *unit = text[digits] ? strchr(units, toupper((unsigned char)text[digits])) : NULL;
    char number[24];
    uint64_t value;
    int error;

    if (!digits || (text[digits] && (!unit || text[digits + 1])))
        return -EINVAL;
    if (digits >= sizeof(number))
        return -ERANGE;
    memcpy(number, text, digits);
    number[digits] = '\0';
    error = stg_parse_uint(number, 0, UINT64_MAX, &value);
    if (!error && unit &&
        __builtin_mul_overflow(value, UINT64_C(1024) << (10 * (unit - units)), &value))
        error = -ERANGE;
    if (!error && value > max)
        error = -ERANGE;
    if (!error)
        *ret_bytes = value;
    return error;
}

int stg_parse_seconds(const char *text, double max_s, double *ret_seconds) {
    double value = 0;
    double scale = 1;
    int digits = 0;

    for (; isdigit((unsigned char)*text); text++, digits++)
        value = value * 10 + (*text - '0');
    if (*text == '.') {
        for (text++; isdigit((unsigned char)*text); text++, digits++) {
            scale /= 10;
            value += (*text - '0') * scale;
        }
    }
    if (*text || !digits)
        return -EINVAL;
    if (value > max_s)
        return -ERANGE;
    *ret_seconds = value;
    return 0;
}

char *stg_parse_next_option(char **cursor) {
    char *start = *cursor;
    char *out = start;
    char *in;

    if (!start || !*start)
        return NULL;
    for (in = start; *in && *in != ','; in++) {
        if (*in == '\\' && (in[1] == ',' || in[1] == '\\'))
            in++;
        *out++ = *in;
    }
    *cursor = *in ? in + 1 : in;
    *out = '\0';
    return start;
}

int stg_parse_word(const char *text, const char *const *words) {
    for (int i = 0; words[i]; i++)
        if (!strcmp(text, words[i]))
            return i;
    return -EINVAL;
}
