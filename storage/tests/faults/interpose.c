/* Faults at the border between a process and its files, for tests. Preloaded into a child.
 *
 * Counts every call that changes something below VS_FAULT_DIR (write, truncate, sync, create, rename, unlink) and, at
 * call number VS_FAULT_AT, does what VS_FAULT_MODE says:
 *
 *   kill      half of the bytes are written, and the process ends there
 *   powercut  the same, and whatever was not synced since is undone: bytes, sizes, new names, lost names
 *   torn      the power goes, and of all that was not synced only the first sectors of this one write reached the disk
 *   eio       this one call fails with EIO; the process goes on
 *   fsync     counts syncs only; this one fails with EIO, what it should have written never is, although later syncs
 *             succeed (the kernel takes those pages for clean, unless they are written again), and at the end of the
 *             process the power goes
 *   full      this call and every later one that needs space fails with ENOSPC; the process goes on
 *   blackout  no number: at the end of the process the power goes, and what an earlier process left in a log of SQLite
 *             is lost too, unless this one synced it
 *   switches  no number: whatever needs space fails with ENOSPC while there is a file VS_FAULT_HIT.full, and syncs
 *             wait while there is a file VS_FAULT_HIT.stall
 *
 * The file VS_FAULT_HIT is made when the fault strikes, so that whoever counts up knows when to stop. A file that was
 * synced keeps its new name, as on ext4, XFS and Btrfs. What a process writes through a memory map is not seen here:
 * SQLite's shared index, which is rebuilt from the log after a power cut and so removed by one.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096
#define SECTOR 512

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* One change that a power cut would take back. */
struct undo {
    enum { BYTES, CREATED, RENAMED, UNLINKED } kind;
    char path[PATH_MAX];  /* as it is called now */
    char other[PATH_MAX]; /* RENAMED: its name before; UNLINKED: where it is kept */
    off_t at, size;       /* BYTES: where, and how long the file was; -1: its length stays */
    size_t length, count; /* BYTES: how many, and how many of them there were before */
    int lost;             /* BYTES: a sync of them failed, so that the next one does not write them */
    char *before;
    struct undo *older;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct undo *newest;
static char dir[PATH_MAX];
static size_t dir_length;
static const char *mode, *hit;
static long strike_at, calls;
static int full, trash, power_goes, struck;

static int is(const char *name) { return strcmp(mode, name) == 0; }

/* Whether a switch was thrown. */
static int thrown(const char *name) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s.%s", hit, name);
    return is("switches") && access(path, F_OK) == 0;
}

/* Whether a path lies below VS_FAULT_DIR; `whole` gets it in full. A last part that does not exist yet is fine. */
static int ours(const char *path, char whole[PATH_MAX]) {
    char parent[PATH_MAX], copy[PATH_MAX];
    if (!dir_length || !path || strlen(path) >= PATH_MAX) return 0;
    strcpy(copy, path);
    char *slash = strrchr(copy, '/');
    if (!slash || slash == copy) return 0;
    *slash = 0;
    if (!realpath(copy, parent)) return 0;
    if (snprintf(whole, PATH_MAX, "%s/%s", parent, slash + 1) >= PATH_MAX) return 0;
    return strncmp(whole, dir, dir_length) == 0;
}

static int ours_fd(int fd, char whole[PATH_MAX]) {
    char link[64];
    if (!dir_length) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, whole, PATH_MAX - 1);
    if (length <= 0) return 0;
    whole[length] = 0;
    return strncmp(whole, dir, dir_length) == 0;
}

static struct undo *remember(int kind, const char *path) {
    struct undo *undo = calloc(1, sizeof *undo);
    undo->kind = kind;
    strcpy(undo->path, path);
    undo->older = newest;
    newest = undo;
    return undo;
}

/* Whoever writes to a page makes all of it dirty, also what an earlier sync failed to write. */
static void redirty(const char *path, off_t at, size_t count) {
    off_t first = at / PAGE, last = (at + (off_t)(count ? count - 1 : 0)) / PAGE;
    for (struct undo *undo = newest; undo; undo = undo->older)
        if (undo->lost && undo->at / PAGE >= first && undo->at / PAGE <= last && strcmp(undo->path, path) == 0)
            undo->lost = 0;
}

static void remember_bytes(int fd, const char *path, off_t at, size_t count) {
    struct stat stat;
    if (!power_goes || fstat(fd, &stat)) return;
    redirty(path, at, count);
    struct undo *undo = remember(BYTES, path);
    undo->at = at;
    undo->length = count;
    undo->size = stat.st_size;
    undo->before = malloc(count ? count : 1);
    ssize_t got = 0;
    int reader = REAL(open)(path, O_RDONLY); /* the descriptor may be for writing only */
    if (reader >= 0) {
        got = pread(reader, undo->before, count, at);
        close(reader);
    }
    undo->count = got > 0 ? (size_t)got : 0;
}

