/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Owns the reading of directives. A cursor goes through the text once; next() hides continued
 * lines, so everything above it sees logical lines.
 */
#include "cache/depscan.h"

#include <ctype.h>
#include <string.h>

#define END (-1)

struct cursor {
    const char *at;
    const char *end;
    stg_depscan_found *found;
    void *context;
};

/* Bytes of a backslash with the end of its line; 0: there is none at `at`. */
static size_t splice_at(const char *at, const char *end) {
    if (at == end || *at != '\\')
        return 0;
    if (end - at > 1 && at[1] == '\n')
        return 2;
    return end - at > 2 && at[1] == '\r' && at[2] == '\n' ? 3 : 0;
}

static void skip_splices(struct cursor *cursor) {
    size_t bytes;

    while ((bytes = splice_at(cursor->at, cursor->end)))
        cursor->at += bytes;
}

static int peek(struct cursor *cursor) {
    skip_splices(cursor);
    return cursor->at < cursor->end ? (unsigned char)*cursor->at : END;
}

static int next(struct cursor *cursor) {
    int c = peek(cursor);

    if (c != END)
        cursor->at++;
    return c;
}

/* Takes that character where it is the next. */
static bool take(struct cursor *cursor, int wanted) {
    bool is = peek(cursor) == wanted;

    if (is)
        cursor->at++;
    return is;
}

static bool is_word(int c) { return c != END && (isalnum(c) || c == '_' || c >= 0x80); }

static bool is_blank(int c) { return c == ' ' || c == '\t' || c == '\v' || c == '\f' || c == '\r'; }

/* ---- what is skipped ---- */

static void skip_line(struct cursor *cursor) {
    while (peek(cursor) != END && peek(cursor) != '\n')
        cursor->at++;
}

/* After the opening of a comment. */
static void skip_block(struct cursor *cursor) {
    int c;

    while ((c = next(cursor)) != END)
        if (c == '*' && take(cursor, '/'))
            return;
}

/* A '/' was taken. True where it began a comment, which is gone then; its line's end is not. */
static bool skip_comment(struct cursor *cursor) {
    if (take(cursor, '/')) {
        skip_line(cursor);
        return true;
    }
    if (!take(cursor, '*'))
        return false;
    skip_block(cursor);
    return true;
}

/* After the opening quote. One that is not closed ends with its line. */
static void skip_quoted(struct cursor *cursor, int quote) {
    while (peek(cursor) != END && peek(cursor) != '\n') {
        int c = next(cursor);

        if (c == quote)
            return;
        if (c == '\\' && peek(cursor) != '\n')
            (void)next(cursor); /* whatever it is */
    }
}

/* After R and the opening quote: to )delimiter", in which nothing is joined or escaped. */
static void skip_raw(struct cursor *cursor) {
    const char *delimiter = cursor->at;
    const char *open = cursor->at;
    size_t bytes;

    while (open < cursor->end && open - delimiter <= 16 && *open != '(' && *open != '\n')
        open++;
    if (open == cursor->end || *open != '(') { /* none */
        skip_quoted(cursor, '"');
        return;
    }
    bytes = (size_t)(open - delimiter);
    cursor->at = open + 1;
    while (cursor->at < cursor->end) {
        const char *close = memchr(cursor->at, ')', (size_t)(cursor->end - cursor->at));

        cursor->at = close ? close + 1 : cursor->end;
        if (close && (size_t)(cursor->end - cursor->at) > bytes &&
            !memcmp(cursor->at, delimiter, bytes) && cursor->at[bytes] == '"') {
            cursor->at += bytes + 1;
            return;
        }
    }
}

/* Blanks and comments within a line. */
static void skip_blank(struct cursor *cursor) {
    for (;;) {
        const char *before;

        while (is_blank(peek(cursor)))
            cursor->at++;
        before = cursor->at;
        if (!take(cursor, '/'))
            return;
        if (!skip_comment(cursor)) {
            cursor->at = before;
            return;
        }
    }
}

/* ---- words ---- */

/* Takes a word of which `room` - 1 bytes are kept. */
static void read_word(struct cursor *cursor, char *word, size_t room) {
    size_t used = 0;

    while (is_word(peek(cursor))) {
        int c = next(cursor);

        if (used + 1 < room)
            word[used++] = (char)c;
    }
    word[used] = '\0';
}

static bool is_one_of(const char *word, const char *const *words) {
    while (*words && strcmp(*words, word))
        words++;
    return *words != NULL;
}

