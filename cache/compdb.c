/* SPDX-License-Identifier: GPL-2.0-only */
#include "cache/compdb.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct entry {
    const struct stg_compdb_visitor *visitor;
    const char *directory;
    const char *awaited; /* the option whose argument comes next; NULL: none */
};

static const char *const searches[] = {"-I", "-iquote", "-isystem", "-idirafter"};
static const char *const includes[] = {"-include", "-imacros"};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* The option of the table with which the word begins; NULL: none. */
static const char *option_of(const char *word, const char *const *table, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (!strncmp(word, table[i], strlen(table[i])))
            return table[i];
    return NULL;
}

static void visit_argument(const struct entry *entry, const char *option, const char *argument) {
    const struct stg_compdb_visitor *visitor = entry->visitor;

    if (!*argument)
        return;
    if (option_of(option, searches, COUNT(searches)))
        visitor->searched(visitor->context, entry->directory, argument);
    else
        visitor->file(visitor->context, entry->directory, argument);
}

static void visit_word(struct entry *entry, const char *word) {
    const char *search = option_of(word, searches, COUNT(searches));
    const char *option = search ? search : option_of(word, includes, COUNT(includes));

    if (entry->awaited) {
        visit_argument(entry, entry->awaited, word);
        entry->awaited = NULL;
    } else if (option && !word[strlen(option)]) {
        entry->awaited = option;
    } else if (search) { /* -includex is another option */
        visit_argument(entry, search, word + strlen(search));
    } else if (*word == '@' && word[1] && entry->visitor->response) {
        entry->visitor->response(entry->visitor->context, entry->directory, word + 1);
    }
}

/*
 * Takes the next word of a shell's command out of `*at`, in place; NULL at the end. Quotes and
 * backslashes as in POSIX (XCU 2.2); what a shell would expand stays as it is.
 */
static char *next_word(char **at) {
    char *from = *at;
    char *word;
    char *to;
    char quote = 0;

    while (isspace((unsigned char)*from))
        from++;
    if (!*from)
        return NULL;
    word = to = from;
    for (; *from && (quote || !isspace((unsigned char)*from)); from++) {
        if (quote ? *from == quote : *from == '\'' || *from == '"') {
            quote = quote ? 0 : *from;
        } else if (*from == '\\' && quote != '\'' && from[1] &&
                   (!quote || strchr("\\\"$`", from[1]))) {
            *to++ = *++from;
        } else {
            *to++ = *from;
        }
    }
    *at = *from ? from + 1 : from;
    *to = '\0';
    return word;
}

static bool visit_command(struct entry *entry, const char *command, size_t bytes) {
    char *copy = malloc(bytes + 1);
    char *at = copy;
    const char *word;

    if (!copy)
        return false;
    memcpy(copy, command, bytes);
    copy[bytes] = '\0';
    while ((word = next_word(&at)))
        visit_word(entry, word);
    free(copy);
    return true;
}

static bool visit_entry(const struct stg_compdb_visitor *visitor, const json_t *one) {
    struct entry entry = {.visitor = visitor};
    const char *file = json_string_value(json_object_get(one, "file"));
    const char *command = json_string_value(json_object_get(one, "command"));
    const json_t *arguments = json_object_get(one, "arguments");
    const json_t *argument;
    size_t i;

    entry.directory = json_string_value(json_object_get(one, "directory"));
    if (!entry.directory)
        return true;
    if (file && *file)
        visitor->file(visitor->context, entry.directory, file);
    json_array_foreach(arguments, i, argument) {
        if (json_is_string(argument))
            visit_word(&entry, json_string_value(argument));
    }
    return arguments || !command || visit_command(&entry, command, strlen(command));
}

int stg_compdb_read_response(const char *directory, const char *text, size_t bytes,
                             const struct stg_compdb_visitor *visitor) {
    struct entry entry = {.visitor = visitor, .directory = directory};

    return visit_command(&entry, text, bytes) ? 0 : -ENOMEM;
}

/* ---- the array ---- */

static size_t skip_space(const char *text, size_t bytes, size_t at) {
    while (at < bytes && strchr(" \t\r\n", text[at]) && text[at])
        at++;
    return at;
}

/* Where the element that begins at `at` ends: at the comma after it, or the bracket, or the end. */
static size_t end_of_element(const char *text, size_t bytes, size_t at) {
    unsigned depth = 0;
    bool in_string = false;

    for (; at < bytes; at++) {
        char c = text[at];

        if (in_string) {
            at += c == '\\'; /* what it stands before is no end of the string */
            in_string = c != '"';
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            depth++;
        } else if (!depth && (c == ',' || c == ']' || c == '}')) {
            return at;
        } else if (c == '}' || c == ']') {
            depth--;
        }
    }
    return bytes;
}

static int read_element(const char *text, size_t bytes, const struct stg_compdb_visitor *visitor) {
    json_error_t where;
    json_t *one;
    int error = 0;

    if (bytes > STG_COMPDB_ENTRY_MAX_BYTES)
        return 0;
    one = json_loadb(text, bytes, JSON_DECODE_ANY, &where);
    if (!one)
        return json_error_code(&where) == json_error_out_of_memory ? -ENOMEM : -EBADMSG;
    if (!visit_entry(visitor, one))
        error = -ENOMEM;
    json_decref(one);
    return error;
}

/* Nothing but space is to come after the array. */
static int end_at(const char *text, size_t bytes, size_t at) {
    return skip_space(text, bytes, at) == bytes ? 0 : -EBADMSG;
}

int stg_compdb_read(const char *text, size_t bytes, const struct stg_compdb_visitor *visitor) {
    size_t at = skip_space(text, bytes, 0);
    int error = 0;

    if (at == bytes || text[at] != '[')
        return -EBADMSG;
    at = skip_space(text, bytes, at + 1);
    if (at < bytes && text[at] == ']')
        return end_at(text, bytes, at + 1);
    while (!error && at < bytes) {
        size_t end = end_of_element(text, bytes, at);

        if (end == bytes || text[end] == '}') /* it is cut off, or no array */
            return -EBADMSG;
        error = read_element(text + at, end - at, visitor);
        if (text[end] == ']')
            return error ? error : end_at(text, bytes, end + 1);
        at = skip_space(text, bytes, end + 1);
    }
    return error ? error : -EBADMSG;
}