/* What a sync that failed should have written, page by page. */
static void lose(const char *path) {
    for (struct undo **at = &newest; *at;) {
        struct undo *undo = *at;
        if (undo->kind != BYTES || undo->lost || strcmp(undo->path, path)) {
            at = &undo->older;
            continue;
        }
        *at = undo->older;
        for (size_t from = 0, to; from < undo->length; from = to) {
            to = from + PAGE - (size_t)((undo->at + (off_t)from) % PAGE);
            if (to > undo->length) to = undo->length;
            struct undo *page = calloc(1, sizeof *page);
            *page = (struct undo){.kind = BYTES, .at = undo->at + (off_t)from, .size = -1, .lost = 1};
            page->length = page->count = to - from;
            page->before = calloc(1, page->count); /* beyond the end of the file: zeros */
            size_t known = undo->count > from ? undo->count - from : 0;
            memcpy(page->before, undo->before + from, known < page->count ? known : page->count);
            strcpy(page->path, path);
            page->older = *at;
            *at = page;
            at = &page->older;
        }
        free(undo->before);
        free(undo);
    }
}

/* Takes every log that is there for never synced. */
static void inherit(const char *below) {
    DIR *open = opendir(below);
    char path[PATH_MAX];
    for (struct dirent *entry; open && (entry = readdir(open));) {
        const char *name = entry->d_name;
        size_t length = strlen(name);
        if (snprintf(path, sizeof path, "%s/%s", below, name) >= PATH_MAX || name[0] == '.') continue;
        if (entry->d_type == DT_DIR) inherit(path);
        if (length > 4 && strcmp(name + length - 4, "-wal") == 0) remember(BYTES, path);
    }
    if (open) closedir(open);
}

__attribute__((constructor)) static void start(void) {
    const char *below = getenv("VS_FAULT_DIR"), *number = getenv("VS_FAULT_AT");
    mode = getenv("VS_FAULT_MODE");
    hit = getenv("VS_FAULT_HIT");
    if (below && number && mode && hit && realpath(below, dir)) {
        dir_length = strlen(dir);
        strike_at = atol(number);
        power_goes = is("powercut") || is("torn") || is("fsync") || is("blackout");
        if (is("blackout")) inherit(dir);
    }
}

/* A sync of `path` (or of everything in a directory) is final for what happened before it. */
static void synced(const char *path) {
    size_t length = strlen(path);
    for (struct undo **at = &newest; *at;) {
        struct undo *undo = *at;
        const char *slash = strrchr(undo->path, '/');
        int inside = (size_t)(slash - undo->path) == length && strncmp(undo->path, path, length) == 0;
        int file = strcmp(undo->path, path) == 0 && (undo->kind == BYTES || undo->kind == CREATED) && !undo->lost;
        if (file || (inside && undo->kind != BYTES)) {
            *at = undo->older;
            free(undo->before);
            free(undo);
        } else {
            at = &undo->older;
        }
    }
}

static void take_back(void) {
    for (struct undo *undo = newest; undo; undo = undo->older) {
        if (undo->kind == BYTES) {
            int fd = REAL(open)(undo->path, O_WRONLY);
            if (fd < 0) continue;
            if (undo->count) (void)!REAL(pwrite)(fd, undo->before, undo->count, undo->at);
            if (undo->size >= 0) (void)!REAL(ftruncate)(fd, undo->size);
            close(fd);
        } else if (undo->kind == CREATED) {
            REAL(unlink)(undo->path);
        } else {
            /* RENAMED: back to its old name. UNLINKED: back from where it is kept. */
            const char *from = undo->kind == RENAMED ? undo->path : undo->other;
            const char *to = undo->kind == RENAMED ? undo->other : undo->path;
            REAL(rename)(from, to);
        }
    }
}

enum needs { NOTHING, SPACE, SYNC };

/* Counts one call; says whether it is to fail, with errno set. Does not return when the process is to end.
 * `half` writes the first half of what was to be written. */
static int strikes(enum needs needs, void (*half)(void *), void *argument) {
    if (needs == SPACE && (full || thrown("full"))) {
        calls++;
        errno = ENOSPC;
        return 1;
    }
    if (is("fsync") && needs != SYNC) return 0;
    if (++calls != strike_at || is("switches") || is("blackout")) return 0;
    struck = 1;
    close(REAL(open)(hit, O_CREAT | O_WRONLY, 0600));
    if (is("kill") || is("powercut") || is("torn")) {
        if (is("torn")) take_back();
        if (half) half(argument);
        if (is("powercut")) take_back();
        _exit(99);
    }
    if (is("full")) {
        full = 1;
        if (needs != SPACE) return 0;
        errno = ENOSPC;
        return 1;
    }
    errno = EIO;
    return 1;
}

__attribute__((destructor)) static void end(void) {
    if (!dir_length || !(is("blackout") || (is("fsync") && struck))) return;
    pthread_mutex_lock(&lock);
    take_back();
}

struct writing {
    int fd;
    const void *bytes;
    size_t count;
    off_t at;
};

