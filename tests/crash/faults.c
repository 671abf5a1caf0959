/* Preloaded into a process, makes a call that changes a file below a folder fail, or the process end right before it.

   Python, Arrow, DuckDB and delta-rs all change files through these functions of the C library. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { KILL = -1 };

static char below[4096];
static char wanted[256];
static int told = -1;
static long chosen;
static int failure;
static atomic_long met;

/* Call number `number`, from 1, of those that match the glob `calls` ("fsync table/_delta_log/[0-9]*.json": a call, and
   a file as seen from `folder`) fails with `error`; 0 fails none, and KILL ends the process. Each of the calls is a line of the
   file `log`. */
void arm_faults(const char *folder, const char *log, const char *calls, long number, int error) {
    snprintf(below, sizeof below, "%s/", folder);
    snprintf(wanted, sizeof wanted, "%s", calls);
    chosen = number, failure = error, met = 0;
    told = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
}

static int fails(const char *call, const char *path) {
    char line[4200];
    if (told < 0 || strncmp(path, below, strlen(below)))
        return 0;
    int size = snprintf(line, sizeof line, "%s %s", call, path + strlen(below));
    if (fnmatch(wanted, line, 0))
        return 0;
    long number = atomic_fetch_add(&met, 1) + 1;
    line[size] = '\n';
    syscall(SYS_write, told, line, size + 1);
    if (!failure || number != chosen)
        return 0;
    if (failure == KILL)
        raise(SIGKILL);
    errno = failure;
    return 1;
}

static int fails_open(const char *call, int file) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    int before = errno;
    long size = told < 0 ? -1 : readlink(link, path, sizeof path - 1);
    errno = before;
    if (size < 0)
        return 0;
    path[size] = 0;
    return fails(call, path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define ON_FILE(kind, type, name, file, parameters, arguments) \
    type name parameters { return fails_open(kind, file) ? -1 : REAL(name) arguments; }
#define ON_PATH(kind, name, path, parameters, arguments) \
    int name parameters { return fails(kind, path) ? -1 : REAL(name) arguments; }

ON_FILE("write", ssize_t, write, file, (int file, const void *data, size_t size), (file, data, size))
ON_FILE("write", ssize_t, pwrite, file, (int file, const void *data, size_t size, off_t at), (file, data, size, at))
ON_FILE("write", ssize_t, pwrite64, file, (int file, const void *data, size_t size, off64_t at), (file, data, size, at))
ON_FILE("write", ssize_t, writev, file, (int file, const struct iovec *parts, int count), (file, parts, count))
ON_FILE("fsync", int, fsync, file, (int file), (file))
ON_FILE("fsync", int, fdatasync, file, (int file), (file))
ON_FILE("truncate", int, ftruncate, file, (int file, off_t size), (file, size))
ON_FILE("truncate", int, ftruncate64, file, (int file, off64_t size), (file, size))
ON_PATH("rename", rename, to, (const char *from, const char *to), (from, to))
ON_PATH("rename", renameat, to, (int old, const char *from, int new, const char *to), (old, from, new, to))
ON_PATH("link", link, to, (const char *from, const char *to), (from, to))
ON_PATH("link", linkat, to, (int old, const char *from, int new, const char *to, int flags), (old, from, new, to, flags))
ON_PATH("unlink", unlink, path, (const char *path), (path))
ON_PATH("unlink", unlinkat, path, (int folder, const char *path, int flags), (folder, path, flags))
ON_PATH("mkdir", mkdir, path, (const char *path, mode_t mode), (path, mode))
ON_PATH("mkdir", mkdirat, path, (int folder, const char *path, mode_t mode), (folder, path, mode))

#define MODE(flags) \
    mode_t mode = 0; \
    if (flags & (O_CREAT | __O_TMPFILE)) { \
        va_list rest; \
        va_start(rest, flags); \
        mode = va_arg(rest, mode_t); \
        va_end(rest); \
    }
#define ON_OPEN(name) \
    int name(const char *path, int flags, ...) { \
        MODE(flags) \
        return (flags & O_CREAT) && fails("create", path) ? -1 : REAL(name)(path, flags, mode); \
    }
#define ON_OPENAT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        MODE(flags) \
        return (flags & O_CREAT) && fails("create", path) ? -1 : REAL(name)(folder, path, flags, mode); \
    }

ON_OPEN(open)
ON_OPEN(open64)
ON_OPENAT(openat)
ON_OPENAT(openat64)
