/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns the printable form of bytes that came from outside. */
#include "util/bytes.h"

#include <stdio.h>
#include <string.h>

void stg_bytes_escape(char *line, size_t size_bytes, const char *text) {
    size_t used = 0;

    for (; *text; text++) {
        unsigned char byte = (unsigned char)*text;
        char form[5] = {(char)byte, '\0'};
        size_t length;

        if (byte == '\n')
            memcpy(form, "\\n", 3);
        else if (byte < 0x20 || byte == 0x7f)
            (void)snprintf(form, sizeof(form), "\\x%02x", byte); /* always four characters */
        length = strlen(form);
        if (used + length + 1 > size_bytes)
            break;
        memcpy(line + used, form, length);
        used += length;
    }
    line[used] = '\0';
}
