/* SPDX-License-Identifier: GPL-2.0-only */
/* What is packed comes back the same or not at all. */
#include "tests/unit/unit.h"

#include "cache/codec.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* Text like a source file's: it shrinks to a half or less. */
static char *make_text(size_t bytes) {
    static const char *const words[] = {"static ", "int ",   "return ", "struct ", "inode",
                                        "->",      "(void)", ";\n    ", "if (",    ") {\n",
                                        "error",   " = ",    "lock",    "0x1f",    "NULL"};
    char *text = malloc(bytes);
    uint64_t seed = bytes;
    size_t used = 0;

    assert_non_null(text);
    while (used < bytes) {
        const char *word;
        size_t length;

        seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
        word = words[(seed >> 33) % STG_COUNT(words)];
        length = strlen(word);
        length = length < bytes - used ? length : bytes - used;
        memcpy(text + used, word, length);
        used += length;
    }
    return text;
}

static void assert_round_trip(const char *raw, size_t bytes, int level) {
    void *blob = NULL;
    ssize_t packed = stg_codec_pack(raw, bytes, level, &blob);
    char *back = malloc(bytes);

    assert_non_null(back);
    assert_true(packed > 0);
    assert_true((size_t)packed <= bytes - bytes / 8);
    assert_int_equal(stg_codec_raw_bytes(blob, (size_t)packed), bytes);
    assert_int_equal(stg_codec_unpack(blob, (size_t)packed, back, bytes), bytes);
    assert_memory_equal(back, raw, bytes);
    free(back);
    free(blob);
}

static void text_comes_back(void **state) {
    static const size_t sizes[] = {200, 4095, 4096, 20000, 65537, 1 << 20, (5 << 20) + 3};

    (void)state;
    for (size_t i = 0; i < STG_COUNT(sizes); i++) {
        char *text = make_text(sizes[i]);

        for (int level = STG_CODEC_LEVEL_MIN; level <= STG_CODEC_LEVEL_MAX; level += 5)
            assert_round_trip(text, sizes[i], level);
        free(text);
    }
}

static void what_does_not_shrink_stays_raw(void **state) {
    static char noise[100000];
    void *blob = &blob;

    (void)state;
    for (size_t done = 0; done < sizeof(noise); done += 256)
        assert_int_equal(
            getrandom(noise + done, sizeof(noise) - done < 256 ? sizeof(noise) - done : 256, 0),
            sizeof(noise) - done < 256 ? sizeof(noise) - done : 256);
    assert_int_equal(stg_codec_pack(noise, sizeof(noise), 1, &blob), -E2BIG);
    assert_int_equal(stg_codec_pack(noise, 0, 1, &blob), -E2BIG);
    assert_int_equal(stg_codec_pack("abcdefgh", 8, 1, &blob), -E2BIG);
    assert_int_equal(stg_codec_pack(noise, STG_CODEC_MAX_BYTES + 1, 1, &blob), -E2BIG);
    assert_ptr_equal(blob, &blob); /* untouched */
}

/* Text around noise in its middle, where the sample looks: refused, and the other way round kept.
 */
static void the_sample_is_only_a_sample(void **state) {
    size_t bytes = 200000;
    char *text = make_text(bytes);

    (void)state;
    for (size_t done = 0; done < 40000; done += 250)
        assert_int_equal(getrandom(text + done, 250, 0), 250);
    assert_round_trip(text, bytes, 1);
    free(text);
}

/*
 * Wherever a byte is damaged, wrong content never comes back (a match may point to another place
 * with the same bytes: that is no damage); and each length but the right one is refused.
 */
static void damage_is_found(void **state) {
    size_t bytes = 3000;
    char *text = make_text(bytes);
    char *back = malloc(bytes);
    void *blob = NULL;
    ssize_t packed = stg_codec_pack(text, bytes, 1, &blob);
    char *damaged = malloc((size_t)packed + 1);
    size_t found = 0;

    (void)state;
    assert_true(packed > 0);
    assert_non_null(back);
    assert_non_null(damaged);
    for (size_t i = 0; i < (size_t)packed; i++) {
        memcpy(damaged, blob, (size_t)packed);
        damaged[i] ^= 0x10;
        if (stg_codec_unpack(damaged, (size_t)packed, back, bytes) != -EBADMSG)
            assert_memory_equal(back, text, bytes);
        else
            found++;
    }
    assert_true(found > (size_t)packed / 2);
    memcpy(damaged, blob, (size_t)packed);
    damaged[packed] = 0;
    for (size_t length = 0; length <= (size_t)packed + 1; length++)
        if (length != (size_t)packed)
            assert_int_equal(stg_codec_unpack(damaged, length, back, bytes), -EBADMSG);
    assert_int_equal(stg_codec_unpack(blob, (size_t)packed, back, bytes - 1), -EBADMSG);
    assert_int_equal(stg_codec_raw_bytes("no blob at all, but long enough", 31), -EBADMSG);
    free(damaged);
    free(back);
    free(text);
    free(blob);
}

/* What the design promises: two and a half times as much C source in the same memory. */
static void source_code_shrinks_well(void **state) {
    size_t bytes = 20000;
    char *text = make_text(bytes);
    void *blob = NULL;
    ssize_t packed = stg_codec_pack(text, bytes, 9, &blob);

    (void)state;
    assert_true(packed > 0);
    assert_true((size_t)packed * 2 < bytes);
    free(blob);
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_comes_back),
        cmocka_unit_test(what_does_not_shrink_stays_raw),
        cmocka_unit_test(the_sample_is_only_a_sample),
        cmocka_unit_test(damage_is_found),
        cmocka_unit_test(source_code_shrinks_well),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
