/* Between one process and its disk: keeps a journal of what it does to a folder, and makes it fail.
 *
 *     LD_PRELOAD=interposer.so DISK_FOLDER=/data DISK_JOURNAL=/j DISK_CONTROL=/c program
 *
 * Each write, truncation, sync and change of a name is carried out and then appended to the journal
 * under one lock, so that the journal's order is the order in which things happened; what a power
 * cut leaves is computed from it afterwards (model.py). A call on a file of the folder that the
 * model does not know is journalled as UNSEEN, which makes the reader refuse the journal: better no
 * result than a wrong one. The control page says which calls fail; it may change at any time.
 *
 * Files whose name ends in -shm are counted and may fail, but are not journalled: SQLite never
 * relies on their content after a crash. Children of the process are not watched.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* The same numbers stand in journal.py. */
enum kind { NAME = 1, WRITE, ZEROS, TRUNCATE, SYNC, SYNC_FAILED, FOLDER_SYNC, UNLINK, RENAME, UNSEEN };

struct record {
    uint32_t kind;
    uint32_t file;
    int64_t at_ns;  /* CLOCK_MONOTONIC, when it had been done */
    int64_t offset; /* WRITE, ZEROS: where; TRUNCATE: the new length; NAME: 1 where it was made */
    int64_t length;
    int64_t before; /* syncs: how many records there were when it began */
    int64_t bytes;  /* of data that follow */
};

/* The same order stands in interposer.py. */
struct control {
    int64_t writes, syncs;  /* counted: calls on files of the folder */
    int64_t counted;        /* calls of the kinds that may fail */
    int64_t fail_kinds;     /* bits: 1 write, 2 sync, 4 truncate, 8 open, 16 unlink and rename */
    int64_t fail_at;        /* which of those fails first, from 1; 0: none */
    int64_t fail_calls;     /* how many fail from there on */
    int64_t fail_errno;
    int64_t fail_short;     /* the call before the first failing write takes half of its bytes */
    int64_t failed;         /* counted: failures made */
    int64_t sync_delay_us;
    int64_t bytes_max;      /* sizes of all files of the folder together; -1: no limit */
    int64_t bytes_used;
    int64_t no_room;        /* counted: calls refused for want of room */
};
enum { MAY_WRITE = 1, MAY_SYNC = 2, MAY_TRUNCATE = 4, MAY_OPEN = 8, MAY_UNLINK = 16 };

#define FDS_MAX 65536
#define NAMES_MAX 256
#define THE_FOLDER (-1)
#define SHARED_MEMORY (-2)

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct control *control; /* NULL: watch nothing */
static char folder[PATH_MAX];
static size_t folder_length;
static int journal_fd = -1;
static int64_t records;
static int32_t files[FDS_MAX]; /* by descriptor: 0 not ours, above 0 the file's number */
static struct { int32_t file; char name[256]; } names[NAMES_MAX];
static int32_t last_file;

