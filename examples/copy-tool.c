/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * copy-tool: copies one file without its bytes passing through this program where that can be.
 *
 * To build it where stagefs is installed, and to use it:
 *
 *     cc copy-tool.c -o copy-tool $(pkg-config --cflags --libs stagefs)
 *     ./copy-tool disk.img backup.img
 *
 * Holes stay holes, and where the file system can share the data of two files nothing is copied at
 * all. Either file may be on a stagefs mount or not. On failure the destination is as it was.
 */
#include <stagefs.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
    int64_t bytes;

    if (argc != 3) {
        fprintf(stderr, "usage: copy-tool SOURCE DESTINATION\n");
        return 2;
    }
    bytes = stagefs_copy_zero(argv[1], argv[2]);
    if (bytes < 0) {
        fprintf(stderr, "copy-tool: %s to %s: %s\n", argv[1], argv[2], strerror(errno));
        return 1;
    }
    printf("%" PRId64 " bytes\n", bytes);
    return 0;
}
