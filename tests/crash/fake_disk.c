/* A disk that remembers in which order it was written and synced. Preloaded into a program (LD_PRELOAD), it appends one record to the
   file FAKE_DISK_TRACE for every write, truncation, sync and removal of files in the directory FAKE_DISK_DIR; everything goes to
   the real files too, only nothing is really synced. One lock around deed and record: the trace is the order in which it happened.

   Record: kind (W write, T truncate, S sync, U unlink), length of the name, name, offset (8 bytes), length (4 bytes), data. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define FDS 4096
#define NAME 128

static char names[FDS][NAME]; /* of the files that are watched; empty: not watched */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int trace = -1;
static const char *directory;

static int (*real_open)(const char *, int, ...);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off64_t);
static int (*real_close)(int);
static int (*real_ftruncate)(int, off64_t);
static int (*real_unlink)(const char *);
static int (*real_fsync)(int);

static void prepare(void) {
    if (real_open) return;
    real_write = dlsym(RTLD_NEXT, "write");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_close = dlsym(RTLD_NEXT, "close");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
    real_unlink = dlsym(RTLD_NEXT, "unlink");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_open = dlsym(RTLD_NEXT, "open64");
    directory = getenv("FAKE_DISK_DIR");
    const char *path = getenv("FAKE_DISK_TRACE");
    if (directory && path) trace = real_open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

static const char *inside(const char *path) {
    prepare();
    size_t size = directory ? strlen(directory) : 0;
    if (trace < 0 || strncmp(path, directory, size) != 0 || path[size] != '/') return NULL;
    return path + size + 1;
}

static const char *watched(int fd) {
    prepare();
    return trace >= 0 && fd >= 0 && fd < FDS && names[fd][0] ? names[fd] : NULL;
}

static void record(char kind, const char *name, uint64_t offset, const void *data, uint32_t size) {
    uint8_t head[2 + NAME + 12];
    uint8_t length = (uint8_t)strlen(name);
    head[0] = (uint8_t)kind;
    head[1] = length;
    memcpy(head + 2, name, length);
    memcpy(head + 2 + length, &offset, 8);
    memcpy(head + 10 + length, &size, 4);
    if (real_write(trace, head, 14 + length) != 14 + length) abort();
    if (data && real_write(trace, data, size) != (ssize_t)size) abort();
}

static int opened(const char *path, int flags, mode_t mode) {
    const char *name = inside(path);
    pthread_mutex_lock(&lock);
    int fd = real_open(path, flags, mode);
    if (name && fd >= 0 && fd < FDS && strlen(name) < NAME) {
        strcpy(names[fd], name);
        if (flags & O_TRUNC) record('T', name, 0, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

#define OPENED(path, flags) \
    va_list rest; \
    va_start(rest, flags); \
    mode_t mode = (flags & O_CREAT) ? va_arg(rest, mode_t) : 0; \
    va_end(rest); \
    return opened(path, flags, mode);

int open(const char *path, int flags, ...) { OPENED(path, flags) }
int open64(const char *path, int flags, ...) { OPENED(path, flags) }

int close(int fd) {
    prepare();
    pthread_mutex_lock(&lock);
    if (fd >= 0 && fd < FDS) names[fd][0] = 0;
    int result = real_close(fd);
    pthread_mutex_unlock(&lock);
    return result;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    const char *name = watched(fd);
    if (!name) return real_pwrite(fd, data, size, offset);
    pthread_mutex_lock(&lock);
    ssize_t result = real_pwrite(fd, data, size, offset);
    if (result > 0) record('W', name, (uint64_t)offset, data, (uint32_t)result);
    pthread_mutex_unlock(&lock);
    return result;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return pwrite64(fd, data, size, offset); }

ssize_t write(int fd, const void *data, size_t size) {
    const char *name = watched(fd);
    if (!name) return real_write(fd, data, size);
    pthread_mutex_lock(&lock);
    uint64_t offset = (uint64_t)lseek64(fd, 0, SEEK_CUR);
    ssize_t result = real_write(fd, data, size);
    if (result > 0) record('W', name, offset, data, (uint32_t)result);
    pthread_mutex_unlock(&lock);
    return result;
}

int ftruncate64(int fd, off64_t size) {
    const char *name = watched(fd);
    if (!name) return real_ftruncate(fd, size);
    pthread_mutex_lock(&lock);
    int result = real_ftruncate(fd, size);
    if (result == 0) record('T', name, (uint64_t)size, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

static int synced(int fd) {
    const char *name = watched(fd);
    if (!name) return real_fsync(fd);
    pthread_mutex_lock(&lock);
    record('S', name, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return 0;
}

int fsync(int fd) { return synced(fd); }
int fdatasync(int fd) { return synced(fd); }

int unlink(const char *path) {
    const char *name = inside(path);
    if (!name) return real_unlink(path);
    pthread_mutex_lock(&lock);
    int result = real_unlink(path);
    if (result == 0) record('U', name, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}