#define REAL(type, name, ...)                                      \
    static type (*real_##name)(__VA_ARGS__);                        \
    if (!real_##name) real_##name = dlsym(RTLD_NEXT, #name)

static ssize_t append(const struct iovec *parts, int count) {
    REAL(ssize_t, writev, int, const struct iovec *, int);
    return real_writev(journal_fd, parts, count);
}

static void note(enum kind kind, int32_t file, int64_t offset, int64_t length, int64_t before,
                 const void *data, size_t bytes) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    struct record record = {kind, (uint32_t)file, now.tv_sec * 1000000000LL + now.tv_nsec,
                            offset, length, before, (int64_t)bytes};
    struct iovec parts[] = {{&record, sizeof record}, {(void *)data, bytes}};
    int error = errno;
    if (append(parts, bytes ? 2 : 1) != (ssize_t)(sizeof record + bytes)) {
        fprintf(stderr, "interposer: the journal cannot be written\n");
        _exit(98);
    }
    records++;
    errno = error;
}

static void note_text(enum kind kind, int32_t file, int64_t offset, const char *text) {
    note(kind, file, offset, 0, 0, text, strlen(text));
}

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("DISK_FOLDER"), *journal = getenv("DISK_JOURNAL");
    const char *page = getenv("DISK_CONTROL");
    unsetenv("LD_PRELOAD"); /* children run on the bare disk */
    if (!path || !journal || !page) return;
    snprintf(folder, sizeof folder, "%s", path);
    folder_length = strlen(folder);
    REAL(int, open, const char *, int, ...);
    journal_fd = real_open(journal, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    int fd = real_open(page, O_RDWR | O_CLOEXEC);
    void *mapped = fd < 0 ? MAP_FAILED
                          : mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (journal_fd < 0 || mapped == MAP_FAILED) {
        fprintf(stderr, "interposer: no journal or no control page\n");
        _exit(98);
    }
    control = mapped;
}

/* Return the name within the folder, "" for the folder itself, NULL for what is not ours. */
static const char *within(int at, const char *path, char full[PATH_MAX]) {
    if (!control || !path) return NULL;
    if (path[0] == '/') {
        snprintf(full, PATH_MAX, "%s", path);
    } else {
        char base[PATH_MAX / 2] = "", link[64];
        if (at == AT_FDCWD) {
            if (!getcwd(base, sizeof base)) return NULL;
        } else {
            snprintf(link, sizeof link, "/proc/self/fd/%d", at);
            if (readlink(link, base, sizeof base - 1) < 0) return NULL;
        }
        snprintf(full, PATH_MAX, "%s/%.2000s", base, path);
    }
    if (strncmp(full, folder, folder_length)) return NULL;
    if (!full[folder_length]) return "";
    return full[folder_length] == '/' ? full + folder_length + 1 : NULL;
}

static int is_shared_memory(const char *name) {
    size_t length = strlen(name);
    return length > 4 && !strcmp(name + length - 4, "-shm");
}

static int find(const char *name) {
    for (int i = 0; i < NAMES_MAX; i++)
        if (names[i].file && !strcmp(names[i].name, name)) return i;
    return -1;
}

/* Return the number of a file, which is new to us or to the disk where it has none yet. */
static int32_t number(const char *name, int made) {
    if (is_shared_memory(name)) return SHARED_MEMORY;
    int i = find(name);
    if (i >= 0 && !made) return names[i].file;
    for (i = 0; i < NAMES_MAX && names[i].file; i++) continue;
    if (i == NAMES_MAX || strlen(name) > 255 || strchr(name, '/')) {
        note_text(UNSEEN, 0, 0, name);
        return 0;
    }
    names[i].file = ++last_file;
    strcpy(names[i].name, name);
    note_text(NAME, last_file, made, name);
    return last_file;
}

static int32_t file_of(int fd) {
    return control && fd >= 0 && fd < FDS_MAX ? files[fd] : 0;
}

/* Count a call; tell whether it is to fail. 2: this write is to be cut in half. */
static int failing(int64_t kind) {
    if (!(control->fail_kinds & kind)) return 0;
    int64_t first = control->fail_at, now = ++control->counted;
    if (!first) return 0;
    if (control->fail_short && now == first) return 2;
    first += control->fail_short;
    if (now < first || now - first >= control->fail_calls) return 0;
    control->failed++;
    return 1;
}

static int refused(void) {
    errno = (int)control->fail_errno;
    return -1;
}

static int64_t size_of(int fd) {
    struct stat info;
    return fstat(fd, &info) ? 0 : info.st_size;
}

/* Tell whether the folder may grow; the caller has the lock. */
static int room_for(int64_t growth) {
    if (growth > 0 && control->bytes_max >= 0 && control->bytes_used + growth > control->bytes_max) {
        control->no_room++;
        errno = ENOSPC;
        return 0;
    }
    return 1;
}

static int all_zeros(const char *data, size_t length) {
    return length > 0 && !data[0] && !memcmp(data, data + 1, length - 1);
}

static int open_any(int at, const char *path, int flags, mode_t mode) {
    REAL(int, openat, int, const char *, int, ...);
    char full[PATH_MAX];
    const char *name = within(at, path, full);
    if (!name) return real_openat(at, path, flags, mode);
    pthread_mutex_lock(&lock);
    int fd = -1;
    struct stat info;
    int existed = !stat(full, &info);
    if (*name && failing(MAY_OPEN)) {
        refused();
    } else if ((fd = real_openat(at, path, flags, mode)) >= 0 && fd < FDS_MAX) {
        int shared = is_shared_memory(name);
        files[fd] = *name ? number(name, !existed && (flags & O_CREAT)) : THE_FOLDER;
        if (*name && existed && (flags & O_TRUNC)) {
            control->bytes_used -= info.st_size;
            if (!shared) note(TRUNCATE, files[fd], 0, 0, 0, NULL, 0);
        }
        if (*name && (flags & (O_SYNC | O_DSYNC | O_DIRECT))) note_text(UNSEEN, 0, 0, "open flags");
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

static mode_t mode_of(int flags, va_list rest) {
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
}

#define OPENS(name)                                                \
    int name(const char *path, int flags, ...) {                   \
        va_list rest;                                              \
        va_start(rest, flags);                                     \
        mode_t mode = mode_of(flags, rest);                        \
        va_end(rest);                                              \
        return open_any(AT_FDCWD, path, flags, mode);              \
    }
OPENS(open)
OPENS(open64)

#define OPENS_AT(name)                                             \
    int name(int at, const char *path, int flags, ...) {           \
        va_list rest;                                              \
        va_start(rest, flags);                                     \
        mode_t mode = mode_of(flags, rest);                        \
        va_end(rest);                                              \
        return open_any(at, path, flags, mode);                    \
    }
OPENS_AT(openat)
OPENS_AT(openat64)

int creat(const char *path, mode_t mode) {
    return open_any(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

int close(int fd) {
    REAL(int, close, int);
    pthread_mutex_lock(&lock); /* the number may be given out again as soon as it is free */
    if (file_of(fd)) files[fd] = 0;
    int result = real_close(fd);
    pthread_mutex_unlock(&lock);
    return result;
}

/* Write at an offset, or with -1 where the descriptor stands. */
static ssize_t write_any(int fd, const void *data, size_t length, int64_t offset) {
    REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
    REAL(ssize_t, write, int, const void *, size_t);
    int32_t file = file_of(fd);
    if (!file) return offset < 0 ? real_write(fd, data, length)
                                 : real_pwrite64(fd, data, length, offset);
    pthread_mutex_lock(&lock);
    control->writes++;
    ssize_t done = -1;
    int64_t size = size_of(fd), at = offset;
    if (at < 0) at = fcntl(fd, F_GETFL) & O_APPEND ? size : lseek64(fd, 0, SEEK_CUR);
    int fault = failing(MAY_WRITE);
    if (fault == 2 && length > 1) length /= 2;
    if (fault == 1) {
        refused();
    } else if (room_for(at + (int64_t)length - size)) {
        done = offset < 0 ? real_write(fd, data, length)
                          : real_pwrite64(fd, data, length, offset);
    }
    if (done > 0) {
        if (at + done > size) control->bytes_used += at + done - size;
        if (file > 0) {
            int zeros = all_zeros(data, (size_t)done);
            note(zeros ? ZEROS : WRITE, file, at, done, 0, data, zeros ? 0 : (size_t)done);
        }
    }
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t write(int fd, const void *data, size_t length) { return write_any(fd, data, length, -1); }
ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) {
    return write_any(fd, data, length, offset);
}
ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) {
    return write_any(fd, data, length, offset);
}

int ftruncate64(int fd, off64_t length) {
    REAL(int, ftruncate64, int, off64_t);
    int32_t file = file_of(fd);
    if (!file) return real_ftruncate64(fd, length);
    pthread_mutex_lock(&lock);
    int result = -1;
    int64_t growth = length - size_of(fd);
    if (failing(MAY_TRUNCATE)) {
        refused();
    } else if (room_for(growth) && !(result = real_ftruncate64(fd, length))) {
        control->bytes_used += growth;
        if (file > 0) note(TRUNCATE, file, length, 0, 0, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    return result;
}
int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

static int sync_any(int fd, int (*real)(int)) {
    int32_t file = file_of(fd);
    if (!file) return real(fd);
    pthread_mutex_lock(&lock);
    control->syncs++;
    int64_t before = records, delay_us = control->sync_delay_us;
    int fault = failing(MAY_SYNC);
    pthread_mutex_unlock(&lock);
    if (delay_us) {
        struct timespec wait = {delay_us / 1000000, delay_us % 1000000 * 1000};
        nanosleep(&wait, NULL);
    }
    int result = fault ? -1 : real(fd);
    pthread_mutex_lock(&lock);
    if (file == THE_FOLDER) {
        if (!result) note(FOLDER_SYNC, 0, 0, 0, before, NULL, 0);
    } else if (file > 0) {
        note(result ? SYNC_FAILED : SYNC, file, 0, 0, before, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    return fault ? refused() : result;
}

int fsync(int fd) {
    REAL(int, fsync, int);
    return sync_any(fd, real_fsync);
}
int fdatasync(int fd) {
    REAL(int, fdatasync, int);
    return sync_any(fd, real_fdatasync);
}

int unlinkat(int at, const char *path, int flags) {
    REAL(int, unlinkat, int, const char *, int);
    char full[PATH_MAX];
    const char *name = within(at, path, full);
    if (!name || !*name || flags) return real_unlinkat(at, path, flags);
    pthread_mutex_lock(&lock);
    int result = -1;
    struct stat info = {0};
    if (!stat(full, &info)) number(name, 0); /* so that the reader knows what is removed */
    if (failing(MAY_UNLINK)) {
        refused();
    } else if (!(result = real_unlinkat(at, path, flags))) {
        control->bytes_used -= info.st_size;
        int i = find(name);
        if (i >= 0) names[i].file = 0;
        if (!is_shared_memory(name)) note_text(UNLINK, 0, 0, name);
    }
    pthread_mutex_unlock(&lock);
    return result;
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }

int renameat(int from_at, const char *from, int to_at, const char *to) {
    REAL(int, renameat, int, const char *, int, const char *);
    char from_full[PATH_MAX], to_full[PATH_MAX];
    const char *old = within(from_at, from, from_full), *new = within(to_at, to, to_full);
    if (!old && !new) return real_renameat(from_at, from, to_at, to);
    pthread_mutex_lock(&lock);
    int result = -1;
    struct stat replaced = {0};
    stat(to_full, &replaced);
    if (!old || !new || strlen(old) > 255 || strlen(new) > 255) {
        note_text(UNSEEN, 0, 0, "a rename over the folder's edge");
    } else if (failing(MAY_UNLINK)) {
        refused();
        pthread_mutex_unlock(&lock);
        return result;
    }
    int32_t file = old && new ? number(old, 0) : 0;
    if (file && replaced.st_ino) number(new, 0);
    if (!(result = real_renameat(from_at, from, to_at, to)) && file) {
        control->bytes_used -= replaced.st_size;
        char both[600];
        snprintf(both, sizeof both, "%s/%s", old, new);
        int i = find(new);
        if (i >= 0) names[i].file = 0;
        if ((i = find(old)) >= 0) strcpy(names[i].name, new);
        note_text(RENAME, file, 0, both);
    }
    pthread_mutex_unlock(&lock);
    return result;
}
int rename(const char *from, const char *to) { return renameat(AT_FDCWD, from, AT_FDCWD, to); }

/* What the model does not know: let through, and said. */
static void unseen(int fd, const char *call) {
    if (file_of(fd) <= 0) return;
    pthread_mutex_lock(&lock);
    note_text(UNSEEN, files[fd], 0, call);
    pthread_mutex_unlock(&lock);
}

#define UNMODELLED(type, name, fd, parameters, arguments)          \
    type name parameters {                                         \
        static type(*real) parameters;                             \
        if (!real) real = dlsym(RTLD_NEXT, #name);                 \
        unseen(fd, #name);                                         \
        return real arguments;                                     \
    }
UNMODELLED(ssize_t, writev, fd, (int fd, const struct iovec *parts, int count), (fd, parts, count))
UNMODELLED(ssize_t, pwritev, fd, (int fd, const struct iovec *parts, int count, off_t offset),
           (fd, parts, count, offset))
UNMODELLED(ssize_t, pwritev64, fd, (int fd, const struct iovec *parts, int count, off64_t offset),
           (fd, parts, count, offset))
UNMODELLED(ssize_t, sendfile, to, (int to, int from, off_t *offset, size_t count),
           (to, from, offset, count))
UNMODELLED(ssize_t, sendfile64, to, (int to, int from, off64_t *offset, size_t count),
           (to, from, offset, count))
UNMODELLED(ssize_t, copy_file_range, to,
           (int from, off64_t *from_offset, int to, off64_t *to_offset, size_t n, unsigned flags),
           (from, from_offset, to, to_offset, n, flags))
UNMODELLED(int, fallocate, fd, (int fd, int mode, off_t offset, off_t length),
           (fd, mode, offset, length))
UNMODELLED(int, fallocate64, fd, (int fd, int mode, off64_t offset, off64_t length),
           (fd, mode, offset, length))
UNMODELLED(int, posix_fallocate, fd, (int fd, off_t offset, off_t length), (fd, offset, length))
UNMODELLED(int, posix_fallocate64, fd, (int fd, off64_t offset, off64_t length),
           (fd, offset, length))
UNMODELLED(int, dup, fd, (int fd), (fd))
UNMODELLED(int, dup2, fd, (int fd, int to), (fd, to))
UNMODELLED(int, dup3, fd, (int fd, int to, int flags), (fd, to, flags))

/* Locks and flags pass; a second descriptor would write unseen. */
static int control_any(int fd, int command, void *argument) {
    REAL(int, fcntl64, int, int, ...);
    if (command == F_DUPFD || command == F_DUPFD_CLOEXEC) unseen(fd, "fcntl");
    return real_fcntl64(fd, command, argument);
}
#define CONTROLS(name)                                             \
    int name(int fd, int command, ...) {                           \
        va_list rest;                                              \
        va_start(rest, command);                                   \
        void *argument = va_arg(rest, void *);                     \
        va_end(rest);                                              \
        return control_any(fd, command, argument);                 \
    }
CONTROLS(fcntl)
CONTROLS(fcntl64)

static int maps_to_write(int protection, int flags) {
    return (protection & PROT_WRITE) && (flags & MAP_SHARED);
}

void *mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset) {
    REAL(void *, mmap, void *, size_t, int, int, int, off_t);
    if (fd >= 0 && maps_to_write(protection, flags)) unseen(fd, "mmap");
    return real_mmap(at, length, protection, flags, fd, offset);
}
void *mmap64(void *at, size_t length, int protection, int flags, int fd, off64_t offset) {
    return mmap(at, length, protection, flags, fd, offset);
}