/*
 * A word of plain text, its first character being next; with what belongs to it: the digit
 * separators of a number, and the raw string that it is the prefix of.
 */
static void skip_word(struct cursor *cursor) {
    static const char *const raw[] = {"R", "LR", "uR", "UR", "u8R", NULL};
    static const char *const prefixes[] = {"L", "u", "U", "u8", NULL};
    bool is_number = isdigit(peek(cursor));
    char word[8];

    read_word(cursor, word, sizeof(word));
    while (is_number && peek(cursor) == '\'' && cursor->at + 1 < cursor->end &&
           is_word((unsigned char)cursor->at[1])) {
        cursor->at++;
        read_word(cursor, word, sizeof(word));
    }
    if (is_one_of(word, raw) && take(cursor, '"'))
        skip_raw(cursor);
    else if (is_one_of(word, prefixes) && take(cursor, '\''))
        skip_quoted(cursor, '\'');
}

/* ---- directives ---- */

/* A name in <> or quotes, which are next; nothing is reported where there is none. */
static void read_name(struct cursor *cursor) {
    char name[STG_DEPSCAN_NAME_BYTES];
    size_t used = 0;
    bool angled = take(cursor, '<');
    int close = angled ? '>' : '"';

    if (!angled && !take(cursor, '"'))
        return;
    while (peek(cursor) != END && peek(cursor) != '\n' && peek(cursor) != close) {
        int c = next(cursor);

        if (used < sizeof(name))
            name[used++] = (char)c;
    }
    if (!take(cursor, close) || !used || used == sizeof(name) || memchr(name, '\0', used))
        return;
    name[used] = '\0';
    cursor->found(cursor->context, name, angled);
}

/* The rest of an #if or #elif. */
static void read_condition(struct cursor *cursor) {
    static const char *const asks[] = {"__has_include", "__has_include_next", NULL};

    while (skip_blank(cursor), peek(cursor) != END && peek(cursor) != '\n') {
        char word[24];

        if (!is_word(peek(cursor))) {
            int c = next(cursor);

            if (c == '"' || c == '\'')
                skip_quoted(cursor, c);
            continue;
        }
        read_word(cursor, word, sizeof(word));
        if (!is_one_of(word, asks))
            continue;
        skip_blank(cursor);
        if (take(cursor, '(')) {
            skip_blank(cursor);
            read_name(cursor);
        }
    }
}

/* After the #. */
static void read_directive(struct cursor *cursor) {
    static const char *const includes[] = {"include", "include_next", "import", NULL};
    static const char *const conditions[] = {"if", "elif", NULL};
    char word[16];

    skip_blank(cursor);
    read_word(cursor, word, sizeof(word));
    if (is_one_of(word, includes)) {
        skip_blank(cursor);
        read_name(cursor);
    } else if (is_one_of(word, conditions)) {
        read_condition(cursor);
    }
}

static bool begins_directive(struct cursor *cursor) {
    const char *before = cursor->at;

    if (take(cursor, '#') || (take(cursor, '%') && take(cursor, ':')))
        return true;
    cursor->at = before;
    return false;
}

void stg_depscan(const char *text, size_t bytes, stg_depscan_found *found, void *context) {
    struct cursor cursor = {text, text + bytes, found, context};

    while (peek(&cursor) != END) {
        skip_blank(&cursor);
        if (begins_directive(&cursor))
            read_directive(&cursor);
        /* The rest of the line, of a comment that goes on over several, too. */
        while (peek(&cursor) != END && peek(&cursor) != '\n') {
            int c = peek(&cursor);

            if (is_word(c)) {
                skip_word(&cursor);
                continue;
            }
            cursor.at++;
            if (c == '/')
                (void)skip_comment(&cursor); /* or it is a division */
            else if (c == '"' || c == '\'')
                skip_quoted(&cursor, c);
        }
        (void)take(&cursor, '\n');
    }
}

bool stg_depscan_is_code(const char *name) {
    static const char *const endings[] = {"c",   "h",   "cc",  "cpp", "cxx", "c++", "C",   "hh",
                                          "hpp", "hxx", "h++", "H",   "inc", "inl", "ipp", "tcc",
                                          "def", "m",   "mm",  "S",   "cu",  "cuh", NULL};
    const char *dot = strrchr(name, '.');

    return dot && dot != name && is_one_of(dot + 1, endings);
}