static void half_write(void *argument) {
    struct writing *writing = argument;
    size_t half = writing->count / 2;
    /* A disk writes whole sectors, or not. */
    if (is("torn")) half = (half + SECTOR - 1) / SECTOR * SECTOR;
    (void)!REAL(pwrite)(writing->fd, writing->bytes, half < writing->count ? half : writing->count, writing->at);
}

/* Returns whether the call fails. */
static int before_write(int fd, const void *bytes, size_t count, off_t at) {
    char path[PATH_MAX];
    if (!ours_fd(fd, path)) return 0;
    struct writing writing = {fd, bytes, count, at};
    pthread_mutex_lock(&lock);
    remember_bytes(fd, path, at, count);
    int fails = strikes(SPACE, half_write, &writing);
    pthread_mutex_unlock(&lock);
    return fails;
}

ssize_t write(int fd, const void *bytes, size_t count) {
    off_t at = lseek(fd, 0, SEEK_CUR);
    if (at >= 0) {
        if (fcntl(fd, F_GETFL) & O_APPEND) at = lseek(fd, 0, SEEK_END);
        if (before_write(fd, bytes, count, at)) return -1;
    }
    return REAL(write)(fd, bytes, count);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
    return before_write(fd, bytes, count, at) ? -1 : REAL(pwrite)(fd, bytes, count, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    return before_write(fd, bytes, count, at) ? -1 : REAL(pwrite64)(fd, bytes, count, at);
}

static int before_truncate(int fd, off_t size) {
    char path[PATH_MAX];
    struct stat stat;
    if (!ours_fd(fd, path) || fstat(fd, &stat)) return 0;
    pthread_mutex_lock(&lock);
    remember_bytes(fd, path, size, stat.st_size > size ? (size_t)(stat.st_size - size) : 0);
    int fails = strikes(stat.st_size < size ? SPACE : NOTHING, NULL, NULL);
    pthread_mutex_unlock(&lock);
    return fails;
}

int ftruncate(int fd, off_t size) { return before_truncate(fd, size) ? -1 : REAL(ftruncate)(fd, size); }
int ftruncate64(int fd, off64_t size) { return before_truncate(fd, size) ? -1 : REAL(ftruncate64)(fd, size); }

static int sync_with(int fd, int (*real)(int)) {
    char path[PATH_MAX];
    if (!ours_fd(fd, path)) return real(fd);
    while (thrown("stall")) usleep(10000);
    pthread_mutex_lock(&lock);
    int result = strikes(SYNC, NULL, NULL) ? -1 : real(fd);
    if (result == 0) synced(path);
    if (result != 0 && is("fsync")) lose(path);
    pthread_mutex_unlock(&lock);
    return result;
}

int fsync(int fd) { return sync_with(fd, REAL(fsync)); }
int fdatasync(int fd) { return sync_with(fd, REAL(fdatasync)); }

/* Returns whether the call fails. */
static int before_create(const char *path, int flags) {
    char whole[PATH_MAX];
    if (!(flags & O_CREAT) || access(path, F_OK) == 0 || !ours(path, whole)) return 0;
    pthread_mutex_lock(&lock);
    int fails = strikes(SPACE, NULL, NULL);
    if (!fails && power_goes) remember(CREATED, whole);
    pthread_mutex_unlock(&lock);
    return fails;
}

#define OPENING(name)                                                                     \
    int name(const char *path, int flags, ...) {                                          \
        va_list rest;                                                                     \
        va_start(rest, flags);                                                            \
        mode_t permissions = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;    \
        va_end(rest);                                                                     \
        return before_create(path, flags) ? -1 : REAL(name)(path, flags, permissions);    \
    }
OPENING(open)
OPENING(open64)

int rename(const char *from, const char *to) {
    char old[PATH_MAX], new[PATH_MAX];
    if (!ours(from, old) || !ours(to, new)) return REAL(rename)(from, to);
    pthread_mutex_lock(&lock);
    int result = strikes(NOTHING, NULL, NULL) ? -1 : REAL(rename)(from, to);
    if (result == 0 && power_goes) {
        /* What is known of the file is known under its new name from here on. */
        for (struct undo *undo = newest; undo; undo = undo->older)
            if (strcmp(undo->path, old) == 0) strcpy(undo->path, new);
        strcpy(remember(RENAMED, new)->other, old);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int unlink(const char *path) {
    char whole[PATH_MAX], kept[PATH_MAX];
    if (!ours(path, whole)) return REAL(unlink)(path);
    pthread_mutex_lock(&lock);
    int fails = strikes(NOTHING, NULL, NULL);
    if (!fails && power_goes) {
        /* Beside the directory, so that nobody who lists it finds the copy. */
        snprintf(kept, sizeof kept, "%.*s.kept-%d", (int)dir_length, dir, trash++);
        if (link(whole, kept) == 0) strcpy(remember(UNLINKED, whole)->other, kept);
    }
    int result = fails ? -1 : REAL(unlink)(path);
    pthread_mutex_unlock(&lock);
    return result;
}
