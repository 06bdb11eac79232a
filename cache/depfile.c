/* SPDX-License-Identifier: GPL-2.0-only */
#include "cache/depfile.h"

#include <limits.h>
#include <string.h>

bool stg_depfile_is(const char *name) {
    size_t bytes = strlen(name);

    return bytes > 2 && !strcmp(name + bytes - 2, ".d");
}

struct text {
    const char *at;
    const char *end;
};

static bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r'; }

/* How long the line's continuation is that begins here; 0: it does not. */
static size_t continues(const struct text *text) {
    size_t left = (size_t)(text->end - text->at);

    if (left >= 2 && text->at[0] == '\\' && text->at[1] == '\n')
        return 2;
    return left >= 3 && text->at[0] == '\\' && text->at[1] == '\r' && text->at[2] == '\n' ? 3 : 0;
}

static void skip_blanks(struct text *text) {
    while (text->at < text->end) {
        size_t bytes = continues(text);

        if (!bytes && !is_blank(*text->at))
            return;
        text->at += bytes ? bytes : 1;
    }
}

static void skip_line(struct text *text) {
    while (text->at < text->end && *text->at != '\n') {
        size_t bytes = continues(text);

        text->at += bytes ? bytes : 1;
    }
}

/* The character of a word that begins here, without what escapes it. */
static char next_character(struct text *text) {
    bool more = text->end - text->at >= 2;

    if (more && ((*text->at == '\\' && strchr(" #\t", text->at[1]) && text->at[1]) ||
                 (*text->at == '$' && text->at[1] == '$')))
        text->at++;
    return *text->at++;
}

/* The next word of the line. False where the line is over; "" is one that is too long. */
static bool next_word(struct text *text, char word[PATH_MAX]) {
    size_t used = 0;

    skip_blanks(text);
    if (text->at == text->end || *text->at == '\n')
        return false;
    while (text->at < text->end && !is_blank(*text->at) && *text->at != '\n' && !continues(text)) {
        char c = next_character(text);

        if (used < PATH_MAX)
            word[used++] = c;
    }
    word[used < PATH_MAX && !memchr(word, '\0', used) ? used : 0] = '\0';
    return true;
}

/* Does the word end the targets? "a.o:" does, and ":" alone. */
static bool ends_targets(const char *word) {
    size_t bytes = strlen(word);

    return bytes && word[bytes - 1] == ':';
}

void stg_depfile_read(const char *text, size_t bytes,
                      void (*visit)(void *context, const char *path), void *context) {
    struct text left = {text, text + bytes};
    char word[PATH_MAX];

    while (left.at < left.end) {
        bool is_rule = false;

        while (next_word(&left, word)) {
            if (*word == '#')
                skip_line(&left);
            else if (is_rule && *word)
                visit(context, word);
            else
                is_rule = is_rule || ends_targets(word);
        }
        left.at += left.at < left.end; /* the end of the line */
    }
}
