/* SPDX-License-Identifier: GPL-2.0-only */
/* Owns how values are written in JSON (RFC 8259). */
#include "client/ctl.h"

#include <inttypes.h>
#include <string.h>

/* The length of the UTF-8 character at `text`, or 0 where there is none. */
static size_t character_bytes(const unsigned char *text) {
    size_t bytes = *text < 0x80                    ? 1
                   : *text >= 0xC2 && *text < 0xE0 ? 2
                   : *text >= 0xE0 && *text < 0xF0 ? 3
                   : *text >= 0xF0 && *text < 0xF5 ? 4
                                                   : 0;

    for (size_t i = 1; i < bytes; i++)
        if ((text[i] & 0xC0) != 0x80)
            return 0;
    /* Longer than needed, a surrogate, or past the last character. */
    if ((*text == 0xE0 && text[1] < 0xA0) || (*text == 0xED && text[1] > 0x9F) ||
        (*text == 0xF0 && text[1] < 0x90) || (*text == 0xF4 && text[1] > 0x8F))
        return 0;
    return bytes;
}

static void write_string(FILE *stream, const char *string) {
    const unsigned char *text = (const unsigned char *)string;

    (void)fputc('"', stream); /* errors of the stream are looked at once, at the end of main */
    while (*text) {
        size_t bytes = character_bytes(text);

        if (!bytes)
            (void)fprintf(stream, "\\udc%02x", *text);
        else if (*text == '"' || *text == '\\')
            (void)fprintf(stream, "\\%c", *text);
        else if (*text < 0x20 || *text == 0x7F)
            (void)fprintf(stream, "\\u%04x", *text);
        else
            (void)fwrite(text, 1, bytes, stream);
        text += bytes ? bytes : 1;
    }
    (void)fputc('"', stream);
}

static void write_key(struct stg_json *json, const char *key) {
    if (json->comma)
        (void)fputs(", ", json->stream);
    if (key) {
        write_string(json->stream, key);
        (void)fputs(": ", json->stream);
    }
    json->comma = true;
}

void stg_json_begin(struct stg_json *json, const char *key, char bracket) {
    write_key(json, key);
    (void)fputc(bracket, json->stream);
    json->comma = false;
}

void stg_json_end(struct stg_json *json, char bracket) {
    (void)fputc(bracket, json->stream);
    json->comma = true;
}

void stg_json_text(struct stg_json *json, const char *key, const char *text) {
    write_key(json, key);
    if (text)
        write_string(json->stream, text);
    else
        (void)fputs("null", json->stream);
}

void stg_json_number(struct stg_json *json, const char *key, uint64_t number) {
    write_key(json, key);
    (void)fprintf(json->stream, "%" PRIu64, number);
}

void stg_json_fraction(struct stg_json *json, const char *key, double number) {
    write_key(json, key);
    (void)fprintf(json->stream, "%.4f", number);
}

void stg_json_bool(struct stg_json *json, const char *key, bool value) {
    write_key(json, key);
    (void)fputs(value ? "true" : "false", json->stream);
}
